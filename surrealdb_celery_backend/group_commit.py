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

from . import errors, statements
from .failures import SAFE_TO_RETRY
from .values import MAKES_NO_SENSE

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
#: Failures that one store has not brought upon the others. A conflict is over one task's record.
_OF_ALL = tuple(error for error in SAFE_TO_RETRY if error is not errors.WriteConflict)


class _Store:
    """One thread's store, on its way."""

    __slots__ = (
        "batch",
        "deadline",
        "error",
        "given_up",
        "queued",
        "ready",
        "record",
        "status",
        "stored",
        "task",
        "woken",
    )

    def __init__(self, record: RecordID, task: dict[str, Any], *, ready: bool, deadline: float) -> None:
        self.record = record
        self.task = task
        self.ready = ready
        self.deadline = deadline
        #: It is in the queue: nobody has taken it along yet.
        self.queued = False
        #: What its own thread sends, this store first.
        self.batch: list[_Store] | None = None
        #: Its thread does not wait for it any more.
        self.given_up = False
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
        mine = _Store(record, task, ready=ready, deadline=deadline)
        try:
            with self._lock:
                if self._under_way < LANES:
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
        if mine.stored:
            return mine.status
        return self._alone(record, task, ready=ready, deadline=deadline)

    def _alone(self, record: RecordID, task: dict[str, Any], *, ready: bool, deadline: float | None = None) -> Any:
        text = statements.STORE_READY_TASK if ready else statements.STORE_UNREADY_TASK
        return self._connection.run(text, deadline=deadline, record=record, task=task)

    def _turn(self, mine: _Store, woken: threading.Event) -> None:
        """Wait until a store may be sent: then it has a batch.

        Without one another thread took it along and is back, or the time is over.
        """
        woken.wait(PATIENCE)
        with self._lock:
            if mine.queued:
                self._take(mine)
                return
        woken.wait(max(0.0, mine.deadline - time.monotonic()))

    def _take(self, mine: _Store) -> None:
        """This store and those that wait are to be sent by this thread. Called with the lock held."""
        batch = [mine]
        mine.batch, self._under_way = batch, self._under_way + 1
        if mine.queued:
            mine.queued = False
            self._queue.remove(mine)
        while self._queue and len(batch) < MOST:
            one = self._queue[0]
            one.queued = False
            batch.append(one)
            self._queue.popleft()
        for one in batch:
            if one.woken is not None:
                one.woken.clear()

    def _leave(self, mine: _Store) -> None:
        """This thread is back, or is interrupted: who waits for it goes on.

        Its store must not be stored later, over what is stored then.
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
            mine.batch, self._under_way = None, self._under_way - 1

    def _send(self, mine: _Store, batch: list[_Store]) -> None:
        """One request with all of them; what came of it is written into each."""
        together = [one for one in batch if not one.given_up] if len(batch) > 1 else batch
        if len(together) > 1:
            self._send_together(together, mine.deadline)
        else:
            mine.status = self._alone(mine.record, mine.task, ready=mine.ready, deadline=mine.deadline)
            mine.stored = True

    def _send_together(self, batch: list[_Store], deadline: float) -> None:
        batch.sort(key=lambda one: not one.ready)
        variables: dict[str, Any] = {}
        for number, one in enumerate(batch):
            variables[f"record{number}"] = one.record
            variables[f"task{number}"] = one.task
        text = statements.store_tasks(sum(one.ready for one in batch), len(batch))
        try:
            statuses = self._connection.run(text, deadline=deadline, **variables)
        except _OF_ALL as exc:
            for one in batch:
                one.error = exc
            return
        except (errors.SurrealDBBackendError, *MAKES_NO_SENSE):
            # One of them was refused or could not be sent, and with it all. Each finds out by itself.
            return
        if statuses is None:  # there is no such table
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
