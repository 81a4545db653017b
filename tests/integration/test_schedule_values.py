"""What may stand in an entry's fields, whichever way it gets into the table: refused before it is written, or read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery.schedules import schedule
from dateutil.rrule import FR, MONTHLY, rrule
from kombu import Queue

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.errors import InvalidSchedule
from tests.support.beats import Beats, take_in_changes, tick_until_idle
from tests.support.shell import ScheduleShell

pytestmark = pytest.mark.integration

UTC = timezone.utc

START, END, ONCE = "2036-07-01T09:00:00", "2036-08-01T09:00:00", "2036-07-05T12:00:00"


def by_python(shell: ScheduleShell, schedules: Schedules, zone: str | None) -> None:
    """Naive datetimes in Python."""
    start, end, once = (datetime.fromisoformat(each) for each in (START, END, ONCE))
    entry = ScheduleEntry("e", "shop.report", {"timedelta": 86400}, timezone=zone, start_time=start, expires_at=end)
    schedules.add(entry)
    schedules.add(ScheduleEntry("once", "shop.report", {"clocked": once}, timezone=zone))


def by_change(shell: ScheduleShell, schedules: Schedules, zone: str | None) -> None:
    """Changes of entries that were added without times."""
    for name in ("e", "once"):
        schedules.add(ScheduleEntry(name, "shop.report", {"timedelta": 86400}))
    schedules.change("e", timezone=zone, start_time=START, expires_at=END)
    schedules.change("once", timezone=zone, schedule={"clocked": ONCE})


def by_import(shell: ScheduleShell, schedules: Schedules, zone: str | None) -> None:
    """A file."""
    common = {"task": "shop.report", "timezone": zone}
    entries = {
        "e": {**common, "schedule": {"timedelta": 86400}, "start_time": START, "expires_at": END},
        "once": {**common, "schedule": {"clocked": ONCE}},
    }
    shell.ok("import", "-", stdin=json.dumps(entries))


def by_command(shell: ScheduleShell, schedules: Schedules, zone: str | None) -> None:
    """Options of commands."""
    common = ["--task", "shop.report", *(["--timezone", zone] if zone else [])]
    shell.ok("add", "e", *common, "--every", "1d", "--start-time", START, "--expires-at", END)
    shell.ok("add", "once", *common, "--at", ONCE)


def by_change_command(shell: ScheduleShell, schedules: Schedules, zone: str | None) -> None:
    """The same with `set`."""
    zoned = ["--timezone", zone] if zone else []
    for name in ("e", "once"):
        shell.ok("add", name, "--task", "shop.report", "--every", "1d")
    shell.ok("set", "e", *zoned, "--start-time", START, "--expires-at", END)
    shell.ok("set", "once", *zoned, "--at", ONCE)


def by_hand(shell: ScheduleShell, schedules: Schedules, zone: str | None) -> None:
    """Text in SurrealQL."""
    zoned = f", timezone = '{zone}'" if zone else ""
    shell.database.query(
        f"CREATE schedule:e SET name = 'e', task = 'shop.report', schedule = {{timedelta: 1d}}, "
        f"start_time = '{START}', expires_at = '{END}'{zoned};"
        f"CREATE schedule:once SET name = 'once', task = 'shop.report', schedule = {{clocked: '{ONCE}'}}{zoned}"
    )


@pytest.mark.parametrize("write", [by_python, by_change, by_import, by_command, by_change_command, by_hand])
@pytest.mark.parametrize(("zone", "offset"), [(None, 2), ("Asia/Tokyo", 9), ("-03:00", -3)])
def test_times_without_an_offset(
    shell: ScheduleShell, schedules: Schedules, write: Callable[..., None], zone: str | None, offset: int
) -> None:
    """They are wall times of the entry's zone, else of the app's (Europe/Berlin here), however they are written."""
    write(shell, schedules, zone)

    def instant(wall: str) -> datetime:
        return datetime.fromisoformat(wall).replace(tzinfo=timezone(timedelta(hours=offset)))

    entry, once = schedules.get("e"), schedules.get("once")
    assert (entry.start_time, entry.expires_at) == (instant(START), instant(END))
    assert schedules.next_runs(entry, 1) == [instant(START)]
    assert schedules.next_runs(once, 2) == [instant(ONCE)]
    assert shell.json("show", "once")["next_runs"][0] == instant(ONCE).isoformat()


def test_beat_reads_times_of_the_code_and_of_hands_alike(beats: Beats) -> None:
    """Beat fires an entry of the code and one made by hand at the same wall time of the app."""
    # A zone without summer time: a wall time of the hour that comes twice would be ambiguous.
    beats.app = beats.new_app(timezone="America/Bogota")
    beats.clock.moment = datetime.now(UTC).replace(microsecond=0)
    due = (beats.clock.moment + timedelta(hours=1)).astimezone(beats.app.timezone)
    wall = due.replace(tzinfo=None)
    common = {"task": "shop.report", "schedule": {"clocked": wall}}
    beats.app.conf.beat_schedule = {
        "code": common,
        "start": {"task": "shop.report", "schedule": 86400, "start_time": wall},
    }
    scheduler = beats.start()
    beats.database.query(
        f"CREATE schedule:hand SET name = 'hand', task = 'shop.report', schedule = {{clocked: '{wall.isoformat()}'}}"
    )
    take_in_changes(scheduler)
    beats.clock.advance(3599)
    tick_until_idle(scheduler)
    assert beats.sent() == []
    beats.clock.advance(1)
    tick_until_idle(scheduler)
    assert sorted(message.headers["periodic_task_name"] for message in beats.sent()) == ["code", "hand", "start"]


class Odd(schedule):
    """A schedule class of the project."""


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"options": {"queue": Queue("q")}}, "options.queue holds <unbound Queue"),
        ({"args": [object]}, "args[0] holds <class 'object'>, which cannot be stored as data"),
        ({"kwargs": {"a": {"b": {1, 2}}}}, "kwargs.a.b holds {1, 2}, which cannot be stored as data"),
        ({"kwargs": {"a": timedelta(1)}}, "kwargs.a holds datetime.timedelta(days=1)"),
        ({"schedule": Odd(60)}, "schedule holds <freq: 1.00 minute>, which cannot be stored as data"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(
    shell: ScheduleShell, schedules: Schedules, fields: dict[str, Any], sentence: str
) -> None:
    """`add`, `change` and an import refuse what only code can hold, in one sentence, and write nothing."""
    good = ScheduleEntry("there", "shop.report", {"timedelta": 60})
    schedules.add(good)
    bad = ScheduleEntry(**{"name": "bad", "task": "shop.report", "schedule": {"timedelta": 60}, **fields})
    before = shell.records()
    for write in (
        lambda: schedules.add(bad),
        lambda: schedules.change("there", **fields),
        lambda: schedules.import_entries([ScheduleEntry("new", "shop.report", {"timedelta": 5}), bad]),
        lambda: schedules.import_entries([bad.changed(name="there")], replace=True),
    ):
        with pytest.raises(InvalidSchedule) as caught:
            write()
        assert sentence in str(caught.value)
        assert shell.records() == before


def test_what_is_stored_is_read_back(schedules: Schedules) -> None:
    """Durations, rules and what Celery's JSON knows come back from the database as they went in."""
    wanted: dict[str, Any] = {
        "args": (1, datetime(2026, 1, 1, tzinfo=UTC)),
        "kwargs": {"nothing": None, "nul": "a\0b", "huge": 2**70, "half": "\ud800"},
        "options": {"expires": timedelta(minutes=5), "headers": {"x": None}},
    }
    schedule: Any = rrule(MONTHLY, byweekday=FR(-1), dtstart=datetime(2026, 1, 1, 9))
    added = schedules.add(ScheduleEntry("e", "shop.report", schedule, **wanted))
    again = schedules.get("e")
    assert again == added
    assert again.args == [1, datetime(2026, 1, 1, tzinfo=UTC)]
    assert again.kwargs == wanted["kwargs"]
    assert again.options == {"expires": 300, "headers": {"x": None}}
    assert again.schedule == {"rrule": "FREQ=MONTHLY;BYDAY=-1FR", "dtstart": "2026-01-01T09:00:00"}
    assert schedules.change("e", options={"expires": timedelta(hours=1)}).options == {"expires": 3600}


def test_a_duration_of_surrealql_in_the_options(shell: ScheduleShell, schedules: Schedules) -> None:
    """`expires` can be written as a duration by hand."""
    shell.database.query(
        "CREATE schedule:e SET name = 'e', task = 'shop.report', schedule = {timedelta: 5m}, "
        "options = {expires: 90s}, jitter = 30s"
    )
    entry = schedules.get("e")
    assert (entry.options, entry.jitter) == ({"expires": 90}, 30)


def test_an_entry_of_the_code_keeps_its_objects(shell: ScheduleShell, schedules: Schedules) -> None:
    """Fields of an entry of the code that hold no object can be changed; those that do stay in code."""
    shell.database.query(
        "CREATE schedule:thing SET name = 'thing', task = 'shop.report', schedule = {timedelta: 5}, "
        "args = 'code: [a thing]', source = 'code'"
    )
    shell.app.conf.beat_schedule = {"thing": {"task": "shop.report", "schedule": 5, "args": (object,)}}
    assert schedules.change("thing", description="changed").args == (object,)
    assert shell.records()[0]["args"] == "code: [a thing]"
    with pytest.raises(InvalidSchedule, match="cannot be stored"):
        schedules.change("thing", args=[object])
