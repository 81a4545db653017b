"""Schedule entries: validated when made, stored as records and read from them without loss."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab, schedule
from kombu.utils import json

from surrealdb_celery_backend.beat import ScheduleEntry
from surrealdb_celery_backend.beat.records import entry_of, fields_of, firing_id
from surrealdb_celery_backend.errors import InvalidSchedule

pytestmark = pytest.mark.unit

UTC = timezone.utc
#: The ends of the calendar.
FIRST, LAST = (each.replace(tzinfo=UTC) for each in (datetime.min, datetime.max))  # noqa: DTZ901 - they get a zone


def entry(**fields: Any) -> ScheduleEntry:
    """An entry with these fields, and others that are right."""
    return ScheduleEntry(**{"name": "e", "task": "t", "schedule": {"timedelta": 10}, **fields})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": ""}, "name holds '': give text that is not empty"),
        ({"task": 5}, "task holds 5: give text that is not empty"),
        ({"schedule": "daily"}, "schedule holds 'daily': give seconds, a timedelta, a crontab"),
        ({"schedule": {"code": "<X>"}}, "schedule is kept in code, and code has no such entry any more"),
        ({"schedule": {"day_of_month": "31", "month_of_year": "2"}}, "never"),
        ({"args": "abc"}, "args holds 'abc': give a list"),
        ({"kwargs": [1]}, "kwargs holds [1]: give an object of named values"),
        ({"kwargs": {1: 2}}, "kwargs holds {1: 2}"),
        ({"options": []}, "options holds []"),
        ({"options": {"task_id": "x"}}, "options.task_id cannot be set: beat makes it"),
        ({"options": {"quue": "x"}}, "options has the unknown field 'quue'; did you mean 'queue'?"),
        ({"options": {"priority": "high"}}, "options.priority holds 'high': give a whole number"),
        ({"options": {"queue": 7}}, "options.queue holds 7: give text"),
        ({"options": {"expires": -1}}, "options.expires holds -1: give seconds above 0"),
        ({"options": {"expires": timedelta(0)}}, "options.expires holds datetime.timedelta(0): give seconds above 0"),
        ({"options": {"expires": [5]}}, "options.expires holds [5]: give seconds above 0 or a time"),
        ({"options": {"countdown": "5"}}, "options.countdown holds '5': give seconds above 0"),
        ({"options": {"time_limit": True}}, "options.time_limit holds True: give seconds above 0"),
        ({"options": {"priority": True}}, "options.priority holds True: give a whole number"),
        ({"options": {"retry": "no"}}, "options.retry holds 'no': give true or false"),
        ({"options": {"headers": "x"}}, "options.headers holds 'x': give an object"),
        ({"options": {5: 6}}, "options has the field 5: give names as text"),
        ({"name": "half \ud800"}, "name holds 'half \\ud800': give text"),
        ({"options": {"expires": "soon"}}, "options.expires holds 'soon': give a time"),
        ({"timezone": "Mars/Olympus"}, "timezone holds 'Mars/Olympus', which is no IANA zone"),
        ({"active": "yes"}, "active holds 'yes': give true or false"),
        ({"one_off": 1}, "one_off holds 1: give true or false"),
        ({"start_time": 5}, "start_time holds 5: give a time such as"),
        ({"start_time": "2026-02-01", "expires_at": "2026-01-01"}, "which is not after start_time"),
        ({"max_runs": 0}, "max_runs holds 0: give a whole number above 0"),
        ({"max_runs": True}, "max_runs holds True"),
        ({"max_runs": 2**63}, "max_runs holds 9223372036854775808: give a whole number above 0"),
        ({"total_run_count": 2**63}, "total_run_count holds 9223372036854775808: give a whole number, 0 or above"),
        ({"jitter": 0}, "jitter holds 0: give a number of seconds above 0"),
        ({"jitter": "2d"}, "jitter holds '2d': give 1d at most"),
        ({"run_at_once": "yes"}, "run_at_once holds 'yes': give true or false"),
        ({"no_overlap": None}, "no_overlap holds None: give true or false"),
        ({"description": 5}, "description holds 5: give text"),
        ({"expires_at": "9999-12-31T23:59:59-05:00"}, "expires_at holds '9999-12-31T23:59:59-05:00': give a time of"),
        (
            {"expires_at": LAST.replace(tzinfo=None), "timezone": "America/New_York"},
            "expires_at holds datetime.datetime(9999, 12, 31, 23, 59, 59, 999999): give a time of the years 1 to 9999",
        ),
        (
            {"schedule": {"rrule": "FREQ=DAILY", "dtstart": "0001-01-01T00:00Z"}, "timezone": "America/New_York"},
            "schedule.rrule holds 'FREQ=DAILY': its times are of the years 1 to 9999",
        ),
        (
            {"schedule": {"rrule": "FREQ=DAILY;UNTIL=99991231T235959"}, "timezone": "America/New_York"},
            "schedule.rrule holds 'FREQ=DAILY;UNTIL=99991231T235959': its times are of the years 1 to 9999",
        ),
        ({"total_run_count": "x"}, "total_run_count holds 'x': give a whole number, 0 or above"),
        ({"last_run_at": "x"}, "last_run_at holds 'x': give a time such as"),
        ({"source": "elsewhere"}, "source holds 'elsewhere': it is 'code' or 'database'"),
    ],
)
def test_a_mistake_is_named(fields: dict[str, Any], sentence: str) -> None:
    """A wrong field is refused in one sentence that names it and what it held."""
    with pytest.raises(InvalidSchedule) as caught:
        entry(**fields)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "schedule",
    [
        {"timedelta": 3600},
        {"timedelta": 86400, "relative": True},
        {"minute": "0"},
        {"minute": "0", "hour": "9"},
        {"rrule": "FREQ=DAILY", "dtstart": "2026-01-01T09:00"},
        {"solar": "sunset", "latitude": 52.5, "longitude": 13.4},
    ],
)
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_the_ends_of_the_calendar_are_times(schedule: dict[str, Any], zone: str) -> None:
    """A start in the year 1 is long past, one at the end of 9999 never comes: in every zone, of every schedule."""
    if "solar" in schedule:
        pytest.importorskip("ephem")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ended = entry(schedule=schedule, timezone=zone, start_time=LAST).next_runs(1, now, UTC)
    assert ended in ([], [LAST])
    lasting = entry(schedule=schedule, timezone=zone, start_time=FIRST, expires_at=LAST)
    assert len(lasting.next_runs(3, now, UTC)) == 3


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "e", "task": "t"}, "schedule is missing"),
        ({"name": "e", "schedule": {"timedelta": 5}}, "task is missing"),
        (
            {"name": "e", "task": "t", "schedule": {"timedelta": 5}, "tsk": 1},
            "unknown field 'tsk'; did you mean 'task'?",
        ),
    ],
)
def test_missing_and_unknown_fields_are_named(fields: dict[str, Any], sentence: str) -> None:
    """Data that lacks a field or has one too many is refused by the field's name."""
    with pytest.raises(InvalidSchedule) as caught:
        ScheduleEntry.from_data(fields)
    assert str(caught.value) == sentence


def test_options_of_a_project_are_let_through() -> None:
    """An option that resembles no known one is for a task that overrides apply_async."""
    assert entry(options={"tenant": "acme"}).options == {"tenant": "acme"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"schedule": crontab(minute=0, hour="9,17", day_of_week="mon-fri"), "timezone": "Europe/Berlin"},
        {"schedule": schedule(3600, relative=True)},
        {"schedule": {"clocked": "2030-01-01T00:00:00+01:00"}, "one_off": True},
        {"args": [1, "two", 3.5, True, [4], {"five": 6}], "kwargs": {"a": {"b": []}}},
        {"args": [None], "kwargs": {"nothing": None, "huge": 2**80, "nul": "a\0b"}},
        {"kwargs": {"when": datetime(2026, 1, 1, tzinfo=UTC), "id": uuid.UUID(int=5), "sum": Decimal("1.10")}},
        {"options": {"queue": "q", "priority": 5, "expires": 30, "headers": {"x": "y"}}},
        {"options": {"expires": datetime(2030, 1, 1, tzinfo=UTC)}},
        {
            "start_time": datetime(2026, 1, 1, tzinfo=UTC),
            "expires_at": datetime(2027, 1, 1, tzinfo=UTC),
            "max_runs": 5,
            "jitter": 1.5,
            "run_at_once": True,
            "no_overlap": True,
            "description": "what it is for",
            "active": False,
        },
    ],
)
def test_a_record_gives_back_the_entry(fields: dict[str, Any]) -> None:
    """An entry read from its record, and from its exported JSON, equals the one that was stored."""
    original = entry(**fields)
    record = {**fields_of(original), "id": "schedule:e", "revision": "x", "plan": "y"}
    assert entry_of(record, UTC) == entry_with_lists(original)
    exported = json.loads(json.dumps(original.as_data(with_state=False)))
    assert ScheduleEntry.from_data(exported) == entry_with_lists(original)


def entry_with_lists(original: ScheduleEntry) -> ScheduleEntry:
    """The same entry as JSON has it: a tuple comes back as a list."""
    return original.changed(args=list(original.args))


def test_a_time_without_an_offset_is_a_wall_time() -> None:
    """Times without an offset are of the entry's zone, else of the app's, and stay open until that is known."""
    wall = "2026-01-01T09:00:00"
    in_tokyo, in_berlin = datetime(2026, 1, 1, 0, tzinfo=UTC), datetime(2026, 1, 1, 8, tzinfo=UTC)
    fields = {
        "schedule": {"clocked": wall},
        "start_time": wall,
        "expires_at": "2027-01-01T09:00:00",
        "options": {"expires": wall},
    }
    zoned, zoneless = entry(timezone="Asia/Tokyo", **fields), entry(**fields)
    assert zoned.start_time == in_tokyo
    assert zoned.schedule == {"clocked": in_tokyo.isoformat()}
    assert zoned.options == {"expires": in_tokyo.isoformat()}
    assert zoned.localized(ZoneInfo("Europe/Berlin")) is zoned
    assert zoneless.start_time == datetime(2026, 1, 1, 9)
    assert zoneless.schedule == {"clocked": wall}
    berlin = zoneless.localized(ZoneInfo("Europe/Berlin"))
    assert (berlin.start_time, berlin.expires_at) == (in_berlin, datetime(2027, 1, 1, 8, tzinfo=UTC))
    assert berlin.schedule == {"clocked": in_berlin.isoformat()}
    assert berlin.options == {"expires": in_berlin.isoformat()}
    assert berlin.localized(UTC) is berlin
    # Asked before it is stored, the entry says the same.
    before = datetime(2025, 1, 1, tzinfo=UTC)
    assert zoneless.next_runs(1, before, ZoneInfo("Europe/Berlin")) == [in_berlin]
    assert zoneless.plan(ZoneInfo("Europe/Berlin")) != zoneless.plan(UTC)
    # A file keeps what was written.
    assert ScheduleEntry.from_data(json.loads(json.dumps(zoneless.as_data(with_state=False)))) == entry_with_lists(
        zoneless
    )
    # What does not fit is found when the zone is known.
    mixed = entry(start_time="2026-01-01T09:00:00", expires_at="2026-01-01T08:30:00+00:00")
    assert mixed.localized(ZoneInfo("Europe/Berlin")).start_time == in_berlin
    with pytest.raises(InvalidSchedule, match="which is not after start_time"):
        mixed.localized(UTC)


def test_next_runs_keep_to_the_limits() -> None:
    """The next runs begin at start_time and end at expires_at, and with max_runs and one_off."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    limited = entry(start_time=now + timedelta(seconds=5), expires_at=now + timedelta(seconds=26))
    assert limited.next_runs(9, now, UTC) == [now + timedelta(seconds=n) for n in (5, 15, 25)]
    assert len(entry(max_runs=2).next_runs(9, now, UTC)) == 2
    assert len(entry(max_runs=2, total_run_count=2).next_runs(9, now, UTC)) == 0
    assert len(entry(one_off=True).next_runs(9, now, UTC)) == 1
    assert entry(active=False).next_runs(9, now, UTC) == []


def test_a_stored_due_time_counts_only_for_its_definition() -> None:
    """A planned due time is shown as long as the definition that it follows from is the same."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = entry()
    planned = made.changed(next_run_at=now + timedelta(seconds=3), planned=made.plan(UTC))
    assert planned.next_runs(1, now, UTC) == [now + timedelta(seconds=3)]
    edited = planned.changed(schedule={"timedelta": 60})
    assert edited.next_runs(1, now, UTC) == [now + timedelta(seconds=60)]


def test_the_zone_of_the_app_is_the_default() -> None:
    """Wall times of an entry without a zone are the app's; the plan follows the zone."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = entry(schedule={"minute": "0", "hour": "9"})
    assert made.next_runs(1, now, ZoneInfo("Asia/Tokyo")) == [datetime(2026, 1, 2, 0, tzinfo=UTC)]
    assert made.plan(UTC) != made.plan(ZoneInfo("Asia/Tokyo"))


def test_a_firing_has_one_task_id() -> None:
    """The task id of a firing follows from table, name and due time, whatever zone that is told in."""
    due = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert firing_id("n/d/schedule", "a", due) == firing_id("n/d/schedule", "a", due.astimezone(ZoneInfo("Asia/Tokyo")))
    others = [
        firing_id("n/d/schedule", "b", due),
        firing_id("n/e/schedule", "a", due),
        firing_id("n/d/schedule", "a", due + timedelta(microseconds=1)),
    ]
    assert len({firing_id("n/d/schedule", "a", due), *others}) == 4


def test_ten_thousand_entries_are_read_in_linear_time() -> None:
    """Crontab fields are parsed once for all the entries that share them."""
    from surrealdb_celery_backend.beat import recurrence

    recurrence.parsed_crontab.cache_clear()
    for number in range(1000):
        entry_of({"name": str(number), "task": "t", "schedule": {"minute": str(number % 60)}}, UTC)
    assert recurrence.parsed_crontab.cache_info().misses == 60


def test_jitter_is_the_same_for_every_beat() -> None:
    """A run is sent up to `jitter` seconds late, by how much follows from name and due time; due times stay."""
    made = entry(jitter="2m", schedule={"timedelta": 3600})
    start = datetime(2026, 1, 1, tzinfo=UTC)
    dues = [start + timedelta(hours=n) for n in range(200)]
    late = [made.fires_at(due) - due for due in dues]
    assert late == [entry(jitter=120).fires_at(due) - due for due in dues]
    assert min(late) >= timedelta(0)
    assert max(late) <= timedelta(seconds=120)
    assert len({each // timedelta(seconds=12) for each in late}) == 10
    assert late != [entry(name="f", jitter=120).fires_at(due) - due for due in dues]
    assert made.due_after(start, start, UTC) == start + timedelta(hours=1)
    # Due a minute ago and not sent yet: not passed over.
    assert made.due_after(start, start + timedelta(seconds=3660), UTC) == start + timedelta(hours=1)
    assert entry().fires_at(start) == start


def test_a_first_run_at_once() -> None:
    """With run_at_once the first run is due when the entry is added, and later ones by its schedule."""
    now = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    hourly = entry(schedule={"minute": "0"}, run_at_once=True)
    assert hourly.next_runs(2, now, UTC) == [now, datetime(2026, 1, 1, 13, tzinfo=UTC)]
    assert hourly.changed(last_run_at=now, total_run_count=1).next_runs(1, now, UTC) == [
        datetime(2026, 1, 1, 13, tzinfo=UTC)
    ]
    later = now + timedelta(days=1)
    assert hourly.changed(start_time=later).next_runs(1, now, UTC) == [later]
    assert hourly.changed(expires_at=now).next_runs(1, now, UTC) == []
    every = entry(schedule={"timedelta": 600}, run_at_once=True)
    assert every.next_runs(2, now, UTC) == [now, now + timedelta(minutes=10)]
