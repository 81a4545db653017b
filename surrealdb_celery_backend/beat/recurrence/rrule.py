"""Rules of RFC 5545 (iCalendar), such as `FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9`.

A rule means wall times of a zone. Across changes of the clocks it behaves as a crontab does:
from `DAILY` on a skipped wall time is as much later as the clocks were moved and a repeated
one comes once; `HOURLY` and shorter rules follow elapsed time.

See https://www.rfc-editor.org/rfc/rfc5545#section-3.3.10
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import MAXYEAR, datetime, time, timedelta, timezone, tzinfo
from itertools import islice
from typing import cast

from dateutil import rrule as dateutil_rrule

from ...errors import InvalidSchedule
from ..zones import as_instant, exact_zone
from .base import Recurrence

#: Where a rule counts from that says nothing else: a Monday at midnight.
START = datetime(2001, 1, 1)  # noqa: DTZ001 - a wall time

#: How far ahead an occurrence is searched at least, in years: 29 February on a given weekday
#: comes back after 40 years.
SEARCH_YEARS = 41

#: The calendar repeats itself after so many years, weekdays and all.
CYCLE_YEARS = 400

#: The longest `COUNT`: its occurrences are kept in memory.
MAX_COUNT = 10_000

#: The longest skip of the clocks: Samoa left out a day.
LONGEST_SKIP = timedelta(days=1)

#: The length of a period, for the frequencies where all are equally long.
PERIODS = {
    "WEEKLY": timedelta(weeks=1),
    "DAILY": timedelta(days=1),
    "HOURLY": timedelta(hours=1),
    "MINUTELY": timedelta(minutes=1),
    "SECONDLY": timedelta(seconds=1),
}

#: The length of a period in months, for the others.
MONTHS = {"YEARLY": 12, "MONTHLY": 1}

#: Frequencies that follow elapsed time.
SHORTER_THAN_A_DAY = ("HOURLY", "MINUTELY", "SECONDLY")

#: Parts that say on which days of its period a rule is due.
_DAYS = ("BYDAY", "BYWEEKDAY", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO")


@dataclass(frozen=True)
class Parts:
    """The parts of a rule's text that decide how it is searched.

    Args:
        rule: The text without `UNTIL` and `COUNT`.
        frequency: `FREQ`.
        interval: `INTERVAL`.
        count: `COUNT`, or `None`.
        until: The last moment, or `None`; naive for a wall time.
    """

    rule: str
    frequency: str
    interval: int = 1
    count: int | None = None
    until: datetime | None = field(default=None)


class RRule(Recurrence):
    """A rule of RFC 5545 in a time zone.

    Args:
        text: The rule, such as `FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=9`.
        zone: The zone of its wall times.
        start: Where it counts from (`DTSTART`), an instant or a wall time; if left out,
            Monday 1 January 2001 at midnight.

    Raises:
        InvalidSchedule: The text is no rule.
    """

    def __init__(self, text: str, zone: tzinfo, start: datetime | None = None) -> None:
        self.text = text
        self.zone = exact_zone(zone)
        self.parts = parsed(text)
        until = self.parts.until
        try:
            if start is not None and start.tzinfo is not None:
                start = start.astimezone(self.zone).replace(tzinfo=None)
            self.until = as_instant(until, self.zone) if until is not None and until.tzinfo is None else until
        except OverflowError:
            raise _mistake(text, "its times are of the years 1 to 9999") from None
        if start is None and self.parts.count is not None:
            raise InvalidSchedule(f"schedule.rrule holds {text!r}: COUNT needs dtstart, or use max_runs")
        self.start = (start or START).replace(microsecond=0, fold=0)
        try:
            _rule(self.parts.rule, self.start)
        except Exception as error:  # dateutil raises what it stumbles over
            raise _mistake(text, str(error) or type(error).__name__) from error

    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        try:
            if self.parts.frequency in SHORTER_THAN_A_DAY:
                due = self._elapsed_after(moment)
            else:
                due = self._wall_time_after(moment)
        except OverflowError:  # after the year 9999
            return None
        if due is None or (self.until is not None and due > self.until):
            return None
        return due

    def _wall_time_after(self, moment: datetime) -> datetime | None:
        wall: datetime | None = moment.astimezone(self.zone).replace(tzinfo=None)
        assert wall is not None
        before = moment - LONGEST_SKIP
        if before.astimezone(self.zone).utcoffset() != moment.astimezone(self.zone).utcoffset():
            # A wall time that was skipped may still be to come.
            wall -= LONGEST_SKIP
        while (wall := self._first_wall_time(wall)) is not None:
            due = as_instant(wall, self.zone)
            if due > moment:
                return due
        return None

    def _elapsed_after(self, moment: datetime) -> datetime | None:
        """Return the next due time, counted with one offset up to the next change of the clocks."""
        moment, inclusive = moment.astimezone(timezone.utc), False
        while True:
            offset = moment.astimezone(self.zone).utcoffset() or timedelta(0)
            wall = self._first_wall_time(moment.replace(tzinfo=None) + offset, inclusive=inclusive)
            if wall is None:
                return None
            due = (wall - offset).replace(tzinfo=timezone.utc)
            if due.astimezone(self.zone).utcoffset() == offset:
                return due
            moment, inclusive = self._change_of_the_clocks(moment, due, offset), True

    def _change_of_the_clocks(self, before: datetime, after: datetime, offset: timedelta) -> datetime:
        """Return the first second with another offset, between a moment that has this one and one that has not.

        Args:
            before: The moment that has it.
            after: The moment that has not.
            offset: The offset from UTC.
        """
        before = before.replace(microsecond=0)
        while after - before > timedelta(seconds=1):
            middle = before + (after - before) // 2
            middle = middle.replace(microsecond=0)
            if middle.astimezone(self.zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        return after

    def _first_wall_time(self, wall: datetime, *, inclusive: bool = False) -> datetime | None:
        parts = self.parts
        if parts.count is not None:
            found = _counted(parts, self.start)
            position = bisect_right(found, wall - timedelta(seconds=1) if inclusive else wall)
            return found[position] if position < len(found) else None
        base = _period_before(parts, self.start, wall)
        shift = _years_to_the_end(max(base, wall))
        rule = _rule(parts.rule, self.start).replace(dtstart=_later(base, shift))
        first = rule.after(_later(wall, shift), inc=inclusive)
        return None if first is None else _later(first, -shift)

    def describe(self) -> str:
        return f"rrule {self.text}"


@functools.lru_cache(maxsize=4096)
def parsed(text: str) -> Parts:
    """Return the parts of a rule.

    Args:
        text: As `FREQ=DAILY;INTERVAL=2`, with or without `RRULE:` in front.

    Raises:
        InvalidSchedule: It is no rule that can be due.
    """
    bare = re.sub(r"^RRULE:", "", text.strip(), flags=re.IGNORECASE).rstrip(";")
    pairs: dict[str, str] = {}
    for part in bare.split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value or name.upper() in pairs:
            raise _mistake(text, f"give parts such as FREQ=DAILY, each once, instead of {part!r}")
        pairs[name.upper()] = value.strip().upper()
    frequency = pairs.get("FREQ", "")
    if frequency not in (*PERIODS, *MONTHS):
        raise _mistake(text, f"FREQ is one of {', '.join((*MONTHS, *PERIODS))}")
    interval = _number(text, pairs, "INTERVAL") or 1
    count = _number(text, pairs, "COUNT")
    if count is not None and count > MAX_COUNT:
        raise _mistake(text, f"COUNT is {MAX_COUNT} at most: use UNTIL or max_runs")
    until = _until(text, pairs.pop("UNTIL")) if "UNTIL" in pairs else None
    pairs.pop("COUNT", None)
    if "BYEASTER" in pairs:
        raise _mistake(text, "BYEASTER is no part of RFC 5545")
    rule = ";".join(f"{name}={value}" for name, value in pairs.items())
    return Parts(rule, frequency, interval, count, until)


def _mistake(text: str, hint: str) -> InvalidSchedule:
    return InvalidSchedule(f"schedule.rrule holds {text!r}: {hint}")


def _number(text: str, pairs: dict[str, str], name: str) -> int | None:
    if name not in pairs:
        return None
    if not re.fullmatch(r"[1-9]\d{0,8}", pairs[name]):
        raise _mistake(text, f"{name} is a whole number above 0")
    return int(pairs[name])


def _until(text: str, written: str) -> datetime:
    """Return the last moment; a date alone means its whole day."""
    match = re.fullmatch(r"(\d{8})(?:T(\d{6})(Z?))?", written)
    try:
        if match is None:
            raise ValueError(written)
        if match[2] is None:
            day = datetime.strptime(match[1], "%Y%m%d").date()  # noqa: DTZ007 - a wall time
            return datetime.combine(day, time.max)
        until = datetime.strptime(match[1] + match[2], "%Y%m%d%H%M%S")  # noqa: DTZ007 - a wall time
    except ValueError:
        raise _mistake(text, "UNTIL is a time such as 20261231T235959Z") from None
    return until.replace(tzinfo=timezone.utc) if match[3] else until


@functools.lru_cache(maxsize=4096)
def _rule(rule: str, start: datetime) -> dateutil_rrule.rrule:
    """Return dateutil's rule, with the days of its period said that follow from its start."""
    names = {part.partition("=")[0] for part in rule.split(";")}
    frequency = rule.partition("FREQ=")[2].partition(";")[0]
    if frequency in MONTHS and not names & {*_DAYS}:
        rule += f";BYMONTHDAY={start.day}"
        if frequency == "YEARLY" and "BYMONTH" not in names:
            rule += f";BYMONTH={start.month}"
    # A set of rules comes only of several lines, and the text has one.
    return cast("dateutil_rrule.rrule", dateutil_rrule.rrulestr(rule, dtstart=start))


def _period_before(parts: Parts, start: datetime, wall: datetime) -> datetime:
    """Return the start of a period shortly before a wall time, so that no search begins years ago.

    Args:
        parts: The rule.
        start: The start of its first period, a wall time.
        wall: The wall time.
    """
    if parts.frequency in PERIODS:
        length = PERIODS[parts.frequency] * parts.interval
        return start + max(0, (wall - start) // length - 1) * length
    length_in_months = MONTHS[parts.frequency] * parts.interval
    passed = (wall.year - start.year) * 12 + wall.month - start.month
    periods = passed // length_in_months - 1
    if periods <= 0:
        return start
    months = start.month - 1 + periods * length_in_months
    first_of_year = parts.frequency == "YEARLY"
    return start.replace(year=start.year + months // 12, month=1 if first_of_year else months % 12 + 1, day=1)


def _years_to_the_end(wall: datetime) -> int:
    """Return by how many years to shift a search, so that one that finds nothing ends soon.

    dateutil searches up to the year 9999, and looks at each day on its way. After a shift by
    whole cycles of the calendar that year is near, and all the days are the same.
    """
    return max(0, (MAXYEAR - SEARCH_YEARS - wall.year) // CYCLE_YEARS * CYCLE_YEARS)


def _later(wall: datetime, years: int) -> datetime:
    return wall.replace(year=wall.year + years)


@functools.lru_cache(maxsize=256)
def _counted(parts: Parts, start: datetime) -> tuple[datetime, ...]:
    """Return all the occurrences of a rule that has a `COUNT`."""
    shift = _years_to_the_end(start)
    rule = _rule(parts.rule, start).replace(dtstart=_later(start, shift))
    return tuple(_later(wall, -shift) for wall in islice(rule, parts.count))
