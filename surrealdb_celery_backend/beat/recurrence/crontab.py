"""Crontabs: minutes, hours and days in a time zone, across changes of the clocks.

* An hour field that names hours means wall times, once a day each. A wall time that is
  skipped fires as much later as the clocks were moved (02:30 at 03:30); one that occurs
  twice fires at its first occurrence.
* An hour field that covers all 24 hours means elapsed time: it fires in both occurrences
  of a repeated hour.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo

from ..zones import as_instant
from .base import Recurrence
from .crontab_fields import CRONTAB_FIELDS, EXPRESSION_FIELDS, parsed_crontab

#: How far ahead a day that matches a crontab is searched, in years: 29 February
#: on a given weekday comes back after 40 years at most (around 2100).
SEARCH_YEARS = 41

HOURS_PER_DAY = 24
MINUTES_PER_HOUR = 60


class Crontab(Recurrence):
    """Minutes, hours and days in a time zone, by Celery's crontab fields.

    Args:
        fields: The fields as written, without those that are `*`.
        zone: The zone of the wall times.
    """

    def __init__(self, fields: Mapping[str, str], zone: tzinfo) -> None:
        self.fields = dict(fields)
        self.zone = zone
        self.sets = parsed_crontab(tuple(self.fields.get(name, "*") for name in CRONTAB_FIELDS))
        self.minutes, self.hours = self.sets.minutes, self.sets.hours

    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        try:
            if len(self.hours) == HOURS_PER_DAY:
                return self._elapsed_after(moment)
            return self._wall_time_after(moment)
        except OverflowError:  # after the year 9999
            return None

    def _elapsed_after(self, moment: datetime) -> datetime | None:
        moment = moment.astimezone(timezone.utc)
        candidate = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        for day in self._matching_days(candidate.astimezone(self.zone).date()):
            # The time between the candidate and the day's first instant does not match.
            candidate = max(candidate, as_instant(datetime.combine(day, time()), self.zone))
            while (local := candidate.astimezone(self.zone)).date() == day:
                position = bisect_left(self.minutes, local.minute)
                if position < len(self.minutes) and self.minutes[position] == local.minute:
                    return candidate
                following = (*self.minutes, MINUTES_PER_HOUR)[position]
                candidate += timedelta(minutes=following - local.minute)
        return None

    def _wall_time_after(self, moment: datetime) -> datetime | None:
        local = moment.astimezone(self.zone)
        for day in self._matching_days(local.date()):
            if self._clocks_change_on(day):
                instants = (as_instant(wall, self.zone) for wall in self._wall_times(day))
                due = min((instant for instant in instants if instant > moment), default=None)
            else:
                wall = self._first_wall_time(day, local)
                due = None if wall is None else as_instant(wall, self.zone)
            if due is not None:
                return due
        return None

    def _first_wall_time(self, day: date, local: datetime) -> datetime | None:
        """Return the day's first matching wall time that is after ``local``."""
        if day > local.date():
            return datetime.combine(day, time(self.hours[0], self.minutes[0]))
        if local.hour in self.hours:
            position = bisect_right(self.minutes, local.minute)
            if position < len(self.minutes):
                return datetime.combine(day, time(local.hour, self.minutes[position]))
        position = bisect_right(self.hours, local.hour)
        if position < len(self.hours):
            return datetime.combine(day, time(self.hours[position], self.minutes[0]))
        return None

    def _wall_times(self, day: date) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                yield datetime.combine(day, time(hour, minute))

    def _clocks_change_on(self, day: date) -> bool:
        start = datetime.combine(day, time(), self.zone)
        end = datetime.combine(day + timedelta(days=1), time(), self.zone)
        return start.utcoffset() != end.utcoffset()

    def _matching_days(self, day: date) -> Iterator[date]:
        last = day + timedelta(days=366 * SEARCH_YEARS)
        while day <= last:
            if day.month not in self.sets.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if self._is_day(day):
                yield day
            day += timedelta(days=1)

    def _is_day(self, day: date) -> bool:
        sets = self.sets
        if day.isoweekday() % 7 not in sets.weekdays:
            return False
        if day.day in sets.days:
            return True
        return bool(sets.days_before_last) and monthrange(day.year, day.month)[1] - day.day in sets.days_before_last

    def describe(self) -> str:
        written = " ".join(self.fields.get(name, "*") for name in EXPRESSION_FIELDS)
        return f"crontab {written}"
