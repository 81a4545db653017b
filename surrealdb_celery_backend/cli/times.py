"""Times as people write them: `2h`, `yesterday`, `14:30`, `2026-11-26T14:30+01:00`. No I/O here."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, timezone, tzinfo

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
#: The forms of a time, as error messages list them.
EXAMPLES = "30m, 2h, 7d (so long ago), 14:30, today, yesterday, 2026-11-26 or 2026-11-26T14:30+01:00"


class NotATime(ValueError):
    """A text is no time; the message says what can be written."""


def seconds(text: str) -> float:
    """A duration, such as `90`, `90s`, `1h30m`, as seconds.

    Raises:
        NotATime: It is none.
    """
    stripped = text.strip().lower()
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped):
        return float(stripped)
    if not _AGO.fullmatch(stripped):
        raise NotATime(f"{text!r} is no duration; write seconds, or with units such as 90s, 1h30m, 7d")
    return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(stripped))


def moment(text: str, now: datetime, zone: tzinfo) -> datetime:
    """A time.

    Args:
        text: The text as written.
        now: The time now.
        zone: The zone of a time that has none.

    Raises:
        NotATime: It is none.
    """
    stripped = text.strip()
    try:
        found = _relative(stripped.lower(), now.astimezone(zone)) or _absolute(stripped, zone)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise NotATime(f"{text!r} is no time; write {EXAMPLES}")
    return found.astimezone(timezone.utc)


def _relative(text: str, now: datetime) -> datetime | None:
    if _AGO.fullmatch(text):
        return now - timedelta(seconds=seconds(text))
    midnight = datetime.combine(now.date(), time(), now.tzinfo)
    if text == "now":
        return now
    if text == "today":
        return midnight
    if text == "yesterday":
        return datetime.combine(now.date() - timedelta(days=1), time(), now.tzinfo)
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        return None
    hour, minute, second = (int(part or 0) for part in clock.groups())
    at = datetime.combine(now.date(), time(hour, minute, second), now.tzinfo)
    # Of today, or of yesterday where that is still to come.
    return at if at <= now else datetime.combine(now.date() - timedelta(days=1), at.timetz())


def _absolute(text: str, zone: tzinfo) -> datetime:
    # Python before 3.11 reads no Z.
    found = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)


def shown(at: datetime | None, zone: tzinfo) -> str:
    """A time for people: to the second, in a zone."""
    return "" if at is None else at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def duration(value: float | None) -> str:
    """Seconds for people: `340 ms`, `12.5 s`, `3 m 20 s`, `2 h 5 m`, `3 d 4 h`."""
    if value is None:
        return ""
    if value < 0:
        return f"-{duration(-value)}"
    if value < 0.9995:
        return f"{value * 1000:.3g} ms" if value else "0 s"
    if value < 59.95:
        return f"{value:.3g} s"
    whole = round(value)
    for upper, unit, name, lower, lower_name in ((3600, 60, "m", 1, "s"), (86_400, 3600, "h", 60, "m")):
        if whole < upper:
            return f"{whole // unit} {name} {whole % unit // lower} {lower_name}"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
