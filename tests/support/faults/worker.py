"""A real worker in a process of its own, and the app that sends it tasks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tests.support.faults.tasks import make_app
from tests.support.paths import CHECKOUT
from tests.support.states import until

if TYPE_CHECKING:
    from celery import Celery

#: How long a worker may take to start or to end, in seconds: machines of CI are slow.
WORKER_PATIENCE = 90.0


class Worker:
    """A worker on a queue of its own, on Redis.

    Args:
        log: The file that its output goes to.
        redis_url: The broker.
        settings: `surrealdb_*` and further settings, for the worker and for `app`.
        pool: Celery's name of the pool.
        concurrency: Its size.
        more: Further arguments of the command line.
        use_before_fork: The parent uses the backend before the pool forks.
        client: Settings of `app` alone.
        queue: Take over the queue of an earlier worker.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that a test of a worker varies
        self,
        log: Path,
        redis_url: str,
        settings: dict[str, Any],
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        more: Sequence[str] = (),
        use_before_fork: bool = False,
        client: dict[str, Any] | None = None,
        queue: str | None = None,
    ) -> None:
        self.queue = queue or f"faults-{uuid.uuid4().hex[:12]}"
        configuration = {
            "broker_url": redis_url,
            "result_backend": "surrealdb",
            "task_default_queue": self.queue,
            "broker_transport_options": {"visibility_timeout": 3600},
            "broker_connection_retry_on_startup": True,
            # One task at a time and process: where a task is when its worker dies is no matter of chance.
            "worker_prefetch_multiplier": 1,
            **settings,
        }
        self.app: Celery = make_app({**configuration, **(client or {})})
        self.redis = redis.Redis.from_url(redis_url, socket_timeout=None)
        self._log = log
        environment = {**os.environ, "FAULT_TESTS_APP": json.dumps(configuration), "PYTHONUNBUFFERED": "1"}
        if use_before_fork:
            environment["FAULT_TESTS_USE_BEFORE_FORK"] = "1"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "tests.support.faults.tasks", "worker"),
                    *("--pool", pool, "--concurrency", str(concurrency), "--loglevel", "INFO"),
                    *("--queues", self.queue, "--hostname", f"{self.queue}@here"),
                    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                    *more,
                ],
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """The lines that it said so far; one that it is still writing is not among them."""
        said = self._log.read_text(errors="replace")
        return said[: said.rfind("\n") + 1]

    def ready(self) -> Worker:
        """Wait until it takes tasks."""
        until(lambda: " ready." in self.log or self.process.poll() is not None, "the worker is ready", WORKER_PATIENCE)
        assert self.process.poll() is None, self.log
        return self

    def warm_up(self) -> None:
        """Run one task to its end: its worker has read the database's answer too, and stores nothing any more.

        A result is pushed to its reader while the answer is still on its way to the worker.
        """
        result = self.app.tasks["faults.echo"].delay("first")
        assert result.get(timeout=WORKER_PATIENCE) == "first"
        until(lambda: self.has_ended(result.id), "the worker has stored its first task", WORKER_PATIENCE)

    def has_ended(self, task_id: str) -> bool:
        """Whether a task succeeded and the process that ran it is done with it: it logs that behind all it stores."""
        return f"[{task_id}] succeeded" in self.log

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def children(self) -> list[int]:
        """The processes of its pool."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return sorted(int(child) for child in found.split())

    def ran(self, what: str = "ran") -> dict[str, int]:
        """How often each task ran (``ran``) or each chord's body (``bodies``), by id."""
        counts: dict[Any, Any] = self.redis.hgetall(f"{self.queue}.{what}")
        return {task.decode(): int(times) for task, times in counts.items()}

    def open_gate(self, gate: str, times: int = 1) -> None:
        """Let tasks that wait at a gate go on."""
        self.redis.rpush(gate, *["open"] * times)
        self.redis.expire(gate, 600)

    @property
    def waiting(self) -> int:
        """How many tasks have come to a gate so far."""
        return int(self.redis.get(f"{self.queue}.waiting") or 0)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        return self.process.wait(WORKER_PATIENCE)

    def close(self) -> None:
        """End it, and remove what it left in Redis."""
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(WORKER_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        # Children of a killed worker, if any are left, are in its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.app.backend.close()
        self.app.close()
        keys = list(self.redis.scan_iter(f"*{self.queue}*", count=1000))
        if keys:
            self.redis.delete(*keys)
        self.redis.close()


@contextlib.contextmanager
def worker(log: Path, redis_url: str, settings: dict[str, Any], **options: Any) -> Iterator[Worker]:
    """A worker that is ready; pytest shows what it said if the test fails."""
    running = Worker(log, redis_url, settings, **options)
    try:
        yield running.ready()
    finally:
        running.close()
        print(f"--- what the worker said\n{log.read_text(errors='replace')[-20_000:]}")
