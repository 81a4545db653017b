"""Kill a worker's process at a chosen step of a chord's last part."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

import redis
from celery import signals

from surrealdb_celery_backend.client.connection import Connection

#: The steps of a last part: its requests in their order, and publishing the body between the third and the fourth.
REQUESTS = ("store", "claim", "read", "finish")


def die_at(step: str, redis_url: str, queue: str, index: int) -> None:
    """Let the first process die that comes to a step of the header task with that index; once.

    Args:
        step: `before store`, `after publish`, …
        redis_url: Where it is noted that it has happened.
        queue: The worker's queue: part of the note's name.
        index: The index of the header task that completes the header.
    """
    when, where = step.split()
    progress: dict[str, int | None] = {"request": None}

    def reached(a_when: str, a_where: str) -> None:
        if (a_when, a_where) != (when, where) or progress["request"] is None:
            return
        with redis.Redis.from_url(redis_url) as notes:
            if notes.set(f"{queue}.died", os.getpid(), nx=True):
                os.kill(os.getpid(), signal.SIGKILL)

    # Where all ways of a request meet: `run`, `run_all` and `attempt`.
    attempt: Callable[..., Any] = Connection._attempt

    @wraps(attempt)
    def counted(self: Connection, text: str, variables: dict[str, Any], *given: Any, **more: Any) -> Any:
        if "INSERT IGNORE" in text and variables.get("i") == index:
            progress["request"] = -1
        if progress["request"] is None:
            return attempt(self, text, variables, *given, **more)
        progress["request"] += 1
        where = REQUESTS[min(progress["request"], len(REQUESTS) - 1)]
        reached("before", where)
        outcomes = attempt(self, text, variables, *given, **more)
        reached("after", where)
        if where == REQUESTS[-1]:
            progress["request"] = None
        return outcomes

    Connection._attempt = counted  # type: ignore[method-assign]

    @signals.before_task_publish.connect(weak=False)
    def before(sender: Any = None, **_: Any) -> None:
        if sender == "faults.collect":
            reached("before", "publish")

    @signals.after_task_publish.connect(weak=False)
    def after(sender: Any = None, **_: Any) -> None:
        if sender == "faults.collect":
            reached("after", "publish")
