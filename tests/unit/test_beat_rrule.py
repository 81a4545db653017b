"""Rules of RFC 5545 as data: what is due, across changes of the clocks, and at what cost."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import DAILY, FR, MONTHLY, rrule, rruleset, rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from surrealdb_celery_backend.beat import ScheduleEntry
from surrealdb_celery_backend.beat import recurrence as rules
from surrealdb_celery_backend.errors import InvalidSchedule

pytestmark = pytest.mark.unit

UTC = timezone.utc


def due_times(data: dict[str, Any], zone: str, after: str, count: int) -> list[str]:
    """The next due times as wall times with their offsets."""
    where = ZoneInfo(zone)
    rule = rules.recurrence(data, where)
    moment = datetime.fromisoformat(after).astimezone(UTC)
    found: list[str] = []
    while len(found) < count and (due := rule.due_after(moment, moment)) is not None:
        assert due.tzinfo is UTC
        assert due > moment
        found.append(due.astimezone(where).isoformat(timespec="minutes"))
        moment = due
    return found


@pytest.mark.parametrize(
    ("data", "after", "expected"),
    [
        (
            {"rrule": "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9;BYMINUTE=0;BYSECOND=0"},
            "2026-01-01T00:00+01:00",
            ["2026-01-30T09:00+01:00", "2026-02-27T09:00+01:00", "2026-03-27T09:00+01:00", "2026-04-24T09:00+02:00"],
        ),
        (
            {"rrule": "RRULE:FREQ=MONTHLY;BYMONTHDAY=-1", "dtstart": "2026-01-01T18:00"},
            "2026-01-31T18:00+01:00",
            ["2026-02-28T18:00+01:00", "2026-03-31T18:00+02:00"],
        ),
        (
            {"rrule": "freq=weekly;interval=2;byday=mo,we", "dtstart": "2026-03-02T08:00"},
            "2026-03-01T00:00+01:00",
            ["2026-03-02T08:00+01:00", "2026-03-04T08:00+01:00", "2026-03-16T08:00+01:00", "2026-03-18T08:00+01:00"],
        ),
        (
            {"rrule": "FREQ=DAILY;COUNT=3", "dtstart": "2026-03-28T09:00"},
            "2026-03-01T00:00+01:00",
            ["2026-03-28T09:00+01:00", "2026-03-29T09:00+02:00", "2026-03-30T09:00+02:00"],
        ),
        # A date alone is its whole day; with Z the time is UTC, without it the zone's.
        ({"rrule": "FREQ=DAILY;BYHOUR=9;UNTIL=20260102"}, "2026-01-01T00:00+01:00",
         ["2026-01-01T09:00+01:00", "2026-01-02T09:00+01:00"]),
        ({"rrule": "FREQ=DAILY;BYHOUR=9;UNTIL=20260102T080000Z"}, "2026-01-02T00:00+01:00",
         ["2026-01-02T09:00+01:00"]),
        ({"rrule": "FREQ=DAILY;BYHOUR=9;UNTIL=20260102T080000"}, "2026-01-02T00:00+01:00", []),
        # 02:30 is skipped on the day the clocks go forward, and comes twice on the day they go back.
        ({"rrule": "FREQ=DAILY", "dtstart": "2026-03-01T02:30"}, "2026-03-28T12:00+01:00",
         ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"]),
        ({"rrule": "FREQ=DAILY", "dtstart": "2026-03-01T02:30"}, "2026-03-29T03:10+02:00",
         ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"]),
        ({"rrule": "FREQ=DAILY", "dtstart": "2026-03-01T02:30"}, "2026-10-24T12:00+02:00",
         ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        # Shorter rules follow elapsed time.
        ({"rrule": "FREQ=MINUTELY;INTERVAL=30"}, "2026-10-25T02:10+02:00",
         ["2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00"]),
        ({"rrule": "FREQ=HOURLY"}, "2026-03-29T00:30+01:00",
         ["2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"]),
        # Without dtstart the first of January 2001, a Monday at midnight.
        ({"rrule": "FREQ=WEEKLY"}, "2026-01-01T00:00+01:00", ["2026-01-05T00:00+01:00", "2026-01-12T00:00+01:00"]),
        ({"rrule": "FREQ=DAILY", "dtstart": "2600-01-01T09:00"}, "2026-01-01T00:00+01:00", ["2600-01-01T09:00+01:00"]),
        ({"rrule": "FREQ=YEARLY", "dtstart": "9990-01-01"}, "9998-06-01T00:00+02:00", ["9999-01-01T00:00+01:00"]),
        ({"rrule": "FREQ=YEARLY"}, "2026-01-01T00:00+01:00", ["2027-01-01T00:00+01:00"]),
        ({"rrule": "FREQ=MONTHLY", "dtstart": "2026-01-31T00:00+01:00"}, "2026-02-01T00:00+01:00",
         ["2026-03-31T00:00+02:00"]),
        ({"rrule": "FREQ=YEARLY", "dtstart": "2024-02-29T09:00"}, "2026-01-01T00:00+01:00",
         ["2028-02-29T09:00+01:00", "2032-02-29T09:00+01:00"]),
    ],
)  # fmt: skip
def test_what_is_due(data: dict[str, Any], after: str, expected: list[str]) -> None:
    """The next due times are those that the rule means in its zone."""
    assert due_times(data, "Europe/Berlin", after, len(expected) or 1) == expected


FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Rules of every frequency, with parts that go together."""
    frequency = draw(st.sampled_from(FREQUENCIES))
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.integers(1, 40))}"]
    if draw(st.booleans()):
        days = draw(st.lists(st.sampled_from(["MO", "TU", "SA", "SU"]), min_size=1, max_size=2, unique=True))
        parts.append(f"BYDAY={','.join(days)}")
    if draw(st.booleans()):
        parts.append(f"BYMONTH={draw(st.integers(1, 12))}")
    if frequency in ("YEARLY", "MONTHLY", "DAILY") and draw(st.booleans()):
        parts.append(f"BYMONTHDAY={draw(st.sampled_from([1, 15, 28, -1, -3]))}")
    if frequency not in ("HOURLY", "MINUTELY", "SECONDLY") and draw(st.booleans()):
        parts.append(f"BYHOUR={draw(st.integers(0, 23))}")
    if frequency in ("YEARLY", "MONTHLY") and draw(st.booleans()):
        parts.append(f"BYSETPOS={draw(st.sampled_from([1, -1]))}")
    if frequency == "YEARLY" and draw(st.booleans()):
        parts.append(f"WKST={draw(st.sampled_from(['MO', 'SU']))}")
    return ";".join(parts)


@settings(max_examples=300, deadline=None)
@given(
    text=texts(),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2025, 12, 31)),
    after=st.timedeltas(timedelta(-400), timedelta(400)),
)
def test_searching_from_near_finds_what_searching_from_the_start_finds(
    text: str, start: datetime, after: timedelta
) -> None:
    """What is due next is what dateutil finds when it counts all the way from the start."""
    start = start.replace(microsecond=0)
    moment = (start + after).replace(tzinfo=UTC)
    if any(each in text for each in ("SECONDLY", "MINUTELY")):
        moment = (start + after / 100).replace(tzinfo=UTC)
    rule = rrulestr(text, dtstart=start)
    assert isinstance(rule, rrule)
    expected = rule.replace(until=start + timedelta(days=366 * 30)).after(moment.replace(tzinfo=None))
    found = rules.recurrence({"rrule": text, "dtstart": start}, UTC).due_after(moment, moment)
    if expected is None:
        assert found is None or found > (start + timedelta(days=366 * 30)).replace(tzinfo=UTC)
    else:
        assert found == expected.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=SECONDLY",
        "FREQ=MINUTELY;INTERVAL=7",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    ],
)
def test_a_search_takes_no_time_that_grows_with_the_years(text: str) -> None:
    """Neither a rule that counts from long ago nor one that never matches stops a beat.

    Calls are counted, in this thread: how long they take is the machine's to say.
    """
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    rule = rules.recurrence({"rrule": text, "dtstart": "1970-01-01T00:00"}, ZoneInfo("America/New_York"))
    moment = datetime(2026, 11, 1, 5, 59, 30, tzinfo=UTC)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        due = rule.due_after(moment, moment)
    finally:
        sys.setprofile(before)
    # A million where nothing ever matches, a thousand otherwise; there are nearly two billion seconds since 1970.
    assert calls < 2_000_000
    assert (due is None) == ("BYMONTHDAY=30" in text)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"rrule": 5}, "schedule.rrule holds 5: give text such as 'FREQ=WEEKLY"),
        ({"rrule": ""}, "schedule.rrule holds '': give parts such as FREQ=DAILY"),
        ({"rrule": "BYDAY=MO"}, "FREQ is one of YEARLY, MONTHLY"),
        ({"rrule": "FREQ=DAYLY"}, "schedule.rrule holds 'FREQ=DAYLY': FREQ is one of"),
        ({"rrule": "FREQ=DAILY;INTERVAL=0"}, "INTERVAL is a whole number above 0"),
        ({"rrule": "FREQ=DAILY;INTERVAL=2;INTERVAL=3"}, "each once"),
        ({"rrule": "FREQ=DAILY;COUNT=5"}, "COUNT needs dtstart, or use max_runs"),
        ({"rrule": "FREQ=DAILY;COUNT=50000", "dtstart": "2026-01-01"}, "COUNT is 10000 at most"),
        ({"rrule": "FREQ=DAILY;UNTIL=soon"}, "UNTIL is a time such as 20261231T235959Z"),
        ({"rrule": "FREQ=DAILY;BYDAYS=MO"}, "schedule.rrule holds 'FREQ=DAILY;BYDAYS=MO': "),
        ({"rrule": "FREQ=DAILY;BYEASTER=1"}, "BYEASTER is no part of RFC 5545"),
        ({"rrule": "FREQ=DAILY;BYHOUR=x"}, "schedule.rrule holds 'FREQ=DAILY;BYHOUR=x': "),
        ({"rrule": "FREQ=DAILY", "dtstart": "soon"}, "schedule.dtstart holds 'SOON'".replace("SOON", "soon")),
        ({"rrule": "FREQ=DAILY", "hour": "5"}, "schedule has the unknown field 'hour'"),
        ({"rrule": "FREQ=DAILY\nEXDATE:20260101T000000"}, "schedule.rrule holds"),
    ],
)
def test_a_mistake_is_named(data: dict[str, Any], sentence: str) -> None:
    """A wrong rule is refused in one sentence that says what it held."""
    with pytest.raises(InvalidSchedule) as caught:
        rules.recurrence(data, UTC)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_with_a_rule() -> None:
    """A rule counts from the entry's start_time where it has no dtstart; one that never happens is refused."""
    entry = ScheduleEntry(
        "e",
        "t",
        {"rrule": "FREQ=WEEKLY;INTERVAL=2"},
        timezone="Europe/Berlin",
        start_time="2026-03-03T08:00",  # type: ignore[arg-type]
    )
    assert [each.isoformat() for each in entry.next_runs(3, datetime(2026, 1, 1, tzinfo=UTC), UTC)] == [
        "2026-03-03T07:00:00+00:00",
        "2026-03-17T07:00:00+00:00",
        "2026-03-31T06:00:00+00:00",
    ]
    with pytest.raises(InvalidSchedule, match="which never happens"):
        ScheduleEntry("e", "t", {"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"})


def test_a_rule_of_dateutil_becomes_data() -> None:
    """An rrule object is kept as its text, with its start and the zone of it."""
    made = rrule(MONTHLY, byweekday=FR(-1), dtstart=datetime(2026, 1, 1, 9))
    assert rules.schedule_data(made) == (
        {"rrule": "FREQ=MONTHLY;BYDAY=-1FR", "dtstart": "2026-01-01T09:00:00"},
        None,
    )
    start = datetime(2026, 1, 1, 9, tzinfo=ZoneInfo("Asia/Tokyo"))
    in_tokyo: Any = rrule(DAILY, dtstart=start, until=datetime(2026, 1, 3, tzinfo=UTC))
    entry = ScheduleEntry("e", "t", in_tokyo)
    assert entry.timezone == "Asia/Tokyo"
    assert entry.next_runs(9, datetime(2026, 1, 1, tzinfo=UTC), UTC) == [each.astimezone(UTC) for each in in_tokyo][1:]
    with pytest.raises(InvalidSchedule, match="several rules"):
        rules.schedule_data(rruleset())
