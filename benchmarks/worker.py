"""The worker of the end-to-end measures: a real `celery worker` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from celery import Celery

from .contenders import Contender, make_app

#: Children of the worker.
CHILDREN = 2
#: Tasks that a worker runs before it is measured.
WARM_UP = 20
#: How long it may take to run what it was sent, in seconds: only a hang takes so long.
LIMIT = 60.0
_CONTENDER, _BROKER = "BENCH_CONTENDER", "BENCH_BROKER"


def make_worker_app(contender: Contender, broker: str) -> Celery:
    """The app with the tasks; its messages go to a queue of the contender's own."""
    app = make_app(contender, broker)
    app.conf.task_default_queue = f"bench-{contender.name}"

    @app.task(name="bench.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="bench.total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    app.finalize()
    return app


@contextlib.contextmanager
def running(contender: Contender, broker: str) -> Iterator[RunningWorker]:
    """Start a prefork worker; it is ended with the block."""
    name = f"bench-{contender.name}"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "benchmarks.worker",
                "worker",
                "--pool",
                "prefork",
                "--concurrency",
                str(CHILDREN),
                "--loglevel",
                "WARNING",
                "--hostname",
                f"{name}@%h",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ],
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, _CONTENDER: json.dumps(asdict(contender)), _BROKER: broker},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        app = make_worker_app(contender, broker)
        started = RunningWorker(app, name, process)
        try:
            add = app.tasks["bench.add"]
            try:
                sent = [add.delay(1, 1) for _ in range(WARM_UP)]
                if contender.stores:
                    for result in sent:
                        result.get(timeout=LIMIT)
                else:
                    started.wait_for(WARM_UP)
            except Exception:
                log.seek(0)
                print(log.read()[-4000:], file=sys.stderr)
                raise
            yield started
        finally:
            process.terminate()
            process.wait()


class RunningWorker:
    """A worker that answers, and the app that sends to it."""

    def __init__(self, app: Celery, name: str, process: subprocess.Popen[Any]) -> None:
        self.app = app
        self._name = name
        self._process = process

    @property
    def pid(self) -> int:
        """The worker's parent process."""
        return self._process.pid

    def ran(self) -> int:
        """How many tasks it has run to their end, by its own account."""
        # Others listen on the same broker; without a limit the whole time is waited for more replies.
        inspect = self.app.control.inspect(pattern=f"{self._name}@*", matcher="glob", limit=1, timeout=10)
        begun, running = inspect.stats(), inspect.active()
        if not begun or running is None:
            return -1  # it is not ready
        return sum(sum(each["total"].values()) for each in begun.values()) - sum(map(len, running.values()))

    def wait_for(self, number: int) -> None:
        """Wait until it has run so many tasks in all."""
        deadline = time.monotonic() + LIMIT
        while self.ran() < number:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the worker ran {self.ran()} of {number} tasks within {LIMIT:g} s")
            time.sleep(0.05)

    def memory(self) -> tuple[float, float]:
        """Resident memory of the parent and of the largest child, in MiB; what they share is in both."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return _resident(self._process.pid), max(_resident(int(child)) for child in children)


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


if _CONTENDER in os.environ:
    app = make_worker_app(Contender(**json.loads(os.environ[_CONTENDER])), os.environ[_BROKER])
