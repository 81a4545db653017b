"""A simulated cluster under load: what is lost, what happens twice, and what a task costs.

``python -m benchmarks.cluster [--tasks 5000] [--front-ends 3] [--delay 0.04] [--conflicts 0.05] [--kill-every 5]``

A real worker and waiting clients use several front ends of one engine through one address (`front_ends` says what is
played). It ends with 1 if a result is missing or wrong, or if a task or a chord's body ran twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
from celery import Celery, chord, group

from surrealdb_celery_backend.results import Results
from tests.engines import start as start_engine

from . import servers
from .front_ends import Faults, FrontEnds

#: Results of a group, header tasks of a chord.
MEMBERS = 20
#: How long a client waits for one result, in seconds: only a hang takes so long.
LIMIT = 300.0
#: Threads that send and wait.
CLIENTS = 16
_SETTINGS = "BENCH_CLUSTER"
_RAN = "ran"


def make_app(settings: dict[str, Any]) -> Celery:
    """The app of the worker and of the clients.

    Args:
        settings: Celery's settings.
    """
    app = Celery("cluster", set_as_current=False)
    app.conf.update(settings)
    counter = redis.Redis.from_url(settings["broker_url"])

    @app.task(name="cluster.add", shared=False, bind=True)
    def add(self: Any, x: int, y: int) -> int:
        counter.hincrby(_RAN, self.request.id)
        return x + y

    @app.task(name="cluster.total", shared=False, bind=True)
    def total(self: Any, numbers: list[int]) -> int:
        counter.hincrby(_RAN, self.request.id)
        return sum(numbers)

    app.finalize()
    return app


class Load:
    """The clients' side: sends tasks, waits for them, and compares.

    Args:
        app: The app.
        seed: Of the order of what is sent.
    """

    def __init__(self, app: Celery, seed: int) -> None:
        self._app = app
        self._random = random.Random(seed)
        #: Ids of all that was sent.
        self.sent: list[str] = []
        #: Seconds from sending to the value, by kind.
        self.took: dict[str, list[float]] = {"task": [], "group": [], "chord": []}
        #: Sentences about what came out wrong.
        self.wrong: list[str] = []

    def plan(self, tasks: int) -> list[str]:
        """The kinds of workflow that together have so many tasks, in random order.

        Args:
            tasks: Their number.
        """
        fifth = tasks // 5 // MEMBERS
        kinds = ["group"] * fifth + ["chord"] * fifth
        kinds += ["task"] * (tasks - fifth * (2 * MEMBERS + 1))
        self._random.shuffle(kinds)
        return kinds

    def run(self, kind: str) -> None:
        """Send one workflow, wait for it, and compare what comes.

        Args:
            kind: Its kind.
        """
        add, total = self._app.tasks["cluster.add"], self._app.tasks["cluster.total"]
        began = time.monotonic()
        value: Any
        expected: Any
        try:
            if kind == "task":
                result = add.delay(1, 2)
                self.sent.append(result.id)
                value, expected = result.get(timeout=LIMIT), 3
            elif kind == "group":
                members = group(add.s(number, 1) for number in range(MEMBERS)).apply_async()
                self.sent += [member.id for member in members.results]
                value, expected = members.get(timeout=LIMIT), list(range(1, MEMBERS + 1))
            else:
                body = chord((add.s(number, 1) for number in range(MEMBERS)), total.s()).apply_async()
                self.sent += [body.id, *(member.id for member in body.parent.results)]
                value, expected = body.get(timeout=LIMIT), sum(range(1, MEMBERS + 1))
        except Exception as error:
            self.wrong.append(f"{kind}: {type(error).__name__}: {error}")
            return
        self.took[kind].append(time.monotonic() - began)
        if value != expected:
            self.wrong.append(f"{kind}: {value!r} instead of {expected!r}")


@contextlib.contextmanager
def _worker(settings: dict[str, Any], log: Path) -> Iterator[None]:
    arguments = ["--pool", "prefork", "--concurrency", "4", "--loglevel", "WARNING", "--without-gossip"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "benchmarks.cluster", "worker", *arguments],
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, _SETTINGS: json.dumps(settings)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def measure(engine_name: str, tasks: int, number: int, faults: Faults, log: Path) -> list[str]:
    """Run the load and print the figures.

    Args:
        engine_name: An engine of tests/engines.
        tasks: How many tasks, together.
        number: How many front ends.
        faults: Their ways.
        log: The file for what the worker says.

    Returns:
        Sentences about what came out wrong.
    """
    version, _, store = engine_name.partition("-")
    with (
        start_engine(version, store or None) as engine,
        servers.redis() as broker,
        FrontEnds(int(engine.url.split(":")[2].split("/")[0]), number, faults) as front_ends,
    ):
        database = engine.database()
        backend = f"surrealdb://root:root@127.0.0.1:{front_ends.port}/{database.namespace}/{database.database}"
        settings: dict[str, Any] = {
            "broker_url": broker.url,
            "result_backend": backend,
            "task_default_queue": "cluster",
        }
        settings |= {"result_expires": 3600, "broker_connection_retry_on_startup": True}
        app = make_app(settings)
        with _worker(settings, log):
            app.tasks["cluster.add"].delay(1, 1).get(timeout=LIMIT)
            load = Load(app, seed=tasks)
            before, began = front_ends.counts(), time.monotonic()
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(load.run, load.plan(tasks)))
            seconds = time.monotonic() - began
            counts = {key: value - before[key] for key, value in front_ends.counts().items()}
        app.backend.close()
        # Looked at past the front ends.
        direct = Celery("direct", backend=database.backend_url, set_as_current=False)
        problems = [*load.wrong, *_compare(load.sent, broker.url, direct)]
        direct.backend.close()
    _report(load, seconds, counts)
    return problems


def _compare(sent: list[str], broker: str, app: Celery) -> list[str]:
    client = redis.Redis.from_url(broker)
    ran = {key.decode(): int(value) for key, value in client.hgetall(_RAN).items()}  # type: ignore[union-attr]
    client.close()
    problems = [f"{task_id} ran {ran.get(task_id, 0)} times" for task_id in sent if ran.get(task_id) != 1]
    found = Counter(meta["status"] for _, meta in app.backend.get_many(sent, timeout=LIMIT))
    if found != {"SUCCESS": len(sent)}:
        problems.append(f"stored: {dict(found)} of {len(sent)} tasks")
    with Results(app) as results:
        unfinished = list(results.unfinished_chords())
    return problems + [f"unfinished chord: {one}" for one in unfinished]


def _report(load: Load, seconds: float, counts: dict[str, int]) -> None:
    tasks = len(load.sent)
    print(f"{tasks:,} tasks in {seconds:.0f} s, {counts['requests'] / tasks:.2f} requests a task; {counts}")
    print("| kind | number | median s | p95 s | longest s |\n| --- | ---: | ---: | ---: | ---: |")
    for kind, took in load.took.items():
        if len(took) > 1:
            p95 = statistics.quantiles(took, n=20)[-1]
            print(f"| {kind} | {len(took)} | {statistics.median(took):.3f} | {p95:.3f} | {max(took):.3f} |")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--engine", default="3.0.2", help="an engine of tests/engines (default: 3.0.2)")
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--front-ends", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.04, help="seconds until a reply is handed on")
    parser.add_argument("--conflicts", type=float, default=0.05, help="the share of writes that are refused")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between two kills; 0 for none")
    parser.add_argument("--log", type=Path, help="the file for what the worker says")
    options = parser.parse_args(arguments)
    faults = Faults(options.delay, options.conflicts, options.kill_every)
    with tempfile.TemporaryDirectory() as directory:
        log = options.log or Path(directory) / f"worker-{uuid.uuid4().hex}.log"
        problems = measure(options.engine, options.tasks, options.front_ends, faults, log)
        if problems:
            print(log.read_text()[-4000:], file=sys.stderr)
    for problem in problems[:50]:
        print(problem)
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if _SETTINGS in os.environ:
    app = make_app(json.loads(os.environ[_SETTINGS]))

if __name__ == "__main__":
    sys.exit(main())
