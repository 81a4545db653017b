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

from celery import states
from celery.exceptions import TimeoutError as ResultTimeout

from .waiting import PARENT_GRACE, parents_of

if TYPE_CHECKING:
    from celery.result import AsyncResult, ResultSet

    from .backend import SurrealDBBackend

__all__ = ["as_completed", "forget", "get", "join", "state"]

#: States of a task after which the tasks behind it in its chain are never sent.
FAILED = states.PROPAGATE_STATES
#: How long the waiter looks for results at a time, in seconds, before new ones are taken in.
LOOK = 0.25


async def get(
    result: AsyncResult | ResultSet,
    timeout: float | None = None,
    *,
    propagate: bool = True,
) -> Any:
    """Wait for one result, as ``result.get()`` does, without blocking the event loop.

    :param result: of a task whose backend is SurrealDB; of a group, its values are returned as by :func:`join`.
    :param timeout: seconds until it must have come; None waits for ever, 0 looks once.
    :param propagate: raise what the task raised, or a task before it in its chain; else return the exception.
    :return: what the task returned; None at once for one whose results are ignored.
    :raises celery.exceptions.TimeoutError: ``timeout`` is over.
    :raises SurrealDBBackendError: the database cannot be asked.
    """
    if hasattr(result, "results"):
        return await join(result, timeout, propagate=propagate)
    await _wait([result], timeout, parents=_parents([result]) if propagate else ())
    return _value(result, propagate=propagate)


async def join(
    results: ResultSet | Iterable[AsyncResult], timeout: float | None = None, *, propagate: bool = True
) -> list[Any]:
    """Wait for many results and return their values in order, as ``ResultSet.join()`` does.

    :param results: a group's result, or any results; nested groups give nested lists.
    :param timeout: seconds until all must have come; None waits for ever, 0 looks once.
    :param propagate: raise what the first failed task raised, or a task before the group; else put the exception
        in its place.
    :raises celery.exceptions.TimeoutError: ``timeout`` is over.
    """
    members = list(getattr(results, "results", results))
    await _wait(list(_leaves(members)), timeout, parents=_parents([results, *members]) if propagate else ())
    return [_value(member, propagate=propagate) for member in members]


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
        done = [result for result in waiting if _settled(result)]
        waiting = [result for result in waiting if result not in done]
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


def _parents(nodes: Iterable[Any]) -> list[AsyncResult]:
    """The tasks before these whose failure would end the waiting.

    Parts of a chord's header are not among them: where one fails, the body does.
    """
    return [parent for parent in parents_of(nodes) if not hasattr(parent, "results") and not _settled(parent)]


def _settled(result: AsyncResult) -> bool:
    """Whether there is nothing to wait for."""
    return result._cache is not None or result.ignored


def _value(result: Any, *, propagate: bool) -> Any:
    nested = getattr(result, "results", None)
    if nested is not None:
        return [_value(member, propagate=propagate) for member in nested]
    return None if result._cache is None else result.maybe_throw(propagate=propagate)


async def _wait(
    results: list[AsyncResult],
    timeout: float | None,
    *,
    all_of_them: bool = True,
    parents: Iterable[AsyncResult] = (),
) -> None:
    """Wait until all results, or one of them, are there.

    :param parents: tasks without whose success they will never be.
    :raises celery.exceptions.TimeoutError: ``timeout`` seconds are over.
    """
    missing = [result for result in results if not _settled(result)]
    if not missing or (not all_of_them and len(missing) < len(results)):
        return
    loop = asyncio.get_running_loop()
    done, looked = asyncio.Event(), asyncio.Event()
    left = len(missing) if all_of_them else 1

    def ready() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            done.set()

    by_backend: dict[int, tuple[list[AsyncResult], list[AsyncResult]]] = {}
    for result in missing:
        by_backend.setdefault(id(result.backend), ([], []))[0].append(result)
    for parent in parents:
        if id(parent.backend) in by_backend:
            by_backend[id(parent.backend)][1].append(parent)
    waits = []
    try:
        for own, before in by_backend.values():
            waiter = _waiter(own[0].backend)
            wait = _Wait(own, before, loop.call_soon_threadsafe, ready, done, looked)
            waits.append(wait)
            waiter.add(wait)
        if timeout is not None and timeout <= 0:
            await looked.wait()
        else:
            await asyncio.wait_for(done.wait(), timeout)
    except (TimeoutError, asyncio.TimeoutError):
        raise ResultTimeout("The operation timed out.") from None
    finally:
        for wait in waits:
            wait.cancelled = True
    for wait in waits:
        if wait.error is not None:
            raise wait.error
    if not done.is_set():
        raise ResultTimeout("The operation timed out.")


class _Wait:
    """Some results of one backend that one coroutine waits for.

    What comes is put into objects of this wait alone. The caller's own may be waited for by others too, who go on
    when this wait is over.

    :param results: what is waited for.
    :param parents: the tasks before them.
    :param call: has the coroutine's loop call a function.
    :param ready: to be called there for each result.
    :param done: to be set there when waiting is pointless.
    :param looked: to be set there once it is known what the database has now.
    """

    def __init__(
        self,
        results: list[AsyncResult],
        parents: list[AsyncResult],
        call: Callable[[Callable[[], None]], Any],
        ready: Callable[[], None],
        done: asyncio.Event,
        looked: asyncio.Event,
    ) -> None:
        self.cancelled = False
        self.error: BaseException | None = None
        self._results = [(result, _stand_in(result)) for result in results]
        self._parents = [_stand_in(parent) for parent in parents]
        self._parent_failed_at: float | None = None
        self._call_in_loop, self._ready, self._done, self._looked = call, ready, done, looked

    @property
    def stand_ins(self) -> list[AsyncResult]:
        """The objects that what comes is put into."""
        return [stand_in for _, stand_in in self._results] + self._parents

    @property
    def over(self) -> bool:
        """Whether nothing is waited for any more."""
        return self.cancelled or self.error is not None or not self._results

    def tell(self) -> None:
        """Hand over what has come."""
        missing = []
        for result, stand_in in self._results:
            if stand_in._cache is None:
                missing.append((result, stand_in))
                continue
            try:
                if result._cache is None:
                    result._maybe_set_cache(stand_in._cache)
            except Exception as exc:  # of a callback that was added to the result
                self.fail(exc)
            self._call(self._ready)
        self._results = missing
        self._call(self._looked.set)
        if missing:
            self._look_at_parents()

    def _look_at_parents(self) -> None:
        failed = next((parent for parent in self._parents if (parent._cache or {}).get("status") in FAILED), None)
        if failed is None:
            return
        now = time.monotonic()
        self._parent_failed_at = self._parent_failed_at or now
        if now - self._parent_failed_at >= PARENT_GRACE:
            try:
                failed.maybe_throw()
            except Exception as exc:
                self.fail(exc)

    def fail(self, error: BaseException) -> None:
        """The results cannot be had."""
        self.error = error
        self._call(self._done.set)
        self._call(self._looked.set)

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._call_in_loop(function)


def _stand_in(result: AsyncResult) -> AsyncResult:
    made: AsyncResult = result.app.AsyncResult(result.id, backend=result.backend)
    return made


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
        while True:
            with self._lock:
                new, self._new = self._new, []
                if not new and not waits:
                    self._thread = None
                    return
            try:
                if new:
                    waits += new
                    self._begin([stand_in for wait in new for stand_in in wait.stand_ins])
                else:
                    with contextlib.suppress(TimeoutError):
                        self._backend.result_consumer.drain_events(timeout=LOOK)
            except Exception as exc:  # whatever it is, the coroutines must hear of it
                for wait in waits:
                    wait.fail(exc)
            for wait in waits:
                wait.tell()
                if wait.over:
                    self._end(wait)
            waits = [wait for wait in waits if not wait.over]

    def _begin(self, stand_ins: list[AsyncResult]) -> None:
        backend = self._backend
        for stand_in in stand_ins:
            # What Celery's get() does: hold the result where what arrives is put into it.
            backend.add_pending_result(stand_in)
        backend.result_consumer.on_wait_for_pending(backend.app.ResultSet(stand_ins))

    def _end(self, wait: _Wait) -> None:
        for stand_in in wait.stand_ins:
            self._backend.remove_pending_result(stand_in)


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
