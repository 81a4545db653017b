"""Await Celery results from asyncio.

>>> result = add.delay(2, 2)
>>> value = await aio.get(result, timeout=10)

Celery's own `result.get()` blocks its thread; in an asyncio application that is the thread of the event loop. Here a
coroutine is one more wait of the process: LIVE and looks serve all of them together, so 1,000 awaited results cost one
connection, one LIVE query and one request a look. Decoding and callbacks run in the event loop's thread. A coroutine
that is cancelled leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import celery_compat
from .results.collecting import Meta, is_settled, leaves_of, single_parents_of
from .results.consumer import source_of
from .results.timeouts import seconds
from .results.waiters import Event, Looked, Trouble
from .results.waiting import FIRST_LOOK, INTERVAL, PARENT_GRACE, Wait

if TYPE_CHECKING:
    from celery.result import AsyncResult, ResultSet

__all__ = ["as_completed", "forget", "get", "join", "state", "watch"]


async def get(
    result: AsyncResult | ResultSet,
    timeout: float | None = None,
    *,
    propagate: bool = True,
) -> Any:
    """Wait for one result, as `result.get()` does, without blocking the event loop.

    Args:
        result: The result of a task, or of a group: its values are returned as by :func:`join`.
        timeout: Seconds until it must have come; None waits on, 0 looks once.
        propagate: Raise what the task raised, or a task before it in its chain; else return the exception.

    Returns:
        The task's return value; None at once for a task whose results are ignored.

    Raises:
        celery.exceptions.TimeoutError: The time is over. Its `__cause__` says if the database was away.
        ResultsUnavailable: The database cannot be asked; without a timeout, after a minute of trying.
        TypeError: The result is kept in another backend, or the timeout is no number.
        ValueError: The timeout is NaN.
    """
    if hasattr(result, "results"):
        return await join(result, timeout, propagate=propagate)
    await _wait_for_all([result], [result] if propagate else [], timeout)
    return _value(result, propagate=propagate)


async def join(
    results: ResultSet | Iterable[AsyncResult | ResultSet], timeout: float | None = None, *, propagate: bool = True
) -> list[Any]:
    """Wait for many results and return their values in order, as `ResultSet.join()` does.

    Args:
        results: A group's result, or any results; nested groups give nested lists.
        timeout: Seconds until all must have come; None waits on, 0 looks once.
        propagate: Raise what the first failed task raised, or a task before the group; else put the exception in its
            place.

    Returns:
        The values.

    Raises:
        celery.exceptions.TimeoutError: The time is over.
        ResultsUnavailable: The database cannot be asked.
        TypeError: A result is kept in another backend, or the timeout is no number.
        ValueError: The timeout is NaN.
    """
    members = list(getattr(results, "results", results))
    await _wait_for_all(members, [results, *members] if propagate else [], timeout)
    return [_value(member, propagate=propagate) for member in members]


async def as_completed(
    results: ResultSet | Iterable[AsyncResult | ResultSet], timeout: float | None = None
) -> AsyncIterator[AsyncResult]:
    """Yield results as their tasks end, whether well or not.

    Args:
        results: A group's result, or any results; of nested groups, the tasks' results are yielded.
        timeout: Seconds until all must have ended; None waits on.

    Yields:
        Each task's result, once.

    Raises:
        celery.exceptions.TimeoutError: The time is over.
        ResultsUnavailable: The database cannot be asked.
        TypeError: A result is kept in another backend, or the timeout is no number.
        ValueError: The timeout is NaN.
    """
    timeout = seconds(timeout)
    leaves = leaves_of(getattr(results, "results", results))
    missing = []
    for leaf in leaves:
        if is_settled(leaf):
            yield leaf
        else:
            missing.append(leaf)
    awaited = _Awaited(missing, timeout)
    try:
        while awaited.missing:
            for leaf in await awaited.next():
                yield leaf
    finally:
        awaited.close()


async def watch(result: AsyncResult, timeout: float | None = None) -> AsyncIterator[Meta]:
    """Yield each state of a task as it comes: STARTED, the progress that it reports, RETRY; its end last.

    >>> async for meta in aio.watch(result):
    ...     print(meta["status"], meta["result"])

    States that follow one another faster than they are looked for may be skipped where they are polled; the last one
    never is. A task that nothing is stored of yields nothing until it is.

    Args:
        result: The result of a task.
        timeout: Seconds until it must have ended; None waits on.

    Yields:
        Celery's meta: `task_id`, `status`, `result` (the progress while it runs) and what else is stored.

    Raises:
        celery.exceptions.TimeoutError: The time is over.
        ResultsUnavailable: The database cannot be asked.
        TypeError: The result is kept in another backend, or the timeout is no number.
        ValueError: The timeout is NaN.
    """
    timeout = seconds(timeout)
    if is_settled(result):
        meta = celery_compat.cached_meta(result)
        if meta is not None:
            yield meta
        return
    metas: deque[Meta] = deque()
    awaited = _Awaited([result], timeout, on_message=metas.append)
    try:
        while awaited.missing:
            await awaited.next()
            while metas:
                yield metas.popleft()
    finally:
        awaited.close()


async def state(result: AsyncResult) -> str:
    """Return the state of a task, fetched in another thread.

    Args:
        result: The result of a task.
    """
    current: str = await asyncio.to_thread(lambda: result.state)
    return current


async def forget(result: AsyncResult) -> None:
    """Delete a result, in another thread.

    Args:
        result: The result of a task.
    """
    await asyncio.to_thread(result.forget)


def _value(result: Any, *, propagate: bool) -> Any:
    nested = getattr(result, "results", None)
    if nested is not None:
        return [_value(member, propagate=propagate) for member in nested]
    return None if celery_compat.cached_meta(result) is None else result.maybe_throw(propagate=propagate)


async def _wait_for_all(members: Iterable[Any], before: Iterable[Any], timeout: float | None) -> None:
    """Wait until all tasks have ended.

    Args:
        members: Results of tasks and groups.
        before: Results, before which in their chains no task may have failed.
        timeout: Seconds.
    """
    missing = [leaf for leaf in leaves_of(members) if not is_settled(leaf)]
    parents = single_parents_of(before)
    awaited = _Awaited(missing, timeout, parents=parents)
    try:
        while awaited.missing:
            await awaited.next()
    finally:
        awaited.close()


class _Awaited:
    """The results that a coroutine waits for. It closes this whatever happens; nothing of the wait stays then.

    Args:
        results: Results of single tasks.
        timeout: Seconds until all must have come; None waits on, 0 looks once.
        parents: Results of tasks whose failure ends the wait.
        on_message: Takes the meta of each state.
    """

    def __init__(
        self,
        results: list[Any],
        timeout: float | None,
        *,
        parents: Iterable[Any] = (),
        on_message: Callable[[Meta], Any] | None = None,
    ) -> None:
        timeout = seconds(timeout)
        now = self._began = time.monotonic()
        self._deadline = None if timeout is None else now + timeout
        self._next_check = now + INTERVAL
        #: Whether it is known what the database has.
        self._looked = False
        self._opened = False
        self._mailbox = _Mailbox(asyncio.get_running_loop())
        self._wait = Wait(
            results,
            source_of=source_of,
            mailbox=self._mailbox,
            on_message=on_message,
            parents=parents,
            wants_looks=True,
        )

    @property
    def missing(self) -> int:
        """How many tasks are still waited for."""
        return self._wait.missing

    def close(self) -> None:
        """End the wait."""
        self._wait.close()

    async def next(self) -> list[Any]:
        """Wait for something to happen.

        Returns:
            Results that are fulfilled since; there may be none.

        Raises:
            celery.exceptions.TimeoutError: The time is over.
            ResultsUnavailable: The database cannot be asked.
        """
        wait = self._wait
        if not self._opened:
            self._opened = True
            wait.open()
            wait.go_on(at_once=True)
            return wait.take_kept()
        now = time.monotonic()
        deadline = self._deadline
        if deadline is not None and not self._looked:
            # With no time left, what the first look finds counts.
            deadline = max(deadline, self._began + FIRST_LOOK)
        if deadline is not None and now >= deadline:
            raise wait.timed_out()
        if now >= self._next_check:
            self._next_check = now + INTERVAL
            wait.check(bounded=self._deadline is not None)
            wait.check_parents(PARENT_GRACE)
            return wait.sweep()
        until = self._next_check if deadline is None else min(self._next_check, deadline)
        fulfilled = []
        for event in await self._mailbox.events(until - now):
            self._looked = self._looked or isinstance(event, (Looked, Trouble))
            fulfilled += wait.handle(event)
        return fulfilled


class _Mailbox:
    """Where events for a coroutine go: threads put, its loop takes.

    Args:
        loop: The coroutine's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[Event] = deque()
        #: The loop was asked to wake the coroutine, and has not done so yet.
        self._waking = False
        self._sleeper: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        """Add an event and wake the coroutine.

        Args:
            event: The event.
        """
        self._events.append(event)
        if not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._waking = False
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def events(self, timeout: float) -> list[Event]:
        """Wait for events and take them.

        Args:
            timeout: Seconds.

        Returns:
            The events that arrived; none when the time is over.
        """
        if not self._events:
            self._sleeper = self._loop.create_future()
            alarm = self._loop.call_later(timeout, self._wake)
            try:
                await self._sleeper
            finally:
                alarm.cancel()
                self._sleeper = None
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken


def __getattr__(name: str) -> Any:
    # Lazily: awaiting results needs no typed API over stored ones.
    if name == "Results":
        from .results.history.asynchronous import AsyncResults

        return AsyncResults
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
