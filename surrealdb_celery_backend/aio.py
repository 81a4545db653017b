"""Await a Celery result from asyncio.

>>> result = add.delay(2, 2)
>>> value = await aio.get(result, timeout=10)

Celery's own ``result.get()`` blocks its thread; in an asyncio application that is the thread of the event
loop. Here the waiting is done by the backend's usual machinery (LIVE with polling behind it) in one thread
per process, however many coroutines wait, so 1,000 awaited results cost one thread and one round trip a look.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from celery.exceptions import TimeoutError as ResultTimeout

if TYPE_CHECKING:
    from celery.result import AsyncResult, ResultSet

    from .backend import SurrealDBBackend

__all__ = ["as_completed", "forget", "get", "join", "state"]

#: How long the waiter looks for results at a time, in seconds, before new ones are taken in.
LOOK = 0.25


async def get(
    result: AsyncResult,
    timeout: float | None = None,
    *,
    propagate: bool = True,
) -> Any:
    """Wait for one result, as ``result.get()`` does, without blocking the event loop.

    :param result: of a task whose backend is SurrealDB.
    :param timeout: seconds until it must have come; None waits for ever.
    :param propagate: raise what the task raised; else return the exception.
    :return: what the task returned.
    :raises celery.exceptions.TimeoutError: ``timeout`` is over.
    :raises SurrealDBBackendError: the database cannot be asked.
    """
    await _wait([result], timeout)
    return result.maybe_throw(propagate=propagate)


async def join(
    results: ResultSet | Iterable[AsyncResult], timeout: float | None = None, *, propagate: bool = True
) -> list[Any]:
    """Wait for many results and return their values in order, as ``ResultSet.join()`` does.

    :param results: a group's result, or any results; nested groups give nested lists.
    :param timeout: seconds until all must have come; None waits for ever.
    :param propagate: raise what the first failed task raised; else put the exception in its place.
    :raises celery.exceptions.TimeoutError: ``timeout`` is over.
    """
    members = list(getattr(results, "results", results))
    leaves = list(_leaves(members))
    await _wait(leaves, timeout)
    return _values(members, propagate=propagate)


async def as_completed(
    results: ResultSet | Iterable[AsyncResult], timeout: float | None = None
) -> AsyncIterator[AsyncResult]:
    """Yield results as their tasks end, whether well or not.

    :param timeout: seconds until all must have ended; None waits for ever.
    :raises celery.exceptions.TimeoutError: ``timeout`` is over.
    """
    waiting = list(_leaves(getattr(results, "results", results)))
    deadline = None if timeout is None else time.monotonic() + timeout
    while waiting:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        await _wait(waiting, remaining, all_of_them=False)
        done = [result for result in waiting if result._cache is not None]
        waiting = [result for result in waiting if result._cache is None]
        for result in done:
            yield result


async def state(result: AsyncResult) -> str:
    """The state of a task, fetched in another thread."""
    current: str = await asyncio.to_thread(lambda: result.state)
    return current


async def forget(result: AsyncResult) -> None:
    """Delete a result, in another thread."""
    await asyncio.to_thread(result.forget)


def _leaves(members: Iterable[Any]) -> Iterator[AsyncResult]:
    for member in members:
        nested = getattr(member, "results", None)
        if nested is None:
            yield member
        else:
            yield from _leaves(nested)


def _values(members: Iterable[Any], *, propagate: bool) -> list[Any]:
    return [
        member.maybe_throw(propagate=propagate)
        if getattr(member, "results", None) is None
        else _values(member.results, propagate=propagate)
        for member in members
    ]


async def _wait(results: list[AsyncResult], timeout: float | None, *, all_of_them: bool = True) -> None:
    """Wait until all results, or one of them, are there.

    :raises celery.exceptions.TimeoutError: ``timeout`` seconds are over.
    """
    missing = [result for result in results if result._cache is None]
    if not missing or (not all_of_them and len(missing) < len(results)):
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    left = len(missing) if all_of_them else 1
    waits: list[_Wait] = []

    def ready() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            done.set()

    by_backend: dict[int, list[AsyncResult]] = {}
    for result in missing:
        by_backend.setdefault(id(result.backend), []).append(result)
    for of_one_backend in by_backend.values():
        wait = _Wait(of_one_backend, loop, ready, done)
        waits.append(wait)
        _waiter(of_one_backend[0].backend).add(wait)
    try:
        await asyncio.wait_for(done.wait(), timeout)
    except (TimeoutError, asyncio.TimeoutError):
        raise ResultTimeout("The operation timed out.") from None
    finally:
        for wait in waits:
            wait.cancelled = True
    for wait in waits:
        if wait.error is not None:
            raise wait.error


class _Wait:
    """Some results of one backend that one coroutine waits for."""

    def __init__(
        self,
        results: list[AsyncResult],
        loop: asyncio.AbstractEventLoop,
        ready: Callable[[], None],
        done: asyncio.Event,
    ) -> None:
        self.results = results
        self.error: BaseException | None = None
        self.cancelled = False
        self._loop, self._ready, self._done = loop, ready, done

    def tell(self) -> None:
        """One result is there."""
        self._call(self._ready)

    def fail(self, error: BaseException) -> None:
        """The results cannot be had."""
        self.error = error
        self._call(self._done.set)

    def _call(self, function: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)


class _Waiter:
    """The thread that waits for all coroutines; it ends when nobody waits."""

    def __init__(self, backend: SurrealDBBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._new: list[_Wait] = []
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def add(self, wait: _Wait) -> None:
        """Wait for these too; does not block."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._thread = os.getpid(), None
            self._new.append(wait)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="surrealdb-await", daemon=True)
                self._thread.start()
        self._backend.result_consumer.news()

    def _run(self) -> None:
        waits: list[_Wait] = []
        told: set[int] = set()
        while True:
            with self._lock:
                new, self._new = self._new, []
                if not new and not waits:
                    self._thread = None
                    return
            try:
                if new:
                    waits += new
                    self._begin([result for wait in new for result in wait.results])
                else:
                    with contextlib.suppress(TimeoutError):
                        self._backend.result_consumer.drain_events(timeout=LOOK)
            except Exception as exc:  # whatever it is, the coroutines must hear of it
                for wait in waits:
                    wait.fail(exc)
                self._end(waits)
                waits = []
            waits = [wait for wait in waits if self._still_waits(wait, told)]

    def _begin(self, results: list[AsyncResult]) -> None:
        backend = self._backend
        for result in results:
            # What Celery's get() does: hold the result where what arrives is put into it.
            backend.add_pending_result(result)
        backend.result_consumer.on_wait_for_pending(backend.app.ResultSet(results))

    def _still_waits(self, wait: _Wait, told: set[int]) -> bool:
        for result in wait.results:
            if result._cache is not None and id(result) not in told:
                told.add(id(result))
                wait.tell()
        if wait.cancelled or all(result._cache is not None for result in wait.results):
            self._end([wait])
            told.difference_update(id(result) for result in wait.results)
            return False
        return True

    def _end(self, waits: list[_Wait]) -> None:
        for wait in waits:
            for result in wait.results:
                self._backend.remove_pending_result(result)


_waiters: weakref.WeakKeyDictionary[Any, _Waiter] = weakref.WeakKeyDictionary()
_waiters_lock = threading.Lock()


def _waiter(backend: Any) -> _Waiter:
    with _waiters_lock:
        waiter = _waiters.get(backend)
        if waiter is None:
            if not hasattr(backend, "result_consumer"):
                raise TypeError(f"results of {backend.as_uri()} cannot be awaited here: it is not a SurrealDB backend")
            waiter = _waiters[backend] = _Waiter(backend)
        return waiter
