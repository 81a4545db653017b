"""A real worker in this process: everything that Celery does with a task, without the price of another process."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from celery import Celery
from celery.contrib.testing.worker import start_worker

from .states import until

#: How long a task may take, in seconds: a limit for a hang, not a wait.
TIMEOUT = 60


@contextlib.contextmanager
def worker(app: Celery, **options: Any) -> Iterator[Any]:
    """A worker with a pool of threads that takes this app's tasks from its default queue.

    Args:
        app: Its broker is ``memory://``.
        options: Further ones of ``start_worker``.
    """
    settings = {"pool": "threads", "concurrency": 4, "perform_ping_check": False, "shutdown_timeout": TIMEOUT}
    # Otherwise the broker in memory is asked for messages once a second, and the worker ends after two waits of 2 s.
    app.conf.broker_transport_options = {"polling_interval": 0.02, **(app.conf.broker_transport_options or {})}
    with start_worker(app, **{**settings, **options}) as running:
        connection = running.consumer.connection
        connection.drain_events = functools.partial(_drain_events, connection.drain_events)
        yield running


def after_its_retries(task: Any) -> None:
    """Wait in a retried task until its retries are stored. Celery sends each before that, and the end may overtake it.

    Args:
        task: The task that runs.
    """
    run, request = task.app.backend.connection.run, task.request
    query = "SELECT VALUE array::len(attempts ?? []) FROM task WHERE task_id = $id"
    until(lambda: request.retries <= sum(run(query, id=request.id)), "the retries are stored", TIMEOUT)


def _drain_events(drain_events: Callable[..., Any], timeout: float | None = None, **options: Any) -> Any:
    return drain_events(timeout=0.05 if timeout is None else min(timeout, 0.05), **options)
