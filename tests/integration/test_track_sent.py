"""With surrealdb_track_sent PENDING means waiting, and no record unknown; a later state is never overwritten."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery, group, signals, states
from celery.exceptions import Ignore, Reject

from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results import Results, statements
from surrealdb_celery_backend.results import sent as sent_tasks
from surrealdb_celery_backend.results.sent import TOGETHER
from tests.engines import Database, RunningEngine
from tests.support.faults.proxy import Proxy
from tests.support.inprocess import TIMEOUT, worker
from tests.support.states import until

pytestmark = pytest.mark.integration

#: Threads that store at one moment.
RACERS = 16


def make(app_with: Callable[..., Celery], **conf: Any) -> Celery:
    """An app with a task."""
    app = app_with(**{"surrealdb_track_sent": True, **conf})

    @app.task(name="echo", shared=False)
    def echo(value: Any = None) -> Any:
        return value

    return app


def tasks(app: Celery) -> dict[str, dict[str, Any]]:
    """All records of tasks, by id."""
    return {task["task_id"]: task for task in app.backend.connection.run("SELECT * FROM task")}


def test_a_task_that_waits_is_known(app_with: Callable[..., Celery]) -> None:
    """A task that was sent has a record with what is known of it; an id that nobody sent has none."""
    app = make(app_with)
    eta = datetime.now(timezone.utc) + timedelta(hours=1)
    result = app.tasks["echo"].apply_async((1,), eta=eta, priority=5, headers={"tags": ["nightly"]})
    assert app.backend.task_result_exists(result.id), "also before its record is stored"
    assert app.backend.sent.flush(TIMEOUT)
    assert app.backend.task_result_exists(result.id)
    assert not app.backend.sent.holds(result.id)
    with Results(app) as results:
        assert (results.exists(result.id), results.exists("unknown")) == (True, False)
    for task_id in (result.id, "unknown"):
        asked = app.AsyncResult(task_id)
        if hasattr(asked, "exists"):  # Celery 5.7
            assert asked.exists() == app.backend.task_result_exists(task_id)
    assert not app.backend.task_result_exists("unknown")
    assert result.state == app.AsyncResult("unknown").state == states.PENDING
    task = tasks(app)[result.id]
    assert (task["status"], task["name"], task["queue"]) == ("PENDING", "echo", app.conf.task_default_queue)
    assert (task["priority"], task["tags"]) == (5, ["nightly"])
    assert abs(task["eta"] - eta) < timedelta(milliseconds=1)
    assert task["expires_at"] > datetime.now(timezone.utc) + timedelta(days=29)


def test_what_is_revoked_before_it_runs_stays_known(app_with: Callable[..., Celery]) -> None:
    """A worker that is told to revoke a task knows its id alone: what its record says of it stays."""
    app = make(app_with)
    result = app.tasks["echo"].apply_async((1,), countdown=3600, headers={"tags": ["nightly"], "meta": {"of": 7}})
    assert app.backend.sent.flush(TIMEOUT)
    before = tasks(app)[result.id]
    app.backend.mark_as_revoked(result.id, "revoked")
    after = tasks(app)[result.id]
    assert after["status"] == states.REVOKED
    for field in ("name", "queue", "root_id", "sent_at", "eta", "tags", "meta"):
        assert after[field] == before[field]
    with Results(app) as results:
        assert [task.id for task in results.find(name="echo", state="REVOKED", tags="nightly").tasks] == [result.id]


def test_what_ends_without_a_state(app_with: Callable[..., Celery]) -> None:
    """Celery stores nothing of a task that raises Ignore: it stays PENDING, unless it stores a state itself."""
    app = make(app_with, task_track_started=False)
    ended = threading.Event()

    @app.task(name="ignore", bind=True, shared=False)
    def ignore(self: Any, state: str | None = None) -> None:
        if state is not None:
            self.update_state(state=state)
        raise Ignore

    @app.task(name="reject", shared=False)
    def reject() -> None:
        raise Reject("not today", requeue=False)

    def note(*_: Any, state: str, **__: Any) -> None:
        if state == states.REJECTED:
            ended.set()

    signals.task_postrun.connect(note)
    silent, said = app.tasks["ignore"].delay(), app.tasks["ignore"].delay(states.IGNORED)
    rejected = app.tasks["reject"].delay()
    assert app.backend.sent.flush(TIMEOUT)
    # One after the other, so the last one ends last.
    with worker(app, concurrency=1):
        assert ended.wait(TIMEOUT)
        if hasattr(rejected, "exists"):  # Celery 5.7, where the worker's main process stores it
            until(lambda: rejected.state == states.FAILURE, "the rejected task has failed", TIMEOUT)
        else:
            assert rejected.state == states.PENDING
    assert (silent.state, said.state) == (states.PENDING, states.IGNORED)


@pytest.fixture
def proxy(fresh_database: Database) -> Iterator[Proxy]:
    """The way to the database."""
    with Proxy(fresh_database.engine.url) as proxy:
        yield proxy


# The proxy comes first: it ends after the apps.
def test_a_group_goes_together(proxy: Proxy, app_with: Callable[..., Celery]) -> None:
    """Two hundred tasks are stored in a few requests, and no send waits for one."""
    app = make(app_with, surrealdb_url=proxy.url, surrealdb_timeout=TIMEOUT)
    app.backend.connection.run("RETURN 1")
    before = app.backend.connection.request_count
    # No request is answered before all are sent: how many go with the first is the machine's to say.
    proxy.holding_replies = True
    result = group(app.tasks["echo"].s(number) for number in range(200)).apply_async()
    assert not app.backend.sent.flush(0)
    proxy.holding_replies = False
    assert app.backend.sent.flush(TIMEOUT)
    assert app.backend.connection.request_count - before <= 1 + 200 // TOGETHER
    assert set(tasks(app)) == {each.id for each in result.results}


def test_what_finds_the_queue_full_is_counted(
    proxy: Proxy, app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Records that do not fit into the queue are given up with one warning a stretch, which says how many."""
    monkeypatch.setattr(sent_tasks, "LONGEST_QUEUE", 10)
    app = make(app_with, surrealdb_url=proxy.url, surrealdb_timeout=TIMEOUT)
    app.backend.connection.run("RETURN 1")
    echo, stored = app.tasks["echo"], 0
    for left_out in (30, 5):
        before = len(proxy.requests("query"))
        proxy.holding_replies = True
        echo.delay()
        # It is no longer in the queue, and its reply does not come.
        until(lambda before=before: len(proxy.requests("query")) > before, "the first is on its way")
        for _ in range(10 + left_out):
            echo.delay()
        proxy.holding_replies = False
        assert app.backend.sent.flush(TIMEOUT)
        stored += 11
        assert len(tasks(app)) == stored
    told = [record.getMessage() for record in caplog.records if "stored as PENDING" in record.getMessage()]
    text = "%d tasks were sent, but not stored as PENDING: 10 were waiting to be stored"
    assert told == [text % 30, text % 5]


ENDS = """
import logging, sys
from celery import Celery
logging.basicConfig()
app = Celery("sender", backend="surrealdb", broker="memory://", set_as_current=False)
app.conf.update(surrealdb_url=sys.argv[1], surrealdb_track_sent=True, surrealdb_timeout=60)
app.send_task("echo")
"""


def test_a_process_that_ends_says_what_is_not_stored(proxy: Proxy) -> None:
    """A process does not wait longer than a moment for a database that says nothing, and says what was not stored."""
    proxy.ignoring = True
    done = subprocess.run(
        [sys.executable, "-c", ENDS, proxy.url], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert "1 tasks were sent, but not stored as PENDING: the process ends" in done.stderr


def test_a_later_state_stays(app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a task ends before its record as sent is stored, its result stays."""
    app = make(app_with)
    sent = app.backend.sent
    result = app.tasks["echo"].delay(7)
    assert sent.flush(TIMEOUT)
    with worker(app):
        assert result.get(timeout=TIMEOUT) == 7
    headers = {"id": result.id, "task": "echo", "root_id": result.id}
    sent.add(headers, {}, "late")
    assert sent.flush(TIMEOUT)
    task = tasks(app)[result.id]
    assert (task["status"], task["result"]) == ("SUCCESS", "7")


def test_no_result_is_lost_to_the_record_of_its_sending(app_with: Callable[..., Celery], engine: RunningEngine) -> None:
    """A task may end in the moment in which the record of its sending is written: its result stays."""
    if not engine.exact:
        pytest.skip("this store is not exact: docs/stores.md")
    app = make(app_with)
    backend = app.backend
    backend.connection.run("RETURN 1")
    ids = [f"task-{number}" for number in range(2000)]
    together = {task_id: threading.Barrier(2) for task_id in ids}

    def send(task_id: str) -> None:
        task = {"id": RecordID("task", task_id), "task_id": task_id, "status": "PENDING"}
        together[task_id].wait(TIMEOUT)
        backend.connection.run(statements.insert_sent("task", 1), lifetime=None, task0=task)

    def end(task_id: str) -> None:
        together[task_id].wait(TIMEOUT)
        backend.store_result(task_id, 1, states.SUCCESS)

    with ThreadPoolExecutor(RACERS) as pool:
        for first in range(0, len(ids), RACERS // 2):
            races = ids[first : first + RACERS // 2]
            for future in [pool.submit(side, task_id) for task_id in races for side in (send, end)]:
                future.result(TIMEOUT)
    replaced = [task_id for task_id, task in tasks(app).items() if task["status"] != states.SUCCESS]
    assert not replaced


def test_off_by_default(app_with: Callable[..., Celery]) -> None:
    """Without the setting nothing is stored when a task is sent."""
    app = make(app_with, surrealdb_track_sent=False)
    app.tasks["echo"].delay(1)
    assert app.backend.sent is None
    assert tasks(app) == {}
