"""Figures of the last days that are kept up to date: each record is read once, however often they are asked for.

What ended is counted into slots of five minutes, which become hours later on. A look reads what ended since the look
before; the first one reads the span, the newest hour first, and can be shown meanwhile. So figures over a million
records cost their reading once in a process, and then what is new.

What was deleted leaves the figures when its hour is read anew. Hours are, some minutes after they were read, a few with
each look. Without an index on `date_done` every look reads the whole table once, whatever the span.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import states

from ...client.values import EPOCH
from ...errors import InvalidFilter
from . import figure_statements
from .forward import Forward
from .model import StatRow, TaskSummary
from .paging import FAR, whole_second
from .scanning import Runner, Scan
from .searching import Search, unready_by_id
from .statistics import Group

#: The shortest part of time that counts are kept of.
SLOT = timedelta(minutes=5)
HOUR = timedelta(hours=1)
#: Slots become an hour when the hour ended so long ago.
FINE = 2 * HOUR
#: The longest span.
LONGEST = timedelta(days=7)
#: A store takes its time before it commits: what is younger than this is read again at the next look.
SETTLED = timedelta(seconds=10)
#: How many durations of a task's name in a slot are kept exactly; of more, each is known to 5 parts in 100.
EXACT, STEP = 100, 1.05
#: How many names, and kinds of failure, a slot tells apart; further ones are counted together.
NAMES_MOST, FAILURES_MOST = 200, 500
OTHER = "(other)"
#: How often what is known so far is told, in seconds.
PART_EVERY = 1.0
#: How many tasks that have not ended are counted.
UNREADY_MOST = 5000
#: States of tasks that wait for a worker.
WAITING = frozenset({states.PENDING, states.RECEIVED})
#: An hour is read anew so many seconds after it was read, because results are deleted.
RENEWED_AFTER = 300.0
#: For how many seconds one look reads hours anew; it renews one at least.
RENEWING = 0.25


@dataclass(frozen=True)
class TimeRow:
    """How many tasks ended in a part of the span.

    Attributes:
        start: Its beginning.
        states: How many ended in each state.
    """

    start: datetime
    states: Mapping[str, int]


@dataclass(frozen=True)
class FailureRow:
    """Failures of one task with one class of error.

    Attributes:
        name: The task's name; empty where it is not stored.
        error: The class of the error; empty where it is not stored.
        count: How many there are.
        last_at: When the newest ended.
        last_id: The id of the newest.
        message: The beginning of the newest's message.
    """

    name: str
    error: str
    count: int
    last_at: datetime
    last_id: str
    message: str


@dataclass(frozen=True)
class RecentStats:
    """Figures of the last hours or days.

    Attributes:
        since: The beginning of the span: that of its first part.
        until: When they were read.
        counted_since: Tasks are counted from here on; later than `since` while older ones have yet to be read.
        step: The length of the parts.
        times: The parts, oldest first.
        names: A row for each task's name, those with the most tasks first.
        failures: Failures by task and class of error, those with the most first.
        total: Of all tasks.
    """

    since: datetime
    until: datetime
    counted_since: datetime
    step: timedelta
    times: tuple[TimeRow, ...]
    names: tuple[StatRow, ...]
    failures: tuple[FailureRow, ...]
    total: StatRow

    @property
    def complete(self) -> bool:
        """Whether the whole span was read."""
        return self.counted_since <= self.since


@dataclass(frozen=True)
class Unready:
    """Tasks that have not ended.

    Attributes:
        states: How many have each state.
        counted: False where there are more than were counted.
        begun: The newest of those that have begun.
        waiting: The newest of those that wait for a worker.
    """

    states: Mapping[str, int]
    counted: bool
    begun: tuple[TaskSummary, ...]
    waiting: tuple[TaskSummary, ...]

    def __len__(self) -> int:
        return sum(self.states.values())

    @property
    def tasks(self) -> tuple[TaskSummary, ...]:
        """Both, newest first."""
        return tuple(sorted((*self.begun, *self.waiting), key=lambda task: task.at or EPOCH, reverse=True))

    @property
    def complete(self) -> bool:
        """Whether `tasks` are all."""
        return self.counted and len(self.begun) + len(self.waiting) >= len(self)


class Recent:
    """Counts what ended. Made by :meth:`Results.recent`; may be used by several threads.

    Figures count what was stored when it was read. What is deleted later leaves them some minutes later, or sooner
    after :meth:`renew`.

    Args:
        runner: The connection that runs statements.
        table: The task table.
        search: The source of the database's time.
    """

    def __init__(self, runner: Runner, table: str, search: Search) -> None:
        self._runner, self._table, self._search = runner, table, search
        self._lock = threading.Lock()
        self._hours: dict[datetime, _Hour] = {}

    def stats(
        self, span: timedelta, step: timedelta, *, on_part: Callable[[RecentStats], Any] | None = None
    ) -> RecentStats:
        """Read what is new, and what of the span was not read yet.

        Args:
            span: How far back, a week at most.
            step: The length of the parts: five minutes or a multiple of that; whole hours for more than two hours.
            on_part: Called with what is known so far, now and then while much is read.

        Returns:
            The figures of the span, part by part.

        Raises:
            InvalidFilter: `span` or `step` makes no sense.
        """
        if not SLOT <= step <= span <= LONGEST or step % SLOT or (span > FINE and step % HOUR):
            raise InvalidFilter(
                f"span is {span} and step {step}: a span is a week at most, a step a multiple of five minutes, "
                "and of hours for a span of more than two"
            )
        now = self._search.now
        since = _floor(now, step) - step * (span // step - 1)
        fresh, hour = _Slots(), _floor(now, HOUR)
        scan = self._search.scan
        if scan is not None:
            with self._lock:
                self._read_all(_floor(since, HOUR), now, fresh, scan)
                return self._finished(since, now, _floor(since, HOUR), step, fresh)
        self._renew(since, now)
        told = time.monotonic()
        while True:
            with self._lock:
                self._read(hour, now, fresh)
            if hour <= since:
                break
            if on_part is not None and time.monotonic() - told > PART_EVERY:
                with self._lock:
                    on_part(self._made(since, now, hour, step, fresh))
                told = time.monotonic()
            hour -= HOUR
        with self._lock:
            return self._finished(since, now, hour, step, fresh)

    def renew(self) -> None:
        """Read all anew, some hours with each of the next looks, the newest first: results were deleted."""
        with self._lock:
            for hour in self._hours.values():
                hour.read_at = float("-inf")

    def unready(self, most: int = 100) -> Unready:
        """Count tasks that have not ended, some thousands of them, and read the newest.

        Args:
            most: How many of those that have begun are read at most, and of those that wait.

        Returns:
            The number in each state, and the newest tasks.
        """
        rows = self._search.rows(figure_statements.unready_times(self._table), {"begin": EPOCH}, UNREADY_MOST)
        alive = sorted(((at, task_id, str(state)) for at, task_id, state, hit in rows if hit), reverse=True)
        begun = [task_id for _, task_id, state in alive if state not in WAITING][:most]
        waiting = [task_id for _, task_id, state in alive if state in WAITING][:most]
        shown = [*begun, *waiting]
        tasks = unready_by_id(self._runner, self._table, shown, (), {}) if shown else {}
        return Unready(
            dict(Counter(state for _, _, state in alive)),
            len(rows) < UNREADY_MOST,
            tuple(tasks[task_id] for task_id in begun if task_id in tasks),
            tuple(tasks[task_id] for task_id in waiting if task_id in tasks),
        )

    def _renew(self, since: datetime, now: datetime) -> None:
        """Read hours of the span anew, those that were read longest ago first."""
        began = time.monotonic()
        with self._lock:
            ages = sorted((hour.read_at, -hour.end.timestamp(), start) for start, hour in self._hours.items())
        for read_at, _, start in ages:
            if start + HOUR > since and began - read_at > RENEWED_AFTER:
                with self._lock:
                    hour = _Hour(start)
                    self._settle(hour, now)
                    self._hours[start] = hour
                if time.monotonic() - began > RENEWING:
                    return

    def _read(self, start: datetime, now: datetime, fresh: _Slots) -> None:
        hour = self._hours.setdefault(start, _Hour(start))
        self._settle(hour, now)
        if hour.until < hour.end:
            end = FAR if now < hour.end else hour.end
            for row in self._rows(hour.until, end, None):
                fresh.add(row)
        hour.join(now)

    def _settle(self, hour: _Hour, now: datetime) -> None:
        """Count what ended in an hour since it was read, up to a time behind which no store is under way."""
        settled = hour.settled(now)
        if hour.until < settled:
            # Counted apart: where the connection breaks on the way, none of it may be counted twice later on.
            slots = _Slots()
            for row in self._rows(hour.until, settled, None):
                slots.add(row)
            hour.take(slots, settled)

    def _read_all(self, first: datetime, now: datetime, fresh: _Slots, scan: Scan) -> None:
        """Read all hours from one on in one pass through the table, where no index leads to an hour.

        Args:
            first: The start of the first hour.
            now: The database's time.
            fresh: Takes what has ended too recently to be counted for good.
            scan: The pass.
        """
        old = time.monotonic() - RENEWED_AFTER
        starts = [first + HOUR * number for number in range((now - first) // HOUR + 1)]
        hours = {start: self._hours.get(start) or _Hour(start) for start in starts}
        if any(hour.read_at <= old for hour in hours.values()):
            hours = {start: _Hour(start) for start in starts}
        slots = {start: _Slots() for start in starts}
        for row in self._rows(min(hour.until for hour in hours.values()), FAR, scan):
            start = _floor(row[0], HOUR)
            hour = hours.get(start)
            if hour is None or row[0] >= hour.settled(now):
                fresh.add(row)
            elif row[0] >= hour.until:
                slots[start].add(row)
        for start, hour in hours.items():
            hour.take(slots[start], hour.settled(now))
            hour.join(now)
            self._hours[start] = hour

    def _rows(self, since: datetime, until: datetime, scan: Scan | None) -> Iterator[list[Any]]:
        text = figure_statements.recent_figures(self._table)
        for rows in Forward(self._runner, text, {}, max(EPOCH, since), until, scan=scan):
            yield from rows

    def _finished(self, since: datetime, now: datetime, known: datetime, step: timedelta, fresh: _Slots) -> RecentStats:
        for start in [each for each in self._hours if each < _floor(now - LONGEST, HOUR) - HOUR]:
            del self._hours[start]
        return self._made(since, now, known, step, fresh)

    def _made(
        self,
        since: datetime,
        now: datetime,
        known: datetime,
        step: timedelta,
        fresh: _Slots,
    ) -> RecentStats:
        whole = _Slot()
        times: dict[datetime, Counter[str]] = {}
        start = since
        while start <= now:
            times[start] = Counter()
            start += step
        last = start - step
        for slots in (*(hour.slots for hour in self._hours.values()), fresh):
            for begin, slot in slots:
                if begin >= since:
                    whole.merge(slot)
                    # A clock that is set back: what is from after now counts as now.
                    times[min(_floor(begin, step), last)].update(slot.total.states)
        names = sorted((group.row(name) for name, group in whole.names.items()), key=lambda row: (-row.count, row.key))
        failures = sorted(whole.failures.values(), key=lambda row: (-row.count, row.name, row.error))
        return RecentStats(
            since,
            now,
            max(since, known),
            step,
            tuple(TimeRow(begin, dict(counts)) for begin, counts in times.items()),
            tuple(names),
            tuple(failures),
            whole.total.row(""),
        )


class _Hour:
    """One hour: what was counted of it, up to when, and since when."""

    def __init__(self, start: datetime) -> None:
        self.start, self.end = start, start + HOUR
        self.until = start
        self.slots = _Slots()
        #: When its reading began, by the monotonic clock.
        self.read_at = time.monotonic()

    def settled(self, now: datetime) -> datetime:
        """The time before which no store of this hour is under way any more."""
        return min(self.end, max(self.start, whole_second(now - SETTLED)))

    def take(self, slots: _Slots, until: datetime) -> None:
        """Add what was counted since it was read."""
        self.slots.merge(slots)
        self.until = until

    def join(self, now: datetime) -> None:
        """Keep no parts of an hour that is long past."""
        if self.until >= self.end and self.end < now - FINE:
            self.slots.join(self.start)


class _Slots:
    """Slots by their beginning."""

    def __init__(self) -> None:
        self._slots: dict[datetime, _Slot] = {}

    def __iter__(self) -> Iterator[tuple[datetime, _Slot]]:
        return iter(self._slots.items())

    def add(self, row: list[Any]) -> None:
        self._slots.setdefault(_floor(row[0], SLOT), _Slot()).add(row)

    def merge(self, others: _Slots) -> None:
        for start, slot in others:
            self._slots.setdefault(start, _Slot()).merge(slot)

    def join(self, start: datetime) -> None:
        """Make one slot of all."""
        if len(self._slots) > 1:
            whole = _Slot()
            for slot in self._slots.values():
                whole.merge(slot)
            self._slots = {start: whole}


class _Slot:
    """What ended in a part of time."""

    def __init__(self) -> None:
        self.total = Group(EXACT, STEP)
        self.names: dict[str, Group] = {}
        self.failures: dict[tuple[str, str], FailureRow] = {}

    def add(self, row: list[Any]) -> None:
        at, state, name, runtime, queue_time, failure = row
        state, name = str(state), name if isinstance(name, str) else ""
        self.total.add(state, runtime, queue_time)
        self._group(name).add(state, runtime, queue_time)
        if failure is not None:
            task_id, error, message = (each if isinstance(each, str) else "" for each in failure)
            self._fail(FailureRow(name, error, 1, at, task_id, message))

    def merge(self, others: _Slot) -> None:
        self.total.merge(others.total)
        for name, group in others.names.items():
            self._group(name).merge(group)
        for row in others.failures.values():
            self._fail(row)

    def _group(self, name: str) -> Group:
        if name not in self.names and len(self.names) >= NAMES_MOST:
            name = OTHER
        return self.names.setdefault(name, Group(EXACT, STEP))

    def _fail(self, row: FailureRow) -> None:
        key = (row.name, row.error)
        if key not in self.failures and len(self.failures) >= FAILURES_MOST:
            key = (OTHER, OTHER)
        known = self.failures.get(key)
        newest = row if known is None or row.last_at >= known.last_at else known
        count = row.count + (known.count if known is not None else 0)
        self.failures[key] = FailureRow(*key, count, newest.last_at, newest.last_id, newest.message)


def _floor(moment: datetime, step: timedelta) -> datetime:
    """The beginning of the part that a time is in; parts are counted from midnight UTC."""
    moment = moment.astimezone(timezone.utc)
    return EPOCH + (moment - EPOCH) // step * step


__all__ = ["FailureRow", "Recent", "RecentStats", "TimeRow", "Unready"]
