"""The database is away: a worker's main loop goes on, and what was to be stored there is stored later."""

from __future__ import annotations

import os
import signal
import time
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import chord, states
from celery.exceptions import ChordError, NotRegistered, TaskRevokedError, TimeLimitExceeded, WorkerLostError

from tests.engines import RunningEngine
from tests.support.faults.worker import Worker
from tests.support.states import until

# Workers and engines that start slowly on a slow machine; only a hang takes so long.
pytestmark = [pytest.mark.worker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]

ARRIVE = 100
#: How long a worker may take to answer, in seconds: one that retries is silent for a minute, and for three ids for three.
ANSWER = 30.0
PATIENT = {"result_backend_max_retries": 1000, "result_backend_max_sleep_between_retries_ms": 1000}


def answers(worker: Worker) -> bool:
    """Whether a worker answers `inspect ping` in time."""
    began = time.monotonic()
    replies = worker.app.control.ping(destination=[f"{worker.queue}@here"], timeout=ANSWER)
    return bool(replies) and time.monotonic() - began < ANSWER


def revoked(worker: Worker) -> set[str]:
    """The tasks that a worker has been told to revoke."""
    name = f"{worker.queue}@here"
    replies = worker.app.control.inspect(destination=[name], timeout=ANSWER).revoked() or {}
    return set(replies.get(name) or ())


def is_away(worker: Worker) -> bool:
    """Whether a worker's main loop has said that it goes on without the database."""
    return "the worker goes on without its result database" in worker.log


def ended(worker: Worker, task_id: str) -> Any:
    """What became of a task, once it has ended."""
    result = worker.app.AsyncResult(task_id)
    until(lambda: result.state in states.READY_STATES, f"task {task_id} has ended", ARRIVE)
    return result.result


@pytest.mark.parametrize(
    ("pool", "outage"),
    [("prefork", "kill"), ("prefork", "pause"), ("threads", "kill"), ("gevent", "kill"), ("solo", "kill")],
)
def test_revoking(durable_engine: RunningEngine, start_worker: Any, pool: str, outage: str) -> None:
    """Several tasks are revoked while the database is away: the worker answers, and stores REVOKED later."""
    worker = start_worker(durable_engine.database(), PATIENT, pool=pool)
    app = worker.app
    echo = app.tasks["faults.echo"]
    worker.warm_up()
    getattr(durable_engine, outage)()
    ids = [uuid.uuid4().hex for _ in range(3)]
    app.control.revoke(ids)
    # Two queues: a task could overtake the message that revokes it.
    until(lambda: set(ids) <= revoked(worker), "the worker knows which tasks are revoked", ARRIVE)
    for task_id in ids:
        echo.apply_async(["revoked"], task_id=task_id)
    until(lambda: is_away(worker), "the worker has met the outage", ARRIVE)
    assert answers(worker)
    until(lambda: worker.log.count("Discarding revoked task") == 3, "it has discarded the tasks", ANSWER)
    assert answers(worker)
    if outage == "kill":
        durable_engine.restart()
    else:
        durable_engine.resume()
    for task_id in ids:
        assert isinstance(ended(worker, task_id), TaskRevokedError)
    until(lambda: "the result database is back" in worker.log, "the log says that it is over", ARRIVE)
    assert echo.delay("after").get(timeout=ARRIVE) == "after"
    assert not set(ids) & set(worker.ran())


@pytest.mark.parametrize("pool", ["prefork", "gevent", "solo"])
def test_tasks_that_never_run(durable_engine: RunningEngine, start_worker: Any, pool: str) -> None:
    """Tasks that have expired, or that the worker does not know, do not end it while the database is away."""
    worker = start_worker(durable_engine.database(), PATIENT, pool=pool)
    app = worker.app
    echo = app.tasks["faults.echo"]
    worker.warm_up()
    durable_engine.kill()
    unknown = app.send_task("faults.unknown")
    expired = echo.apply_async(["late"], expires=datetime.now(timezone.utc) - timedelta(hours=1))
    until(lambda: is_away(worker), "the worker has met the outage", ARRIVE)
    until(lambda: f"[{expired.id}]" in worker.log, "it has discarded the task", ARRIVE)
    assert answers(worker)
    assert worker.alive
    durable_engine.restart()
    assert isinstance(ended(worker, unknown.id), NotRegistered)
    assert isinstance(ended(worker, expired.id), TaskRevokedError)
    assert echo.delay("after").get(timeout=ARRIVE) == "after"


def test_processes_that_die(durable_engine: RunningEngine, start_worker: Any) -> None:
    """A process is killed, and another at its time limit, while the database is away: both tasks are FAILURE later.

    One of them is part of a chord, which then fails: its part was not lost either.
    """
    worker = start_worker(durable_engine.database(), PATIENT, concurrency=2)
    app = worker.app
    wait, echo, collect = app.tasks["faults.wait"], app.tasks["faults.echo"], app.tasks["faults.collect"]
    gate = f"{worker.queue}.gate"
    body = chord([wait.s(gate)], collect.s()).apply_async()
    until(lambda: worker.waiting == 1, "the task runs", ARRIVE)
    limited = wait.apply_async([gate], time_limit=1)
    durable_engine.kill()
    until(lambda: "Hard time limit" in worker.log, "the time limit is over", ARRIVE)
    until(lambda: is_away(worker), "the worker has met the outage", ARRIVE)
    assert answers(worker)
    # The task at its time limit is dead: what is left of the pool is the other's process and a new one.
    lost = app.control.inspect(destination=[f"{worker.queue}@here"], timeout=ANSWER).active()
    [task] = lost[f"{worker.queue}@here"]
    os.kill(task["worker_pid"], signal.SIGKILL)
    until(lambda: "WorkerLostError" in worker.log, "the worker knows", ARRIVE)
    assert answers(worker)
    durable_engine.restart()
    assert isinstance(ended(worker, limited.id), TimeLimitExceeded)
    assert isinstance(ended(worker, task["id"]), WorkerLostError)
    assert isinstance(ended(worker, body.id), ChordError)
    assert worker.alive
    assert echo.delay("after").get(timeout=ARRIVE) == "after"


def test_a_worker_that_ends_names_what_it_could_not_store(own_engine: RunningEngine, start_worker: Any) -> None:
    """The database stays away and the worker is stopped: the log names each result that was not stored."""
    worker = start_worker(own_engine.database(), PATIENT)
    worker.warm_up()
    own_engine.kill()
    unknown = worker.app.send_task("faults.unknown")
    until(lambda: is_away(worker), "the worker has met the outage", ARRIVE)
    worker.signal(signal.SIGTERM)
    worker.ended()
    assert f"storing FAILURE of task {unknown.id} was given up" in worker.log
