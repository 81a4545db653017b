"""Schedules as data: from data to a rule, and from Celery's and dateutil's objects to data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any

from celery import schedules as celery_schedules
from dateutil.rrule import rrule, rruleset

from ...errors import InvalidSchedule
from ..times import length_of, moment_of, read_moment, seconds_of
from ..wording import nearest
from ..zones import exact_zone, zone_name
from .base import Recurrence
from .clocked import Clocked
from .crontab import Crontab
from .crontab_fields import CRONTAB_FIELDS, expression_fields, named_fields
from .interval import Interval
from .rrule import RRule
from .solar import Solar

#: The kinds of schedules that a field names; any other is a crontab's fields.
KINDS = ("timedelta", "crontab", "solar", "clocked", "rrule")


def recurrence(schedule: object, zone: tzinfo, start: datetime | None = None) -> Recurrence:
    """Return the rule that a schedule's data stands for.

    Args:
        schedule: `{"timedelta": seconds}` (also `"relative": True`), crontab fields,
            `{"crontab": "0 9 15 * *"}`, `{"rrule": "FREQ=…"}` (also `"dtstart": time`),
            `{"solar": event, "latitude": …, "longitude": …}` or `{"clocked": time}`.
        zone: The zone of wall times.
        start: Where an `rrule` without `dtstart` counts from.

    Raises:
        InvalidSchedule: It is none of these; the message says what is wrong.
    """
    if not isinstance(schedule, Mapping) or not schedule:
        raise InvalidSchedule(
            f"schedule holds {schedule!r}: give an object such as {{'timedelta': 15}} or {{'minute': '0', 'hour': '9'}}"
        )
    zone = exact_zone(zone)
    if "timedelta" in schedule:
        return _interval(schedule, zone)
    if "clocked" in schedule:
        _only(schedule, ("clocked",))
        return Clocked(moment_of("schedule.clocked", schedule["clocked"], zone))
    if "solar" in schedule:
        return _solar(schedule)
    if "rrule" in schedule:
        return _rrule(schedule, zone, start)
    if "crontab" in schedule:
        _only(schedule, ("crontab",))
        return Crontab(expression_fields(schedule["crontab"]), zone)
    _only(schedule, CRONTAB_FIELDS)
    return Crontab(named_fields(schedule), zone)


def normal_data(data: Mapping[str, Any], rule: Recurrence, *, zone_is_known: bool) -> dict[str, Any]:
    """Return a schedule's data in the one form in which it is kept.

    Args:
        data: The data.
        rule: The rule that :func:`recurrence` made of it.
        zone_is_known: Whether it was read in the entry's zone, so that a time without an
            offset has one from now on.
    """
    if isinstance(rule, Interval):
        return {**data, "timedelta": seconds_of(rule.every)}
    if isinstance(rule, Crontab):
        return dict(rule.fields)
    if isinstance(rule, Solar):
        return {"solar": str(rule.event), "latitude": rule.latitude, "longitude": rule.longitude}
    if isinstance(rule, Clocked):
        moment = read_moment("schedule.clocked", data["clocked"])
        return {"clocked": (rule.at if zone_is_known or moment.tzinfo else moment).isoformat()}
    normal = dict(data)
    if "dtstart" in normal:
        # Without an offset it is a wall time, and stays one.
        normal["dtstart"] = read_moment("schedule.dtstart", normal["dtstart"]).isoformat()
    return normal


def schedule_data(schedule: object) -> tuple[dict[str, Any], str | None]:
    """Return a schedule of Celery's or dateutil's as data.

    Args:
        schedule: A schedule as `beat_schedule` and `add_periodic_task` take it: seconds, a timedelta, a
            Celery schedule object; an `rrule` of dateutil; or data already.

    Returns:
        The data, and the name of the zone that the object is bound to, if any. A Celery
        schedule of another class gives `{"code": its repr}`.

    Raises:
        InvalidSchedule: It is no schedule at all.
    """
    if isinstance(schedule, Mapping):
        return dict(schedule), None
    if isinstance(schedule, (int, float)) and not isinstance(schedule, bool):
        return {"timedelta": schedule}, None
    if isinstance(schedule, timedelta):
        return {"timedelta": seconds_of(schedule)}, None
    if isinstance(schedule, rrule):
        return _rrule_data(schedule)
    if isinstance(schedule, rruleset):
        raise InvalidSchedule("schedule holds several rules of dateutil: give one rrule, and an entry for each other")
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


def _interval(schedule: Mapping[str, Any], zone: tzinfo) -> Interval:
    _only(schedule, ("timedelta", "relative"))
    relative = schedule.get("relative", False)
    if not isinstance(relative, bool):
        raise InvalidSchedule(f"schedule.relative holds {relative!r}: give true or false")
    every = length_of("schedule.timedelta", schedule["timedelta"])
    return Interval(every, zone if relative else None)


def _solar(schedule: Mapping[str, Any]) -> Solar:
    _only(schedule, ("solar", "latitude", "longitude"))
    missing = [name for name in ("latitude", "longitude") if name not in schedule]
    if missing:
        raise InvalidSchedule(f"schedule.{missing[0]} is missing: give it in degrees")
    return Solar(schedule["solar"], schedule["latitude"], schedule["longitude"])


def _rrule(schedule: Mapping[str, Any], zone: tzinfo, start: datetime | None) -> RRule:
    _only(schedule, ("rrule", "dtstart"))
    text = schedule["rrule"]
    if not isinstance(text, str):
        raise InvalidSchedule(f"schedule.rrule holds {text!r}: give text such as 'FREQ=WEEKLY;BYDAY=MO;BYHOUR=9'")
    if schedule.get("dtstart") is not None:
        start = read_moment("schedule.dtstart", schedule["dtstart"])
    return RRule(text, zone, start)


def _only(schedule: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in schedule:
        if name not in known:
            others = KINDS if known == CRONTAB_FIELDS else ()
            raise InvalidSchedule(f"schedule has the unknown field {name!r}{nearest(str(name), (*known, *others))}")


def _zone_of(schedule: Any) -> str | None:
    """Return the zone a schedule's `nowfun` tells the time in, if it has a name."""
    if schedule.nowfun is None:
        return None
    zone = schedule.nowfun().tzinfo
    return None if zone is None else zone_name(zone)


def _interval_data(schedule: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"timedelta": seconds_of(schedule.run_every)}
    if schedule.relative:
        data["relative"] = True
    return data


def _crontab_data(schedule: Any) -> dict[str, Any]:
    # Celery pickles a crontab by the arguments it was made from.
    written = schedule.__reduce__()[1]
    return dict(named_fields(dict(zip(CRONTAB_FIELDS, written, strict=True))))


def _solar_data(schedule: Any) -> dict[str, Any]:
    return {"solar": schedule.event, "latitude": schedule.lat, "longitude": schedule.lon}


def _rrule_data(rule: rrule) -> tuple[dict[str, Any], str | None]:
    """Return a rule of dateutil's as data: its text is `DTSTART:20260101T090000`, then `RRULE:…`."""
    lines = dict(line.split(":", 1) for line in str(rule).splitlines())
    start = datetime.strptime(lines["DTSTART"], "%Y%m%dT%H%M%S")  # noqa: DTZ007 - a wall time
    first = next(iter(rule), None)
    zone = None if first is None or first.tzinfo is None else zone_name(first.tzinfo)
    if zone is not None:
        # dateutil leaves out that UNTIL is in UTC where the start has a zone.
        lines["RRULE"] = re.sub(r"(UNTIL=\d{8}T\d{6})(?!Z)", r"\1Z", lines["RRULE"])
    return {"rrule": lines["RRULE"], "dtstart": start.isoformat()}, zone
