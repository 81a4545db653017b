"""Several beats on real engines: one is active, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from surrealdb_celery_backend.beat import heartbeat
from surrealdb_celery_backend.beat.lease import Lease
from surrealdb_celery_backend.beat.store import Store
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.errors import LeaseLost
from surrealdb_celery_backend.settings import Settings
from tests.support.beats import MAX_WAIT, Beats, tick_until_idle

pytestmark = pytest.mark.integration

UTC = timezone.utc


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
    standby.max_interval = 7200
    assert standby.tick() == pytest.approx(1200)
    beats.database.query("UPDATE schedule_lease SET until = time::now() + 600s")
    assert 0 < standby.tick() <= 601
    assert standby.lease.token is None


def test_a_stale_beat_cannot_fire(beats: Beats) -> None:
    """A beat that lost its lease without noticing sends nothing: the database refuses its claims."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    stale = beats.start()
    beats.database.query("UPDATE schedule_lease SET until = time::now() - 1s")
    fresh = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    assert fresh.lease.token == 2
    beats.clock.advance(10)
    firings = stale.agenda.take_due(beats.clock.now(), 10)
    assert len(firings) == 1
    with pytest.raises(LeaseLost):
        stale.firings.fire(firings)
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
    [firing] = dead.agenda.take_due(beats.clock.now(), 10)
    assert list(dead.firings.claim([firing]).values()) == [False]
    # And here it dies.
    beats.database.query("UPDATE schedule_lease SET until = time::now() - 1s")
    heir = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    tick_until_idle(heir)
    assert [message.headers["id"] for message in beats.sent()] == [dead.firings.task_id(firing)]
    assert beats.records()["tick"]["total_run_count"] == 1


def test_what_a_dead_beat_sent_is_counted_once(beats: Beats) -> None:
    """A firing that was sent, but not planned on, is not sent again, and counts once."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    dead = beats.start()
    beats.clock.advance(10)
    dead.firings.fire(dead.agenda.take_due(beats.clock.now(), 10))
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
    settings = Settings.from_app(beats.app)
    connections = [Connection(settings.options) for _ in range(contenders)]
    Store(connections[0], settings).define()
    try:
        for round_ in range(1, 6):
            leases = [Lease(Store(connection, settings).leases, 3600, beats.clock) for connection in connections]
            barrier = threading.Barrier(contenders)

            def reach(lease: Lease, barrier: threading.Barrier = barrier) -> None:
                lease.take()
                barrier.wait(MAX_WAIT)
                # On a store that misses conflicts two may have been told that it is theirs.
                with contextlib.suppress(LeaseLost):
                    if lease.token is not None:
                        lease.renew()

            threads = [threading.Thread(target=reach, args=(lease,)) for lease in leases]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(2 * MAX_WAIT)
            holders = [lease for lease in leases if lease.token is not None]
            assert [lease.token for lease in holders] == [round_]
            holders[0].release()
    finally:
        for connection in connections:
            connection.close()


def test_a_signal_in_the_middle_of_a_tick_gives_the_lease_back(beats: Beats) -> None:
    """Closed by a signal's handler while it waits for the database, beat waits for no lock, and ends in order."""
    scheduler = beats.start()
    changed = scheduler.store.entries.changed

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        scheduler.close()  # as Celery's handler does
        raise SystemExit

    scheduler.store.entries.changed = interrupted  # type: ignore[method-assign]
    scheduler.changes.look_at_once()
    with pytest.raises(SystemExit):
        scheduler.tick()
    scheduler.store.entries.changed = changed  # type: ignore[method-assign]
    assert scheduler.lease.token == 1
    scheduler.close()
    [lease] = beats.database.query("SELECT *, until <= time::now() AS is_over FROM schedule_lease")[0]
    assert lease["is_over"]


def test_a_signal_while_beat_closes_waits_for_no_lock(beats: Beats) -> None:
    """A second signal, while the lease is given back, ends beat; it does not ask the database for anything."""
    scheduler = beats.start()
    release, calls = scheduler.store.leases.release, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        scheduler.close()  # as Celery's handler does
        raise SystemExit

    scheduler.store.leases.release = interrupted  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        scheduler.close()
    scheduler.store.leases.release = release  # type: ignore[method-assign]
    assert len(calls) == 1
    scheduler.close()
    assert scheduler.lease.token is None


def test_a_heartbeat_says_that_beat_lives(beats: Beats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the active beat and of a standby says which it is; it is replaced, and gone after the end."""
    monkeypatch.setattr(heartbeat, "WRITE_EVERY", 0.0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    files = [tmp_path / "first", tmp_path / "second"]
    files[0].symlink_to(elsewhere)
    schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    first, second = (
        beats.start(beats.new_app(surrealdb_beat_heartbeat=file, beat_schedule=schedule)) for file in files
    )
    due = (beats.clock.now() + timedelta(seconds=10)).isoformat()
    told = [json.loads(file.read_text()) for file in files]
    assert [(each["state"], each["lease"], each["next_run_at"]) for each in told] == [
        ("active", 1, due),
        ("standby", None, None),
    ]
    assert elsewhere.read_text() == "kept"
    beats.clock.advance(5)
    first.tick()
    assert json.loads(files[0].read_text())["at"] == beats.clock.now().isoformat()
    first.close()
    second.close()
    assert not any(file.exists() for file in files)
