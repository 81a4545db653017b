"""The template runs as its page says: from environment variables alone, with every pool and broker."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from celery.app.defaults import NAMESPACES, flatten

from tests.engines import Database, RunningEngine
from tests.support.paths import EXAMPLES
from tests.support.processes import MAX_WAIT, end
from tests.support.states import until

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.worker, pytest.mark.timeout(600)]

for package in ("aiocache", "aiosqlite"):
    pytest.importorskip(package)

PROGRAM = """
from datetime import datetime, timedelta, timezone
from celery.exceptions import SoftTimeLimitExceeded
from template import tasks

print("add", tasks.add.delay(2, 3).get(timeout=60))
told = tasks.describe.apply_async(priority=4, countdown=0.2, expires=60).get(timeout=60)
print("describe", told["queue"], told["retries"])
print("fetch", tasks.fetch.delay(works_at=2).get(timeout=60))
print("order", tasks.order.delay().get(timeout=60), tasks.order.delay().get(timeout=60))
print("price", tasks.price.delay("book").get(timeout=60) > 0)
late = tasks.add.apply_async((1, 1), expires=datetime.now(timezone.utc) - timedelta(seconds=5))
late.get(timeout=60, propagate=False)
print("expired", late.state)
"""


@contextlib.contextmanager
def worker(environment: dict[str, str], log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The worker of the page, ended with the block."""
    command = [sys.executable, "-m", "celery", "-A", "template", "worker", "--loglevel", "INFO", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: b" ready." in log.read_bytes() or process.poll() is not None, "the worker is ready", MAX_WAIT)
        assert process.poll() is None, log.read_text(errors="replace")
        yield process
    finally:
        end(process)


def environment_of(database: Database, broker: str, folder: Path) -> dict[str, str]:
    """The variables of the page."""
    paths = [str(EXAMPLES / "template"), str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": database.backend_url,
        "CELERY_RESULT_EXTENDED": "true",
        "CELERY_TASK_DEFAULT_QUEUE": f"template-{folder.name}",
        "CELERY_BEAT_SCHEDULE": '{"heartbeat": {"task": "template.periodic.heartbeat", "schedule": 1}}',
        "TEMPLATE_DATABASE": str(folder / "orders.db"),
    }


def python(environment: dict[str, str], *arguments: str) -> str:
    """Run a program of the reader's; what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=EXAMPLES,
        env=environment,
        capture_output=True,
        text=True,
        timeout=MAX_WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Results, pools and beat are tested on every engine; a project on one of them.
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "eventlet"])
def test_every_pool_runs_the_tasks(live_engine: RunningEngine, tmp_path: Path, pool: str) -> None:
    """Results, retries, priorities, expiry, a cache and an async database: the same in every pool."""
    if pool in {"gevent", "eventlet"}:
        pytest.importorskip(pool)
    database = live_engine.database()
    environment = environment_of(database, f"folder://{tmp_path / 'broker'}", tmp_path)
    with worker(environment, tmp_path / "worker.log", "--pool", pool, "--concurrency", "2"):
        printed = python(environment, "-c", PROGRAM)
    assert printed.splitlines() == [
        "add 5",
        f"describe template-{tmp_path.name} 0",
        "fetch 2",
        "order 1 2",
        "price True",
        "expired REVOKED",
    ]
    (rows,) = database.query("SELECT VALUE worker FROM task WHERE name = 'template.tasks.add' AND status = 'SUCCESS'")
    assert len(rows) == 1


def test_a_pool_of_spawned_processes_runs_the_tasks(live_engine: RunningEngine, tmp_path: Path) -> None:
    """With `worker_pool_start_method` spawn each process imports the project anew and stores its own results."""
    if "worker_pool_start_method" not in dict(flatten(NAMESPACES)):
        pytest.skip("this Celery only forks")
    environment = environment_of(live_engine.database(), f"folder://{tmp_path / 'broker'}", tmp_path)
    environment |= {"CELERY_WORKER_POOL_START_METHOD": "spawn"}
    program = (
        "from template.tasks import add, order; print(add.delay(2, 3).get(timeout=120), order.delay().get(timeout=120))"
    )
    with worker(environment, tmp_path / "worker.log", "--concurrency", "2") as process:
        assert python(environment, "-c", program) == "5 1\n"
        started = [" ".join(each.cmdline()) for each in psutil.Process(process.pid).children(recursive=True)]
    assert any("spawn" in command for command in started), started


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_it_is_inspected_over_a_real_broker(
    live_engine: RunningEngine, tmp_path: Path, broker: str, request: pytest.FixtureRequest
) -> None:
    """`inspect` answers ping, registered, stats, active and scheduled; beat's entry of the environment runs."""
    database = live_engine.database()
    environment = environment_of(database, request.getfixturevalue(broker), tmp_path)
    celery = ("-m", "celery", "-A", "template")
    with worker(environment, tmp_path / "worker.log", "--concurrency", "2", "-n", f"{tmp_path.name}@%h"):
        # One worker is asked: Celery then waits for its answer, and not for the whole time.
        name = f"{tmp_path.name}@{socket.gethostname()}"
        answers = {
            what: python(environment, *celery, "inspect", what, "--timeout", "60", "--destination", name)
            for what in ("ping", "registered", "stats", "active", "scheduled")
        }
        beat_log = tmp_path / "beat.log"
        with beat_log.open("wb") as output:
            beat = subprocess.Popen(
                [sys.executable, *celery, "beat", "-S", "surrealdb", "--loglevel", "INFO"],
                cwd=EXAMPLES,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            query = "SELECT VALUE result FROM task WHERE name = 'template.periodic.heartbeat' AND status = 'SUCCESS'"
            database.query("DEFINE TABLE IF NOT EXISTS task")
            until(lambda: database.query(query)[0], "the entry ran", MAX_WAIT)
        finally:
            beat.terminate()
            beat.wait(MAX_WAIT)
    assert "pong" in answers["ping"]
    assert "template.tasks.add" in answers["registered"]
    assert re.search(r'"pool"|pool', answers["stats"])
    entries = database.query("SELECT VALUE name FROM schedule")[0]
    assert {"heartbeat", "add every 30 seconds", "add on Mondays"} <= set(entries)


def test_the_module_of_settings_says_the_same(live_engine: RunningEngine, tmp_path: Path) -> None:
    """`CELERY_CONFIG_MODULE` reads celeryconfig.py; a variable goes above it."""
    environment = environment_of(live_engine.database(), "memory://", tmp_path)
    environment |= {
        "CELERY_CONFIG_MODULE": "celeryconfig",
        "CELERY_RESULT_EXPIRES": "60",
        "PYTHONPATH": environment["PYTHONPATH"],
    }
    program = "from template import app; c = app.conf; print(c.timezone, c.result_expires, c.worker_concurrency)"
    assert python(environment, "-c", program).split() == ["Europe/Berlin", "60", "2"]


def test_its_own_tests_pass() -> None:
    """The tests of the project pass by themselves, with the options of the page and without any server."""
    command = ["-m", "pytest", "-c", os.devnull, "--rootdir", "template", "-p", "no:cacheprovider", "template"]
    assert re.search(r"15 passed", python({**os.environ, "PYTHONPATH": "template"}, *command))
