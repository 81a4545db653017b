"""Writes of a worker's main loop, which must not wait for the database.

A worker that waits in its main loop is deaf: it hears no ``inspect``, takes no message, sends its broker no
heartbeat. So what has to be stored there is tried once, for a moment. While the database is away, it goes into a
queue, and one thread stores it when the database is back, in its order. The queue is bounded. A write that is
given up is named in the log.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery.utils.log import get_logger

from ..client import deadlines

logger = get_logger(__name__)

#: How long the main loop may wait for one write or read, in seconds.
MAX_WAIT = 1.0
#: How many writes are kept at most; each is a result, with what it returned or raised.
MAX_WRITES = 10_000
#: The pause before the database is tried again, first and last, in seconds.
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0
#: How often one write may fail while the database answers, before it is given up.
MAX_FAILURES = 20
#: How long a worker that ends waits for its queue, in seconds.
SHUTDOWN_WAIT = 5.0


@dataclass
class _Write:
    what: str
    operation: Callable[[], Any]
    failures: int = 0


class Outbox:
    """A queue of writes, and the thread that does them.

    Args:
        is_transient: Whether a failure passes by itself.
        ping: Asks the database for a sign of life; raises where there is none.
    """

    def __init__(self, is_transient: Callable[[Exception], bool], ping: Callable[[], Any]) -> None:
        self._is_transient = is_transient
        self._ping = ping
        self._reset()

    def _reset(self) -> None:
        #: Guards the fields below; never held during a request.
        self._changed = threading.Condition()
        self._writes: deque[_Write] = deque()
        self._thread: threading.Thread | None = None
        #: The failure that showed that the database is away; None while it answers.
        self._outage: Exception | None = None
        self._closing = False

    def detach_after_fork(self) -> None:
        """After fork: the queue and its thread belong to the parent."""
        self._reset()

    @property
    def outage(self) -> Exception | None:
        """The failure that showed that the database is away; None while it answers."""
        return self._outage

    def __len__(self) -> int:
        return len(self._writes)

    def write(self, what: str, operation: Callable[[], Any]) -> None:
        """Do a write at once if that takes a moment, else keep it for later.

        Args:
            what: Its name in the log.
            operation: Writes. May be called again after it failed, from another thread.
        """
        if self._outage is None and not self._writes:
            try:
                with deadlines.time_limit(MAX_WAIT):
                    operation()
            except Exception as exc:
                if not self._is_transient(exc):
                    _give_up(what, exc)
                    return
                self.database_is_away(exc)
            else:
                return
        self.keep(what, operation)

    def keep(self, what: str, operation: Callable[[], Any]) -> None:
        """Let the thread do a write, after those that are kept already.

        Args:
            what: Its name in the log.
            operation: Writes. May be called again after it failed.
        """
        with self._changed:
            if len(self._writes) < MAX_WRITES:
                self._writes.append(_Write(what, operation))
                self._ensure_thread()
                return
        _give_up(what, f"{MAX_WRITES} writes are waiting for the database already")

    def database_is_away(self, exc: Exception) -> None:
        """Take note that the main loop found no database: it is not asked again there before it answers.

        Args:
            exc: The failure that showed it.
        """
        with self._changed:
            if self._outage is not None:
                return
            self._outage = exc
            self._ensure_thread()
        logger.warning("the worker goes on without its result database and stores results when it is back: %s", exc)

    def close(self, timeout: float = SHUTDOWN_WAIT) -> None:
        """Wait a moment until all is written; the rest is given up, each with a line in the log.

        Args:
            timeout: For how many seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._writes and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            lost = list(self._writes)
            self._writes.clear()
            self._closing = False
            self._changed.notify_all()
        for write in lost:
            _give_up(write.what, self._outage or "the worker ends")

    # -- the thread -----------------------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        """Start the thread if it does not run. Called with the lock held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="surrealdb-outbox", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        pause = FIRST_PAUSE
        written = 0
        while True:
            with self._changed:
                write = self._writes[0] if self._writes else None
                if write is None and self._outage is None:
                    self._thread = None
                    return
            try:
                (self._ping if write is None else write.operation)()
            except Exception as exc:
                pause = self._failed(write, exc, pause)
                continue
            pause = FIRST_PAUSE
            written += self._done(write)
            if self._outage_ends():
                logger.warning("the result database is back; %d results were stored late", written)
                written = 0

    def _failed(self, write: _Write | None, exc: Exception, pause: float) -> float:
        """Deal with a failure.

        Args:
            write: What could not be stored; None where the database was only asked whether it is there.
            exc: The failure.
            pause: How long to wait, in seconds.

        Returns:
            The pause before the next attempt, in seconds.
        """
        if write is not None and not self._is_transient(exc):
            self._done(write)
            _give_up(write.what, exc)
            return FIRST_PAUSE
        if write is not None and self._answers():
            # The failure is the write's own, not the database's.
            write.failures += 1
            if write.failures >= MAX_FAILURES:
                self._done(write)
                _give_up(write.what, exc)
        with self._changed:
            # A worker that ends has no time for long pauses.
            if self._closing:
                self._changed.wait(FIRST_PAUSE)
            elif not self._changed.wait_for(lambda: self._closing, pause):
                return min(2 * pause, LAST_PAUSE)
        return FIRST_PAUSE

    def _outage_ends(self) -> bool:
        with self._changed:
            if self._outage is None or self._writes:
                return False
            self._outage = None
            return True

    def _answers(self) -> bool:
        try:
            self._ping()
        except Exception:
            return False
        return True

    def _done(self, write: _Write | None) -> int:
        with self._changed:
            if write is None or not self._writes or self._writes[0] is not write:
                return 0
            self._writes.popleft()
            self._changed.notify_all()
            return 1


def _give_up(what: str, why: Any) -> None:
    logger.error("%s was given up: %s", what, why)
