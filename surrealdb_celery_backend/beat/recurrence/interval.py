"""Intervals: every so many seconds."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone, tzinfo

from ..times import written_duration
from ..zones import as_instant
from .base import Recurrence


class Interval(Recurrence):
    """Every so many seconds, counted from an anchor.

    Args:
        every: The interval, more than zero.
        zone: With `relative`, the zone whose full days, hours or minutes the due times
            are rounded down to (Celery's `relative`); else `None`.
    """

    def __init__(self, every: timedelta, zone: tzinfo | None = None) -> None:
        self.every = every
        self.zone = zone

    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        try:
            if self.zone is not None:
                return self._rounded_after(moment, self.zone)
            steps = (moment - anchor) // self.every + 1
            return (anchor + steps * self.every).astimezone(timezone.utc)
        except OverflowError:  # after the year 9999
            return None

    def _rounded_after(self, moment: datetime, zone: tzinfo) -> datetime:
        local = moment.astimezone(zone)
        if self.every >= timedelta(days=1):
            # Calendar days, not 24 hours each: a day of a clock change counts as one.
            day = local.date() + timedelta(days=self.every.days)
            return as_instant(datetime.combine(day, time()), zone)
        due = moment.astimezone(timezone.utc) + self.every
        local = due.astimezone(zone)
        spare = timedelta(seconds=local.second, microseconds=local.microsecond)
        if self.every >= timedelta(hours=1):
            return due - spare - timedelta(minutes=local.minute)
        if self.every >= timedelta(minutes=1):
            return due - spare
        return due - timedelta(microseconds=local.microsecond) if self._whole_seconds() else due

    def _whole_seconds(self) -> bool:
        return self.every >= timedelta(seconds=1)

    def describe(self) -> str:
        return f"every {written_duration(self.every)}"
