"""The database's clock alone decides when a record ends, whatever the clock of the host that wrote it says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import time_machine
from celery import Celery, states

from surrealdb_celery_backend.results import gathering
from tests.support.apps.contract_apps import request
from tests.support.apps.tasks_contract import failure

pytestmark = pytest.mark.integration

#: How long results live here, in seconds.
LIFETIME = 86_400
#: How wrong the clock of a host is.
SKEWS = [
    pytest.param(timedelta(days=-2), id="behind"),
    pytest.param(timedelta(days=2), id="ahead"),
    pytest.param(timedelta(hours=1), id="a little ahead"),
]
TABLES = ("task", "group", "chord", "key")


@contextmanager
def wrong_clock(skew: timedelta) -> Iterator[None]:
    """Let this process be a host whose clock is wrong; the engine is another process."""
    with time_machine.travel(datetime.now(timezone.utc) + skew, tick=True):
        yield


@pytest.fixture
def app(app_with: Callable[..., Celery]) -> Celery:
    """An app whose results live for a day."""
    return app_with(result_expires=LIFETIME)


def lifetimes(app: Celery, table: str) -> list[float]:
    """How long each record of a table still lives, in seconds, by the database's clock."""
    text = f"SELECT VALUE time::millis(expires_at) - time::millis(time::now()) FROM `{table}` WHERE expires_at"
    return [left / 1000 for left in app.backend.connection.run(text)]


def fill(app: Celery) -> None:
    """Write a record of each kind that expires."""
    backend = app.backend
    backend.store_result("alone", 1, states.SUCCESS)
    backend.store_result("a failure", failure("builtin"), states.FAILURE)
    backend.mark_as_done("a part", 2, request("a part", group="the chord", chord={"task": "body"}, group_index=0))
    backend.set_chord_size("the chord", 2)
    backend.add_to_chord("the chord", app.AsyncResult("one more"))
    app.GroupResult("the group", [app.AsyncResult("alone")]).save()
    backend.set("a key", "its value")
    by_key = {"status": states.SUCCESS, "result": 3, "date_done": datetime.now(timezone.utc).isoformat()}
    backend.set(backend.get_key_for_task("by key"), backend.encode(by_key))
    backend.set("a key to expire", "its value")
    backend.expire("a key to expire", LIFETIME)


@pytest.mark.parametrize("skew", SKEWS)
def test_everything_lives_as_long_as_asked(app: Celery, skew: timedelta) -> None:
    """Each record that a host with a wrong clock writes ends a lifetime after it came, by the database's clock."""
    with wrong_clock(skew):
        fill(app)
    for table in TABLES:
        found = lifetimes(app, table)
        assert len(found) == {"task": 4, "group": 1, "chord": 3, "key": 2}[table]
        # A chord that is not complete lives as long as an unfinished task.
        lifetime = 30 * LIFETIME if table == "chord" else LIFETIME
        assert all(lifetime - 60 < left <= lifetime for left in found), (table, found)


@pytest.mark.parametrize("skew", SKEWS)
def test_results_are_not_lost(app: Celery, skew: timedelta) -> None:
    """What a host with a wrong clock stored is there, and survives a clean-up by any host."""
    with wrong_clock(skew):
        fill(app)
        app.backend.cleanup()
    app.backend.cleanup()
    assert app.AsyncResult("alone").get(timeout=10) == 1
    assert app.AsyncResult("a failure").state == states.FAILURE
    assert app.GroupResult.restore("the group").get(timeout=10) == [1]
    assert app.backend.get("a key") == "its value"
    assert len(app.backend.connection.run("SELECT VALUE id FROM chord")) == 3


@pytest.mark.parametrize("skew", SKEWS)
def test_success_stays_final(app: Celery, skew: timedelta) -> None:
    """A failure that comes later does not replace a success that a host with a wrong clock stored."""
    with wrong_clock(skew):
        app.backend.store_result("alone", 1, states.SUCCESS)
    app.backend.store_result("alone", failure("builtin"), states.FAILURE)
    assert app.AsyncResult("alone").state == states.SUCCESS


@pytest.mark.parametrize("skew", SKEWS)
def test_stores_that_go_together(app: Celery, skew: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of several threads that share a statement live as long as asked, each as its own state says."""
    backend = app.backend
    backend.connection.run("RETURN 1")
    run, texts, may_go, together = backend.connection.run, [], threading.Event(), threading.Event()

    def first_waits(text: str, /, **variables: Any) -> Any:
        texts.append(text)
        if len(texts) == 1:
            together.set()
            assert may_go.wait(30)
        return run(text, **variables)

    monkeypatch.setattr(gathering, "MAX_WAIT", 30)
    monkeypatch.setattr(gathering, "MAX_IN_FLIGHT", 1)
    monkeypatch.setattr(backend.connection, "run", first_waits)
    stores = [
        ("first", states.SUCCESS),
        ("done", states.SUCCESS),
        ("running", states.STARTED),
        ("other", states.REVOKED),
    ]
    with wrong_clock(skew):
        threads = [
            threading.Thread(target=backend.store_result, args=(name, ValueError() if state == "REVOKED" else 1, state))
            for name, state in stores
        ]
        threads[0].start()
        assert together.wait(30)
        for thread in threads[1:]:
            thread.start()
        while backend.stores.gathering.waiting < len(threads) - 1:
            may_go.wait(0.01)
        may_go.set()
        for thread in threads:
            thread.join(30)
    assert len(texts) == 2
    text = "SELECT VALUE [task_id, date_done != NONE, time::millis(expires_at) - time::millis(time::now())] FROM task WHERE expires_at"
    found = {(name, done, round(left / 1000 / LIFETIME, 2)) for name, done, left in run(text)}
    assert found == {("first", True, 1), ("done", True, 1), ("other", True, 1), ("running", False, 30)}


@pytest.mark.parametrize("skew", SKEWS)
def test_expired_is_expired_for_every_host(app_with: Callable[..., Celery], skew: timedelta) -> None:
    """A result whose lifetime is over by the database's clock is gone for a host with any clock."""
    app = app_with(result_expires=0.001)
    app.backend.store_result("short", 1, states.SUCCESS)
    app.backend.connection.run("SLEEP 20ms; RETURN 1")
    with wrong_clock(skew):
        assert app.AsyncResult("short").state == states.PENDING
        app.backend.cleanup()
    assert app.backend.connection.run("SELECT VALUE task_id FROM task") == []


@pytest.mark.parametrize("skew", SKEWS)
def test_a_shortened_lifetime(app_with: Callable[..., Celery], skew: timedelta) -> None:
    """A clean-up after result_expires was shortened goes by the database's clock, on a host with any clock."""
    app_with(result_expires=None).backend.store_result("young", 1, states.SUCCESS)
    with wrong_clock(skew):
        app_with(result_expires=None).backend.store_result("young too", 1, states.SUCCESS)
        app = app_with(result_expires=3600)
        app.backend.cleanup()
    app.backend.cleanup()
    assert set(app.backend.connection.run("SELECT VALUE task_id FROM task")) == {"young", "young too"}


def test_date_done_is_the_databases(app: Celery) -> None:
    """Results of hosts whose clocks differ by days are in the order in which they were stored."""
    for name, skew in (("first", 2), ("second", -2), ("third", 0)):
        with wrong_clock(timedelta(days=skew)):
            app.backend.store_result(name, 1, states.SUCCESS)
    text = "SELECT task_id, date_done FROM task ORDER BY date_done"
    found = app.backend.connection.run(text)
    assert [task["task_id"] for task in found] == ["first", "second", "third"]
    assert abs(datetime.now(timezone.utc) - found[-1]["date_done"]) < timedelta(seconds=60)
