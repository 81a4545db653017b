"""Durations and moments as people, code and records give them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo

from ..errors import InvalidSchedule
from .zones import instant_of

#: Units of a written duration such as `1h30m`, in seconds.
DURATION_UNITS = {
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}


def duration(written: str) -> timedelta:
    """Return a duration that a person wrote.

    Args:
        written: Seconds (`15`, `0.5`) or parts with units (`90s`, `1h30m`, `2d`); the
            units are ms, s, m, h, d and w.

    Raises:
        InvalidSchedule: It cannot be read.
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


def length_of(field: str, value: object) -> timedelta:
    """Return a duration that a record, code or a person gave.

    Args:
        field: The field's name, for the message.
        value: Seconds, a timedelta, text such as `1h30m`, or a duration of SurrealQL's.

    Raises:
        InvalidSchedule: It is none of these, or not above zero.
    """
    length: timedelta | None = None
    if isinstance(value, timedelta):
        length = value
    elif isinstance(value, str):
        length = duration(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            length = timedelta(seconds=value)
        except (OverflowError, ValueError):
            length = None
    elif isinstance(getattr(value, "elapsed", None), int):
        # A duration written in SurrealQL (15s) reaches us as the SDK's own type, in nanoseconds.
        length = timedelta(microseconds=value.elapsed // 1000)  # type: ignore[attr-defined]
    if length is None or length <= timedelta(0):
        raise InvalidSchedule(f"{field} holds {value!r}: give a number of seconds above 0")
    return length


def seconds_of(length: timedelta) -> int | float:
    """Return the seconds of a duration, as a whole number where it is one.

    Args:
        length: The duration.
    """
    seconds = length.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def written_duration(length: timedelta) -> str:
    """Return a duration as a person would write it, such as `1h30m`.

    Args:
        length: The duration.
    """
    rest = length // timedelta(milliseconds=1)
    written = ""
    for unit in ("d", "h", "m", "s", "ms"):
        size = round(DURATION_UNITS[unit] * 1000)
        count, rest = divmod(rest, size)
        if count:
            written += f"{count}{unit}"
    return written or "0s"


def read_moment(field: str, value: object) -> datetime:
    """Return a moment that a record, code or a person gave, with an offset if it has one.

    Args:
        field: The field's name, for the message.
        value: A datetime, or text in ISO 8601.

    Returns:
        An instant in UTC, or a naive datetime where no offset was given.

    Raises:
        InvalidSchedule: It is neither.
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
    if moment.tzinfo is None:
        return moment.replace(fold=0)
    try:
        return instant_of(moment, timezone.utc)
    except OverflowError:
        raise InvalidSchedule(f"{field} holds {value!r}: give a time of the years 1 to 9999") from None


def moment_of(field: str, value: object, zone: tzinfo) -> datetime:
    """Return the instant that a record, code or a person gave.

    Args:
        field: The field's name, for the message.
        value: A datetime, or text in ISO 8601; without an offset it is a wall time.
        zone: The zone of wall times.

    Returns:
        An instant in UTC.

    Raises:
        InvalidSchedule: It is neither.
    """
    moment = read_moment(field, value)
    try:
        return instant_of(moment, zone)
    except OverflowError:
        raise InvalidSchedule(f"{field} holds {value!r}: give a time of the years 1 to 9999") from None
