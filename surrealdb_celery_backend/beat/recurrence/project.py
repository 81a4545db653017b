"""Schedule classes of a project, which only code can hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from .base import Recurrence, whole_second


class InCode(Recurrence):
    """A schedule object of the project's own class, which only code can hold.

    Args:
        schedule: The object, an instance of Celery's `BaseSchedule`.
        zone: The app's zone, in which the object is told the time.
        now: The time; this host's if left out.
    """

    def __init__(self, schedule: Any, zone: tzinfo = timezone.utc, now: datetime | None = None) -> None:
        self.schedule = schedule
        self.zone = zone
        self.now = now or datetime.now(timezone.utc)

    def due_after(self, moment: datetime, anchor: datetime) -> datetime:
        return max(self.not_before(moment) or whole_second(self.now), moment + timedelta(seconds=1))

    def not_before(self, last_run_at: datetime) -> datetime | None:
        """Return when to ask the schedule again, or `None` if it is due now.

        That it is not due says when to ask, not when it is due: a schedule may wait for something.

        Args:
            last_run_at: When it ran last, or was added.
        """
        schedule = self.schedule
        with self._told_the_time():
            # Celery's own beat tells it in the zone of the schedule's clock, and Celery before 5.6 counts in that one.
            clock = getattr(schedule, "nowfun", None)
            zone = clock().tzinfo if clock is not None else self.zone
            is_due, seconds = schedule.is_due(last_run_at.astimezone(zone or self.zone))
        return None if is_due else whole_second(self.now + timedelta(seconds=seconds))

    @contextmanager
    def _told_the_time(self) -> Iterator[None]:
        """Have the schedule go by our time, in a zone whose wall times are right, unless it has a clock of its own."""
        attributes = getattr(self.schedule, "__dict__", None)
        if attributes is None or getattr(self.schedule, "nowfun", None) is not None:
            yield
            return
        # `utc_enabled` off has Celery convert to the host's zone by its own class, which can be wrong (see zones.py).
        ours = {"nowfun": lambda: self.now.astimezone(self.zone), "tz": self.zone, "utc_enabled": True}
        before = {name: attributes[name] for name in ours if name in attributes}
        attributes.update(ours)
        try:
            yield
        finally:
            for name in ours:
                attributes.pop(name, None)
            attributes.update(before)

    def describe(self) -> str:
        return f"in code: {self.schedule!r}"
