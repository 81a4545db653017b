"""Requests that several threads make at one moment go to the database together.

What a store or a fetch costs is above all the message each way, and a store's commit, not the record. On RocksDB (3.0.2)
one store takes 1.2 ms, and eight in one transaction 1.9 ms. So while :data:`MAX_IN_FLIGHT` requests are under way, those
of other threads (or greenlets) gather, and the next free thread takes all of them along. A thread that is alone never
waits; one among many waits for :data:`MAX_WAIT` at most, so that on a distant server nobody waits for another's round
trip.

What concerns one request only stays with it: where the database refuses them together, each thread sends its own by
itself and gets its own error.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .. import errors
from ..client import forks
from ..client.values import MALFORMED

#: How many requests are under way at once: the database works on one while replies to the other are read and the next
#: gathers. With one, two threads store a quarter less per second; three bring no more.
MAX_IN_FLIGHT = 2
#: How long a thread waits for a request under way, in seconds. More than a commit takes on one machine, and little
#: beside a round trip to another.
MAX_WAIT = 0.002
#: How many go together at most.
MAX_BATCH = 16
#: Failures that one of them has not brought upon the others. A conflict is over one task's record.
_OF_ALL = (errors.ServerUnavailable, errors.SessionExpired, errors.StorageUnavailable)
#: In the place of an outcome: it was not among those of the others, and its own thread sends it by itself.
ALONE: Any = object()


class _Item:
    """One thread's request, on its way."""

    __slots__ = ("batch", "deadline", "error", "given_up", "outcome", "queued", "what", "woken")

    def __init__(self, what: Any, deadline: float) -> None:
        self.what = what
        self.deadline = deadline
        #: It is in the queue: nobody has taken it along yet.
        self.queued = False
        #: What its own thread sends, this one first.
        self.batch: list[_Item] | None = None
        #: Its thread does not wait for it any more.
        self.given_up = False
        #: Set when it may be taken by its own thread, and when the one that took it is back. None where it
        #: never had to wait.
        self.woken: threading.Event | None = None
        #: What came of it.
        self.outcome: Any = ALONE
        self.error: BaseException | None = None


class Gathering:
    """Sends requests, those of threads that meet as one.

    Args:
        alone: Sends one: takes what was given to `send` and a deadline by the monotonic clock.
        together: Sends several likewise. Returns the outcome of each, `ALONE` for one that has to go by itself.
    """

    def __init__(
        self, alone: Callable[[Any, float], Any], together: Callable[[list[Any], float], Sequence[Any]]
    ) -> None:
        self._alone = alone
        self._together = together
        #: Guards the fields here and of the items; never held during a round trip.
        self._lock = threading.Lock()
        self._queue: deque[_Item] = deque()
        #: How many requests are under way.
        self.under_way = 0
        forks.register(self._after_fork)

    @property
    def waiting(self) -> int:
        """How many threads wait for a request under way."""
        return len(self._queue)

    def send(self, what: Any, deadline: float) -> Any:
        """Send a request, alone or with those of other threads.

        Args:
            what: The request, as `alone` and `together` take it.
            deadline: When it has to be answered, by the monotonic clock.

        Returns:
            Its outcome.

        Raises:
            SurrealDBBackendError: It failed.
        """
        mine = _Item(what, deadline)
        try:
            with self._lock:
                if self.under_way < MAX_IN_FLIGHT:
                    self._take(mine)
                else:
                    mine.woken = woken = threading.Event()
                    self._queue.append(mine)
                    mine.queued = True
            if mine.batch is None:
                self._turn(mine, woken)
            if mine.batch is not None:
                self._send(mine, mine.batch)
        finally:
            try:
                mine.given_up = True
                if mine.batch is not None or mine.queued:
                    self._leave(mine)
            except BaseException:
                # Interrupted: others wait for what this thread took along.
                self._leave(mine)
                raise
        if mine.error is not None:
            raise type(mine.error)(str(mine.error))
        if mine.outcome is not ALONE:
            return mine.outcome
        return self._alone(what, deadline)

    def _turn(self, mine: _Item, woken: threading.Event) -> None:
        """Wait until a request may be sent: then it has a batch.

        Without one another thread took it along and is back, or the time is over.
        """
        woken.wait(MAX_WAIT)
        with self._lock:
            if mine.queued:
                self._take(mine)
                return
        woken.wait(max(0.0, mine.deadline - time.monotonic()))

    def _take(self, mine: _Item) -> None:
        """This request and those that wait are to be sent by this thread. Called with the lock held."""
        batch = [mine]
        mine.batch, self.under_way = batch, self.under_way + 1
        if mine.queued:
            mine.queued = False
            self._queue.remove(mine)
        while self._queue and len(batch) < MAX_BATCH:
            one = self._queue[0]
            one.queued = False
            batch.append(one)
            self._queue.popleft()
        for one in batch:
            if one.woken is not None:
                one.woken.clear()

    def _leave(self, mine: _Item) -> None:
        """This thread is back, or is interrupted: its followers go on.

        A store must not be sent later, over what is stored then.
        """
        with self._lock:
            if mine.queued:
                mine.queued = False
                self._queue.remove(mine)
            if mine.batch is None:
                return
            for one in (*mine.batch, self._queue[0]) if self._queue else mine.batch:
                if one.woken is not None:
                    one.woken.set()
            mine.batch, self.under_way = None, self.under_way - 1

    def _send(self, mine: _Item, batch: list[_Item]) -> None:
        """One request with all of them; the outcome is written into each."""
        if len(batch) > 1:
            batch = [one for one in batch if not one.given_up]
        if len(batch) == 1:
            mine.outcome = self._alone(mine.what, mine.deadline)
            return
        try:
            outcomes = self._together([one.what for one in batch], mine.deadline)
        except _OF_ALL as exc:
            for one in batch:
                # The time that was over is this thread's: another may have more.
                if not isinstance(exc, errors.RequestTimedOut) or one.deadline <= mine.deadline + MAX_WAIT:
                    one.error = exc
            return
        except (errors.SurrealDBBackendError, *MALFORMED):
            # One of them was refused or could not be sent, and with it all. Each finds out by itself.
            return
        for one, outcome in zip(batch, outcomes, strict=True):
            one.outcome = outcome

    def _after_fork(self) -> None:
        # Waiting threads belong to the parent process.
        self._lock = threading.Lock()
        self._queue.clear()
        self.under_way = 0
