"""`Results.follow` on real engines: what changes is told once, in order, notified or looked for."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from celery import Celery

from surrealdb_celery_backend.errors import InvalidFilter
from surrealdb_celery_backend.results import Results
from tests.engines import RunningEngine
from tests.support import history_data as data
from tests.support.apps.contract_apps import request
from tests.support.states import until

pytestmark = pytest.mark.integration

#: However slow the machine: how long a change may take to be told, in seconds.
PATIENCE = 60


def test_changes_are_told_from_now_on(app: Celery, results: Results) -> None:
    """What is there already is not told; each new state of a task is, once."""
    app.backend.store_result("old", 1, "SUCCESS", request=request("old"))
    app.backend.store_result("running", None, "STARTED", request=request("running"))
    follower = results.follower(look_every=0.05)
    try:
        assert follower.changes(0.3) == []
        told: list[tuple[str, str]] = []
        for state, value in (("STARTED", None), ("PROGRESS", {"current": 1, "total": 2}), ("SUCCESS", 5)):
            app.backend.store_result("new", value, state, request=request("new"))
            changes = follower.changes(PATIENCE)
            told += [(task.id, task.state) for task in changes]
        assert told == [("new", "STARTED"), ("new", "PROGRESS"), ("new", "SUCCESS")]
        app.backend.store_result("running", ValueError("x"), "FAILURE", request=request("running"))
        [task] = follower.changes(PATIENCE)
        assert (task.id, task.state) == ("running", "FAILURE")
        assert follower.changes(0.5) == []
    finally:
        follower.close()


def test_a_timeout_that_is_no_number(app: Celery, results: Results) -> None:
    """NaN, with which following would never end, and text are refused by name, before anything is followed."""
    with pytest.raises(ValueError, match=r"^timeout must be a number of seconds, .* not nan"):
        results.follow(timeout=float("nan"))
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, .* not '5'"):
        results.follow(timeout="5")  # type: ignore[arg-type]
    assert list(results.follow(timeout=-1)) == []
    follower = results.follower(look_every=0.05)
    try:
        app.backend.store_result("new", 1, "SUCCESS", request=request("new"))
        with pytest.raises(ValueError, match=r"^wait must be a number of seconds, .* not nan"):
            follower.changes(float("nan"))
        with pytest.raises(TypeError, match=r"^wait must be a number of seconds, .* not '5'"):
            follower.changes("5")  # type: ignore[arg-type]
        assert [task.id for task in follower.changes(None)] == ["new"]
        assert follower.changes(0) == []
    finally:
        follower.close()


def test_many_at_once_are_all_told(app: Celery, results: Results) -> None:
    """Hundreds that end between two looks are told each, in the order in which they ended."""
    follower = results.follower(look_every=0.05)
    try:
        records = [data.record(task_id=f"t{n:04}", date_done=None) for n in range(700)]
        app.backend.connection.run_all("INSERT INTO task $rows RETURN NONE", rows=_rows(records))
        app.backend.connection.run_all("UPDATE task SET date_done = time::now() RETURN NONE")
        told: list[str] = []
        end = time.monotonic() + PATIENCE
        while len(told) < 700 and time.monotonic() < end:
            told += [task.id for task in follower.changes(1) if task.date_done is not None]
        assert sorted(told) == [f"t{n:04}" for n in range(700)]
        assert follower.changes(0.3) == []
    finally:
        follower.close()


def _rows(records: list[dict[str, object]]) -> list[dict[str, object]]:
    from surrealdb_celery_backend.client.values import RecordID

    return [
        {"id": RecordID("task", fields["task_id"]), **{k: v for k, v in fields.items() if v is not None}}
        for fields in records
    ]


def test_a_filter_applies(app: Celery, results: Results) -> None:
    """Only what matches is told."""
    tasks = results.follow(look_every=0.05, state="FAILURE", name="contract.add", timeout=PATIENCE)
    app.backend.store_result("good", 1, "SUCCESS", request=request("good"))
    app.backend.store_result("other", KeyError("x"), "FAILURE", request=request("other", task="contract.sub"))
    app.backend.store_result("bad", KeyError("x"), "FAILURE", request=request("bad"))
    assert next(tasks).id == "bad"


def test_following_ends(results: Results) -> None:
    """A time limit ends it, closing it wakes who waits, and a span of time makes no sense."""
    began = time.monotonic()
    assert list(results.follow(timeout=0.3, look_every=0.05)) == []
    assert time.monotonic() - began < PATIENCE
    follower = results.follower(look_every=30)
    waiting = threading.Thread(target=follower.changes, args=(PATIENCE,))
    waiting.start()
    follower.close()
    waiting.join(PATIENCE / 2)
    assert not waiting.is_alive()
    with pytest.raises(InvalidFilter, match="since and until mean nothing"):
        results.follower(since=data.NOW - timedelta(hours=1))


def test_changes_are_pushed(
    app: Celery, results: Results, live_engine: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where LIVE queries notify, a change is told without a look; however many follow, there is one query."""
    followers = [results.follower(look_every=3600) for _ in range(5)]
    try:
        until(lambda: app.backend.feed.live, "changes are notified", PATIENCE)
        for follower in followers:
            # The look that follows a new subscription; the next one is far away.
            follower.changes(0)
            monkeypatch.setattr(follower, "_look", list)
        app.backend.store_result("new", 5, "SUCCESS", request=request("new"))
        for follower in followers:
            [task] = follower.changes(PATIENCE)
            assert (task.id, task.state) == ("new", "SUCCESS")
        # One that is replaced ends a moment after its successor stands.
        until(lambda: len(app.backend.connection.run("INFO FOR TABLE task")["lives"]) == 1, "there is one LIVE query")
    finally:
        for follower in followers:
            follower.close()
