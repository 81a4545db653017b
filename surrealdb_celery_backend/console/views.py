"""Stored things as pages and JSON show them: text that is safe to show, and plain fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from datetime import datetime
from typing import Any

from ..results import TaskDetail, TaskSummary

#: Control characters, but for line ends and tabs, and those that turn the direction of writing.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: Any) -> str:
    """A text whose control characters are written out: a stored name must not rearrange the page around it."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode(), str(text))


def shown(value: Any, longest: int) -> str:
    """A value as text: JSON where it is that, else its `repr`, cut to a length in characters."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, indent=2)
        except (TypeError, ValueError, RecursionError):
            text = _repr(value)
    text = visible(text)
    return text if len(text) <= longest else f"{text[:longest]}\n… and {len(text) - longest:,} characters more"


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # of a class of the user's
        return f"<{type(value).__name__}, whose repr failed: {type(error).__name__}>"


def count(number: float) -> str:
    """A number of progress: without a fraction where it has none."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.2f}"


def arguments(task: TaskSummary) -> str:
    """The beginning of a task's arguments, on one line; empty ones are left out."""
    known = [each for each in (task.args_text, task.kwargs_text) if each not in {None, "", "[]", "{}", "()"}]
    return visible(" ".join(map(str, known)))


def seconds(duration: float | None) -> str:
    """A duration in seconds as people say it."""
    if duration is None:
        return ""
    if duration < 0:
        return f"-{seconds(-duration)}"
    for limit, unit, digits in ((0.001, 1e6, "µs"), (1, 1e3, "ms")):
        if duration < limit:
            return f"{duration * unit:.0f} {digits}"
    if duration < 60:
        return f"{duration:.2f} s"
    if duration < 3600:
        return f"{int(duration // 60)} min {int(duration % 60)} s"
    if duration < 172_800:
        return f"{int(duration // 3600)} h {int(duration % 3600 // 60)} min"
    return f"{duration / 86_400:.1f} days"


@dataclass(frozen=True)
class Moment:
    """A point of a task's way.

    Attributes:
        text: What happened.
        at: When.
        gap: Seconds since the point before; None for the first.
        kind: How it is marked: `sent`, `began`, `retry`, or a state.
    """

    text: str
    at: datetime
    gap: float | None
    kind: str


def timeline(task: TaskDetail) -> list[Moment]:
    """The points of a task's way in the order of their times: sending, attempts, the last run and its end."""
    points = [("sent", task.sent_at, "sent"), ("not before", task.eta, "sent")]
    for number, attempt in enumerate(task.attempts, 1):
        error = f": {attempt.error.type}" if attempt.error else ""
        points.append((f"attempt {number} ended{error}", attempt.at, "retry"))
    again = f"attempt {len(task.attempts) + 1} began" if task.attempts else "began"
    points += [(again, task.started_at, "began"), (f"ended: {task.state}", task.date_done, task.state.lower())]
    known = [(at, order, text, kind) for order, (text, at, kind) in enumerate(points) if at is not None]
    moments: list[Moment] = []
    for at, _, text, kind in sorted(known):
        moments.append(Moment(text, at, (at - moments[-1].at).total_seconds() if moments else None, kind))
    return moments


def summary_fields(task: TaskSummary) -> dict[str, Any]:
    """A task as JSON shows it: fields that are None are left out."""
    return {name: value for name, value in plain(task).items() if value not in (None, (), [], {})}


def detail_fields(task: TaskDetail, longest: int) -> dict[str, Any]:
    """A task with all that is known of it, as JSON shows it; what is no JSON is shown as text.

    Args:
        task: The task.
        longest: How many characters of JSON a value may have; a longer one is shown as text, cut to that.
    """
    fields = summary_fields(task)
    for name in ("args", "kwargs", "result", "meta"):
        if name in fields:
            fields[name] = _json_or_text(getattr(task, name), longest)
    return fields


def _json_or_text(value: Any, longest: int) -> Any:
    try:
        if len(json.dumps(value)) <= longest:
            return value
    except (TypeError, ValueError, RecursionError):
        pass
    return shown(value, longest)


def plain(value: Any) -> Any:
    """Dataclasses as dicts and datetimes as ISO 8601 text; all else that JSON has no type for as its `repr`."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(each) for name, each in asdict_shallow(value).items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return _repr(value)


def asdict_shallow(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, as they are."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


__all__ = [
    "Moment",
    "arguments",
    "count",
    "detail_fields",
    "plain",
    "seconds",
    "shown",
    "summary_fields",
    "timeline",
    "visible",
]
