"""What is fired, when and how often, on real engines. Time is a clock of the test's own."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery.schedules import crontab

from surrealdb_celery_backend.beat import ScheduleEntry
from surrealdb_celery_backend.beat.clock import DatabaseClock
from surrealdb_celery_backend.errors import InvalidSchedule
from tests.support.beats import MAX_WAIT, Beats, SteppedClock, due_at, take_in_changes, tick_until_idle

pytestmark = pytest.mark.integration

UTC = timezone.utc


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
    take_in_changes(scheduler)
    beats.clock.advance(1000)
    take_in_changes(scheduler)
    tick_until_idle(scheduler)
    assert beats.records()["tick"]["total_run_count"] == len(beats.sent()) > 0


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
        common: dict[str, Any] = {"task": "shop.report", "schedule": 10}
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
    assert {name: record.get("finished") for name, record in records.items()} == {
        "once": True,
        "thrice": True,
        "until": True,
        "from": None,
        "at": True,
    }
    # `active` is a person's field: beat leaves it as it is.
    assert {record["active"] for record in records.values()} == {True}
    # Resumed, a one-off runs once more.
    with beats.schedules() as schedules:
        schedules.resume("once")
    take_in_changes(scheduler)
    beats.clock.advance(60)
    tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent())["once"] == 1


def test_what_expired_while_beat_was_away_does_not_run(beats: Beats) -> None:
    """A run that was due before its entry expired is left out by a beat that comes back later."""
    beats.app.conf.beat_schedule = {
        "offer": {"task": "shop.report", "schedule": 600, "expires_at": beats.clock.now() + timedelta(seconds=900)},
        "tick": {"task": "shop.report", "schedule": 600},
    }
    beats.start().close()
    beats.clock.advance(1000)
    tick_until_idle(beats.start())
    assert [message.headers["periodic_task_name"] for message in beats.sent()] == ["tick"]
    record = beats.records()["offer"]
    assert (record["finished"], record.get("next_run_at"), record["active"]) == (True, None, True)


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "from Python"])
@pytest.mark.parametrize(
    ("ended", "change"),
    [
        ({"schedule": {"clocked": "$soon"}}, {"schedule": {"clocked": "$later"}}),
        ({"schedule": {"timedelta": 3000}, "max_runs": 1}, {"max_runs": 2}),
        ({"schedule": {"timedelta": 3000}, "expires_at": "$end"}, {"expires_at": "$later"}),
        ({"schedule": {"timedelta": 3000}, "one_off": True}, {"schedule": {"timedelta": 3500}}),
    ],
    ids=["clocked", "max_runs", "expires_at", "one_off"],
)
def test_an_entry_that_ended_runs_again_when_it_is_changed(
    beats: Beats, ended: dict[str, Any], change: dict[str, Any], by_hand: bool
) -> None:
    """A change of schedule, max_runs or expires_at has an ended entry run again, also if beat sees it later."""
    start = datetime.now(UTC).replace(microsecond=0)
    seconds = {"$soon": 3000, "$end": 3500, "$later": 8000}
    times = {name: start + timedelta(seconds=after) for name, after in seconds.items()}

    def filled(fields: dict[str, Any], *, in_schedule: bool = False) -> dict[str, Any]:
        return {
            name: filled(value, in_schedule=True)
            if isinstance(value, dict)
            else (times[value].isoformat() if in_schedule else times[value])
            if value in times
            else value
            for name, value in fields.items()
        }

    beats.clock.moment = start
    beats.app.conf.beat_schedule = {"a": {"task": "shop.report", **filled(ended)}}
    first = beats.start()
    beats.clock.advance(3100)
    tick_until_idle(first)
    assert len(beats.sent()) == 1
    assert beats.records()["a"]["finished"] is True
    first.close()
    if by_hand:
        [(name, value)] = filled(change).items()
        beats.database.query(f"UPDATE schedule SET {name} = $value", {"value": value})
    else:
        with beats.schedules() as schedules:
            schedules.change("a", **filled(change))
            assert not schedules.get("a").finished
    # By the database's clock, which went on as usual.
    beats.clock.moment = datetime.now(UTC)
    second = beats.start()
    assert not beats.records()["a"].get("finished")
    assert beats.records()["a"]["next_run_at"] is not None
    beats.clock.moment = times["$later"] + timedelta(seconds=-1 if "expires_at" in change else 1)
    tick_until_idle(second)
    assert len(beats.sent()) >= 1
    assert beats.records()["a"]["active"] is True


def test_resuming_what_cannot_run_is_refused(beats: Beats) -> None:
    """Resuming an ended clocked entry is refused with the reason; its description can be changed."""
    beats.app.conf.beat_schedule = {
        "at": {"task": "shop.report", "schedule": {"clocked": beats.clock.now() + timedelta(seconds=10)}}
    }
    scheduler = beats.start()
    beats.clock.advance(20)
    tick_until_idle(scheduler)
    beats.database.query("UPDATE schedule SET schedule.clocked = $past, plan = NONE", {"past": "2026-01-01T00:00:00Z"})
    take_in_changes(scheduler)
    with beats.schedules() as schedules:
        with pytest.raises(InvalidSchedule, match="its time has passed"):
            schedules.resume("at")
        assert schedules.change("at", description="done").finished


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
            take_in_changes(scheduler)
            tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent()) == {"yearly": 1, "paused": 1}
    records = beats.records()
    assert records["yearly"]["next_run_at"] == planned
    assert records["yearly"]["total_run_count"] == records["paused"]["total_run_count"] == 1
    assert not records["yearly"].get("run_requested_at")


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
    costs: list[dict[str, int]] = []
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
        costs[-1]["start"] = scheduler.store.request_count

        before = scheduler.store.request_count
        scheduler.tick()
        costs[-1]["idle"] = scheduler.store.request_count - before

        own.clock.advance(10)
        before = scheduler.store.request_count
        scheduler.tick()
        costs[-1]["due"] = scheduler.store.request_count - before
        assert len(own.sent()) == 1

        before = scheduler.store.request_count
        take_in_changes(scheduler)
        costs[-1]["changes"] = scheduler.store.request_count - before
        scheduler.close()
    few, many = costs
    assert few["idle"] == many["idle"] == 0
    assert few["due"] == many["due"] == 2
    assert few["changes"] == many["changes"] == 1
    # Pages of entries read, and of new ones written: not one request per entry.
    assert many["start"] - few["start"] < 50


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


def test_old_claims_are_let_go(beats: Beats) -> None:
    """Claims and marks of removals are kept for a while, and not for ever."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    scheduler = beats.start()
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    beats.database.query("CREATE schedule_removed SET entry = schedule:old, removed_at = time::now()")
    beats.clock.advance(3000)
    scheduler.upkeep.clean_up()
    assert len(beats.database.query("SELECT * FROM schedule_claim")[0]) == 1
    beats.clock.advance(1000)
    scheduler.upkeep.clean_up()
    assert beats.database.query("SELECT * FROM schedule_claim")[0] == []
    assert len(beats.database.query("SELECT * FROM schedule_removed")[0]) == 1
    beats.clock.advance(90_000)
    scheduler.upkeep.clean_up()
    assert beats.database.query("SELECT * FROM schedule_removed")[0] == []


def test_the_database_tells_the_time(beats: Beats) -> None:
    """Beat goes by the database's clock, whatever its host's says."""
    clock = DatabaseClock()
    clock.observe(datetime.now(UTC) + timedelta(hours=1), time.monotonic(), time.monotonic())  # a host that is ahead
    scheduler = beats.start(clock=clock)
    before = beats.database.query("RETURN time::now()")[0]
    told = scheduler.clock.now()
    after = beats.database.query("RETURN time::now()")[0]
    # It can be wrong by what the answer took, and is not by what the host is.
    assert before - timedelta(seconds=MAX_WAIT) < told < after + timedelta(seconds=MAX_WAIT)


def test_counts_that_are_set_back_count_anew(beats: Beats) -> None:
    """After its count was set back an entry runs as often as max_runs says, not as beat remembers."""
    scheduler = beats.start()
    with beats.schedules() as schedules:
        added = schedules.add(ScheduleEntry("a", "shop.report", 10, max_runs=5))
        assert added.changed_at is not None
        take_in_changes(scheduler)
        beats.clock.moment = added.changed_at + timedelta(seconds=1)
        for _ in range(4):
            beats.clock.advance(10)
            tick_until_idle(scheduler)
        assert len(beats.sent()) == 4
        schedules.change("a", total_run_count=0)
    take_in_changes(scheduler)
    for _ in range(7):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
    assert len(beats.sent()) == 5
    assert beats.records()["a"]["finished"] is True


def test_a_run_that_was_asked_for_can_be_the_last(beats: Beats) -> None:
    """Runs that are asked for count towards max_runs: with the last one the entry is paused."""
    scheduler = beats.start()
    with beats.schedules() as schedules:
        added = schedules.add(ScheduleEntry("a", "shop.report", 10, max_runs=2))
        assert added.changed_at is not None
        take_in_changes(scheduler)
        beats.clock.moment = added.changed_at + timedelta(seconds=1)
        beats.clock.advance(10)
        tick_until_idle(scheduler)
        schedules.run("a")
        beats.clock.advance(10)  # and it is due as well
        take_in_changes(scheduler)
        for _ in range(3):
            beats.clock.advance(10)
            tick_until_idle(scheduler)
            take_in_changes(scheduler)
    assert len(beats.sent()) == 2
    record = beats.records()["a"]
    assert (record["active"], record["finished"], record["total_run_count"]) == (True, True, 2)
    assert record.get("next_run_at") is None


def test_a_jitter_delays_what_is_sent_and_no_due_time(beats: Beats) -> None:
    """With a jitter a run is sent when `fires_at` says so, under the task id of its due time, and once."""
    with beats.schedules() as schedules:
        added = schedules.add(ScheduleEntry("e", "shop.report", {"timedelta": 600}, jitter=300))
        assert added.changed_at is not None
    due = added.changed_at + timedelta(seconds=600)
    late = (added.fires_at(due) - due).total_seconds()
    clock = SteppedClock(due)
    scheduler = beats.start(clock=clock)
    beats.clock.moment = due
    for _ in range(3):
        scheduler.tick()
    assert beats.sent() == []
    clock.advance(late - 0.001)
    scheduler.tick()
    assert beats.sent() == []
    clock.advance(0.002)
    scheduler.tick()
    [message] = beats.sent()
    assert due_at(message) == due
    assert beats.records()["e"]["next_run_at"] == due + timedelta(seconds=600)


def test_a_first_run_at_once_comes_once(beats: Beats) -> None:
    """An entry with run_at_once runs when it is added, and not again at a redeploy."""
    beats.app.conf.beat_schedule = {"e": {"task": "shop.report", "schedule": 3600, "run_at_once": True}}
    scheduler = beats.start()
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1
    scheduler.close()
    app = beats.new_app(beat_schedule=beats.app.conf.beat_schedule)
    beats.clock.advance(1800)
    later = beats.start(app)
    tick_until_idle(later)
    assert beats.sent() == []
    assert beats.records()["e"]["changed_by"] == "code"


def test_no_run_while_the_one_before_still_runs(beats: Beats) -> None:
    """With no_overlap a due run is left out until the result table says that the one before has ended."""
    app = beats.new_app(
        result_backend=beats.database.backend_url,
        beat_schedule={
            "careful": {"task": "shop.report", "schedule": 10, "no_overlap": True},
            "plain": {"task": "shop.report", "schedule": 10},
        },
    )
    scheduler = beats.start(app)

    def run(seconds: float) -> list[str]:
        beats.clock.advance(seconds)
        tick_until_idle(scheduler)
        sent = [each.headers for each in beats.sent() if each.headers["periodic_task_name"] == "careful"]
        return [headers["id"] for headers in sent]

    [first] = run(10)
    assert run(10) == [], "it waits in the queue"
    app.backend.store_result(first, None, "STARTED")
    assert run(10) == [], "it runs"
    scheduler.close()
    scheduler = beats.start(app)
    assert run(10) == [], "a beat that takes over knows"
    app.backend.store_result(first, 1, "SUCCESS")
    [second] = run(10)
    assert second != first
    app.backend.store_result(second, ValueError("no"), "FAILURE")
    assert len(run(10)) == 1
    assert beats.records()["careful"]["total_run_count"] == 3
    assert beats.records()["plain"]["total_run_count"] == 6
    assert run(86400 + 10), "a worker that died without a word does not stop it for ever"
    app.backend.close()


def test_no_overlap_needs_results(beats: Beats) -> None:
    """Where no result can tell whether a run has ended, the entry is marked with the reason, and the others run."""
    beats.app.conf.beat_schedule = {
        "careful": {"task": "shop.report", "schedule": 10, "no_overlap": True},
        "plain": {"task": "shop.report", "schedule": 10},
    }
    scheduler = beats.start()
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    assert [each.headers["periodic_task_name"] for each in beats.sent()] == ["plain"]
    assert beats.records()["careful"]["broken"].startswith("no_overlap needs the results in SurrealDB")
