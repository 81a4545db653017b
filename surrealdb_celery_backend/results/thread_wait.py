"""How a thread waits: it looks once, sleeps on its mailbox, decodes and runs callbacks."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .timeouts import seconds
from .waiters import Event
from .waiting import INTERVAL, PARENT_GRACE, Wait

Fulfilled = Iterator[list[Any]]


class ThreadWait:
    """A wait in the thread that iterates over this: it yields the results that were fulfilled last, also none.

    Args:
        wait: The wait; it is opened and closed here.
        mailbox: Its mailbox.
        timeout: Seconds until everything must have come; None waits on, 0 looks once.
        on_interval: Called twice a second.
        parent_grace: For how long a failed parent does not end the wait, in seconds.

    Raises:
        celery.exceptions.TimeoutError: The time is over.
        SurrealDBBackendError: The database cannot be asked.
        TypeError: The timeout is no number.
        ValueError: It is NaN.
    """

    def __init__(
        self,
        wait: Wait,
        mailbox: queue.SimpleQueue[Event],
        timeout: float | None,
        *,
        on_interval: Callable[[], Any] | None = None,
        parent_grace: float = PARENT_GRACE,
    ) -> None:
        self._wait = wait
        self._mailbox = mailbox
        timeout = seconds(timeout)
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._on_interval = on_interval
        self._parent_grace = parent_grace
        self._next_interval = 0.0

    def __iter__(self) -> Fulfilled:
        wait = self._wait
        yield wait.take_kept()
        if not wait.missing:
            return
        try:
            wait.open()
            yield from self._take(wait.look(self._deadline))
            if wait.missing:
                wait.go_on()
                yield from self._wait_on()
            if not self._parent_grace:
                yield from self._look_at_parents()
        finally:
            wait.close()

    def _take(self, look: Iterable[None] = ()) -> Fulfilled:
        """Take what is in the mailbox, and what a look puts there."""
        for _ in look:
            yield from self._take()
        while not self._mailbox.empty():
            yield self._wait.handle(self._mailbox.get_nowait())

    def _wait_on(self) -> Fulfilled:
        wait, deadline = self._wait, self._deadline
        self._next_interval = time.monotonic() + INTERVAL
        while wait.missing:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise wait.timed_out()
            wait.check_parents(self._parent_grace)
            if now >= self._next_interval:
                yield self._interval(now)
                continue
            until = self._next_interval if deadline is None else min(self._next_interval, deadline)
            try:
                event = self._mailbox.get(timeout=until - now)
            except queue.Empty:
                continue
            yield wait.handle(event)

    def _interval(self, now: float) -> list[Any]:
        self._next_interval = now + INTERVAL
        self._wait.check(bounded=self._deadline is not None)
        fulfilled = self._wait.sweep()
        if self._on_interval is not None:
            self._on_interval()
        return fulfilled

    def _look_at_parents(self) -> Fulfilled:
        """See once more, when the result is there, whether a parent failed, as Celery does: that says more."""
        yield from self._take()
        if self._wait.failed:
            yield from self._take(self._wait.look_for_parents(self._deadline))
        self._wait.check_parents(self._parent_grace)
