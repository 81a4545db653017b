"""Clean ends, and ends that are not: no result is lost, no socket, thread or LIVE query stays behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery import Celery, chord, states
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import errors
from tests.engines import Database, RunningEngine
from tests.support.faults import rights
from tests.support.faults.proxy import Proxy
from tests.support.faults.worker import WORKER_PATIENCE
from tests.support.paths import CHECKOUT
from tests.support.states import until
from tests.support.waits import our_threads

#: How long something may take to arrive, in seconds: a limit for a hang, not a wait.
ARRIVE = 120
#: Billiard replaces a process that has done its task every 0.8 s: many, or 500 tasks take minutes.
PROCESSES = 16
real_worker = [
    # Workers that start and end slowly on a slow machine; only a hang takes so long.
    pytest.mark.timeout(400),
    pytest.mark.worker,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.usefixtures("live_engine"),
]


def sockets() -> set[str]:
    """The sockets that this process has open, each by a name that no other ever has."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name = entry.readlink().name
        except OSError:
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found


def live_queries(database: Database) -> int:
    """How many LIVE queries the server has for the task table."""
    [info] = database.query("INFO FOR TABLE task")
    return len(info["lives"])


def used_app(database: Database, url: str) -> Celery:
    """An app that stored a result, and waited for one through a LIVE query."""
    app = Celery("ends", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(database.settings | {"surrealdb_url": url})
    backend = app.backend
    task_id = uuid()
    backend.on_task_call(None, task_id)
    result = app.AsyncResult(task_id)
    waiting = threading.Thread(target=result.get, kwargs={"timeout": ARRIVE})
    waiting.start()
    # Before the result is there: who no longer waits ends the push thread, perhaps before it connected.
    dispatcher = backend.result_consumer.dispatcher
    until(lambda: dispatcher.standing or not dispatcher.live_is_possible, "the LIVE query stands, or cannot")
    assert (dispatcher.standing is not None) == database.engine.live
    if database.engine.live:
        until(lambda: live_queries(database) == 1, "the only LIVE query")
    backend.store_result(task_id, 1, states.SUCCESS)
    waiting.join()
    return app


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open sockets are counted in /proc")
def test_close_leaves_nothing(engine: RunningEngine, fresh_database: Database, closing: Any) -> None:
    """`backend.close()`: no socket, no thread and no LIVE query stays, here or on the server; using it is an error."""
    used_app(fresh_database, engine.url).backend.close()
    until(lambda: not our_threads(), "earlier threads ended")
    gc.collect()
    proxy = closing.enter_context(Proxy(engine.url))
    before = sockets()
    app = used_app(fresh_database, proxy.url)
    assert proxy.accepted == 2, "one connection, and one for push"
    app.backend.close()
    until(lambda: proxy.open_lines == 0, "the lines are closed")
    until(lambda: not our_threads(), "the threads ended")
    # Not counted: a socket of an earlier test may be closed only now.
    until(lambda: sockets() <= before, "no socket is left")
    if engine.live:
        until(lambda: live_queries(fresh_database) == 0, "the server has no LIVE query")
    with pytest.raises(errors.ConnectionClosed):
        app.backend.store_result("two", 2, states.SUCCESS)
    app.close()


def test_dropped_without_close(proxy: Proxy, fresh_database: Database) -> None:
    """A backend that nobody closes and nobody has any more lets its connection go."""
    app = Celery("ends", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings | {"surrealdb_url": proxy.url})
    app.backend.store_result("one", 1, states.SUCCESS)
    assert proxy.open_lines == 1
    app.close()
    del app

    def is_gone() -> bool:
        gc.collect()
        return proxy.open_lines == 0

    until(is_gone, "the line is closed")


WAITING_CLIENT = """
import json, sys
from celery import Celery
app = Celery("ends", backend="surrealdb", broker="memory://")
app.conf.update(json.loads(sys.argv[1]))
app.backend.on_task_call(None, "never")
app.AsyncResult("never").get(timeout=100)
"""


def test_waiting_client_is_killed(live_engine: RunningEngine, proxy: Proxy, fresh_database: Database) -> None:
    """SIGKILL of a process that waits for a result: the server ends its LIVE query with its connection."""
    fresh_database.query("DEFINE TABLE task SCHEMALESS")
    settings = json.dumps(fresh_database.settings | {"surrealdb_url": proxy.url})
    with subprocess.Popen([sys.executable, "-c", WAITING_CLIENT, settings], cwd=CHECKOUT) as client:
        try:
            until(lambda: proxy.requests(text="LIVE SELECT"), "the client asks for its result", WORKER_PATIENCE)
            until(lambda: live_queries(fresh_database) == 1, "the LIVE query stands")
        finally:
            client.kill()
    until(lambda: proxy.open_lines == 0, "its connections are closed")
    until(lambda: live_queries(fresh_database) == 0, "the server has no LIVE query")


class TestSignals:
    """Signals to a real worker."""

    pytestmark = real_worker

    def test_warm_shutdown(self, proxy: Proxy, fresh_database: Database, start_worker: Any) -> None:
        """SIGTERM in the middle of 200 tasks: what runs is finished, the next worker does the rest, no result is lost."""
        client = {"surrealdb_url": fresh_database.engine.url}
        settings = {"surrealdb_url": proxy.url}
        first = start_worker(fresh_database, settings, client=client)
        echo = first.app.tasks["faults.echo"]
        tasks = [echo.delay(number) for number in range(200)]
        until(lambda: len(first.ran()) >= 40, "tasks run", ARRIVE)
        first.signal(signal.SIGTERM)
        assert first.ended() == 0
        until(lambda: proxy.open_lines == 0, "no process left a connection behind")
        ran = first.ran()
        stored = [task for task in tasks if task.id in ran]
        assert [task.get(timeout=ARRIVE) for task in stored] == [tasks.index(task) for task in stored]
        start_worker(fresh_database, settings, client=client, queue=first.queue)
        assert [task.get(timeout=ARRIVE) for task in tasks] == list(range(200))

    def test_cold_shutdown(self, proxy: Proxy, fresh_database: Database, start_worker: Any) -> None:
        """SIGQUIT while tasks run that are acknowledged late: the next worker runs them again, and they arrive."""
        client = {"surrealdb_url": fresh_database.engine.url}
        settings = {"surrealdb_url": proxy.url}
        first = start_worker(fresh_database, settings, client=client)
        wait = first.app.tasks["faults.wait_late"]
        gate = f"{first.queue}.gate"
        tasks = [wait.delay(gate) for _ in range(2)]
        until(lambda: first.waiting == 2, "both tasks run")
        first.signal(signal.SIGQUIT)
        first.ended()
        until(lambda: proxy.open_lines == 0, "no process left a connection behind")
        second = start_worker(fresh_database, settings, client=client, queue=first.queue)
        until(lambda: second.waiting >= 4, "both tasks run again", ARRIVE)
        # More than two: a process of the first worker may still have been at the gate.
        second.open_gate(gate, 4)
        assert [task.get(timeout=ARRIVE) for task in tasks] == [gate, gate]

    def test_child_is_killed(self, proxy: Proxy, fresh_database: Database, start_worker: Any) -> None:
        """SIGKILL of a pool's process: the parent stores WorkerLostError, and the new process works at once."""
        worker = start_worker(
            fresh_database,
            {"surrealdb_url": proxy.url},
            concurrency=1,
            use_before_fork=True,
            client={"surrealdb_url": fresh_database.engine.url},
        )
        wait, echo = worker.app.tasks["faults.wait"], worker.app.tasks["faults.echo"]
        task = wait.delay(f"{worker.queue}.gate")
        until(lambda: worker.waiting == 1, "the task runs")
        [child] = worker.children
        os.kill(child, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            task.get(timeout=ARRIVE)
        assert echo.delay("after").get(timeout=ARRIVE) == "after"
        assert worker.children != [child]
        until(lambda: proxy.open_lines <= 2, "the killed process's connection is closed")

    @pytest.mark.parametrize("how", ["time limit", "terminated", "lost"])
    def test_times_of_a_task_whose_process_died(self, fresh_database: Database, start_worker: Any, how: str) -> None:
        """The parent stores its end, and knows when it began: the record has when, how long it ran and how long it waited."""
        worker = start_worker(fresh_database, concurrency=1)
        limit = 1 if how == "time limit" else None
        task = worker.app.tasks["faults.wait"].apply_async([f"{worker.queue}.gate"], time_limit=limit)
        until(lambda: worker.waiting == 1, "the task runs")
        if how == "terminated":
            task.revoke(terminate=True)
        elif how == "lost":
            os.kill(worker.children[0], signal.SIGKILL)
        assert isinstance(task.get(timeout=ARRIVE, propagate=False), Exception)
        (record,) = worker.app.backend.connection.run("SELECT * FROM task WHERE task_id = $id", id=task.id)
        assert record["sent_at"] <= record["started_at"] + timedelta(seconds=1)
        assert record["started_at"] < record["date_done"]
        assert record["queue_time"] >= 0
        assert (limit or 0) * 0.9 <= record["runtime"] <= ARRIVE

    def test_killed_child_of_a_late_task(self, fresh_database: Database, start_worker: Any) -> None:
        """SIGKILL of a process whose task is acknowledged late: it runs again in another, and its result arrives."""
        worker = start_worker(fresh_database, concurrency=1)
        gate = f"{worker.queue}.gate"
        task = worker.app.tasks["faults.wait_late"].delay(gate)
        until(lambda: worker.waiting == 1, "the task runs")
        os.kill(worker.children[0], signal.SIGKILL)
        # Celery gives a lost process 10 s to say what became of its task.
        until(lambda: worker.waiting == 2, "the task runs again", ARRIVE)
        worker.open_gate(gate)
        assert task.get(timeout=ARRIVE) == gate

    @pytest.mark.one_sdk
    @pytest.mark.timeout(1000)
    def test_a_process_per_task(self, proxy: Proxy, fresh_database: Database, start_worker: Any) -> None:
        """worker_max_tasks_per_child=1 for 500 tasks, a chord among them: all arrive, no connection stays behind."""
        # With a token: 500 password hashes are the server's business, and most of what this would take.
        fresh_database.query(rights.JWT_ACCESS)
        token = rights.token("a key of our own", **rights.claims(fresh_database, 3600))
        worker = start_worker(
            fresh_database,
            {
                "surrealdb_url": proxy.url,
                "surrealdb_token": token,
                "surrealdb_auth_level": "database",
                "worker_max_tasks_per_child": 1,
            },
            concurrency=PROCESSES,
            use_before_fork=True,
            client={
                "surrealdb_url": fresh_database.engine.url,
                "surrealdb_token": None,
                "surrealdb_auth_level": "root",
            },
        )
        echo, collect = worker.app.tasks["faults.echo"], worker.app.tasks["faults.collect"]
        body = chord([echo.s(number) for number in range(20)], collect.s()).apply_async()
        tasks = [echo.delay(number) for number in range(479)]
        assert [task.get(timeout=900) for task in tasks] == list(range(479))
        assert body.get(timeout=ARRIVE) == list(range(20))
        assert worker.ran("bodies") == {body.id: 1}
        assert proxy.accepted >= 500
        until(lambda: proxy.open_lines <= PROCESSES + 1, "only the parent and the pool are connected")
        assert worker.alive
