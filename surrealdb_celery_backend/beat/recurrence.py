"""When an entry is due: schedules as readable data, and the next due time of each.

Due times are instants in UTC that follow from the schedule alone, never from
the moment somebody looked: two beats that compute the next one agree on it, so
that a firing can be claimed by entry and due time.

Across a change of the clocks a crontab behaves as people expect of one:

* an hour field that names hours means wall times, once a day each. A wall time
  that is skipped fires as much later as the clocks were moved (02:30 at 03:30);
  one that occurs twice fires at its first occurrence;
* an hour field that covers all 24 hours means elapsed time: it fires in both
  occurrences of a repeated hour.
"""

from __future__ import annotations

import difflib
import functools
import re
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from celery import schedules as celery_schedules
from celery.exceptions import ImproperlyConfigured

from ..errors import InvalidSchedule

#: The fields of a crontab schedule, in the order Celery's ``crontab`` takes them.
CRONTAB_FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")

#: The fields of a five-field cron expression, in the order people write them.
EXPRESSION_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")

#: How far ahead a day that matches a crontab is searched, in years: 29 February
#: on a given weekday comes back after 40 years at most (around 2100).
SEARCH_YEARS = 41

HOURS_PER_DAY = 24
MINUTES_PER_HOUR = 60

#: How far ahead an event of the sun is searched, in days: at the poles it rises once a year.
POLAR_DAYS = 2 * 366

#: Units of a written duration such as ``1h30m``, in seconds.
DURATION_UNITS = {
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}


class Recurrence(ABC):
    """A rule that says when an entry is due."""

    @abstractmethod
    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first due time after a moment.

        :param moment: an aware datetime; the answer is strictly later.
        :param anchor: where an interval counts from; the other kinds ignore it.
        :returns: an instant in UTC, or ``None`` if there is none any more.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return the rule in a few words, for tables and logs."""


class Interval(Recurrence):
    """Every so many seconds, counted from an anchor.

    :param every: the interval, more than zero.
    :param zone: with ``relative``, the zone whose full days, hours or minutes
        the due times are rounded down to (Celery's ``relative``); else ``None``.
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


class Crontab(Recurrence):
    """Minutes, hours and days in a time zone, by Celery's crontab fields.

    :param fields: the fields as written, without those that are ``*``.
    :param zone: the zone of the wall times.
    """

    def __init__(self, fields: Mapping[str, str], zone: tzinfo) -> None:
        self.fields = dict(fields)
        self.zone = zone
        parsed = _parsed_crontab(tuple(self.fields.get(name, "*") for name in CRONTAB_FIELDS))
        self.minutes, self.hours, self.weekdays, self.days, self.months = parsed

    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        if len(self.hours) == HOURS_PER_DAY:
            return self._elapsed_after(moment)
        return self._wall_time_after(moment)

    def _elapsed_after(self, moment: datetime) -> datetime | None:
        moment = moment.astimezone(timezone.utc)
        candidate = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        for day in self._matching_days(candidate.astimezone(self.zone).date()):
            # What lies between the candidate and the day's first instant does not match.
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
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if day.day in self.days and day.isoweekday() % 7 in self.weekdays:
                yield day
            day += timedelta(days=1)

    def describe(self) -> str:
        written = " ".join(self.fields.get(name, "*") for name in EXPRESSION_FIELDS)
        return f"crontab {written}"


class Solar(Recurrence):
    """An event of the sun at a place.

    :param event: one of Celery's solar events, such as ``sunset``.
    :param latitude: degrees north, -90 to 90.
    :param longitude: degrees east, -180 to 180.
    """

    def __init__(self, event: str, latitude: float, longitude: float) -> None:
        self.event = event
        self.latitude = latitude
        self.longitude = longitude
        try:
            self._solar = celery_schedules.solar(event, latitude, longitude)
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
                found: datetime = event.datetime()
                return found.replace(tzinfo=timezone.utc)
        return None

    def describe(self) -> str:
        return f"{self.event} at {self.latitude}, {self.longitude}"


class Clocked(Recurrence):
    """Once, at a given time.

    :param at: an instant.
    """

    def __init__(self, at: datetime) -> None:
        self.at = at.astimezone(timezone.utc)

    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return self.at if self.at > moment else None

    def describe(self) -> str:
        return f"at {self.at.isoformat(timespec='seconds')}"


class InCode(Recurrence):
    """A schedule object of the project's own class, which only code can hold.

    :param schedule: the object, an instance of Celery's ``BaseSchedule``.
    :param zone: the app's zone, in which the object is told the time.
    :param now: the time; this host's if left out.
    """

    def __init__(self, schedule: Any, zone: tzinfo = timezone.utc, now: datetime | None = None) -> None:
        self.schedule = schedule
        self.zone = zone
        self.now = now or datetime.now(timezone.utc)

    def due_after(self, moment: datetime, anchor: datetime) -> datetime:
        return max(self.not_before(moment) or _whole_second(self.now), moment + timedelta(seconds=1))

    def not_before(self, last_run_at: datetime) -> datetime | None:
        """Return when to ask the schedule again, or ``None`` if it is due now.

        That it is not due says when to ask, not when it is due: a schedule may wait for something.

        :param last_run_at: when it ran last, or was added.
        """
        given = getattr(self.schedule, "nowfun", None)
        if given is None:
            self.schedule.nowfun = lambda: self.now.astimezone(self.zone)
        try:
            is_due, seconds = self.schedule.is_due(last_run_at)
        finally:
            self.schedule.nowfun = given
        return None if is_due else _whole_second(self.now + timedelta(seconds=seconds))

    def describe(self) -> str:
        return f"in code: {self.schedule!r}"


def _whole_second(moment: datetime) -> datetime:
    """Return the first whole second that is not before a moment."""
    return moment.replace(microsecond=0) + timedelta(seconds=1 if moment.microsecond else 0)


def as_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a wall time.

    :param wall: a naive datetime.
    :param zone: the zone it is read in.
    :returns: the instant in UTC: of a repeated wall time the first, of a skipped
        one as much later as the clocks were moved.
    """
    # fold=0 reads a skipped time with the offset before the change, which is both.
    return wall.replace(tzinfo=zone, fold=0).astimezone(timezone.utc)


def time_zone(name: object) -> tzinfo:
    """Return a time zone by its IANA name.

    :raises InvalidSchedule: if there is no such zone.
    """
    if not isinstance(name, str) or not name:
        raise InvalidSchedule(f"timezone holds {name!r}: give an IANA name such as 'Europe/Berlin', or leave it out")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidSchedule(
            f"timezone holds {name!r}, which is no IANA zone: give one such as 'Europe/Berlin'"
        ) from error


def recurrence(schedule: object, zone: tzinfo) -> Recurrence:
    """Return the rule that a schedule's data stands for.

    :param schedule: ``{"timedelta": seconds}`` (also ``"relative": True``), crontab
        fields, ``{"crontab": "0 9 15 * *"}``, ``{"solar": event, "latitude": …,
        "longitude": …}`` or ``{"clocked": time}``.
    :param zone: the zone of wall times, of ``relative`` and of a naive ``clocked``.
    :raises InvalidSchedule: if it is none of these; the message says what is wrong.
    """
    if not isinstance(schedule, Mapping) or not schedule:
        raise InvalidSchedule(
            f"schedule holds {schedule!r}: give an object such as {{'timedelta': 15}} or {{'minute': '0', 'hour': '9'}}"
        )
    if "timedelta" in schedule:
        return _interval(schedule, zone)
    if "clocked" in schedule:
        _only(schedule, ("clocked",))
        return Clocked(moment_of("schedule.clocked", schedule["clocked"], zone))
    if "solar" in schedule:
        return _solar(schedule)
    if "crontab" in schedule:
        _only(schedule, ("crontab",))
        return Crontab(crontab_fields(schedule["crontab"]), zone)
    _only(schedule, CRONTAB_FIELDS)
    return Crontab(_named_fields(schedule), zone)


def schedule_data(schedule: object) -> tuple[dict[str, Any], str | None]:
    """Return a schedule of Celery's as data.

    :param schedule: what ``beat_schedule`` and ``add_periodic_task`` take: seconds, a
        timedelta, a Celery schedule object; or data already.
    :returns: the data, and the name of the zone the object was bound to by its
        ``nowfun``, if any. An object of another class gives ``{"code": its repr}``.
    :raises InvalidSchedule: if it is no schedule at all.
    """
    if isinstance(schedule, Mapping):
        return dict(schedule), None
    if isinstance(schedule, (int, float)) and not isinstance(schedule, bool):
        return {"timedelta": schedule}, None
    if isinstance(schedule, timedelta):
        return {"timedelta": seconds_of(schedule)}, None
    if not isinstance(schedule, celery_schedules.BaseSchedule):
        raise InvalidSchedule(
            f"schedule holds {schedule!r}: give seconds, a timedelta, a crontab or another schedule of Celery's"
        )
    zone = _zone_of(schedule)
    as_data = {
        celery_schedules.schedule: _interval_data,
        celery_schedules.crontab: _crontab_data,
        celery_schedules.solar: _solar_data,
    }.get(type(schedule))
    if as_data is None or (schedule.nowfun is not None and zone is None):
        # Without the address, which is another one in each process.
        return {"code": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(schedule))}, None
    return as_data(schedule), zone


def crontab_fields(expression: object) -> dict[str, str]:
    """Return the fields of a cron expression of five fields.

    :param expression: minute, hour, day of month, month and day of week, such as
        ``0 9 15 * *``.
    :raises InvalidSchedule: if it has not five fields.
    """
    written = expression.split() if isinstance(expression, str) else []
    if len(written) != len(EXPRESSION_FIELDS):
        raise InvalidSchedule(
            f"schedule.crontab holds {expression!r}: give five fields, minute hour day_of_month "
            "month_of_year day_of_week, such as '0 9 15 * *'"
        )
    return _named_fields(dict(zip(EXPRESSION_FIELDS, written, strict=True)))


def duration(written: str) -> timedelta:
    """Return a duration that a person wrote.

    :param written: seconds (``15``, ``0.5``) or parts with units (``90s``, ``1h30m``,
        ``2d``); the units are ms, s, m, h, d and w.
    :raises InvalidSchedule: if it cannot be read.
    """
    text = written.strip()
    parts = [(text, "s")] if re.fullmatch(r"\d+(\.\d+)?", text) else []
    if not parts:
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise InvalidSchedule(f"{written!r} is no duration: give seconds, such as 15, or units, such as 1h30m")
    try:
        return timedelta(seconds=sum(float(number) * DURATION_UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise InvalidSchedule(f"{written!r} is too long for a duration: give 999999999d at most") from None


def written_duration(length: timedelta) -> str:
    """Return a duration as a person would write it, such as ``1h30m``."""
    rest = length // timedelta(milliseconds=1)
    written = ""
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(DURATION_UNITS[unit] * 1000)
        count, rest = divmod(rest, size)
        if count:
            written += f"{count}{unit}"
    return written or "0s"


def moment_of(field: str, value: object, zone: tzinfo) -> datetime:
    """Return a moment that a record or a person gave.

    :param field: the field's name, for the message.
    :param value: a datetime, or text in ISO 8601; without an offset it is read in ``zone``.
    :returns: an aware datetime.
    :raises InvalidSchedule: if it is neither.
    """
    moment = value
    if isinstance(value, str):
        try:
            # Python 3.10 does not read the Z of ISO 8601.
            moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value.strip()))
        except ValueError:
            moment = None
    if not isinstance(moment, datetime):
        raise InvalidSchedule(f"{field} holds {value!r}: give a time such as '2026-12-24T18:00:00+01:00'")
    try:
        instant = as_instant(moment, zone) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except OverflowError:
        raise InvalidSchedule(f"{field} holds {value!r}: give a time of the years 1 to 9999") from None
    return instant if moment.tzinfo is None else moment


def nearest(name: str, known: tuple[str, ...]) -> str:
    """Return ``; did you mean …?`` for the known name nearest to one, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _interval(schedule: Mapping[str, Any], zone: tzinfo) -> Interval:
    _only(schedule, ("timedelta", "relative"))
    value = schedule["timedelta"]
    relative = schedule.get("relative", False)
    if not isinstance(relative, bool):
        raise InvalidSchedule(f"schedule.relative holds {relative!r}: give true or false")
    every: timedelta | None = None
    if isinstance(value, timedelta):
        every = value
    elif isinstance(value, str):
        every = duration(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            every = timedelta(seconds=value)
        except (OverflowError, ValueError):
            every = None
    elif isinstance(getattr(value, "elapsed", None), int):
        # A duration written in SurrealQL (15s) reaches us as the SDK's own type, in nanoseconds.
        every = timedelta(microseconds=value.elapsed // 1000)
    if every is None or every <= timedelta(0):
        raise InvalidSchedule(f"schedule.timedelta holds {value!r}: give a number of seconds above 0")
    return Interval(every, zone if relative else None)


def _solar(schedule: Mapping[str, Any]) -> Solar:
    _only(schedule, ("solar", "latitude", "longitude"))
    missing = [name for name in ("latitude", "longitude") if name not in schedule]
    if missing:
        raise InvalidSchedule(f"schedule.{missing[0]} is missing: give it in degrees")
    return Solar(schedule["solar"], schedule["latitude"], schedule["longitude"])


def _only(schedule: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in schedule:
        if name not in known:
            others = ("timedelta", "crontab", "solar", "clocked") if known == CRONTAB_FIELDS else ()
            raise InvalidSchedule(f"schedule has the unknown field {name!r}{nearest(str(name), (*known, *others))}")


def _cron_text(name: str, value: object) -> str:
    """Return a crontab field as text: Celery also takes numbers and lists of numbers."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset, range)) and value:
        return ",".join(str(part) for part in (sorted(value) if _are_numbers(value) else value))
    raise InvalidSchedule(f"schedule.{name} holds {value!r}: give text such as '*/15'")


def _are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int) for value in values)


@functools.lru_cache(maxsize=4096)
def _parsed_crontab(written: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    try:
        parsed = celery_schedules.crontab(*written)
    except Exception as error:
        raise InvalidSchedule(_crontab_mistake(written, error)) from error
    sets = tuple(tuple(sorted(getattr(parsed, name))) for name in CRONTAB_FIELDS)
    for name, values in zip(CRONTAB_FIELDS, sets, strict=True):
        if not values:
            raise InvalidSchedule(f"schedule.{name} matches nothing: give text such as '*/15'")
    return sets


def _crontab_mistake(written: tuple[str, ...], error: Exception) -> str:
    """Say which field of a crontab is wrong: Celery's own message does not."""
    for name, text in zip(CRONTAB_FIELDS, written, strict=True):
        try:
            celery_schedules.crontab(**{name: text})
        except Exception as own:
            return f"schedule.{name} holds {text!r}: {str(own).rstrip('.')}"
    return f"schedule never happens: {error}"


def _zone_of(schedule: Any) -> str | None:
    """Return the zone a schedule's ``nowfun`` tells the time in, if it has a name."""
    if schedule.nowfun is None:
        return None
    zone = schedule.nowfun().tzinfo
    # zoneinfo says key, pytz says zone.
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    return str(name) if name else None


def seconds_of(length: timedelta) -> int | float:
    """Return the seconds of a duration, as a whole number where it is one."""
    seconds = length.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def _interval_data(schedule: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"timedelta": seconds_of(schedule.run_every)}
    if schedule.relative:
        data["relative"] = True
    return data


def _crontab_data(schedule: Any) -> dict[str, Any]:
    # What Celery pickles a crontab by is what it was made from.
    written = schedule.__reduce__()[1]
    return dict(_named_fields(dict(zip(CRONTAB_FIELDS, written, strict=True))))


def _named_fields(given: Mapping[str, Any]) -> dict[str, str]:
    """Return crontab fields as text, in their order, without those that are ``*``."""
    fields = {name: _cron_text(name, given[name]) for name in CRONTAB_FIELDS if name in given}
    return {name: text for name, text in fields.items() if text != "*"} or {"minute": "*"}


def _solar_data(schedule: Any) -> dict[str, Any]:
    return {"solar": schedule.event, "latitude": schedule.lat, "longitude": schedule.lon}
