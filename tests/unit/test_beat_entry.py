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
from surrealdb_celery_backend.beat.entry import firing_id, stored
from surrealdb_celery_backend.errors import InvalidSchedule

pytestmark = pytest.mark.unit

UTC = timezone.utc


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
        ({"options": {"expires": "soon"}}, "options.expires holds 'soon': give a time"),
        ({"timezone": "Mars/Olympus"}, "timezone holds 'Mars/Olympus', which is no IANA zone"),
        ({"active": "yes"}, "active holds 'yes': give true or false"),
        ({"one_off": 1}, "one_off holds 1: give true or false"),
        ({"start_time": 5}, "start_time holds 5: give a time such as"),
        ({"start_time": "2026-02-01", "expires_at": "2026-01-01"}, "which is not after start_time"),
        ({"max_runs": 0}, "max_runs holds 0: give a whole number above 0"),
        ({"max_runs": True}, "max_runs holds True"),
        ({"description": 5}, "description holds 5: give text"),
        ({"expires_at": "9999-12-31T23:59:59-05:00"}, "expires_at holds '9999-12-31T23:59:59-05:00': give a time of"),
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
            "description": "what it is for",
            "active": False,
        },
    ],
)
def test_a_record_gives_back_the_entry(fields: dict[str, Any]) -> None:
    """An entry read from its record, and from its exported JSON, equals the one that was stored."""
    original = entry(**fields)
    record = {**original.definition(), "id": "schedule:e", "revision": "x", "plan": "y"}
    assert ScheduleEntry.from_record(record) == entry_with_lists(original)
    exported = json.loads(json.dumps(original.as_data(with_state=False)))
    assert ScheduleEntry.from_data(exported) == entry_with_lists(original)


def entry_with_lists(original: ScheduleEntry) -> ScheduleEntry:
    """The same entry as JSON has it: a tuple comes back as a list."""
    return original.changed(args=list(original.args))


def test_plain_data_stays_readable() -> None:
    """What SurrealDB can hold is stored as it is; what it would change is stored as JSON text."""
    assert stored({"a": [1, 2.5, "x", True]}) == {"a": [1, 2.5, "x", True]}
    assert stored({"a": None}) == '{"a": null}'
    assert stored([2**64]) == "[18446744073709551616]"
    assert stored([object]).startswith("code: [<class")


def test_a_time_without_an_offset_is_read_in_the_zone_of_the_entry() -> None:
    """start_time and expires_at of an entry with a zone are wall times of that zone."""
    made = entry(timezone="Asia/Tokyo", start_time="2026-01-01T09:00:00")
    assert made.start_time == datetime(2026, 1, 1, 0, tzinfo=UTC)


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

    recurrence._parsed_crontab.cache_clear()
    for number in range(1000):
        ScheduleEntry.from_record({"name": str(number), "task": "t", "schedule": {"minute": str(number % 60)}})
    assert recurrence._parsed_crontab.cache_info().misses == 60
