"""A database that is prepared in each worker process before a task of it runs."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from celery import signals

from .settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable

#: The processes in which the database is prepared: this one, if it is not the fork of another that is.
_prepared: set[int] = set()
_preparing = threading.Lock()
_loops = threading.local()


def prepare() -> None:
    """Make the tables; once for each process, whatever its tasks do at the same time."""
    with _preparing:
        if os.getpid() not in _prepared:
            with sqlite3.connect(settings().database, timeout=20) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY, number INTEGER NOT NULL)")
            connection.close()
            _prepared.add(os.getpid())


def with_database(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have the database prepared before a task runs; a coroutine becomes a task like any other.

    Coroutines of one thread share an event loop, so that what they open there, such as a pool of connections, stays
    open from task to task.

    Args:
        function: The task's function, `def` or `async def`.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        prepare()
        if inspect.iscoroutinefunction(function):
            return loop().run_until_complete(function(*args, **kwargs))
        return function(*args, **kwargs)

    return run


def loop() -> asyncio.AbstractEventLoop:
    """The event loop of this thread of this process."""
    process, known = getattr(_loops, "known", (None, None))
    if known is None or process != os.getpid():
        known = asyncio.new_event_loop()
        _loops.known = os.getpid(), known
    return known


@signals.worker_process_shutdown.connect
def _close(**_: object) -> None:
    process, known = getattr(_loops, "known", (None, None))
    if known is not None and process == os.getpid():
        known.close()
