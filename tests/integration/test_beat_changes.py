"""Changes while beat runs, on real engines: by hand, by LIVE, by polling, and by a user with fewer rights."""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest

from surrealdb_celery_backend.beat import ScheduleEntry, SurrealDBScheduler
from tests.engines import RunningEngine
from tests.support.beats import MAX_WAIT, Beats, forwarding, take_in_changes, tick_until_idle

pytestmark = pytest.mark.integration

UTC = timezone.utc


def test_changes_by_hand_are_taken_in(beats: Beats) -> None:
    """Entries made, edited and deleted with SurrealQL take effect, and cost what changed."""
    scheduler = beats.start()
    beats.database.query(
        "CREATE schedule:hand SET task = 'shop.report', schedule = {timedelta: 10s}, options = {priority: 3}"
    )
    take_in_changes(scheduler)
    assert scheduler.schedule["hand"].options == {"priority": 3}
    assert scheduler.schedule["hand"].schedule == {"timedelta": 10}
    beats.database.query("UPDATE schedule:hand SET schedule = {minute: '30'}, timezone = 'Asia/Kolkata'")
    take_in_changes(scheduler)
    assert scheduler.schedule["hand"].timezone == "Asia/Kolkata"
    assert beats.database.query("SELECT VALUE next_run_at FROM schedule:hand")[0][0].minute == 0
    beats.database.query("UPDATE schedule:hand SET run_requested_at = time::now()")
    take_in_changes(scheduler)
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1
    beats.database.query("DELETE schedule:hand")
    take_in_changes(scheduler)
    assert scheduler.schedule == {}


def test_broken_entries_are_named_and_stop_nothing(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """Each broken entry is reported once by name and marked with the reason; the others run; mended it runs."""
    beats.app.conf.beat_schedule = {
        "good": {"task": "shop.report", "schedule": 10},
        "in code": {"task": "shop.report", "schedule": "every now and then"},
    }
    beats.database.query(
        "CREATE schedule:hour SET name = 'hour', task = 'shop.report', schedule = {hour: '25'};"
        "CREATE schedule:field SET name = 'field', task = 'shop.report', schedule = {timedelta: 5}, quue = 'x';"
        "CREATE schedule:task SET name = 'task', task = 'shop.reprot', schedule = {timedelta: 5};"
        "CREATE schedule:option SET name = 'option', task = 'shop.report', schedule = {timedelta: 5}, options = {quue: 'x'};"
    )
    caplog.set_level(logging.ERROR)
    scheduler = beats.start()
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    for _ in range(3):
        take_in_changes(scheduler)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"good"}
    records = beats.records()
    assert records["hour"]["broken"] == "schedule.hour holds '25': Invalid end range: 25 > 23"
    assert records["field"]["broken"] == "unknown field 'quue'"
    assert "did you mean 'shop.report'" in records["task"]["broken"]
    assert records["option"]["broken"] == "options has the unknown field 'quue'; did you mean 'queue'?"
    assert "every now and then" in records["in code"]["broken"]
    reports = [record.getMessage() for record in caplog.records if "is broken" in record.getMessage()]
    assert len(reports) == len(set(reports)) == 5
    with beats.schedules() as schedules:
        schedules.change("hour", schedule={"timedelta": 10})
    take_in_changes(scheduler)
    # It counts from when it was mended by the database's clock, which went on while the test's stood still.
    beats.clock.moment = datetime.now(UTC) + timedelta(seconds=20)
    tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent())["hour"] >= 1
    assert beats.records()["hour"].get("broken") is None


def test_wrong_types_by_hand_stop_nothing(beats: Beats) -> None:
    """What beat keeps, set by hand to something else: the entry is named or mended, and the others run."""
    names = ("good", "count", "most", "next", "asked")
    # Beat is told of nothing before it fires, however slow the machine.
    beats.app.conf.surrealdb_beat_sync_every = 3600
    beats.app.conf.beat_schedule = {name: {"task": "shop.report", "schedule": 10} for name in names}
    scheduler = beats.start()
    # While beat has them in mind …
    beats.database.query(
        "UPDATE schedule SET total_run_count = 'x' WHERE name = 'count';"
        "UPDATE schedule SET total_run_count = 9223372036854775807 WHERE name = 'most';"
        "UPDATE schedule SET next_run_at = 'x' WHERE name = 'next';"
        "UPDATE schedule SET run_requested_at = 'x' WHERE name = 'asked';"
    )
    for _ in range(3):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
    counts = Counter(message.headers["periodic_task_name"] for message in beats.sent())
    assert counts == {"good": 3, "count": 3, "most": 3, "next": 3}
    assert beats.records()["asked"]["broken"] == "run_requested_at holds 'x': give a time such as time::now()"
    assert beats.records()["count"]["total_run_count"] == 3
    scheduler.close()
    # … and when it reads them.
    beats.database.query("UPDATE schedule SET total_run_count = 'x' WHERE name = 'count'")
    beats.database.query("CREATE schedule:mixed SET task = 'shop.report', schedule = {minute: [1, 'a']}")
    heir = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    beats.clock.advance(10)
    tick_until_idle(heir)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"good", "most", "next"}
    records = {str(record["id"].id): record for record in beats.database.query("SELECT * FROM schedule")[0]}
    assert records["count"]["broken"].startswith("total_run_count holds 'x'")
    assert records["mixed"]["broken"].startswith("schedule.minute holds '1,a'")


def test_times_at_the_end_of_the_calendar_stop_nothing(beats: Beats) -> None:
    """A time for "never" is one in any zone or is named as broken; beat goes on, and people can look."""
    of_each = "task = 'shop.report', schedule = {timedelta: 3600}"
    with beats.schedules() as schedules:
        schedules.stored()  # makes the tables
        beats.database.query(
            f"CREATE schedule:wall SET {of_each}, timezone = 'America/New_York', expires_at = '9999-12-31T23:59:59';"
            f"CREATE schedule:never SET {of_each}, timezone = 'Asia/Tokyo', start_time = d'9999-12-31T23:59:59Z';"
            f"CREATE schedule:always SET {of_each}, timezone = 'America/New_York', start_time = d'0001-01-01T00:00:00Z';"
        )
        assert set(beats.start().schedule) == {"never", "always"}
        found = {each.name: each for each in schedules.stored()}
        assert str(found["wall"].broken).startswith("expires_at holds datetime.datetime(9999, 12, 31")
        coming = {each.name: schedules.next_runs(each, 1) for each in schedules.entries()}
    assert coming["never"] == [datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    assert len(coming["always"]) == 1


def test_changes_arrive_by_live(live_engine: RunningEngine, beats: Beats) -> None:
    """Where the database has LIVE queries a change ends beat's wait; what beat itself writes does not count."""
    # However slow the machine, the lease need not be renewed while requests are counted.
    beats.app.conf.update(surrealdb_beat_sync_every=3600, surrealdb_beat_lease=3600)
    scheduler = beats.start()
    assert scheduler.changes.is_live
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("added", "shop.report", {"timedelta": 10}))
        wait_for(scheduler, lambda: "added" in scheduler.schedule)
        schedules.change("added", args=[7])
        wait_for(scheduler, lambda: list(scheduler.schedule["added"].args) == [7])
        beats.clock.moment = datetime.now(UTC) + timedelta(seconds=20)
        tick_until_idle(scheduler)
        assert beats.sent()
        wait_for(scheduler, lambda: beats.records()["added"]["last_run_at"])
        before = scheduler.store.request_count
        scheduler.max_interval = 0.2
        for _ in range(3):
            scheduler.tick()
        assert scheduler.store.request_count == before
        schedules.run("added")
        wait_for(scheduler, lambda: len(beats.sent()) == 1)
        schedules.remove("added")
        wait_for(scheduler, lambda: "added" not in scheduler.schedule)


def test_listening_is_taken_up_again(live_engine: RunningEngine, beats: Beats) -> None:
    """When the connection that tells of changes breaks, what was missed is read at once, and beat listens again."""
    address = urlsplit(live_engine.url)
    with forwarding((address.hostname, address.port)) as way:
        way.open()
        url = address._replace(netloc=f"127.0.0.1:{way.port}").geturl()
        scheduler = beats.start(beats.new_app(surrealdb_url=url, surrealdb_beat_sync_every=3600))
        assert scheduler.changes.is_live
        with beats.schedules() as schedules:
            schedules.add(ScheduleEntry("told", "shop.report", {"timedelta": 10}))
            wait_for(scheduler, lambda: "told" in scheduler.schedule)
            way.cut()
            schedules.add(ScheduleEntry("missed", "shop.report", {"timedelta": 10}))
            wait_for(scheduler, lambda: "missed" in scheduler.schedule)
            wait_for(scheduler, lambda: scheduler.changes.is_live)
            schedules.add(ScheduleEntry("told again", "shop.report", {"timedelta": 10}))
            wait_for(scheduler, lambda: "told again" in scheduler.schedule)


def test_without_a_websocket_changes_are_polled(beats: Beats) -> None:
    """Over HTTP, where there is no LIVE query, beat works and looks for changes."""
    beats.app.conf.surrealdb_url = beats.database.engine.http_url
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    scheduler = beats.start()
    assert not scheduler.changes.is_live
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("added", "shop.report", {"timedelta": 10}))
    scheduler.changes.look_at_once()
    scheduler.tick()
    assert set(scheduler.schedule) == {"tick", "added"}
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    assert "tick" in {message.headers["periodic_task_name"] for message in beats.sent()}


def wait_for(scheduler: SurrealDBScheduler, state: Any) -> None:
    """Have a beat tick until a state is reached; its own waits end when it is told of a change."""
    scheduler.max_interval = 0.5
    deadline = time.monotonic() + MAX_WAIT
    while time.monotonic() < deadline:
        if state():
            return
        scheduler.tick()
    raise AssertionError("beat was not told of the change")


def test_a_user_who_may_not_define(beats: Beats) -> None:
    """With surrealdb_define_schema off, beat and commands work on tables that are there but bare."""
    for table in ("schedule", "schedule_removed", "schedule_claim", "schedule_lease"):
        beats.database.query(f"DEFINE TABLE {table}")
    beats.app.conf.update(
        surrealdb_define_schema=False, beat_schedule={"tick": {"task": "shop.report", "schedule": 10}}
    )
    scheduler = beats.start()
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("added", "shop.report", {"timedelta": 10}))
        schedules.pause("tick")
        take_in_changes(scheduler)
        beats.clock.moment = datetime.now(UTC) + timedelta(seconds=12)
        tick_until_idle(scheduler)
        assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"added"}
        schedules.run("tick")
        schedules.remove("added")
        take_in_changes(scheduler)
        beats.clock.advance(60)
        tick_until_idle(scheduler)
    assert [message.headers["periodic_task_name"] for message in beats.sent()] == ["tick"]


def test_tables_of_an_earlier_version_are_brought_up_to_date(beats: Beats) -> None:
    """Where an earlier version defined the tables, a change by hand of a field that it did not know is seen."""
    digest = "crypto::md5(<string>[name, task, schedule, active, run_requested_at])"
    beats.database.query(
        "DEFINE TABLE schedule SCHEMALESS;"
        f"DEFINE FIELD changed_at ON schedule VALUE IF $before IS NOT NONE AND revision = {digest} "
        "THEN $before ELSE time::now() END;"
        f"DEFINE FIELD revision ON schedule VALUE {digest};"
        "CREATE schedule:old SET name = 'old', task = 'shop.report', schedule = {timedelta: 3600}, active = true"
    )
    scheduler = beats.start()
    assert scheduler.schedule["old"].jitter is None
    beats.database.query("UPDATE schedule:old SET jitter = 5")
    take_in_changes(scheduler)
    assert scheduler.schedule["old"].jitter == 5
    beats.clock.moment = datetime.now(UTC) + timedelta(minutes=90)
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1
