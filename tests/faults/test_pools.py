"""Every pool of Celery, with real workers: tasks, a group and a chord arrive, over few connections."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest
from celery import chord, group

from tests.engines import Database, RunningEngine, matrix
from tests.support.faults.proxy import Proxy
from tests.support.paths import CHECKOUT
from tests.support.states import until

# A pool does not depend on the engine: the one that notifies is enough.
pytestmark = [
    pytest.mark.one_sdk,
    # Workers that start and end slowly on a slow machine; only a hang takes so long.
    pytest.mark.timeout(400),
    pytest.mark.worker,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.usefixtures("live_engine"),
]

POOLS = {"prefork": 2, "threads": 8, "solo": 1, "gevent": 20, "eventlet": 20}
TASKS = 160
PARTS = 20
#: Of tasks that run at once: one waits for the other's result.
PAIRS = 100
#: However long an engine takes to start here: no store is given up by then.
PATIENT = {"result_backend_max_retries": 1000, "result_backend_max_sleep_between_retries_ms": 1000}
#: How long everything may take to arrive, in seconds.
ARRIVE = 120


def needs(pool: str) -> None:
    """Skip a pool whose library is missing; in CI that is a failure."""
    if pool in ("gevent", "eventlet") and importlib.util.find_spec(pool) is None:
        reason = f"pool {pool} did not run: {pool} is not installed"
        if matrix.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.mark.parametrize("pool", POOLS)
def test_pool(pool: str, proxy: Proxy, fresh_database: Database, start_worker: Any) -> None:
    """200 tasks, of them a group and a chord, in a worker whose parent used the backend before its pool began."""
    needs(pool)
    worker = start_worker(
        fresh_database,
        {"surrealdb_url": proxy.url, "surrealdb_timeout": ARRIVE},
        pool=pool,
        concurrency=POOLS[pool],
        use_before_fork=True,
        # The test waits past the proxy, so that what passes there is the worker's.
        client={"surrealdb_url": fresh_database.engine.url},
    )
    app = worker.app
    echo, collect = app.tasks["faults.echo"], app.tasks["faults.collect"]
    tasks = [echo.delay(number) for number in range(TASKS)]
    together = group(echo.s(number) for number in range(PARTS)).apply_async()
    body = chord([echo.s(number) for number in range(PARTS)], collect.s()).apply_async()
    assert [task.get(timeout=ARRIVE) for task in tasks] == list(range(TASKS))
    assert together.get(timeout=ARRIVE) == list(range(PARTS))
    assert body.get(timeout=ARRIVE) == list(range(PARTS))
    assert worker.ran("bodies") == {body.id: 1}
    ran = worker.ran()
    assert len(ran) == TASKS + 2 * PARTS
    assert set(ran.values()) == {1}
    processes = 1 + (POOLS[pool] if pool == "prefork" else 0)
    assert proxy.accepted <= processes, "one connection per process, whatever the number of threads"
    assert worker.alive
    assert "Traceback" not in worker.log


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_greenlets_do_not_wait_for_each_other(
    pool: str, proxy: Proxy, fresh_database: Database, start_worker: Any
) -> None:
    """With every reply held back, the stores of all greenlets are under way on one connection."""
    needs(pool)
    worker = start_worker(
        fresh_database,
        # What is sent again because its reply is held back is counted as well.
        {"surrealdb_url": proxy.url, "surrealdb_timeout": ARRIVE},
        pool=pool,
        concurrency=10,
        use_before_fork=True,
        client={"surrealdb_url": fresh_database.engine.url},
    )
    echo = worker.app.tasks["faults.echo"]
    assert echo.delay(0).get(timeout=ARRIVE) == 0

    def stores_sent() -> int:
        # Those that gathered behind others go together, in one request.
        return sum(request.text.count("UPSERT") for request in proxy.requests())

    before = stores_sent()
    proxy.holding_replies = True
    tasks = [echo.delay(number) for number in range(10)]
    until(lambda: stores_sent() == before + 10, "ten stores under way at once")
    proxy.holding_replies = False
    assert [task.get(timeout=ARRIVE) for task in tasks] == list(range(10))
    assert proxy.accepted == 1


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_greenlets_store_and_wait_through_an_outage(
    pool: str, durable_engine: RunningEngine, start_worker: Any
) -> None:
    """A hundred greenlets wait for the results of a hundred others when the database dies: all are stored and got."""
    needs(pool)
    worker = start_worker(durable_engine.database(), PATIENT, pool=pool, concurrency=2 * PAIRS)
    wait, ask = worker.app.tasks["faults.wait"], worker.app.tasks["faults.ask"]
    gate = f"{worker.queue}.gate"
    stored = [wait.delay(gate) for _ in range(PAIRS)]
    asked = [ask.delay(result.id) for result in stored]
    until(lambda: worker.waiting == 2 * PAIRS, "all tasks run", ARRIVE)
    durable_engine.kill()
    worker.open_gate(gate, PAIRS)
    until(lambda: " follows: " in worker.log, "the worker met the outage", ARRIVE)
    durable_engine.restart()
    for result in [*stored, *asked]:
        assert result.get(timeout=ARRIVE) == gate
    # Nobody gave up, and none hangs on behind its result: the pool has room for as many.
    again = [ask.delay(stored[0].id) for _ in range(2 * PAIRS)]
    assert {result.get(timeout=ARRIVE) for result in again} == {gate}
    assert worker.alive


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_greenlets_wait_for_results(
    pool: str, engine: RunningEngine, fresh_database: Database, broker: str, tmp_path: Any
) -> None:
    """A patched process waits for results of tasks that it sent itself: many greenlets, one connection and one push."""
    needs(pool)
    program = CLIENT_OF_GREENLETS.format(pool=pool, settings=json.dumps(fresh_database.settings))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=ARRIVE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(number) for number in range(20)]


#: Sends nothing: it stores what a worker would, from another greenlet, while twenty wait.
CLIENT_OF_GREENLETS = """
import json
if "{pool}" == "gevent":
    from gevent import monkey; monkey.patch_all()
    import gevent
    spawn = gevent.spawn
    value = lambda task: task.get()
else:
    import eventlet; eventlet.monkey_patch()
    spawn = eventlet.spawn
    value = lambda task: task.wait()
from celery import Celery
app = Celery("waits", backend="surrealdb", broker="memory://")
app.conf.update(json.loads('''{settings}'''))
ids = ["task-%d" % number for number in range(20)]
waiting = [spawn(app.AsyncResult(one).get, timeout=100) for one in ids]
other = Celery("works", backend="surrealdb", broker="memory://", set_as_current=False)
other.conf.update(json.loads('''{settings}'''))
def work():
    for number, one in enumerate(ids):
        other.backend.store_result(one, number, "SUCCESS")
spawn(work)
for task in waiting:
    print(value(task))
"""
