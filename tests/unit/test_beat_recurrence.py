"""When an entry is due: intervals, crontabs across changes of the clocks, solar and single times."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import BaseSchedule, crontab, schedule

from surrealdb_celery_backend.beat import recurrence as rules
from surrealdb_celery_backend.beat import times
from surrealdb_celery_backend.errors import InvalidSchedule

pytestmark = pytest.mark.unit

UTC = timezone.utc


def due_times(data: dict[str, Any], zone: str, after: str, count: int) -> list[str]:
    """Return the next due times as wall times with their offsets."""
    where = ZoneInfo(zone)
    rule = rules.recurrence(data, where)
    moment = datetime.fromisoformat(after)
    found = []
    for _ in range(count):
        due = rule.due_after(moment, moment)
        assert due is not None
        assert due.tzinfo is UTC
        assert due > moment
        found.append(due.astimezone(where).isoformat(timespec="minutes"))
        moment = due
    return found


@pytest.mark.parametrize(
    ("zone", "after", "expected"),
    [
        # 02:30 does not exist on the day the clocks go forward: it is as much later as they moved.
        (
            "America/New_York",
            "2026-03-07T12:00:00-05:00",
            ["2026-03-08T03:30-04:00", "2026-03-09T02:30-04:00"],
        ),
        (
            "Europe/Berlin",
            "2026-03-28T12:00:00+01:00",
            ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"],
        ),
        # Lord Howe moves by half an hour, from 02:00 to 02:30: 02:30 exists.
        (
            "Australia/Lord_Howe",
            "2026-10-03T12:00:00+10:30",
            ["2026-10-04T02:30+11:00", "2026-10-05T02:30+11:00"],
        ),
        # It occurs twice on the day they go back: once is enough.
        (
            "Europe/Berlin",
            "2026-10-24T12:00:00+02:00",
            ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"],
        ),
        # No change of the clocks ever.
        (
            "Asia/Kolkata",
            "2026-03-28T12:00:00+05:30",
            ["2026-03-29T02:30+05:30", "2026-03-30T02:30+05:30"],
        ),
    ],
)
def test_a_named_hour_fires_once_a_day(zone: str, after: str, expected: list[str]) -> None:
    """A crontab with a named hour fires exactly once on a day of a clock change."""
    assert due_times({"minute": "30", "hour": "2"}, zone, after, 2) == expected


def test_a_skipped_midnight_fires_when_the_day_begins() -> None:
    """In Santiago a day can begin at 01:00: what is due at 00:00 fires then."""
    assert due_times({"minute": "0", "hour": "0"}, "America/Santiago", "2026-09-05T12:00:00-04:00", 2) == [
        "2026-09-06T01:00-03:00",
        "2026-09-07T00:00-03:00",
    ]


def test_several_skipped_times_that_fall_together_fire_once() -> None:
    """02:30 and 03:30 are the same instant on the day 02:30 is skipped."""
    assert due_times({"minute": "30", "hour": "2,3"}, "Europe/Berlin", "2026-03-28T12:00:00+01:00", 3) == [
        "2026-03-29T03:30+02:00",
        "2026-03-30T02:30+02:00",
        "2026-03-30T03:30+02:00",
    ]


@pytest.mark.parametrize(
    ("zone", "after", "expected"),
    [
        (
            "Europe/Berlin",
            "2026-10-25T02:10:00+02:00",
            ["2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00"],
        ),
        (
            "Europe/Berlin",
            "2026-03-29T01:10:00+01:00",
            ["2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"],
        ),
        # From 02:00 back to 01:30.
        (
            "Australia/Lord_Howe",
            "2026-04-05T01:10:00+11:00",
            ["2026-04-05T01:30+11:00", "2026-04-05T01:30+10:30", "2026-04-05T02:00+10:30"],
        ),
    ],
)
def test_every_hour_follows_elapsed_time(zone: str, after: str, expected: list[str]) -> None:
    """A crontab for every hour goes on at its distance through a repeated or a skipped hour."""
    assert due_times({"minute": "*/30"}, zone, after, 3) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Africa/Casablanca"])
@pytest.mark.parametrize(
    "fields",
    [
        {"minute": "*/7"},
        {"minute": "5,35", "hour": "1-4"},
        {"minute": "0", "hour": "*/2", "day_of_week": "sun"},
        {"minute": "59", "hour": "23", "day_of_month": "1-10"},
        {"minute": "0", "hour": "0", "month_of_year": "4,10", "day_of_week": "mon-fri"},
    ],
)
def test_due_times_are_those_found_minute_by_minute(zone: str, fields: dict[str, str]) -> None:
    """Over a year, the due times are those that looking at every single minute finds."""
    where = ZoneInfo(zone)
    rule = rules.recurrence(fields, where)
    assert isinstance(rule, rules.Crontab)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    end = datetime(2027, 1, 1, tzinfo=UTC)
    expected = set()
    minute = start
    if len(rule.hours) == 24:
        while minute < end:
            local = minute.astimezone(where)
            if (
                local.minute in rule.minutes
                and local.month in rule.sets.months
                and local.day in rule.sets.days
                and local.isoweekday() % 7 in rule.sets.weekdays
            ):
                expected.add(minute)
            minute += timedelta(minutes=1)
    else:
        wall = datetime(2025, 12, 31, tzinfo=where)
        while wall < datetime(2027, 1, 2, tzinfo=where):  # in one zone wall times are compared
            if (
                wall.minute in rule.minutes
                and wall.hour in rule.hours
                and wall.month in rule.sets.months
                and wall.day in rule.sets.days
                and wall.isoweekday() % 7 in rule.sets.weekdays
            ):
                expected.add(wall.replace(tzinfo=where, fold=0).astimezone(UTC))
            wall += timedelta(minutes=1)
    found = []
    moment = start - timedelta(minutes=1)
    while (due := rule.due_after(moment, moment)) is not None and due < end:
        found.append(due)
        moment = due
    assert found == sorted(each for each in expected if start <= each < end)


def test_a_leap_day_is_found_years_ahead() -> None:
    """29 February on a Monday comes in 2044."""
    assert due_times(
        {"minute": "0", "hour": "9", "day_of_month": "29", "month_of_year": "2", "day_of_week": "mon"},
        "UTC",
        "2026-01-01T00:00:00+00:00",
        1,
    ) == ["2044-02-29T09:00+00:00"]


@pytest.mark.parametrize(
    ("day_of_month", "expected"),
    [
        ("L", ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]),
        ("last", ["2026-01-31", "2026-02-28"]),
        ("15,l", ["2026-01-15", "2026-01-31", "2026-02-15", "2026-02-28"]),
        ("L-2", ["2026-01-29", "2026-02-26", "2026-03-29"]),
        ("L-30", ["2026-01-01", "2026-03-01", "2026-05-01"]),
        ("L,31", ["2026-01-31", "2026-02-28"]),
    ],
)
def test_days_are_counted_from_the_end_of_the_month(day_of_month: str, expected: list[str]) -> None:
    """`L` is the last day of a month, `L-n` so many days before it."""
    data = {"minute": "0", "hour": "9", "day_of_month": day_of_month}
    found = due_times(data, "Europe/Berlin", "2026-01-01T00:00:00+01:00", len(expected))
    if day_of_month == "L-30":
        found = due_times(data, "Europe/Berlin", "2025-12-31T23:00:00+01:00", len(expected))
    assert [each[:10] for each in found] == expected
    assert {each[11:16] for each in found} == {"09:00"}


def test_the_last_day_of_a_leap_year() -> None:
    """The last day of February follows the year; with a weekday both must fit."""
    assert due_times({"day_of_month": "L", "month_of_year": "2", "hour": "0", "minute": "0"}, "UTC",
                     "2027-12-01T00:00:00+00:00", 2) == ["2028-02-29T00:00+00:00", "2029-02-28T00:00+00:00"]  # fmt: skip
    assert due_times({"day_of_month": "L", "day_of_week": "sun", "hour": "0", "minute": "0"}, "UTC",
                     "2026-01-01T00:00:00+00:00", 1) == ["2026-05-31T00:00+00:00"]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "same_as"),
    [
        ("7", "0"),
        (7, "sun"),
        ([6, 7], "sat,sun"),
        ("5-7", "fri,sat,sun"),
        ("1-7", "*"),
        ("0-7", "*"),
        ("7-2", "sun,mon,tue"),
        ("fri-7", "5,6,0"),
        ("1-7/2", "1,3,5,0"),
        ("1,7", "0,1"),
    ],
)
def test_sunday_can_be_seven(written: object, same_as: str) -> None:
    """7 is Sunday wherever a day of the week can stand, as in other crons."""
    start = "2026-01-01T00:00:00+00:00"
    common = {"minute": "0", "hour": "9"}
    assert due_times({**common, "day_of_week": written}, "UTC", start, 10) == due_times(
        {**common, "day_of_week": same_as}, "UTC", start, 10
    )
    assert rules.expression_fields("0 9 * * 7") == {**common, "day_of_week": "7"}


def test_an_interval_counts_from_its_anchor() -> None:
    """An interval's due times are the anchor plus whole intervals, whoever looks, and whenever."""
    rule = rules.recurrence({"timedelta": 15}, UTC)
    anchor = datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC)
    assert rule.due_after(anchor, anchor) == anchor + timedelta(seconds=15)
    assert rule.due_after(anchor + timedelta(seconds=44.9), anchor) == anchor + timedelta(seconds=45)
    assert rule.due_after(anchor + timedelta(seconds=45), anchor) == anchor + timedelta(seconds=60)
    # From before its anchor, as for an entry with a start time: first at the anchor.
    assert rule.due_after(anchor - timedelta(microseconds=1), anchor) == anchor


@pytest.mark.parametrize(
    ("seconds", "after", "expected"),
    [
        (86400, "2026-03-28T12:00:00+01:00", "2026-03-29T00:00+01:00"),
        (86400, "2026-03-29T00:00:00+01:00", "2026-03-30T00:00+02:00"),
        (3600, "2026-03-29T01:20:00+01:00", "2026-03-29T03:00+02:00"),
        (5400, "2026-03-28T12:20:30+01:00", "2026-03-28T13:00+01:00"),
        (60, "2026-03-28T12:20:30+01:00", "2026-03-28T12:21+01:00"),
    ],
)
def test_a_relative_interval_is_rounded_down(seconds: int, after: str, expected: str) -> None:
    """With ``relative`` the due times are full days, hours or minutes of the zone, as Celery has it."""
    assert due_times({"timedelta": seconds, "relative": True}, "Europe/Berlin", after, 1) == [expected]


def test_a_single_time_comes_once() -> None:
    """A clocked schedule is due at its time and never again; without an offset the zone's time is meant."""
    rule = rules.recurrence({"clocked": "2026-12-24T18:00:00"}, ZoneInfo("Europe/Berlin"))
    before = datetime(2026, 12, 1, tzinfo=UTC)
    due = rule.due_after(before, before)
    assert due == datetime(2026, 12, 24, 17, tzinfo=UTC)
    assert rule.due_after(due, before) is None


def test_the_sun_sets_once_a_day() -> None:
    """A solar schedule is due once a day, at about the time it should be."""
    pytest.importorskip("ephem")
    rule = rules.recurrence({"solar": "sunset", "latitude": 52.5, "longitude": 13.4}, UTC)
    moment = datetime(2026, 6, 20, 12, tzinfo=UTC)
    found = []
    for _ in range(3):
        due = rule.due_after(moment, moment)
        assert due is not None
        moment = due
        found.append(moment)
    assert [each.date().day for each in found] == [20, 21, 22]
    assert all(each.hour == 19 and 25 < each.minute < 40 for each in found)


def test_where_the_sun_does_not_set_nothing_is_due() -> None:
    """Through the polar day there is no sunset; at the pole itself none is found in years."""
    pytest.importorskip("ephem")
    june = datetime(2026, 6, 1, tzinfo=UTC)
    svalbard = rules.recurrence({"solar": "sunset", "latitude": 78.2, "longitude": 15.6}, UTC)
    first = svalbard.due_after(june, june)
    assert first is not None
    assert (first.month, first.day) == (8, 24)
    pole = rules.recurrence({"solar": "sunrise", "latitude": 90, "longitude": 0}, UTC)
    assert pole.due_after(june, june) is None


def test_an_interval_ends_with_the_calendar() -> None:
    """What would be due after the year 9999 is not due any more."""
    rule = rules.recurrence({"timedelta": 5000 * 365 * 86400}, UTC)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first = rule.due_after(start, start)
    assert first is not None
    assert rule.due_after(first, first) is None
    with pytest.raises(InvalidSchedule, match="'99999999999d' is too long"):
        times.duration("99999999999d")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "schedule holds None: give an object"),
        ({}, "schedule holds {}: give an object"),
        ({"timedelta": 0}, "schedule.timedelta holds 0: give a number of seconds above 0"),
        ({"timedelta": True}, "schedule.timedelta holds True"),
        ({"timedelta": float("nan")}, "schedule.timedelta holds nan"),
        ({"timedelta": "soon"}, "'soon' is no duration: give seconds, such as 15, or units"),
        ({"timedelta": 5, "relative": "yes"}, "schedule.relative holds 'yes': give true or false"),
        ({"hour": "25"}, "schedule.hour holds '25': Invalid end range: 25 > 23"),
        ({"minute": "*/0"}, "schedule.minute holds '*/0'"),
        ({"minute": ""}, "schedule.minute holds ''"),
        ({"day_of_week": "8"}, "schedule.day_of_week holds '8'"),
        ({"day_of_week": "7-9"}, "schedule.day_of_week holds '7-9'"),
        ({"day_of_week": "7-soon"}, "schedule.day_of_week holds '7-soon'"),
        ({"day_of_week": "*/0"}, "schedule.day_of_week holds '*/0'"),
        ({"day_of_month": "L-31"}, "schedule.day_of_month holds 'L-31': no month has a day L-31"),
        ({"day_of_month": "LW"}, "schedule.day_of_month holds 'LW'"),
        ({"day_of_month": "L,"}, "schedule.day_of_month holds 'L,'"),
        ({"minute": [1, "a"]}, "schedule.minute holds '1,a'"),
        ({"hour": None}, "schedule.hour holds None: give text such as '*/15'"),
        ({"minutes": "5"}, "schedule has the unknown field 'minutes'; did you mean 'minute'?"),
        ({"timedelta": 5, "hour": "3"}, "schedule has the unknown field 'hour'"),
        ({"crontab": "0 9"}, "schedule.crontab holds '0 9': give five fields"),
        ({"clocked": "tomorrow"}, "schedule.clocked holds 'tomorrow': give a time such as"),
        ({"solar": "sunset"}, "schedule.latitude is missing"),
    ],
)
def test_a_mistake_is_named(data: object, sentence: str) -> None:
    """A wrong schedule is refused in one sentence that names the field and what it held."""
    with pytest.raises(InvalidSchedule) as caught:
        rules.recurrence(data, UTC)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "data", "zone"),
    [
        (15, {"timedelta": 15}, None),
        (0.5, {"timedelta": 0.5}, None),
        (timedelta(minutes=5), {"timedelta": 300}, None),
        (schedule(3600, relative=True), {"timedelta": 3600, "relative": True}, None),
        (crontab(minute=0, hour="9", day_of_month="15"), {"minute": "0", "hour": "9", "day_of_month": "15"}, None),
        (crontab(minute=[30, 0]), {"minute": "0,30"}, None),
        (crontab(minute=0, hour=range(8, 11)), {"minute": "0", "hour": "8,9,10"}, None),
        (crontab(), {"minute": "*"}, None),
        (
            crontab(minute=0, hour=9, nowfun=lambda: datetime.now(ZoneInfo("Asia/Tokyo"))),
            {"minute": "0", "hour": "9"},
            "Asia/Tokyo",
        ),
    ],
)
def test_schedules_of_celery_become_data(given: object, data: dict[str, Any], zone: str | None) -> None:
    """What ``beat_schedule`` holds becomes readable data, with the zone its clock tells."""
    assert rules.schedule_data(given) == (data, zone)


def test_a_class_of_the_project_stays_in_code() -> None:
    """A schedule object of another class is said to be in code, and is asked for its own due times."""

    class Odd(schedule):
        pass

    data, _ = rules.schedule_data(Odd(60))
    assert set(data) == {"code"}
    # Its address is another one in each process, and is not to make it another schedule.
    bare, _ = rules.schedule_data(BaseSchedule())
    assert bare == {"code": "<celery.schedules.BaseSchedule object>"}
    before = datetime.now(UTC)
    due = rules.InCode(Odd(60)).due_after(before, before)
    # It asks for the time more than once; what passed in between is not to count. Fractions are rounded up.
    took = datetime.now(UTC) - before
    assert timedelta(seconds=60) - took <= due - before < timedelta(seconds=61) + took


@pytest.mark.parametrize(
    ("written", "seconds"), [("15", 15), ("0.5", 0.5), ("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800)]
)
def test_durations_are_read_and_written(written: str, seconds: float) -> None:
    """A duration can be written with units, and is written with units."""
    assert times.duration(written) == timedelta(seconds=seconds)
    assert times.duration(times.written_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)
