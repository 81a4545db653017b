"""Decisions of clean-up, without I/O: which tasks end earlier, how many records go in one statement; and its report."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import states

from ..client.values import RecordID
from .retention import FOR_EVER

#: How long one statement should take the database, in milliseconds: a store that comes meanwhile may wait as long.
BATCH_MILLIS = 25
#: The first, the smallest and the largest number of records of one statement.
BATCH_FIRST, BATCH_LEAST, BATCH_MOST = 200, 20, 5_000
#: By how much a lifetime may differ from the setting before an end is moved: a result may be stored late.
TOLERANCE = 0.05
#: No record that expires at all ends later. See `retention.FOR_EVER`.
NEVER = datetime(9000, 1, 1, tzinfo=timezone.utc)


@dataclass
class Report:
    """The result of a clean-up, or of its dry run.

    Attributes:
        dry_run: Whether nothing was deleted.
        records: How many records were deleted (would be, in a dry run), by table without its prefix.
        names: In a dry run, how many of the tasks have which name; None is the name of those stored without one.
        looked_at: In a dry run, how many records were read so far.
        spared: How many records stayed because `before_delete` or a receiver of `results_expiring` failed, or could not be
            shown them.
    """

    dry_run: bool = False
    records: Counter[str] = field(default_factory=Counter)
    names: Counter[str | None] = field(default_factory=Counter)
    spared: int = 0
    looked_at: int = 0

    @property
    def total(self) -> int:
        """The number of records of all tables."""
        return sum(self.records.values())


@dataclass(frozen=True)
class Lifetimes:
    """The app's current settings, in seconds; None for ever."""

    success: float | None
    failure: float | None
    unfinished: float | None

    @property
    def any_ends(self) -> bool:
        """Whether results expire at all."""
        return bool(self.success or self.failure)

    @property
    def shortest(self) -> timedelta:
        """The shorter of the two of finished tasks."""
        return timedelta(seconds=min(self.success or FOR_EVER, self.failure or FOR_EVER))

    def of(self, status: str) -> float:
        """Return how many seconds a finished state lives.

        Args:
            status: The state.
        """
        return (self.failure if status == states.FAILURE else self.success) or FOR_EVER

    @property
    def parameters(self) -> dict[str, timedelta]:
        """The same as durations of statements."""
        every = {"success": self.success, "failure": self.failure, "unfinished": self.unfinished}
        return {name: timedelta(seconds=seconds or FOR_EVER) for name, seconds in every.items()}


class BatchSize:
    """How many records a statement deals with: as many as take the database about `BATCH_MILLIS`."""

    def __init__(self) -> None:
        self.records = BATCH_FIRST

    def took(self, records: int, millis: float) -> None:
        """Learn from a statement.

        Args:
            records: How many it dealt with.
            millis: How long it took.
        """
        if records < self.records / 2:
            return  # too few to tell
        # By half or double at the most: one slow moment says little.
        factor = min(2.0, max(0.5, BATCH_MILLIS / max(millis, 1)))
        self.records = min(BATCH_MOST, max(BATCH_LEAST, int(self.records * factor)))

    def timed_out(self) -> None:
        """Ask for much less: not even the time limit was enough."""
        self.records = max(BATCH_LEAST, self.records // 8)


@dataclass(frozen=True)
class Surveyed:
    """The fields that clean-up reads of a record that it does not delete at once: of a task all, of others id and end."""

    id: RecordID
    name: str | None
    status: str | None
    date_done: datetime | None
    expires_at: datetime | None
    #: Whether the task or its message asked for its lifetime.
    own: bool | None

    @classmethod
    def read(cls, values: Sequence[Any]) -> Surveyed:
        """Make one of what the database gave.

        Args:
            values: The fields, in this order. Those of another kind, which somebody wrote by hand, count as missing.
        """
        record, name, status, date_done, expires_at, own = values
        return cls(
            record,
            name if isinstance(name, str) else None,
            status if isinstance(status, str) else None,
            date_done if isinstance(date_done, datetime) else None,
            expires_at if isinstance(expires_at, datetime) else None,
            own if isinstance(own, bool) else None,
        )

    def ends_too_late(self, lifetimes: Lifetimes) -> bool:
        """Return whether the task ends later than the app's settings now say.

        Args:
            lifetimes: The lifetimes of the settings.
        """
        if self.own or self.date_done is None or self.expires_at is None or self.status is None:
            return False
        lifetime = lifetimes.of(self.status)
        return (self.expires_at - self.date_done).total_seconds() > lifetime * (1 + TOLERANCE) + 1

    def is_over(self, now: datetime, lifetimes: Lifetimes) -> bool:
        """Return whether the task would have expired by what the settings now say.

        Args:
            now: The database's time.
            lifetimes: The lifetimes of the settings.
        """
        if self.date_done is None or self.status is None:
            return False
        return (now - self.date_done).total_seconds() >= lifetimes.of(self.status)


class Newest:
    """The newest results of each name; the older ones are given back.

    Args:
        keep: Returns how many results of a name are kept; None for all.
    """

    def __init__(self, keep: Callable[[str], int | None]) -> None:
        self._keep = keep
        self._kept: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
        self._tasks: dict[str, Surveyed] = {}

    def surplus(self, tasks: Iterable[Surveyed]) -> Iterator[Surveyed]:
        """Take tasks in, and yield those that are too many.

        Args:
            tasks: Tasks in any order, each once.

        Yields:
            Finished tasks of which enough newer ones are known.
        """
        for task in tasks:
            if task.name is None or task.date_done is None:
                continue
            limit = self._keep(task.name)
            key = str(task.id.id)
            if limit is None:
                continue
            self._tasks[key] = task
            kept = self._kept[task.name]
            heapq.heappush(kept, (task.date_done, key))
            if len(kept) > limit:
                yield self._tasks.pop(heapq.heappop(kept)[1])
