"""Times and durations as people write and read them."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from surrealdb_celery_backend.cli import times

pytestmark = pytest.mark.unit

BERLIN = ZoneInfo("Europe/Berlin")
#: A Thursday, 13:30 in Berlin.
NOW = datetime(2026, 11, 26, 12, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", "2026-11-26T12:00:00"),
        ("1h30m", "2026-11-26T11:00:00"),
        ("7d", "2026-11-19T12:30:00"),
        ("1.5h", "2026-11-26T11:00:00"),
        ("now", "2026-11-26T12:30:00"),
        ("today", "2026-11-25T23:00:00"),
        ("yesterday", "2026-11-24T23:00:00"),
        ("13:00", "2026-11-26T12:00:00"),
        ("14:00", "2026-11-25T13:00:00"),
        ("2026-11-20", "2026-11-19T23:00:00"),
        ("2026-07-20T10:00", "2026-07-20T08:00:00"),
        ("2026-11-20 10:00:30", "2026-11-20T09:00:30"),
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00"),
        ("2026-11-20T10:00:00+05:30", "2026-11-20T04:30:00"),
    ],
)
def test_times_are_read(text: str, expected: str) -> None:
    """Relative times count from now; others without an offset are the app's wall time."""
    assert times.moment(text, NOW, BERLIN) == datetime.fromisoformat(expected).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "12:60", "2026-13-01", "5", "-1h", "1x", "99999999999999d", "1h ago"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """The message says what can be written."""
    with pytest.raises(times.NotATime, match="is no time; write 30m, 2h"):
        times.moment(text, NOW, BERLIN)


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("1h30m", 5400), ("2w", 1_209_600)]
)
def test_durations_are_read(text: str, expected: float) -> None:
    """Seconds, or with units."""
    assert times.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-5", "5 minutes", "h", "1h30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The message says what can be written."""
    with pytest.raises(times.NotATime, match="is no duration"):
        times.seconds(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""), (0, "0 s"), (0.00034, "0.34 ms"), (0.34, "340 ms"), (0.9999, "1 s"), (12.51, "12.5 s"),
        (59.96, "1 m 0 s"), (200, "3 m 20 s"), (7500, "2 h 5 m"), (273_600, "3 d 4 h"), (-0.5, "-500 ms"),
    ],
)  # fmt: skip
def test_durations_are_shown(value: float | None, expected: str) -> None:
    """Three figures and a unit, or two units."""
    assert times.duration(value) == expected
