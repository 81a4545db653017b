"""The tasks that the tests of results run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery, chain, chord, group
from celery.exceptions import Ignore, Reject

from tests.support.states import until


class Refused(Exception):
    """An exception with arguments of several types."""


class WithFields(Exception):
    """An exception whose constructor takes something else than what its ``args`` hold."""

    def __init__(self, code: int, reason: str = "no reason") -> None:
        super().__init__(code, reason)
        self.code = code


class Outer:
    """A class with an exception inside."""

    class Inner(ValueError):
        """An exception with a dotted name."""


class Unpicklable(Exception):
    """An exception that cannot be serialised."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Picky(Exception):
    """An exception that cannot be built from its ``args``."""

    def __init__(self, *, needed: str) -> None:
        super().__init__("picky", needed)


def failure(kind: str) -> BaseException:
    """An exception of a kind that is worth a test."""
    made: dict[str, Callable[[], BaseException]] = {
        "builtin": lambda: ValueError("a value", 3),
        "no arguments": KeyError,
        "own class": lambda: Refused("no", 1, None, [2, {"three": 3}]),
        "fields": lambda: WithFields(7, "seven"),
        "nested class": lambda: Outer.Inner("inside"),
        "unpicklable": lambda: Unpicklable("holds a lock"),
        "unserialisable arguments": lambda: Refused(object, b"bytes", {1, 2}),
        "picky": lambda: Picky(needed="it"),
        "unicode": lambda: Refused("Fehlschlag ⟩ `✗` \N{PILE OF POO}"),
        "long": lambda: Refused("x" * 100_000),
        "os": lambda: FileNotFoundError(2, "No such file", "somewhere"),
    }
    return made[kind]()


#: The kinds that :func:`failure` knows.
FAILURES = (
    "builtin",
    "no arguments",
    "own class",
    "fields",
    "nested class",
    "unpicklable",
    "unserialisable arguments",
    "picky",
    "unicode",
    "long",
    "os",
)


def register(app: Celery) -> None:  # noqa: C901, PLR0915 - one short task after the other
    """Give an app the tasks, and no other app."""
    task = partial(app.task, shared=False)

    @task(name="contract.add")
    def add(x: Any, y: Any, z: Any = None) -> Any:
        return x + y if z is None else x + y + z

    @task(name="contract.echo")
    def echo(value: Any = None) -> Any:
        return value

    @task(name="contract.total")
    def total(values: list[Any]) -> Any:
        return sum(total(value) if isinstance(value, list) else value for value in values)

    @task(name="contract.fail")
    def fail(kind: str = "builtin", *_: Any) -> None:
        raise failure(kind)

    @task(name="contract.fail_with_cause")
    def fail_with_cause() -> None:
        try:
            raise failure("builtin")
        except ValueError as cause:
            raise Refused("because of another") from cause

    def retry_is_stored(self: Any, exc: Any, task_id: str, *_: Any) -> None:
        self.backend.incr(f"{task_id}-retries")

    @task(name="contract.retried", bind=True, max_retries=2, default_retry_delay=0, on_retry=retry_is_stored)
    def retried(self: Any, give_up: bool = False) -> Any:
        # Celery sends a retry before it stores it: a RETRY that is stored late would replace the FAILURE in Redis.
        key = f"{self.request.id}-retries"
        until(lambda: int(self.backend.get(key) or 0) >= self.request.retries, "the retries are stored", 60)
        if self.request.retries == 2:
            self.backend.delete(key)
        if give_up or self.request.retries < 2:
            raise self.retry(exc=Refused(f"attempt {self.request.retries}"))
        return self.request.retries

    @task(name="contract.progress", bind=True)
    def progress(self: Any, state: str, meta: Any) -> Any:
        self.update_state(state=state, meta=meta)
        raise Ignore

    @task(name="contract.ignored", bind=True, ignore_result=True)
    def ignored(self: Any) -> str:
        return "nobody keeps this"

    @task(name="contract.rejected")
    def rejected() -> None:
        raise Reject("not today", requeue=False)

    @task(name="contract.parent", bind=True)
    def parent(self: Any, count: int) -> int:
        """Send children, and one that is a group."""
        for number in range(count):
            add.apply_async((number, 1), task_id=f"{self.request.id}-child-{number}")
        return count

    @task(name="contract.group_parent", bind=True)
    def group_parent(self: Any) -> str:
        one, two = (add.s(i, i).set(task_id=f"{self.request.id}-{i}") for i in (1, 2))
        group(one, two).apply_async(group_id=f"{self.request.id}-group")
        return "sent"

    @task(name="contract.ids", bind=True)
    def ids(self: Any, *_: Any) -> list[Any]:
        return [self.request.root_id, self.request.parent_id, self.request.group]

    @task(name="contract.replaced", bind=True)
    def replaced(self: Any, signature: Any) -> None:
        self.replace(app.signature(signature))

    @task(name="contract.adds_to_chord", bind=True)
    def adds_to_chord(self: Any, number: int) -> int:
        self.add_to_chord(add.s(number, 100))
        return number

    @task(name="contract.replaced_by_group", bind=True)
    def replaced_by_group(self: Any, numbers: list[int]) -> None:
        self.replace(group(echo.s(number) for number in numbers))

    @task(name="contract.replaced_by_chain", bind=True)
    def replaced_by_chain(self: Any, number: int) -> None:
        self.replace(chain(add.s(number, 1), add.s(10)))

    @task(name="contract.replaced_by_chord", bind=True)
    def replaced_by_chord(self: Any, numbers: list[int]) -> None:
        self.replace(chord([echo.s(number) for number in numbers], total.s()))

    @task(name="contract.note", bind=True)
    def note(self: Any, failed_id: str) -> str:
        """An errback that is sent as a task."""
        return f"noted {failed_id}"

    @task(name="contract.count", bind=True)
    def count(self: Any, values: list[Any], key: str) -> int:
        """A body that leaves a mark each time it runs."""
        marks.setdefault(key, []).append(self.request.id)
        return len(values)


#: The runs of ``contract.count`` in this process, by key.
marks: dict[str, list[str]] = {}
