"""The scheduler on real engines: what is fired, when, how often, and by whom. Time is a clock of the test's own."""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import socketserver
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedstate, schedule
from kombu import Queue
from kombu.exceptions import OperationalError

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules, SurrealDBScheduler
from surrealdb_celery_backend.beat.clock import DatabaseClock
from surrealdb_celery_backend.beat.lease import Lease
from surrealdb_celery_backend.beat.scheduler import define_schedules
from surrealdb_celery_backend.connection import Connection
from surrealdb_celery_backend.errors import InvalidSchedule, LeaseLost
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database, RunningEngine

pytestmark = pytest.mark.integration

UTC = timezone.utc

#: How long a state may take to be reached before the test fails, in seconds.
PATIENCE = 60


class SteppedClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, start: datetime | None = None) -> None:
        self.moment = start or datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        return self.moment

    def observe(self, moment: datetime, asked_at: float, answered_at: float) -> None:
        """Nothing: the database's time is not this test's."""

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Beats:
    """A Celery app with its beats, all in this process, and the messages that they sent."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.queue = f"beat-{uuid.uuid4()}"
        self.clock = SteppedClock()
        self.schedulers: list[SurrealDBScheduler] = []
        self.app = self.new_app()

    def new_app(self, **settings: Any) -> Celery:
        """An app of the same project: another process's, or that of the next deployment."""
        app = Celery("shop", broker="memory://", set_as_current=False)
        app.conf.update(
            self.database.settings,
            task_default_queue=self.queue,
            result_backend="disabled://",
            result_expires=None,
            surrealdb_beat_lease=30,
            # A beat that is answered late goes on later, which is not what these tests are about.
            surrealdb_timeout=PATIENCE,
        )
        app.conf.update(settings)

        @app.task(name="shop.report", shared=False)
        def report(*args: Any, **kwargs: Any) -> None:
            """Nothing: what is tested is that it is sent."""

        return app

    def start(self, app: Celery | None = None, **settings: Any) -> SurrealDBScheduler:
        """Start a beat."""
        scheduler = SurrealDBScheduler(app or self.app, clock=settings.pop("clock", self.clock))
        scheduler.max_interval = 0.01  # how long a tick may listen for changes
        self.schedulers.append(scheduler)
        scheduler.tick()
        return scheduler

    def sent(self) -> list[Any]:
        """Take the messages that were sent since the last time."""
        found = []
        with self.app.connection_for_read() as connection:
            queue = self.app.amqp.queues[self.queue](connection.default_channel)
            queue.declare()
            while (message := queue.get(no_ack=True)) is not None:
                found.append(message)
        return found

    def schedules(self) -> Schedules:
        return Schedules(self.app)

    def records(self) -> dict[str, dict[str, Any]]:
        """The table as it is."""
        return {each["name"]: each for each in self.database.query("SELECT * FROM schedule")[0]}


@pytest.fixture
def beats(fresh_database: Database) -> Iterator[Beats]:
    """An app and its beats, which end with the test."""
    beats = Beats(fresh_database)
    yield beats
    for scheduler in beats.schedulers:
        scheduler.close()


def tick_until_idle(scheduler: SurrealDBScheduler) -> None:
    """Have a beat fire all that is due."""
    for _ in range(1000):
        firings = scheduler._next_firings()
        for firing in firings:  # only looked at: back on the queue they go
            if not firing.asked:
                scheduler._push_due(str(firing.planned.record), firing.planned)
        if not firings:
            return
        scheduler.tick()
    raise AssertionError("there is no end to what is due")


def due_at(message: Any) -> datetime:
    """When the firing that sent a message was due."""
    return datetime.fromisoformat(message.headers["due_at"])


def test_every_due_time_is_fired_once(beats: Beats) -> None:
    """An interval fires at every due time exactly once, under an id that follows from name and due time."""
    beats.app.conf.beat_schedule = {
        "tick": {"task": "shop.report", "schedule": 10, "args": (1, "a"), "kwargs": {"b": 2}}
    }
    scheduler = beats.start()
    start = beats.clock.now()
    for _ in range(30):
        beats.clock.advance(2.5)
        tick_until_idle(scheduler)
    sent = beats.sent()
    assert [due_at(message) for message in sent] == [start + timedelta(seconds=10 * n) for n in range(1, 8)]
    assert len({message.headers["id"] for message in sent}) == 7
    assert {message.headers["periodic_task_name"] for message in sent} == {"tick"}
    assert sent[0].decode()[:2] == [[1, "a"], {"b": 2}]
    record = beats.records()["tick"]
    assert record["total_run_count"] == 7
    assert record["next_run_at"] == start + timedelta(seconds=80)
    assert record["source"] == "code"
    claims = beats.database.query("SELECT * FROM schedule_claim")[0]
    assert {claim["task_id"] for claim in claims} == {message.headers["id"] for message in sent}
    assert all(claim["sent_at"] for claim in claims)


def test_a_redeploy_keeps_counts_and_goes_on(beats: Beats) -> None:
    """A beat that is started anew goes on where the last one ended: nothing twice, nothing left out."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    first = beats.start()
    beats.clock.advance(25)
    tick_until_idle(first)
    first.close()
    beats.clock.advance(20)
    second = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    tick_until_idle(second)
    sent = [due_at(message) for message in beats.sent()]
    assert len(sent) == len(set(sent)) == 4
    assert beats.records()["tick"]["total_run_count"] == 4


def test_code_and_database_side_by_side(beats: Beats) -> None:
    """New in code: added. In both: the table wins. Gone from code: removed. Not code's: left alone."""
    beats.app.conf.beat_schedule = {
        "kept": {"task": "shop.report", "schedule": 10},
        "dropped": {"task": "shop.report", "schedule": 10},
    }
    first = beats.start()
    with beats.schedules() as schedules:
        schedules.change("kept", schedule=3600)
        schedules.add(ScheduleEntry("by hand", "shop.report", {"minute": "0"}))
    first.close()
    second_app = beats.new_app(
        beat_schedule={
            "kept": {"task": "shop.report", "schedule": 20},
            "new": {"task": "shop.report", "schedule": crontab(minute=5)},
        }
    )
    second_app.add_periodic_task(30, second_app.signature("shop.report"), name="periodic")
    second = beats.start(second_app)
    records = beats.records()
    assert set(records) == {"kept", "by hand", "new", "periodic"}
    assert records["kept"]["schedule"] == {"timedelta": 3600}
    assert records["by hand"]["source"] == "database"
    assert set(second.schedule) == set(records)


def test_an_inactive_entry_does_not_run(beats: Beats) -> None:
    """A paused entry does not fire, not even at a due time that beat had planned; resumed it does not make up."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    scheduler = beats.start()
    with beats.schedules() as schedules:
        schedules.pause("tick")
        beats.clock.advance(10)
        tick_until_idle(scheduler)
        assert beats.sent() == []
        assert "next_run_at" not in beats.records()["tick"] or beats.records()["tick"]["next_run_at"] is None
        schedules.resume("tick")
    scheduler._take_in_changes()
    beats.clock.advance(1000)
    scheduler._take_in_changes()
    tick_until_idle(scheduler)
    assert beats.records()["tick"]["total_run_count"] == len(beats.sent()) > 0


def test_two_beats_fire_once(beats: Beats) -> None:
    """Of two beats one is active: what is due is fired once, and the other says who is active."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 1}}
    active, standby = beats.start(), beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    assert active.lease.token == 1
    assert standby.lease.token is None
    for _ in range(20):
        beats.clock.advance(1)
        assert standby.tick() > 0
        tick_until_idle(active)
    assert len(beats.sent()) == 20
    active.close()
    standby.tick()
    assert standby.lease.token == 2
    beats.clock.advance(5)
    tick_until_idle(standby)
    assert len(beats.sent()) == 5
    assert beats.records()["tick"]["total_run_count"] == 25


def test_a_standby_looks_when_the_lease_ends(beats: Beats) -> None:
    """However long leases are, a standby looks for the next time when the other's ends, or within a third of its own."""
    beats.app.conf.surrealdb_beat_lease = 3600
    beats.start()
    standby = beats.start(beats.new_app(surrealdb_beat_lease=3600))
    assert standby._step() == pytest.approx(1200)
    beats.database.query("UPDATE schedule_lease SET until = time::now() + 600s")
    assert 0 < standby._step() <= 601
    assert standby.lease.token is None


def test_a_stale_beat_cannot_fire(beats: Beats) -> None:
    """A beat that lost its lease without noticing sends nothing: the database refuses its claims."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    stale = beats.start()
    beats.database.query("UPDATE schedule_lease SET until = time::now() - 1s")
    fresh = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    assert fresh.lease.token == 2
    beats.clock.advance(10)
    firings = stale._next_firings()
    assert len(firings) == 1
    with pytest.raises(LeaseLost):
        stale._fire(firings)
    assert beats.sent() == []
    tick_until_idle(fresh)
    assert len(beats.sent()) == 1
    stale.tick()
    assert stale.lease.token is None


def test_what_a_dead_beat_claimed_is_sent(beats: Beats) -> None:
    """A firing that was claimed but never sent is sent by the next beat, under the same task id."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    dead = beats.start()
    beats.clock.advance(10)
    [firing] = dead._next_firings()
    assert dead._claimed({str(firing.claim): firing}) == {str(firing.claim): False}
    # And here it dies.
    beats.database.query("UPDATE schedule_lease SET until = time::now() - 1s")
    heir = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    tick_until_idle(heir)
    assert [message.headers["id"] for message in beats.sent()] == [firing.task_id]
    assert beats.records()["tick"]["total_run_count"] == 1


def test_what_a_dead_beat_sent_is_counted_once(beats: Beats) -> None:
    """A firing that was sent, but not planned on, is not sent again, and counts once."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    dead = beats.start()
    beats.clock.advance(10)
    dead._fire(dead._next_firings())
    before = beats.records()["tick"]
    # As if it had died halfway through telling the database.
    beats.database.query("UPDATE schedule SET next_run_at = $due, total_run_count = 0", {"due": beats.clock.now()})
    beats.database.query("UPDATE schedule_lease SET until = time::now() - 1s")
    heir = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    tick_until_idle(heir)
    assert len(beats.sent()) == 1
    after = beats.records()["tick"]
    assert after["total_run_count"] == before["total_run_count"] == 1
    assert after["next_run_at"] == before["next_run_at"]


@pytest.mark.timeout(400)
def test_of_many_that_start_at_once_one_is_active(beats: Beats) -> None:
    """Eight beats reach for a free lease at the same moment: when each has looked again, one has it."""
    contenders = 8
    connections = [Connection(Settings.from_app(beats.app), define=False) for _ in range(contenders)]
    define_schedules(connections[0])
    try:
        for round_ in range(1, 6):
            leases = [Lease(connection, 3600, beats.clock) for connection in connections]
            barrier = threading.Barrier(contenders)

            def reach(lease: Lease, barrier: threading.Barrier = barrier) -> None:
                lease.take()
                barrier.wait(PATIENCE)
                # On a store that misses conflicts two may have been told that it is theirs.
                with contextlib.suppress(LeaseLost):
                    if lease.token is not None:
                        lease.renew()

            threads = [threading.Thread(target=reach, args=(lease,)) for lease in leases]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(2 * PATIENCE)
            holders = [lease for lease in leases if lease.token is not None]
            assert [lease.token for lease in holders] == [round_]
            holders[0].release()
    finally:
        for connection in connections:
            connection.close()


def test_long_outages_do_not_flood(beats: Beats) -> None:
    """After a long outage the oldest missed due time is made up for, and those within the catch-up time."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    scheduler = beats.start()
    beats.clock.advance(3600)
    tick_until_idle(scheduler)
    # One for the oldest; then those of the last 60 seconds.
    assert len(beats.sent()) == 1 + 6


def test_limits_end_an_entry(beats: Beats) -> None:
    """one_off, max_runs, expires_at and start_time are kept to; what is over is made inactive."""
    now = beats.clock.now()
    with beats.schedules() as schedules:
        common = {"task": "shop.report", "schedule": 10}
        schedules.add(ScheduleEntry("once", **common, one_off=True))
        schedules.add(ScheduleEntry("thrice", **common, max_runs=3))
        schedules.add(
            ScheduleEntry(
                "until", **common, start_time=now + timedelta(seconds=20), expires_at=now + timedelta(seconds=45)
            )
        )
        schedules.add(ScheduleEntry("from", **common, start_time=now + timedelta(seconds=75)))
        schedules.add(ScheduleEntry("at", "shop.report", {"clocked": (now + timedelta(seconds=50)).isoformat()}))
    scheduler = beats.start()
    for _ in range(20):
        beats.clock.advance(5)
        tick_until_idle(scheduler)
    counts = Counter(message.headers["periodic_task_name"] for message in beats.sent())
    assert counts == {"once": 1, "thrice": 3, "until": 3, "from": 3, "at": 1}
    records = beats.records()
    assert {name: record["active"] for name, record in records.items()} == {
        "once": False,
        "thrice": False,
        "until": False,
        "from": True,
        "at": False,
    }
    # Resumed, a one-off runs once more.
    with beats.schedules() as schedules:
        schedules.resume("once")
    scheduler._take_in_changes()
    beats.clock.advance(60)
    tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent())["once"] == 1


def test_changes_by_hand_are_taken_in(beats: Beats) -> None:
    """Entries made, edited and deleted with SurrealQL take effect, and cost what changed."""
    scheduler = beats.start()
    beats.database.query(
        "CREATE schedule:hand SET task = 'shop.report', schedule = {timedelta: 10s}, options = {priority: 3}"
    )
    scheduler._take_in_changes()
    assert scheduler.schedule["hand"].options == {"priority": 3}
    assert scheduler.schedule["hand"].schedule == {"timedelta": 10}
    beats.database.query("UPDATE schedule:hand SET schedule = {minute: '30'}, timezone = 'Asia/Kolkata'")
    scheduler._take_in_changes()
    assert scheduler.schedule["hand"].timezone == "Asia/Kolkata"
    due = next(iter(scheduler._planned.values())).due
    assert due.minute == 0
    beats.database.query("UPDATE schedule:hand SET run_requested_at = time::now()")
    scheduler._take_in_changes()
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1
    beats.database.query("DELETE schedule:hand")
    scheduler._take_in_changes()
    assert scheduler.schedule == {}


def test_run_now_is_outside_the_schedule(beats: Beats) -> None:
    """A run that is asked for happens once, also of a paused entry, and leaves the schedule as it is."""
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("yearly", "shop.report", {"crontab": "0 0 1 1 *"}))
        schedules.add(ScheduleEntry("paused", "shop.report", {"timedelta": 10}, active=False))
        scheduler = beats.start()
        planned = beats.records()["yearly"]["next_run_at"]
        schedules.run("yearly")
        schedules.run("paused")
        for _ in range(3):
            scheduler._take_in_changes()
            tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent()) == {"yearly": 1, "paused": 1}
    records = beats.records()
    assert records["yearly"]["next_run_at"] == planned
    assert records["yearly"]["total_run_count"] == records["paused"]["total_run_count"] == 1
    assert not records["yearly"].get("run_requested_at")


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
        scheduler._take_in_changes()
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
    scheduler._take_in_changes()
    # It counts from when it was mended by the database's clock, which went on while the test's stood still.
    beats.clock.moment = datetime.now(UTC) + timedelta(seconds=20)
    tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent())["hour"] >= 1
    assert beats.records()["hour"].get("broken") is None


def test_what_only_code_can_hold_stays_in_code(beats: Beats) -> None:
    """A schedule class and arguments of the project's own run, and the record says that they are in code."""

    class Odd(schedule):
        pass

    class Thing:
        def __repr__(self) -> str:
            return "a thing"

    beats.app.conf.update(task_serializer="pickle", accept_content=["pickle", "json"])
    beats.app.conf.beat_schedule = {
        "odd": {
            "task": "shop.report",
            "schedule": Odd(3600),
            "kwargs": {"nothing": None, "when": datetime(2026, 1, 1, tzinfo=UTC)},
        },
        "thing": {"task": "shop.report", "schedule": 3600, "args": (Thing,)},
    }
    scheduler = beats.start(clock=None)
    records = beats.records()
    assert records["odd"]["schedule"] == {"code": "<freq: 1.00 hour>"}
    assert records["thing"]["args"].startswith("code: [")
    assert scheduler.schedule["odd"].kwargs == {"nothing": None, "when": datetime(2026, 1, 1, tzinfo=UTC)}
    assert scheduler.schedule["thing"].args == (Thing,)
    assert [each.due is not None for each in scheduler._planned.values()] == [True, True]


@pytest.mark.parametrize(
    ("zone", "expected"),
    [("Europe/Berlin", 1), ("Australia/Lord_Howe", 1), ("Asia/Kolkata", 1), ("America/New_York", 1)],
)
@pytest.mark.parametrize("night", ["2027-03-27", "2027-10-30", "2027-03-13", "2027-11-06", "2027-10-02", "2027-04-03"])
def test_a_nightly_task_runs_once_through_a_change_of_the_clocks(
    beats: Beats, zone: str, expected: int, night: str
) -> None:
    """In every zone, a task for 02:30 runs exactly once in each 24 hours around a change of the clocks."""
    beats.clock.moment = datetime.fromisoformat(f"{night}T12:00:00+00:00")
    # In code: its first due time follows from the clock of the test alone, also when that night is long ago.
    beats.app.conf.beat_schedule = {
        "nightly": {"task": "shop.report", "schedule": {"minute": "30", "hour": "2"}, "timezone": zone}
    }
    scheduler = beats.start()
    for _ in range(48):
        beats.clock.advance(1800)
        tick_until_idle(scheduler)
    assert len(beats.sent()) == expected


@pytest.mark.timeout(400)
def test_a_tick_costs_what_is_due(beats: Beats) -> None:
    """With ten thousand entries beat starts with few requests, and a tick makes as many as with ten."""
    costs = []
    for entries in (10, 10_000):
        costs.append({})
        database = beats.database.engine.database()
        own = Beats(database)
        # However slow the machine, neither the lease nor the look for changes comes in between.
        own.app.conf.update(surrealdb_beat_lease=3600, surrealdb_beat_sync_every=3600)
        # Not at the end of a month, when all of them would be due.
        own.clock.moment = own.clock.moment.replace(day=15)
        own.app.conf.beat_schedule = {
            f"entry {n}": {"task": "shop.report", "schedule": crontab(minute=0, hour=0, day_of_month=1)}
            for n in range(entries)
        } | {"due": {"task": "shop.report", "schedule": 10}}
        scheduler = own.start()
        beats.schedulers.append(scheduler)
        costs[-1]["start"] = scheduler.database.request_count

        before = scheduler.database.request_count
        scheduler.tick()
        costs[-1]["idle"] = scheduler.database.request_count - before

        own.clock.advance(10)
        before = scheduler.database.request_count
        scheduler.tick()
        costs[-1]["due"] = scheduler.database.request_count - before
        assert len(own.sent()) == 1

        before = scheduler.database.request_count
        scheduler._take_in_changes()
        costs[-1]["changes"] = scheduler.database.request_count - before
        scheduler.close()
    few, many = costs
    assert few["idle"] == many["idle"] == 0
    assert few["due"] == many["due"] == 2
    assert few["changes"] == many["changes"] == 1
    # Pages of entries read, and of new ones written: not one request per entry.
    assert many["start"] - few["start"] < 50


def test_changes_arrive_by_live(live_engine: RunningEngine, beats: Beats) -> None:
    """Where the database has LIVE queries a change ends beat's wait; what beat itself writes does not count."""
    # However slow the machine, the lease need not be renewed while requests are counted.
    beats.app.conf.update(surrealdb_beat_sync_every=3600, surrealdb_beat_lease=3600)
    scheduler = beats.start()
    assert scheduler._live is not None
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("added", "shop.report", {"timedelta": 10}))
        wait_for(scheduler, lambda: "added" in scheduler.schedule)
        schedules.change("added", args=[7])
        wait_for(scheduler, lambda: list(scheduler.schedule["added"].args) == [7])
        beats.clock.moment = datetime.now(UTC) + timedelta(seconds=20)
        tick_until_idle(scheduler)
        assert beats.sent()
        wait_for(scheduler, lambda: beats.records()["added"]["last_run_at"])
        before = scheduler.database.request_count
        scheduler.max_interval = 0.2
        for _ in range(3):
            scheduler.tick()
        assert scheduler.database.request_count == before
        schedules.run("added")
        wait_for(scheduler, lambda: len(beats.sent()) == 1)
        schedules.remove("added")
        wait_for(scheduler, lambda: "added" not in scheduler.schedule)


def test_listening_is_taken_up_again(live_engine: RunningEngine, beats: Beats) -> None:
    """When the connection that tells of changes breaks, what was missed is read at once, and beat listens again."""
    beats.app.conf.surrealdb_beat_sync_every = 3600
    scheduler = beats.start()
    first = scheduler._live
    first.close()
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("missed", "shop.report", {"timedelta": 10}))
        wait_for(scheduler, lambda: "missed" in scheduler.schedule)
        assert scheduler._live is not None
        assert scheduler._live is not first
        schedules.add(ScheduleEntry("told", "shop.report", {"timedelta": 10}))
        wait_for(scheduler, lambda: "told" in scheduler.schedule)


def test_without_a_websocket_changes_are_polled(beats: Beats) -> None:
    """Over HTTP, where there is no LIVE query, beat works and looks for changes."""
    beats.app.conf.surrealdb_url = beats.database.engine.http_url
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    scheduler = beats.start()
    assert scheduler._live is None
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("added", "shop.report", {"timedelta": 10}))
    scheduler._next_sync = 0
    scheduler.tick()
    assert set(scheduler.schedule) == {"tick", "added"}
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    assert "tick" in {message.headers["periodic_task_name"] for message in beats.sent()}


def wait_for(scheduler: SurrealDBScheduler, state: Any) -> None:
    """Have a beat tick until a state is reached; its own waits end when it is told of a change."""
    scheduler.max_interval = 0.5
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if state():
            return
        scheduler.tick()
    raise AssertionError("beat was not told of the change")


@pytest.mark.redis
def test_a_broker_that_is_away_loses_nothing(beats: Beats, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """While the broker is away what is due waits, beat keeps its lease and says so once; then all is sent, once."""
    address = urlsplit(redis_url)
    with forwarding((address.hostname or "127.0.0.1", address.port or 6379)) as way:
        app = beats.new_app(
            broker_url=address._replace(netloc=f"127.0.0.1:{way.port}").geturl(),
            beat_schedule={"tick": {"task": "shop.report", "schedule": 10}},
        )
        scheduler = beats.start(app)
        beats.clock.advance(30)
        for _ in range(3):
            assert scheduler.tick() > 0
        assert scheduler.lease.is_held
        reports = [each.getMessage() for each in caplog.records if "broker does not take" in each.getMessage()]
        assert len(reports) == 1
        way.open()
        tick_until_idle(scheduler)
        scheduler._drop_producer()
    assert any("the broker takes messages again" in each.getMessage() for each in caplog.records)
    with redis.Redis.from_url(redis_url) as client:
        messages = [json.loads(each) for each in client.lrange(beats.queue, 0, -1)]
        client.delete(beats.queue)
    assert len(messages) == len({message["headers"]["id"] for message in messages}) == 3
    assert beats.records()["tick"]["total_run_count"] == 3


def test_what_cannot_be_sent_is_broken(beats: Beats) -> None:
    """An entry whose arguments the serializer refuses is marked with the reason, and the others run."""
    beats.app.conf.beat_schedule = {
        "good": {"task": "shop.report", "schedule": 10},
        "bad": {"task": "shop.report", "schedule": 10, "args": (object,)},
    }
    scheduler = beats.start()
    beats.clock.advance(20)
    tick_until_idle(scheduler)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"good"}
    assert beats.records()["bad"]["broken"].startswith("it cannot be sent: ")
    assert not beats.records()["good"].get("broken")


def test_the_starting_deadline_of_celery_is_kept(beats: Beats) -> None:
    """With beat_cron_starting_deadline a crontab's due time that is older is passed over, not made up for."""
    beats.app.conf.beat_cron_starting_deadline = 60
    beats.app.conf.beat_schedule = {
        "hourly": {"task": "shop.report", "schedule": crontab(minute=0)},
        "often": {"task": "shop.report", "schedule": crontab()},
    }
    beats.clock.moment = beats.clock.moment.replace(minute=30, second=30)
    scheduler = beats.start()
    beats.clock.advance(3600)
    tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent()) == {"often": 1}
    beats.clock.advance(1800)
    tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent())["hourly"] == 1


def test_a_signal_in_the_middle_of_a_tick_gives_the_lease_back(beats: Beats) -> None:
    """Closed by a signal's handler while it waits for the database, beat waits for no lock, and ends in order."""
    scheduler = beats.start()
    run_all = scheduler.database.run_all

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        scheduler.close()  # as Celery's handler does
        raise SystemExit

    scheduler.database.run_all = interrupted
    scheduler._next_sync = 0
    with pytest.raises(SystemExit):
        scheduler.tick()
    scheduler.database.run_all = run_all
    assert scheduler.lease.token == 1
    scheduler.close()
    [lease] = beats.database.query("SELECT *, until <= time::now() AS is_over FROM schedule_lease")[0]
    assert lease["is_over"]


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
        scheduler._take_in_changes()
        beats.clock.moment = datetime.now(UTC) + timedelta(seconds=12)
        tick_until_idle(scheduler)
        assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"added"}
        schedules.run("tick")
        schedules.remove("added")
        scheduler._take_in_changes()
        beats.clock.advance(60)
        tick_until_idle(scheduler)
    assert [message.headers["periodic_task_name"] for message in beats.sent()] == ["tick"]


def test_old_claims_are_let_go(beats: Beats) -> None:
    """Claims and marks of removals are kept for a while, and not for ever."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    scheduler = beats.start()
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    beats.database.query("CREATE schedule_removed SET entry = schedule:old, removed_at = time::now()")
    beats.clock.advance(3000)
    scheduler._clean_up()
    assert len(beats.database.query("SELECT * FROM schedule_claim")[0]) == 1
    beats.clock.advance(1000)
    scheduler._clean_up()
    assert beats.database.query("SELECT * FROM schedule_claim")[0] == []
    assert len(beats.database.query("SELECT * FROM schedule_removed")[0]) == 1
    beats.clock.advance(90_000)
    scheduler._clean_up()
    assert beats.database.query("SELECT * FROM schedule_removed")[0] == []


def test_the_database_tells_the_time(beats: Beats) -> None:
    """Beat goes by the database's clock, whatever its host's says."""
    clock = DatabaseClock()
    clock._offset += 3600  # a host that is an hour ahead
    scheduler = beats.start(clock=clock)
    before = beats.database.query("RETURN time::now()")[0]
    told = scheduler.clock.now()
    after = beats.database.query("RETURN time::now()")[0]
    # It can be wrong by what the answer took, and is not by what the host is.
    assert before - timedelta(seconds=PATIENCE) < told < after + timedelta(seconds=PATIENCE)


def test_wrong_types_by_hand_stop_nothing(beats: Beats) -> None:
    """What beat keeps, set by hand to something else: the entry is named or mended, and the others run."""
    names = ("good", "count", "most", "next", "asked")
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


def test_an_entry_renamed_by_hand_makes_room(beats: Beats) -> None:
    """An entry of the code is there also where its id is that of an entry which somebody renamed."""
    beats.app.conf.beat_schedule = {"a": {"task": "shop.report", "schedule": 10}}
    beats.start().close()
    beats.database.query("UPDATE schedule SET name = 'b'")
    beats.start().close()
    assert set(beats.records()) == {"a"}  # the renamed one was code's, and code has no `b`
    beats.database.query("UPDATE schedule SET name = 'b', source = 'database'")
    scheduler = beats.start()
    assert set(beats.records()) == set(scheduler.schedule) == {"a", "b"}


def test_a_mistake_in_the_code_can_be_mended_there(beats: Beats) -> None:
    """An entry that code got wrong runs when the next deployment has it right."""
    beats.app.conf.beat_schedule = {"a": {"task": "shop.report", "schedule": "bad"}}
    beats.start().close()
    assert "'bad'" in beats.records()["a"]["broken"]
    scheduler = beats.start(beats.new_app(beat_schedule={"a": {"task": "shop.report", "schedule": 10}}))
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1
    assert not beats.records()["a"].get("broken")


def test_a_beat_schedule_that_is_no_dict_is_named(beats: Beats) -> None:
    """A list of entries ends beat in one sentence, also if it was standing by before."""
    beats.app.conf.beat_schedule = [{"task": "shop.report", "schedule": 10}]
    with pytest.raises(InvalidSchedule, match="give a dict of entries by name"):
        beats.start()
    scheduler = beats.schedulers[-1]
    scheduler._has_answered = True
    with pytest.raises(InvalidSchedule, match="beat_schedule holds"):
        scheduler.tick()


def test_counts_that_are_set_back_count_anew(beats: Beats) -> None:
    """After its count was set back an entry runs as often as max_runs says, not as beat remembers."""
    scheduler = beats.start()
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("a", "shop.report", 10, max_runs=5))
        scheduler._take_in_changes()
        beats.clock.moment = datetime.now(UTC) + timedelta(seconds=1)
        for _ in range(4):
            beats.clock.advance(10)
            tick_until_idle(scheduler)
        assert len(beats.sent()) == 4
        schedules.change("a", total_run_count=0)
    scheduler._take_in_changes()
    for _ in range(7):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
    assert len(beats.sent()) == 5
    assert beats.records()["a"]["active"] is False


def test_a_run_that_was_asked_for_can_be_the_last(beats: Beats) -> None:
    """Runs that are asked for count towards max_runs: with the last one the entry is paused."""
    scheduler = beats.start()
    with beats.schedules() as schedules:
        schedules.add(ScheduleEntry("a", "shop.report", 10, max_runs=2))
        scheduler._take_in_changes()
        beats.clock.moment = datetime.now(UTC) + timedelta(seconds=1)
        beats.clock.advance(10)
        tick_until_idle(scheduler)
        schedules.run("a")
        beats.clock.advance(10)  # and it is due as well
        scheduler._take_in_changes()
        for _ in range(3):
            beats.clock.advance(10)
            tick_until_idle(scheduler)
            scheduler._take_in_changes()
    assert len(beats.sent()) == 2
    record = beats.records()["a"]
    assert (record["active"], record["total_run_count"]) == (False, 2)
    assert record.get("next_run_at") is None


def test_a_schedule_class_is_asked_again_when_it_is_due(beats: Beats) -> None:
    """That a schedule class is not due says when to ask it again: nothing runs while it waits for something."""

    class Office(schedule):
        is_open = False

        def is_due(self, last_run_at: datetime) -> Any:
            return super().is_due(last_run_at) if Office.is_open else schedstate(False, 5)

    beats.app.conf.beat_schedule = {"office": {"task": "shop.report", "schedule": Office(60)}}
    scheduler = beats.start()
    for _ in range(12):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
    assert beats.sent() == []
    Office.is_open = True
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1


def test_a_schedule_class_goes_by_the_clock_of_the_database(beats: Beats) -> None:
    """A host that is an hour ahead of the database runs a schedule class as often as any other."""

    class Odd(schedule):
        pass

    beats.clock.moment = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    beats.app.conf.beat_schedule = {"odd": {"task": "shop.report", "schedule": Odd(600)}}
    scheduler = beats.start()
    for _ in range(12):
        beats.clock.advance(300)
        tick_until_idle(scheduler)
    assert len(beats.sent()) == 6


def test_a_schedule_class_that_raises_stops_nothing(beats: Beats) -> None:
    """Whenever a schedule class raises, its entry is broken, what was sent is settled, and the others run."""

    class Odd(schedule):
        raises = False

        def is_due(self, last_run_at: datetime) -> Any:
            if Odd.raises:
                raise RuntimeError("no idea")
            return super().is_due(last_run_at)

    beats.app.conf.beat_schedule = {
        "good": {"task": "shop.report", "schedule": 10},
        "odd": {"task": "shop.report", "schedule": Odd(10)},
    }
    scheduler = beats.start()
    publish = scheduler._publish

    def publish_and_raise(message: Any) -> None:
        publish(message)
        Odd.raises = True

    scheduler._publish = publish_and_raise
    for _ in range(3):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent()) == {"good": 3, "odd": 1}
    scheduler.tick()
    record = beats.records()["odd"]
    assert record["broken"] == "schedule cannot say its next run: RuntimeError('no idea')"
    assert (record["total_run_count"], record["active"]) == (1, True)
    claims = beats.database.query("SELECT * FROM schedule_claim WHERE sent_at IS NONE")[0]
    assert claims == []


@pytest.mark.redis
@pytest.mark.parametrize("mistake", [OSError("no such page"), KeyError("region"), "queue"])
def test_a_mistake_that_looks_like_the_brokers_stops_nothing(beats: Beats, redis_url: str, mistake: Any) -> None:
    """What an entry's own code raises is its own, also of a kind that a broker's errors are; the others run."""

    def ask() -> None:
        raise mistake

    bad = {"options": {"queue": "nowhere"}} if mistake == "queue" else {"args": (BeatLazyFunc(ask),)}
    app = beats.new_app(
        broker_url=redis_url,
        task_create_missing_queues=False,
        beat_schedule={
            "bad": {"task": "shop.report", "schedule": 5, **bad},
            "good": {"task": "shop.report", "schedule": 10},
        },
    )
    app.conf.task_queues = [Queue(beats.queue)]
    scheduler = beats.start(app)
    beats.clock.advance(20)
    for _ in range(6):
        scheduler.tick()
    scheduler._drop_producer()
    with redis.Redis.from_url(redis_url) as client:
        messages = [json.loads(each) for each in client.lrange(beats.queue, 0, -1)]
        client.delete(beats.queue)
    assert [message["headers"]["periodic_task_name"] for message in messages] == ["good", "good"]
    assert beats.records()["bad"]["broken"].startswith("it cannot be sent: ")
    assert scheduler._broker_away_since is None


def test_what_cannot_be_sent_is_tried_when_it_is_due_again(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """An entry whose arguments could not be had is said once to be broken, tried at each due time, and runs again."""
    answers: list[Any] = [ValueError("not now"), ValueError("not now"), 7]

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    beats.app.conf.beat_schedule = {"a": {"task": "shop.report", "schedule": 10, "args": (BeatLazyFunc(ask),)}}
    caplog.set_level(logging.ERROR)
    scheduler = beats.start()
    for _ in range(2):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
        assert beats.records()["a"]["broken"] == "it cannot be sent: not now"
    assert len([each for each in caplog.records if "is broken" in each.getMessage()]) == 1
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    scheduler.tick()
    [message] = beats.sent()
    assert message.decode()[0] == [7]
    record = beats.records()["a"]
    assert not record.get("broken")
    assert record["total_run_count"] == 1
    assert record["next_run_at"] == beats.clock.now() + timedelta(seconds=10)


def test_what_was_sent_is_settled_when_the_broker_goes_away(beats: Beats) -> None:
    """Of several runs the broker takes one and goes away: the one is settled at once, not when it is back."""
    beats.app.conf.beat_schedule = {name: {"task": "shop.report", "schedule": 10} for name in ("a", "b")}
    scheduler = beats.start()
    apply_async, sent = scheduler.apply_async, []

    def only_one(*args: Any, **kwargs: Any) -> None:
        if sent:
            raise OperationalError("away")
        sent.append(apply_async(*args, **kwargs))

    scheduler.apply_async = only_one
    beats.clock.advance(10)
    assert scheduler.tick() > 0
    assert len(beats.sent()) == 1
    assert scheduler._sent == []
    assert sorted(record["total_run_count"] for record in beats.records().values()) == [0, 1]


def test_a_signal_while_beat_closes_waits_for_no_lock(beats: Beats) -> None:
    """A second signal, while the lease is given back, ends beat; it does not ask the database for anything."""
    scheduler = beats.start()
    run, calls = scheduler.database.run, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        scheduler.close()  # as Celery's handler does
        raise SystemExit

    scheduler.database.run = interrupted
    with pytest.raises(SystemExit):
        scheduler.close()
    scheduler.database.run = run
    assert len(calls) == 1
    scheduler.close()
    assert scheduler.lease.token is None


@contextmanager
def forwarding(target: tuple[str, int]) -> Iterator[Any]:
    """A port that nobody else can have, where connections are refused, and after `open` passed on to an address."""

    class Pipe(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(target) as other:
                ends = {self.request: other, other: self.request}
                while True:
                    for ready in select.select(list(ends), [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        ends[ready].sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False
        is_open = False

        @property
        def port(self) -> int:
            return self.server_address[1]

        def open(self) -> None:
            self.server_activate()
            threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
            self.is_open = True

    with Server(("127.0.0.1", 0), Pipe, bind_and_activate=False) as server:
        server.server_bind()
        try:
            yield server
        finally:
            if server.is_open:
                server.shutdown()
