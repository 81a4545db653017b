"""Whether a task that changed belongs into a filtered list, as far as its summary says. No I/O here."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ..results import TaskSummary

#: Filters that look at fields which a summary does not have, or not as a whole.
UNDECIDED = frozenset({"text", "argument", "parent", "retry_of"})

Match = Callable[[TaskSummary], bool]


def matcher(wanted: Mapping[str, Any]) -> Match | None:
    """Make what decides whether a task matches filters, as `Results.find` does.

    Args:
        wanted: The filters, as `Results.find` takes them.

    Returns:
        None where a summary cannot tell: such a list is not live.
    """
    if not UNDECIDED.isdisjoint(wanted):
        return None
    tests = [_TESTS[name](value) for name, value in wanted.items()]
    return lambda task: all(test(task) for test in tests)


def _state(wanted: list[str]) -> Match:
    known = {each.upper() for each in wanted}
    return lambda task: task.state in known


def _named(field: str) -> Callable[[str], Match]:
    return lambda pattern: lambda task: _like(getattr(task, field) or "", pattern)


def _equal(field: str) -> Callable[[str], Match]:
    return lambda value: lambda task: getattr(task, field) == value


def _like(text: str, pattern: str) -> bool:
    # Only `*` means something: fnmatch knows more.
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


def _error(pattern: str) -> Match:
    def test(task: TaskSummary) -> bool:
        error = task.error
        return error is not None and (_like(error.type, pattern) or _like(f"{error.module}.{error.type}", pattern))

    return test


def _root(value: str) -> Match:
    return lambda task: value in {task.root_id, task.id}


def _tags(wanted: list[str]) -> Match:
    return lambda task: set(wanted) <= set(task.tags)


def _since(moment: datetime) -> Match:
    return lambda task: task.at is None or task.at >= moment


def _until(moment: datetime) -> Match:
    return lambda task: task.at is not None and task.at < moment


def _min_runtime(seconds: float) -> Match:
    return lambda task: task.runtime is not None and task.runtime >= seconds


_TESTS: Mapping[str, Callable[[Any], Match]] = {
    "state": _state,
    "name": _named("name"),
    "worker": _named("worker"),
    "queue": _named("queue"),
    "error": _error,
    "tags": _tags,
    "root": _root,
    "group": _equal("group_id"),
    "periodic": _equal("periodic_task_name"),
    "since": _since,
    "until": _until,
    "min_runtime": _min_runtime,
}
