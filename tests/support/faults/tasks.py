"""The tasks of the fault tests. A worker reads its settings from FAULT_TESTS_APP, as JSON."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import redis
from celery import Celery, signals
from celery.app.task import Task

from tests.support.faults.killing import die_at


def make_app(configuration: dict[str, Any]) -> Celery:
    """The app of one test: the worker's, and the test's own to send tasks with.

    Args:
        configuration: `app.conf`, with a queue of the test's own as `task_default_queue`. How often each
            task ran is counted in Redis under that name.
    """
    app = Celery("faults", set_as_current=False)
    app.conf.update(configuration)
    # redis-py 8 would take a task that waits for longer than 5 s at a gate for a dead connection.
    # It takes 100 at the most otherwise, and there may be more greenlets.
    counts = redis.Redis.from_url(configuration["broker_url"], socket_timeout=None, max_connections=1000)
    queue = configuration["task_default_queue"]

    @app.task(name="faults.echo", shared=False, bind=True)
    def echo(self: Task, value: Any) -> Any:
        counts.hincrby(f"{queue}.ran", self.request.id, 1)
        return value

    @app.task(name="faults.collect", shared=False, bind=True)
    def collect(self: Task, values: list[Any]) -> list[Any]:
        counts.hincrby(f"{queue}.bodies", self.request.id, 1)
        return values

    @app.task(name="faults.wait", shared=False)
    def wait(gate: str) -> str:
        """Run until the test puts something into a list of Redis."""
        counts.incr(f"{queue}.waiting")
        counts.blpop([gate], timeout=300)
        return gate

    @app.task(name="faults.ask", shared=False, bind=True)
    def ask(self: Task, task_id: str) -> Any:
        """Wait for the result of another task."""
        counts.incr(f"{queue}.waiting")
        return self.app.AsyncResult(task_id).get(timeout=300, disable_sync_subtasks=False)

    @app.task(name="faults.wait_late", shared=False, acks_late=True, reject_on_worker_lost=True)
    def wait_late(gate: str) -> str:
        """The same, and run again by another process if its own is killed."""
        return wait(gate)

    @app.task(name="faults.who", shared=False)
    def who() -> int:
        """The process that runs tasks."""
        return os.getpid()

    return app


if "FAULT_TESTS_APP" in os.environ:
    configuration = json.loads(os.environ["FAULT_TESTS_APP"])
    dying = configuration.pop("die_at", None)
    app = make_app(configuration)
    if dying:
        die_at(dying, configuration["broker_url"], configuration["task_default_queue"], 2)

    if "FAULT_TESTS_USE_BEFORE_FORK" in os.environ:

        @signals.worker_init.connect
        def use_before_fork(**_: Any) -> None:
            """As the banner and a revoke do: the parent's backend has an open line when the pool forks."""
            app.backend.store_result("of-the-parent", os.getpid(), "SUCCESS")
            assert app.backend.get_task_meta("of-the-parent")["result"] == os.getpid()

    # A worker that hangs ends, whatever became of its test: later than any test may take.
    signal.alarm(1200)
