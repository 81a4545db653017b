"""Waiting for results in tests: the process that waits and the one that works, and work in the background."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery
from celery.app.task import Context
from celery.result import AsyncResult
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import SurrealDBBackend
from surrealdb_celery_backend.results.addresses import HEADER, process_address
from surrealdb_celery_backend.results.dispatcher import Dispatcher
from tests.support import states as waiting_states

BACKEND = "surrealdb_celery_backend:SurrealDBBackend"
#: Longer than any test waits, in seconds.
NEVER = 3600.0
#: What a thread of ours is called by.
THREADS = ("surrealdb-results", "surrealdb-waiting")
until = partial(waiting_states.until, patience=60.0)


class Side:
    """A process's view of the backend: here the one that waits, there the one that works."""

    def __init__(self, settings: dict[str, Any], **more: Any) -> None:
        self.app = Celery("push", backend=BACKEND, broker="memory://", set_as_current=False)
        self.app.conf.update(settings, **more)
        self.backend: SurrealDBBackend = self.app.backend

    @property
    def dispatcher(self) -> Dispatcher:
        """What serves the waits of this side."""
        return self.backend.result_consumer.dispatcher

    def sends(self, task_id: Any = None) -> AsyncResult:
        """What sending a task does to the backend."""
        task_id = task_id or uuid()
        self.backend.on_task_call(None, task_id)
        return self.app.AsyncResult(task_id)

    def request_of(self, result: AsyncResult, reply_to: str | None = None, *, header: bool = False) -> Context:
        """The request that the worker has for a task that this side sent.

        Args:
            result: The task's result.
            reply_to: Celery's address, if not this thread's.
            header: Whether the message has the address of this process.
        """
        more = {HEADER: process_address()} if header else {}
        return Context({"id": str(result.id), "reply_to": reply_to or self.app.thread_oid, "delivery_info": {}, **more})


def in_background(function: Callable[..., Any]) -> Callable[[], Any]:
    """Run a function in a thread; the returned one waits for its value."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = function()
        except BaseException as exc:  # it is raised again below
            outcome["error"] = exc

    thread = threading.Thread(target=run)
    thread.start()

    def value() -> Any:
        thread.join(90)
        assert not thread.is_alive(), "still waiting"
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    return value


def names(side: Side, *task_ids: str) -> bool:
    """Whether the LIVE query that stands names tasks."""
    standing = side.dispatcher.standing
    return standing is not None and standing.named("task_id").issuperset(task_ids)


def live_queries(side: Side) -> int:
    """How many LIVE queries the server has on the task table."""
    information = side.backend.connection.run("INFO FOR TABLE task")
    return len(information["lives"])


def awaited(waiting: Side, **how: Any) -> tuple[AsyncResult, Context, Callable[[], Any]]:
    """A task that was sent, its request, and what get() gives in a thread that waits by a LIVE query."""
    result = waiting.sends()
    request = waiting.request_of(result)
    value = in_background(lambda: result.get(timeout=60, **how))
    until(lambda: names(waiting, result.id), "the LIVE query names it")
    return result, request, value


def finds_nothing(monkeypatch: Any, side: Side) -> None:
    """From now on no look of a side finds anything: what arrives was pushed."""
    monkeypatch.setattr(side.backend, "fetch_records", lambda *_, **__: iter(()))


def is_waited_for(side: Side, *task_ids: str) -> None:
    """Wait until tasks are waited for."""
    until(lambda: all(task_id in side.dispatcher for task_id in task_ids), "waiting")


def our_threads() -> set[threading.Thread]:
    """The threads of waits that are running."""
    return {thread for thread in threading.enumerate() if thread.name in THREADS}


async def come_true(condition: Callable[[], Any], what: str) -> None:
    """Wait for a state while the loop goes on."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)
