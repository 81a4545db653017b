"""A record for a task when it is sent, so that PENDING means waiting, and no record means unknown.

The records of what a process sends gather for a moment and go together, in a thread of their own: no `apply_async`
waits for them. They never replace a later state. A record that cannot be written for a while is given up, with a
warning: what was sent runs all the same.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from celery import states
from celery.utils.log import get_logger

from ..client.values import RecordID
from ..errors import TransientError
from . import statements
from .expiry import lifetime
from .life import add_life
from .records import Codec, identifier

logger = get_logger(__name__)

#: How long a record waits for others, in seconds.
GATHER = 0.02
#: How many records go in one request.
TOGETHER = 50
#: How many records wait at most; more are given up, with one warning once there is room again.
LONGEST_QUEUE = 50_000
#: How often the database is tried, and the pause in between, in seconds.
TRIES, PAUSE = 5, 0.5
#: How long a process that ends waits for what is left, in seconds.
LAST_WAIT = 5.0


class Run(Protocol):
    """Runs statements: a connection's `run`."""

    def __call__(self, text: str, /, **variables: Any) -> Any:
        """Return the value of the last statement."""


class _Message:
    """The facts about a task that is sent, in the form of a request."""

    def __init__(self, headers: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
        self.__dict__.update(headers)
        self.delivery_info = {"priority": properties.get("priority")}


class SentTasks:
    """Stores what one backend's app has sent.

    Args:
        run: Runs statements.
        codec: Encodes results.
        table: The table of tasks.
        seconds: How long a record is kept where nothing more is heard of its task; None for ever.
    """

    def __init__(self, run: Run, codec: Codec, table: str, seconds: float | None) -> None:
        self._run, self._codec, self._table, self._lifetime = run, codec, table, lifetime(seconds)
        self.detach_after_fork()
        _all.add(self)

    def detach_after_fork(self) -> None:
        """In the child: the queue and its thread are the parent's."""
        self._lock = threading.Lock()
        self._queue: deque[tuple[RecordID, dict[str, Any]]] = deque()
        #: The ids of those that are not stored yet.
        self._waiting: set[str] = set()
        #: How many found the queue full, since it was last half empty.
        self._left_out = 0
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()

    def add(self, headers: Mapping[str, Any], properties: Mapping[str, Any], queue: str | None) -> None:
        """Take in a task that was sent.

        Args:
            headers: Of its message.
            properties: Of its message.
            queue: Where it was sent to.
        """
        if headers.get("retries"):
            return  # it has a record
        record = RecordID(self._table, identifier("task_id", headers.get("id")))
        fields: dict[str, Any] = {
            "task_id": record.id,
            "status": states.PENDING,
            "result": self._codec.encode(None),
            "encoding": self._codec.content_type,
        }
        add_life(fields, {}, _Message(headers, properties), states.PENDING, None)
        known = {
            "name": headers.get("task"),
            "queue": queue,
            "root_id": headers.get("root_id"),
            "parent_id": headers.get("parent_id"),
            "group_id": headers.get("group"),
            "reply_to": properties.get("reply_to"),
        }
        fields.update({name: value for name, value in known.items() if isinstance(value, str) and "\x00" not in value})
        with self._lock:
            if len(self._queue) >= LONGEST_QUEUE:
                self._left_out += 1
                return
            self._queue.append((record, fields))
            self._waiting.add(record.id)
            self._idle.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="surrealdb-sent", daemon=True)
                self._thread.start()

    def holds(self, task_id: Any) -> bool:
        """Return whether a task was sent by this process and its record is on the way.

        Args:
            task_id: The task's id.
        """
        return bool(self._waiting) and identifier("task_id", task_id) in self._waiting

    def flush(self, seconds: float = LAST_WAIT) -> bool:
        """Wait until everything is stored or given up.

        Args:
            seconds: For how long.

        Returns:
            Whether it is.
        """
        return self._idle.wait(seconds)

    def _send_all(self) -> None:
        while True:
            time.sleep(GATHER)
            with self._lock:
                batch = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
                if not batch:
                    self._thread = None
                    self._idle.set()
                    return
            while batch:
                self._send(batch)
                with self._lock:
                    self._waiting.difference_update(record.id for record, _ in batch)
                    batch = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
                self._tell_left_out()

    def _tell_left_out(self) -> None:
        """Say how many records were given up because the queue was full, once it is half empty: then that is over."""
        with self._lock:
            if len(self._queue) > LONGEST_QUEUE // 2:
                return
            number, self._left_out = self._left_out, 0
        if number:
            logger.warning(
                "%d tasks were sent, but not stored as PENDING: %d were waiting to be stored", number, LONGEST_QUEUE
            )

    def tell_left(self) -> None:
        """Say how many records are not stored, because the process ends."""
        with self._lock:
            number = len(self._waiting) + self._left_out
        if number:
            logger.warning("%d tasks were sent, but not stored as PENDING: the process ends", number)

    def _send(self, batch: list[tuple[RecordID, dict[str, Any]]]) -> None:
        variables: dict[str, Any] = {"lifetime": self._lifetime}
        for number, (record, fields) in enumerate(batch):
            variables[f"task{number}"] = {"id": record, **fields}
        text = statements.insert_sent(self._table, len(batch))
        for attempt in range(1, TRIES + 1):
            try:
                self._run(text, **variables)
            except TransientError as exc:
                if attempt == TRIES:
                    logger.warning("%d tasks were sent, but not stored as PENDING: %s", len(batch), exc)
                else:
                    time.sleep(PAUSE)
            except Exception as exc:
                logger.warning("%d tasks were sent, but not stored as PENDING: %s", len(batch), exc)
                return
            else:
                return


_all: weakref.WeakSet[SentTasks] = weakref.WeakSet()


@atexit.register
def _flush_at_exit() -> None:
    for sent in list(_all):
        if not sent.flush():
            sent.tell_left()
