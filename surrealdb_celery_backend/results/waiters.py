"""The registry of waits in this process, and the events that a wait is sent.

A wait is one `get()`, `join()`, iteration or coroutine. Looks and LIVE queries put raw records into its mailbox;
the thread or coroutine that waits decodes them, fulfils its result objects and runs their callbacks. So a record
that cannot be decoded, or a callback that raises, concerns no other wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from celery import states


@dataclass(frozen=True, slots=True)
class Arrival:
    """A task's record, not decoded yet.

    Attributes:
        task_id: The task's id.
        record: Its record, as the server sent it.
        at: By the monotonic clock, when the look that found it began, or when the notification came.
        pushed: Whether a LIVE query brought it.
        expected: Whether a LIVE query brings this record too.
    """

    task_id: str
    record: Mapping[str, Any]
    at: float
    pushed: bool = False
    expected: bool = False

    @property
    def ready(self) -> bool:
        """Whether the task has ended. A state that is no text, which somebody wrote by hand, is not the end."""
        status = self.record.get("status")
        return isinstance(status, str) and status in states.READY_STATES


@dataclass(frozen=True, slots=True)
class Looked:
    """A look for results is over; its findings came before.

    Attributes:
        recovered: Whether looks failed until now.
    """

    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Results cannot be fetched at the moment.

    Attributes:
        error: The exception of the last look.
        since: When looks began to fail, by the monotonic clock.
        passes: Whether the failure passes by itself. If not, waiting on is in vain.
    """

    error: Exception
    since: float
    passes: bool = True


Event = Arrival | Looked | Trouble


class Mailbox(Protocol):
    """Where events for one wait go. Any thread puts, and never blocks."""

    def put(self, event: Event) -> None:
        """Add an event and wake the owner."""
        ...  # pragma: no cover


class Source(Protocol):
    """Fetches records: one result backend's view of the database."""

    def fetch_records(
        self, task_ids: Iterable[str], *, only_ready: bool = False, deadline: float | None = None
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield id and record of the tasks that exist.

        Args:
            task_ids: The tasks' ids.
            only_ready: Leave out tasks that have not finished.
            deadline: When the calls have to end, by the monotonic clock; None for the usual time limit.
        """
        ...  # pragma: no cover

    def passes(self, error: BaseException) -> bool:
        """Return whether a failure passes by itself."""
        ...  # pragma: no cover

    def prepare(self) -> None:
        """Create the tables where there are none yet."""
        ...  # pragma: no cover


class Waiter:
    """The registry's side of a wait.

    Args:
        mailbox: Where its events go.
        source: Fetches its records.
        wants_states: Whether unfinished states are of interest, not only results.
        wants_looks: Whether the mailbox is told when a look is over.
    """

    __slots__ = ("ids", "mailbox", "source", "wants_looks", "wants_states")

    def __init__(
        self, mailbox: Mailbox, source: Source, *, wants_states: bool = False, wants_looks: bool = False
    ) -> None:
        self.mailbox = mailbox
        self.source = source
        self.wants_states = wants_states
        self.wants_looks = wants_looks
        #: The ids that it still waits for. The registry's to change.
        self.ids: set[str] = set()


class Waiters:
    """The registry. Not safe for threads by itself: its owner holds a lock."""

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[Waiter, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._by_id

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def add(self, waiter: Waiter, task_ids: Iterable[str]) -> None:
        """Let a waiter wait for results.

        Args:
            waiter: The waiter.
            task_ids: Ids of tasks; those that it waits for already stay.
        """
        for task_id in task_ids:
            if task_id not in waiter.ids:
                waiter.ids.add(task_id)
                self._by_id[task_id] = (*self._by_id.get(task_id, ()), waiter)

    def of(self, task_id: str) -> tuple[Waiter, ...]:
        """Return the waiters of a task.

        Args:
            task_id: The task's id.
        """
        return self._by_id.get(task_id, ())

    def all(self) -> list[Waiter]:
        """Return every waiter once."""
        return list({id(waiter): waiter for waiters in self._by_id.values() for waiter in waiters}.values())

    def finish(self, task_id: str) -> tuple[Waiter, ...]:
        """End all waits for a task, because its result is there.

        Args:
            task_id: The task's id.

        Returns:
            Those that waited for it.
        """
        waiters = self._by_id.pop(task_id, ())
        for waiter in waiters:
            waiter.ids.discard(task_id)
        return waiters

    def remove(self, waiter: Waiter) -> list[str]:
        """End a waiter's waits.

        Args:
            waiter: The waiter.

        Returns:
            The ids that nobody waits for any more.
        """
        abandoned = []
        for task_id in waiter.ids:
            others = tuple(other for other in self._by_id[task_id] if other is not waiter)
            if others:
                self._by_id[task_id] = others
            else:
                del self._by_id[task_id]
                abandoned.append(task_id)
        waiter.ids.clear()
        return abandoned
