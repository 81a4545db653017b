"""Events of the sun at a place."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from celery import schedules as celery_schedules
from celery.exceptions import ImproperlyConfigured

from ...errors import InvalidSchedule
from .base import Recurrence

#: How far ahead an event of the sun is searched, in days: at the poles it rises once a year.
POLAR_DAYS = 2 * 366


class Solar(Recurrence):
    """An event of the sun at a place.

    Args:
        event: One of Celery's solar events, such as `sunset`.
        latitude: Degrees north, -90 to 90.
        longitude: Degrees east, -180 to 180.
    """

    def __init__(self, event: str, latitude: float, longitude: float) -> None:
        self.event = event
        try:
            self.latitude, self.longitude = float(latitude), float(longitude)
            self._solar = celery_schedules.solar(event, self.latitude, self.longitude)
        except ImproperlyConfigured as error:
            raise InvalidSchedule(
                "schedule needs the package ephem for solar events: pip install celery[solar]"
            ) from error
        except (ValueError, TypeError) as error:
            raise InvalidSchedule(f"schedule is no solar event: {error}") from error

    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        moment = moment.astimezone(timezone.utc)
        event = self._event_after(moment)
        if event is None:
            return None
        # The event is computed to a fraction of a second, and asked for again it
        # can come out a little later: whole seconds tell the same event from the next.
        due = event.replace(microsecond=0) + timedelta(seconds=1)
        if due <= moment + timedelta(seconds=1):
            return self.due_after(moment + timedelta(minutes=1), moment)
        return due

    def _event_after(self, moment: datetime) -> datetime | None:
        # Not by Celery's `remaining_estimate`: where the sun does not rise or set it gives
        # when to look again, which cannot be told from an event.
        ephem, cal = self._solar.ephem, self._solar.cal
        centre = {"use_center": True} if self._solar.use_center else {}
        start = ephem.Date(moment)
        for _ in range(POLAR_DAYS):
            try:
                event = getattr(cal, self._solar.method)(ephem.Sun(), start=start, **centre)
            except ephem.CircumpolarError:
                start = cal.next_antitransit(ephem.Sun(), start=start)
            else:
                try:
                    found: datetime = event.datetime()
                except ValueError:  # after the year 9999
                    return None
                return found.replace(tzinfo=timezone.utc)
        return None

    def describe(self) -> str:
        return f"{self.event} at {self.latitude}, {self.longitude}"
