"""Where a page of tasks is looked for: windows of time along the index on `date_done`. No I/O here.

Newest first is what people want, and no supported engine but the newest reads an index backwards; the others
would sort every record of the table. All of them read a range of an index forwards and stop at a limit. So a
page is looked for in windows of time, from now into the past: the first is short, each further one four times
as long. A window that holds more than the limit is looked at again in shorter ones. What a page costs depends
on its length, not on how many records there are.

All windows begin and end with a whole second. Within a second an index on a datetime has an order of its own:
it compares text, and `12:00:00Z` comes after `12:00:00.5Z` (docs/architecture.md). So an index is asked for a
microsecond more on both sides, and the exact bounds are compared beside it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ...client.values import EPOCH
from ...errors import InvalidFilter

#: The end of time, for windows without an end. With four digits, as an index compares text.
FAR = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
#: How much longer each window is than the one before it, while it is not known how many records there are.
GROWTH = 4
#: The same once it is known, for what there are more or fewer of.
STEADY_GROWTH = 1.5
#: The first window then holds about this part of what a request reads: the fourth completes it.
FIRST = 1 / 8
#: How many windows one request has.
WINDOWS = 12
#: The shortest window, in seconds.
SHORTEST = 1.0
#: A window that held too much is looked at again in windows that begin with this part of it.
NARROWER = 1 / 64
#: The margin on both sides of a window for the index.
BEYOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Window:
    """A span of time: from `start` on, before `end`; both are whole seconds."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start).total_seconds()

    @property
    def index_start(self) -> datetime:
        """The value that an index is asked for."""
        return max(EPOCH, self.start - BEYOND)

    @property
    def index_end(self) -> datetime:
        """The value that an index is asked for."""
        return min(FAR, self.end) + BEYOND


@dataclass(frozen=True)
class Seen:
    """The contents of a window.

    Attributes:
        read: How many records were read.
        last: The time of the latest of them; None where there are fewer than a request reads.
        found: How many of them match.
    """

    read: int
    last: datetime | None
    found: int


@dataclass(frozen=True)
class Pace:
    """How many records there are, as far as it is known.

    Attributes:
        density: How many ended in a second; 0 where it is not known.
        limit: How many records a window may hold, and a request reads.
    """

    density: float
    limit: int


@dataclass(frozen=True)
class Cursor:
    """The place of the last task of a page.

    Attributes:
        at: The task's time, to the microsecond; None where it has none.
        task_id: Its id.
        ready: Whether it has ended.
        pace: The density of records that its page measured.
        skip: Of tasks that have not ended: how many parts of them were passed before its own.
    """

    at: datetime | None
    task_id: str
    ready: bool
    pace: Pace | None = None
    skip: int = 0

    def __str__(self) -> str:
        micros = None if self.at is None else (self.at - EPOCH) // timedelta(microseconds=1)
        pace = None if self.pace is None else [float(f"{self.pace.density:.3g}"), self.pace.limit]
        values = [micros, self.task_id, int(self.ready), pace, self.skip]
        return base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Read what `str` made of a cursor.

        Raises:
            InvalidFilter: It is not one.
        """
        try:
            micros, task_id, ready, pace, skip = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            at = None if micros is None else EPOCH + timedelta(microseconds=micros)
            if not isinstance(task_id, str) or (ready and at is None):
                raise ValueError
            learnt = None if pace is None else Pace(min(1e9, max(0.0, float(pace[0]))), max(1, int(pace[1])))
            return cls(at, task_id, bool(ready), learnt, max(0, int(skip)))
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError, binascii.Error):
            raise InvalidFilter(f"after must be what the page before gave, not {text!r}") from None


def whole_second(moment: datetime) -> datetime:
    """The second that a time is in.

    Args:
        moment: A time, aware.
    """
    return moment.replace(microsecond=0)


def second_after(moment: datetime) -> datetime:
    """The first whole second that is not before a time.

    Args:
        moment: A time, aware.
    """
    second = whole_second(moment)
    if second == moment or second >= FAR:
        return second
    return second + timedelta(seconds=1)


class Walk:
    """The way from now into the past, window by window.

    Args:
        now: The time now, by the database's clock.
        newest: Only what is before this time; None for all.
        oldest: Only what is not before this time; None for all.
        pace: The known density of records.
        most: How many records a window may hold at most.
    """

    def __init__(
        self, now: datetime, newest: datetime | None, oldest: datetime | None, *, pace: Pace, most: int
    ) -> None:
        self._now = whole_second(now)
        self._end = FAR if newest is None else second_after(newest)
        self._start = EPOCH if oldest is None else max(EPOCH, whole_second(oldest))
        self._most = most
        #: The length of the first window while nothing is known, in seconds.
        self._width = SHORTEST
        self.pace = pace

    @property
    def over(self) -> bool:
        """Whether all has been looked at."""
        return self._end <= self._start

    @property
    def end(self) -> datetime:
        """All from this time on has been looked at."""
        return self._end

    def windows(self) -> list[Window]:
        """The next windows, newest first. The last reaches back to the beginning."""
        windows: list[Window] = []
        end, length, growth = self._end, self._width, float(GROWTH)
        if self.pace.density:
            length, growth = self.pace.limit * FIRST / self.pace.density, STEADY_GROWTH
        for _ in range(WINDOWS - 1):
            if end <= self._start:
                break
            start = self._back(end, length)
            windows.append(Window(start, end))
            end, length = start, max(SHORTEST, length) * growth
        if end > self._start:
            windows.append(Window(self._start, end))
        return windows

    def _back(self, end: datetime, seconds: float) -> datetime:
        # The first of all has no end: it is as long as given, before now.
        origin = min(end, max(self._now, self._start)) if end == FAR else end
        try:
            start = origin - timedelta(seconds=int(max(SHORTEST, seconds)))
        except OverflowError:
            return self._start
        return max(self._start, start)

    def advance(self, windows: Sequence[Window], seen: Sequence[Seen], wanted: int) -> tuple[int, Window | None]:
        """Take in what windows hold.

        Args:
            windows: The windows that :meth:`windows` returned.
            seen: Their contents. Those behind the place where the statement stopped are empty.
            wanted: How many matches were wanted.

        Returns:
            How many of the windows hold no more than was read, and a window that does hold more and cannot be made
            shorter, if there was one.
        """
        limit = self.pace.limit
        found = read = whole = 0
        for window, each in zip(windows, seen, strict=True):
            if whole and (found >= wanted or read >= limit):
                break
            if each.read >= limit and (each.last is None or each.last < window.end):
                return whole, self._narrow(window)
            found, read, whole = found + each.found, read + each.read, whole + 1
            self._end = window.start
        if whole:
            self._learn(self._length(windows[0], windows[whole - 1]), found, read, wanted)
        return whole, None

    def _narrow(self, window: Window) -> Window | None:
        """A window holds more than was read. Returns it where nothing shorter can be asked for."""
        length = self._length(window, window)
        self._end = window.end
        if length > SHORTEST:
            self.pace = Pace(self.pace.limit * FIRST / max(SHORTEST, length * NARROWER), self.pace.limit)
            return None
        if self.pace.limit < self._most:
            self.pace = Pace(self.pace.density, self._most)
            return None
        self._end = window.start
        return window

    def _length(self, newest: Window, oldest: Window) -> float:
        """From the beginning of one window to the end of another, or to now, in seconds."""
        return (min(newest.end, max(self._now, newest.start)) - oldest.start).total_seconds()

    def _learn(self, span: float, found: int, read: int, wanted: int) -> None:
        """Choose the next windows by what the last held.

        Args:
            span: How long the last were together, in seconds.
            found: How many of their records matched.
            read: How many records they held.
            wanted: How many matches were missing.
        """
        span = max(SHORTEST, span)
        if not read:
            self._width, self.pace = span, Pace(0.0, self.pace.limit)
            return
        limit = self.pace.limit
        if found < wanted:
            # As many as should do, by the part that matched so far; the more the less of them did.
            enough = int(1.5 * (wanted - found) * read / found) if found else limit * GROWTH
            limit = max(limit, min(enough, self._most))
        self.pace = Pace(read / span, limit)
