"""Time zones: which one is meant, by its name, for the objects of any library.

Only `zoneinfo.ZoneInfo` and `datetime.timezone` follow the rules of `datetime` for wall times
(PEP 495). Zones of pytz, dateutil and Celery itself do not: `datetime(…, tzinfo=…)` gives local mean
time with pytz, dateutil shifts skipped times the other way, and `celery.utils.time.LocalTimezone` of
Celery 5.4 is wrong west of Greenwich. So a zone is taken by its name, or refused.
"""

from __future__ import annotations

import functools
import os
import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import TZPATH, ZoneInfo, ZoneInfoNotFoundError

from celery import Celery
from celery.utils.time import LocalTimezone
from dateutil import tz as dateutil_tz

from ..errors import InvalidSchedule, SettingsError

#: Zones whose wall times follow PEP 495: used as they are.
EXACT_ZONES = (ZoneInfo, timezone)

#: The message for a zone without a name of the IANA's.
HINT = "give an IANA name such as 'Europe/Berlin' or an offset such as '+05:30'"

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?([0-5]\d)", re.IGNORECASE)


def time_zone(name: object) -> tzinfo:
    """Return a time zone by its name.

    Args:
        name: An IANA name such as `Europe/Berlin`, an offset such as `+05:30`, or a
            zone object of any library that has one of these.

    Raises:
        InvalidSchedule: There is no such zone.
    """
    if isinstance(name, tzinfo):
        return _exact("timezone", name)
    if not isinstance(name, str) or not name:
        raise InvalidSchedule(f"timezone holds {name!r}: {HINT}, or leave it out")
    zone = _offset_zone(name) or _named_zone(name)
    if zone is None:
        raise InvalidSchedule(f"timezone holds {name!r}, which is no IANA zone: {HINT}")
    return zone


def zone_name(zone: tzinfo) -> str | None:
    """Return the name by which :func:`time_zone` finds a zone again.

    Args:
        zone: A zone object of any library.

    Returns:
        An IANA name or an offset; `None` for a zone that has neither.
    """
    try:
        exact = exact_zone(zone)
    except InvalidSchedule:
        return None
    if isinstance(exact, ZoneInfo):
        return exact.key if exact.key and _named_zone(exact.key) else None
    offset = exact.utcoffset(None)
    return "UTC" if not offset else _offset_name(offset)


def exact_zone(zone: tzinfo) -> tzinfo:
    """Return the zone whose wall times are right that a zone object stands for.

    Args:
        zone: A zone object of any library.

    Returns:
        A `ZoneInfo` or a fixed offset.

    Raises:
        InvalidSchedule: It has no name that `zoneinfo` knows and no fixed offset.
    """
    return zone if type(zone) in EXACT_ZONES else _exact("timezone", zone)


def app_zone(app: Celery) -> tzinfo:
    """Return the time zone of an app, for entries that name none.

    It is Celery's `timezone`; where that is unset, UTC, or with `enable_utc` off this host's zone.

    Args:
        app: The Celery app.

    Raises:
        SettingsError: The zone has no name that `zoneinfo` knows.
    """
    try:
        zone = app.timezone
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(f"Celery's timezone holds {app.conf.timezone!r}, which is no IANA zone: {HINT}") from error
    try:
        return exact_zone(zone)
    except InvalidSchedule as error:
        raise SettingsError(f"Celery's {error}") from error


def as_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a wall time.

    Args:
        wall: A naive datetime.
        zone: The zone it is read in.

    Returns:
        The instant in UTC: of a repeated wall time the first, of a skipped one as much
        later as the clocks were moved.
    """
    # fold=0 reads a skipped time with the offset before the change, which is both.
    return wall.replace(tzinfo=exact_zone(zone), fold=0).astimezone(timezone.utc)


def wall_time(instant: datetime, zone: tzinfo) -> datetime:
    """Return an instant in a zone, to be shown.

    Args:
        instant: An aware datetime.
        zone: The zone.

    Returns:
        The same instant; in UTC where its wall time is not of the years 1 to 9999.
    """
    try:
        return instant.astimezone(zone)
    except OverflowError:
        return instant.astimezone(timezone.utc)


def instant_of(moment: datetime, zone: tzinfo) -> datetime:
    """Return the instant of a datetime by the IANA's rules, not by those of its own zone object.

    Args:
        moment: A datetime.
        zone: The zone that it is read in if it has none itself.

    Returns:
        The instant in UTC.
    """
    own = moment.tzinfo
    if own is None:
        return as_instant(moment, zone)
    instant = moment.astimezone(timezone.utc)
    if type(own) in EXACT_ZONES:
        return instant
    try:
        exact = exact_zone(own)
    except InvalidSchedule:
        return instant  # its offset is all there is to go by
    if instant.astimezone(exact).replace(tzinfo=None) == moment.replace(tzinfo=None, fold=0):
        return instant
    # As `datetime(2026, 1, 1, 9, tzinfo=pytz.timezone("Europe/Berlin"))`: 9:00 is what is meant.
    return as_instant(moment.replace(tzinfo=None), exact)


def _exact(field: str, zone: tzinfo) -> tzinfo:
    if isinstance(zone, (LocalTimezone, dateutil_tz.tzlocal)):
        return _host_zone()
    if type(zone) is ZoneInfo:
        return zone
    for name in _names(zone):
        named = _named_zone(name)
        if named is not None:
            return named
    offset = _fixed_offset(zone)
    if offset is not None:
        return timezone(offset)
    raise InvalidSchedule(f"{field} holds {zone!r}, a time zone without a name: {HINT}")


def _names(zone: Any) -> list[str]:
    """Return what a zone object may be called: zoneinfo says key, pytz zone, pendulum name."""
    found = [getattr(zone, attribute, None) for attribute in ("key", "zone", "name")]
    if isinstance(zone, dateutil_tz.tzfile):
        # dateutil 2 has no public attribute for it, 4 has `key`: tzfile('/usr/share/zoneinfo/Europe/Berlin').
        match = re.fullmatch(r"tzfile\('(.*)'\)", repr(zone))
        path = match[1] if match else ""
        folders = [folder.rstrip("/") + "/" for folder in (*TZPATH, *getattr(dateutil_tz, "TZPATHS", ()))]
        found += [path, *(path[len(folder) :] for folder in folders if path.startswith(folder))]
    return [name for name in found if isinstance(name, str) and name]


@functools.lru_cache(maxsize=1024)
def _named_zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _offset_zone(name: str) -> tzinfo | None:
    match = _OFFSET.fullmatch(name)
    if match is None:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if offset >= timedelta(days=1):
        return None
    return timezone(-offset if match[1] == "-" else offset)


def _offset_name(offset: timedelta) -> str | None:
    minutes, rest = divmod(abs(offset), timedelta(minutes=1))
    return None if rest else f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02}:{minutes % 60:02}"


def _fixed_offset(zone: tzinfo) -> timedelta | None:
    """Return the offset of a zone that has the same one always, by what it says itself."""
    try:
        offset = zone.utcoffset(None)
        seasons = {zone.utcoffset(datetime(2025, month, 1)) for month in (1, 7)}  # noqa: DTZ001 - wall times
    except Exception:  # another library's class may raise anything
        return None
    return offset if seasons == {offset} else None


def _host_zone() -> tzinfo:
    """Return the zone of this host."""
    import tzlocal

    try:
        return exact_zone(tzlocal.get_localzone())
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        import time

        if not time.daylight:  # TZ may hold a rule instead of a name, such as <+0530>-5:30
            return timezone(timedelta(seconds=-time.timezone))
        raise InvalidSchedule(
            f"timezone is not set, and this host's zone (TZ={os.environ.get('TZ')!r}) has no name: {HINT}"
        ) from error
