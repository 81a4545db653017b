"""Results that several threads store at one moment go to the database together: a group commit.

What a store costs is above all the message each way and the commit, not the record: on RocksDB (3.0.2) one
takes 1.2 ms, and eight in one transaction 1.9 ms. So while :data:`LANES` requests are under way, the stores
of other threads (or greenlets) gather, and whoever is free next takes all of them along. A thread that is
alone never waits; one among many waits for :data:`PATIENCE` at most, so that on a distant server nobody waits
for another's round trip.

What concerns one store only stays with it: where the database refuses the transaction, each thread sends its
own store by itself and gets its own error.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from . import statements
from .failures import SAFE_TO_RETRY

if TYPE_CHECKING:
    from .connection import Connection
    from .values import RecordID

#: How many requests with stores are under way at once: the database works on one while replies to the other
#: are read and the next gathers. With one, two threads store a quarter less per second; three bring no more.
LANES = 2
#: How long a store waits for a request under way, in seconds. More than a commit takes on one machine, and
#: little beside a round trip to another.
PATIENCE = 0.002
#: How many stores go together at most.
MOST = 16
#: From how many characters or bytes on a store goes by itself: its commit is not what it costs.
LARGE = 16_384


class _Store:
    """One thread's store, on its way."""

    __slots__ = ("error", "queued", "ready", "record", "status", "stored", "task", "woken")

    def __init__(self, record: RecordID, task: dict[str, Any], *, ready: bool) -> None:
        self.record = record
        self.task = task
        self.ready = ready
        #: Nobody has taken it along yet.
        self.queued = True
        #: Set when it may be taken by its own thread, and when the one that took it is back. None where it
        #: never had to wait.
        self.woken: threading.Event | None = None
        #: It was sent with others, and this is what came of it.
        self.stored = False
        self.status: Any = None
        self.error: BaseException | None = None


class GroupCommit:
    """Stores task records, those of threads that meet in one transaction.

    :param connection: what they are sent on.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Guards the fields here and of the stores; never held during a round trip.
        self._lock = threading.Lock()
        self._queue: deque[_Store] = deque()
        #: How many requests with stores are under way.
        self._under_way = 0

    def store(self, record: RecordID, task: dict[str, Any], *, ready: bool) -> Any:
        """Store a task's record, where Celery's rules let it replace what is there.

        :param ready: whether the task has ended.
        :return: the status stored in a list; empty where what is there must stay.
        :raises SurrealDBBackendError: it was not stored.
        """
        if self._under_way and _size(task) > LARGE:
            return self._alone(record, task, ready=ready)
        deadline = time.monotonic() + self._connection.settings.timeout
        mine = _Store(record, task, ready=ready)
        with self._lock:
            if self._under_way >= LANES:
                mine.woken = woken = threading.Event()
            self._queue.append(mine)
            batch = None if self._under_way >= LANES else self._take(mine)
        try:
            if batch is None:
                batch = self._turn(mine, woken, deadline)
        except BaseException:
            # Whoever ends this thread must not find the result stored later, over what is stored then.
            with self._lock:
                if mine.queued:
                    self._queue.remove(mine)
            raise
        if batch is not None:
            self._send(batch)
        if mine.error is not None:
            raise type(mine.error)(str(mine.error))
        if mine.stored:
            return mine.status
        return self._alone(record, task, ready=ready, deadline=deadline)

    def _alone(self, record: RecordID, task: dict[str, Any], *, ready: bool, deadline: float | None = None) -> Any:
        text = statements.STORE_READY_TASK if ready else statements.STORE_UNREADY_TASK
        return self._connection.run(text, deadline=deadline, record=record, task=task)

    def _turn(self, mine: _Store, woken: threading.Event, deadline: float) -> list[_Store] | None:
        """Wait until a store may be sent.

        :return: what goes with it; None where another thread took it along and is back, or the time is over.
        """
        woken.wait(PATIENCE)
        with self._lock:
            if mine.queued:
                return self._take(mine)
        woken.wait(max(0.0, deadline - time.monotonic()))
        return None

    def _take(self, mine: _Store) -> list[_Store]:
        """This store and those that wait, to be sent by this thread. Called with the lock held."""
        self._under_way += 1
        self._queue.remove(mine)
        batch = [mine]
        while self._queue and len(batch) < MOST:
            batch.append(self._queue.popleft())
        for one in batch:
            one.queued = False
            if one.woken is not None:
                one.woken.clear()
        return batch

    def _send(self, batch: list[_Store]) -> None:
        """One request with all of them; what came of it is written into each."""
        try:
            if len(batch) == 1:
                (mine,) = batch
                mine.status = self._alone(mine.record, mine.task, ready=mine.ready)
                mine.stored = True
            else:
                self._send_together(batch)
        finally:
            with self._lock:
                self._under_way -= 1
                wake = [*batch, self._queue[0]] if self._queue else batch
            for one in wake:
                if one.woken is not None:
                    one.woken.set()

    def _send_together(self, batch: list[_Store]) -> None:
        batch.sort(key=lambda one: not one.ready)
        variables: dict[str, Any] = {}
        for number, one in enumerate(batch):
            variables[f"record{number}"] = one.record
            variables[f"task{number}"] = one.task
        text = statements.store_tasks(sum(one.ready for one in batch), len(batch))
        try:
            statuses = self._connection.run(text, **variables)
        except SAFE_TO_RETRY as exc:
            for one in batch:
                one.error = exc
            return
        except Exception:
            # One of them was refused, and with it all. Each finds out by itself.
            return
        for one, status in zip(batch, statuses, strict=True):
            one.status, one.stored = status, True

    def _after_fork(self) -> None:
        """In the child: who waits does so in the parent."""
        self._lock = threading.Lock()
        self._queue.clear()
        self._under_way = 0


def _size(task: dict[str, Any]) -> int:
    return sum(len(value) for value in task.values() if isinstance(value, (str, bytes)))
