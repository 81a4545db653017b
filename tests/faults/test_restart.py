"""The database dies and comes back while a real worker is at work: nothing is lost, nothing runs twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery import chord, group

from surrealdb_celery_backend.results import waiting
from tests.engines import RunningEngine
from tests.support.states import until

# Workers and engines that start slowly on a slow machine; only a hang takes so long.
pytestmark = [pytest.mark.worker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

TASKS = 840
CHORDS, PARTS = 10, 10
#: The database is killed when so many tasks have run.
KILLED_AT = (100, 400, 700)
#: Tasks that are sent while it is away: however fast the worker is, some are left to meet the outage.
DURING = 20
ARRIVE = 100
#: However long an engine takes to start here: nobody is to have given up by then.
PATIENT = {"result_backend_max_retries": 1000, "result_backend_max_sleep_between_retries_ms": 1000}


def test_database_is_killed_and_restarted(durable_engine: RunningEngine, start_worker: Any) -> None:
    """SIGKILL and restart of the database, three times during 1,000 tasks: nothing is lost.

    Every result is there, each chord's body ran once, and the worker and its pool are the same processes.
    """
    worker = start_worker(durable_engine.database(), PATIENT, concurrency=4)
    app = worker.app
    echo, collect = app.tasks["faults.echo"], app.tasks["faults.collect"]
    assert echo.delay("first").get(timeout=ARRIVE) == "first"
    processes = worker.children
    assert len(processes) == 4

    bodies = []
    tasks = []
    for number in range(TASKS):
        if number % (TASKS // CHORDS) == 0:
            bodies.append(chord([echo.s(part) for part in range(PARTS)], collect.s()).apply_async())
        tasks.append(echo.delay(number))
    for killed_at in KILLED_AT:
        until(lambda killed_at=killed_at: len(worker.ran()) >= killed_at, f"{killed_at} tasks ran", ARRIVE)
        durable_engine.kill()
        met = worker.log.count(" follows: ")
        ran = len(worker.ran())
        tasks += [echo.delay(len(tasks) + number) for number in range(DURING)]
        # It stays away until the worker has noticed: each process tries again and again, and says so.
        until(lambda met=met: worker.log.count(" follows: ") > met, "the worker met the outage", ARRIVE)
        assert len(worker.ran()) <= ran + 8, "tasks go on only once their results are stored"
        durable_engine.restart()

    assert [task.get(timeout=ARRIVE) for task in tasks] == list(range(len(tasks)))
    assert [body.get(timeout=ARRIVE) for body in bodies] == [list(range(PARTS))] * CHORDS
    ran = worker.ran("bodies")
    assert set(ran) == {body.id for body in bodies}
    assert max(ran.values()) == 1 or not durable_engine.exact
    assert set(worker.ran().values()) == {1}
    assert len(worker.ran()) == 1 + TASKS + len(KILLED_AT) * DURING + CHORDS * PARTS
    assert worker.alive
    assert worker.children == processes


def test_waiting_client_survives_a_restart(
    durable_engine: RunningEngine, start_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody waits in get() while the database is killed and restarted: the result arrives there all the same."""
    # After a minute in vain get() raises. An engine may take longer to start here.
    monkeypatch.setattr(waiting, "OUTAGE", 3600.0)
    worker = start_worker(durable_engine.database(), PATIENT)
    wait = worker.app.tasks["faults.wait"]
    gate = f"{worker.queue}.gate"
    result = group(wait.s(gate) for _ in range(2)).apply_async()
    until(lambda: worker.waiting == 2, "both tasks run", ARRIVE)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(result.get(timeout=ARRIVE)))
    thread.start()
    dispatcher = worker.app.backend.result_consumer.dispatcher
    until(lambda: len(dispatcher) == 2, "somebody waits")
    durable_engine.kill()
    durable_engine.restart()
    worker.open_gate(gate, 2)
    thread.join(ARRIVE)
    assert got == [[gate, gate]]


def test_retries_that_run_out(own_engine: RunningEngine, start_worker: Any) -> None:
    """The database stays away longer than the retries last: one line in the log says so, and the error is raised."""
    worker = start_worker(
        own_engine.database(),
        {
            "result_backend_max_retries": 3,
            "result_backend_base_sleep_between_retries_ms": 1,
            "result_backend_max_sleep_between_retries_ms": 5,
        },
        concurrency=1,
    )
    echo = worker.app.tasks["faults.echo"]
    assert echo.delay("first").get(timeout=ARRIVE) == "first"
    own_engine.kill()
    task = echo.delay("lost")
    # The line for this task: the kill may also have hit the first one's store, between commit and reply.
    [line] = until(
        lambda: [
            line
            for line in worker.log.splitlines()
            if f"storing SUCCESS of task {task.id} failed for good after 3 retries" in line
        ],
        "the log says that the retries ran out",
    )
    assert "cannot be reached" in line
    until(lambda: "errors.StoreFailed: " in worker.log, "the error reaches Celery")
    assert worker.alive
    own_engine.restart()
    assert echo.delay("after").get(timeout=ARRIVE) == "after"


def test_retrying_can_be_switched_off(own_engine: RunningEngine, start_worker: Any) -> None:
    """With result_backend_always_retry=False the first failure is final, and said."""
    worker = start_worker(own_engine.database(), {"result_backend_always_retry": False}, concurrency=1)
    echo = worker.app.tasks["faults.echo"]
    assert echo.delay("first").get(timeout=ARRIVE) == "first"
    own_engine.kill()
    echo.delay("lost")
    until(lambda: "cannot be reached" in worker.log, "the log says what cannot be reached")
    assert ", retry 1 of" not in worker.log
    own_engine.restart()
    assert echo.delay("after").get(timeout=ARRIVE) == "after"
