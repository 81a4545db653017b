"""Waiting for results: pushed by a LIVE query where there is one, polled in any case.

One LIVE query per process, on a session of its own, asks for the results of tasks that this process sent
(Celery puts the sender's address, ``reply_to``, into every message, and the worker stores it). It is opened
when somebody waits and ended when nobody has for a while. Nothing depends on it: in a cluster a write on
another node is not notified, and a lost connection loses its LIVE queries silently. So every result waited
for is also polled, soon at first and then ever more rarely, all that are due in one round trip.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.asynchronous import BaseResultConsumer, greenletDrainer
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger

from . import errors, statements
from .connection import Connection
from .failures import understand_exception
from .waiting import waiting_on

if TYPE_CHECKING:
    from .wire import Reply

logger = get_logger(__name__)

#: The first pause between two looks for a result, in seconds.
POLL_FIRST = 0.01
#: The pause grows with the time waited, as this part of it: the expected delay is half of that.
POLL_SHARE = 0.1
#: The longest pause, in seconds: Celery's own for results that are polled.
POLL_LAST = 0.5
#: The pauses, first and last, for a result that a LIVE query will bring, in seconds.
POLL_PUSHED_FIRST, POLL_PUSHED_LAST = 1.0, 5.0
#: Results due within this many seconds are looked for in the same round trip.
POLL_TOGETHER = 0.005
#: The longest wait of one drain_events without a timeout of its own, in seconds.
DRAIN_INTERVAL = 1.0
#: LIVE is not relied on once so many results came by polling that it should have brought, if they are also
#: more than one in ten: the server is a cluster, where a write on another node is not notified.
MISSED_BEFORE_DISTRUST, PUSHED_PER_MISSED = 3, 10
#: How long the LIVE query outlives the last who waited, in seconds: the next get() may be near.
LINGER = 5.0
#: How long the push thread listens at a time, in seconds, before it looks whether it is still needed.
LISTEN = 0.5
#: The pause before a lost LIVE query is opened again, first and last, in seconds.
REOPEN_FIRST, REOPEN_LAST = 0.1, 10.0
#: How many ids of sent tasks are remembered, to know that LIVE will bring their results.
SENT_REMEMBERED = 50_000
#: How many senders' addresses (one per thread) one LIVE query asks for.
ADDRESSES_REMEMBERED = 256
#: How long the database may be away, in seconds, before a get() without timeout raises instead of waiting on:
#: as long as a worker's retries last by default.
OUTAGE = 60.0


class ResultConsumer(BaseResultConsumer):
    """Hands results to those who wait for them."""

    _connection_errors = (errors.SurrealDBBackendError, OSError)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reset()

    def _reset(self) -> None:
        #: Ids waited for, with the time since when. Changed by single dict operations only: cancel_for
        #: runs in ``AsyncResult.__del__``, where no lock may be taken.
        self._waited_for: dict[str, float] = {}
        #: (when to look, id); an id that is no longer waited for is dropped when its time comes.
        self._schedule: list[tuple[float, str]] = []
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._addresses: OrderedDict[str, None] = OrderedDict()
        self._condition = threading.Condition()
        self._draining = False
        #: Something happened since the last look: drain_events returns.
        self._news = False
        #: When looks for results began to fail; None while they do not.
        self._failing_since: float | None = None
        #: Results that LIVE brought, and those it should have brought but polling found.
        self._pushed = self._missed = 0
        self._push: Push | None = None
        #: The state last handed to on_message, by id, and when: polling hands it out once, and nothing older after it.
        self._seen: dict[str, tuple[Any, float]] = {}
        #: States that a look found although LIVE should bring them, by id: told if the next look finds them too.
        self._unheard: dict[str, Any] = {}
        #: Guards the two; never held while anybody is told.
        self._claiming = threading.Lock()
        self._last_wait = time.monotonic()

    def on_after_fork(self) -> None:
        """In the child: nobody waits yet, and the push thread stayed with the parent."""
        push = self._push
        self._reset()
        if push is not None:
            push.abandon()

    # -- who waits for what -------------------------------------------------------------------------

    def expect(self, task_id: str) -> None:
        """A task is sent by this thread: LIVE will bring its result, should somebody wait."""
        self._sent[task_id] = None
        while len(self._sent) > SENT_REMEMBERED:
            try:
                self._sent.popitem(last=False)
            except KeyError:  # pragma: no cover - another thread was faster
                break
        address = self.app.thread_oid
        if address not in self._addresses:
            with self._condition:
                self._addresses[address] = None
                while len(self._addresses) > ADDRESSES_REMEMBERED:
                    self._addresses.popitem(last=False)

    @property
    def addresses(self) -> list[str]:
        """The addresses that results of this process's tasks are for."""
        with self._condition:
            return list(self._addresses)

    @property
    def anybody_waits(self) -> bool:
        """Whether a result is waited for, or was a moment ago."""
        return bool(self._waited_for) or time.monotonic() - self._last_wait < LINGER

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Begin to wait for a result."""
        self.consume_from(initial_task_id)

    def consume_from(self, task_id: str) -> None:
        """Begin to wait for a result; no round trip is made here."""
        if task_id not in self._waited_for:
            now = time.monotonic()
            self._waited_for[task_id] = now
            with self._condition:
                heapq.heappush(self._schedule, (now + POLL_FIRST, task_id))
                self._condition.notify_all()

    def cancel_for(self, task_id: str) -> None:
        """Nobody waits for this result any more. Never blocks: called by ``AsyncResult.__del__``."""
        self._waited_for.pop(task_id, None)
        self._seen.pop(task_id, None)
        self._unheard.pop(task_id, None)

    def stop(self) -> None:
        """End the LIVE query and forget who waits."""
        self._waited_for.clear()
        push, self._push = self._push, None
        if push is not None:
            push.stop()

    # -- waiting ------------------------------------------------------------------------------------

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **_: Any) -> None:
        """A get() or join() begins: subscribe, then read what is there already, in that order."""
        self._last_wait = time.monotonic()
        if getattr(result, "_cache", result) is None:
            # A get() has done so already; whoever calls the backend's wait_for_pending() itself has not.
            self.backend._add_pending_result(result.id, result)
        ids = [node.id for node in getattr(result, "results", None) or [result]]
        for task_id in ids:
            self.consume_from(task_id)
        ids = [task_id for task_id in ids if not self._take_from_cache(task_id)]
        if not ids:
            return
        self._ensure_push()
        try:
            self._look_for(ids)
        except errors.SurrealDBBackendError as exc:
            if not self.backend.exception_safe_to_retry(exc):
                raise
            logger.warning("results cannot be fetched at the moment, waiting on: %s", exc)

    def _take_from_cache(self, task_id: str) -> bool:
        """Hand out a result that this process has read before (``result_cache_max``)."""
        try:
            meta = self.backend._cache[task_id]
        except KeyError:
            return False
        return meta["status"] in states.READY_STATES and self._hand_out({**meta, "task_id": task_id})

    def drain_events_until(self, p: Any, timeout: float | None = None, on_interval: Any = None) -> Any:
        """Drain until a promise is ready.

        Celery before 5.7 drains once although it is, and takes ``timeout=0`` for no timeout.
        """
        if p.ready:
            return iter(())
        if timeout is not None and timeout <= 0:
            raise TimeoutError
        return super().drain_events_until(p, timeout=timeout, on_interval=on_interval)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait until something happened that may concern somebody who waits.

        :raises socket.timeout: nothing did within ``timeout`` seconds.
        :raises SurrealDBBackendError: the database could not be asked so often that waiting is pointless.
        """
        self._last_wait = time.monotonic()
        deadline = self._last_wait + (DRAIN_INTERVAL if timeout is None else timeout)
        with self._condition:
            if self._draining:
                # Another thread looks for all; it says when there is news, or when it stops.
                if not self._condition.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                return
            self._draining = True
        try:
            news = self._drain(deadline)
        finally:
            with self._condition:
                self._draining = False
                self._condition.notify_all()
        if not news:
            raise TimeoutError

    def _drain(self, deadline: float) -> bool:
        while True:
            if self._waited_for:
                self._ensure_push()
            with self._condition:
                if self._news:
                    self._news = False
                    return True
                now = time.monotonic()
                ids = self._take_due(now + POLL_TOGETHER)
                if not ids:
                    if now >= deadline:
                        return False
                    due = self._schedule[0][0] if self._schedule else deadline
                    self._condition.wait(min(due, deadline) - now)
                    continue
            try:
                found = self._look_for(ids, count_missed=True)
                self._failing_since = None
                if found:
                    return True
            except errors.SurrealDBBackendError as exc:
                self._poll_failed(exc)
            finally:
                self._plan(ids)

    def _take_due(self, until: float) -> list[str]:
        due: dict[str, None] = {}
        while self._schedule and self._schedule[0][0] <= until:
            task_id = heapq.heappop(self._schedule)[1]
            if task_id in self._waited_for:
                due[task_id] = None
        return list(due)

    def _plan(self, ids: Iterable[str]) -> None:
        """When to look for these again."""
        now = time.monotonic()
        live = self.live_is_reliable
        with self._condition:
            for task_id in ids:
                since = self._waited_for.get(task_id)
                if since is None:
                    continue
                pause = (now - since) * POLL_SHARE
                if live and task_id in self._sent:
                    pause = min(max(pause, POLL_PUSHED_FIRST), POLL_PUSHED_LAST)
                else:
                    pause = min(max(pause, POLL_FIRST), POLL_LAST)
                heapq.heappush(self._schedule, (now + pause, task_id))

    @property
    def live_is_reliable(self) -> bool:
        """Whether results of tasks that this process sent need only be looked for in case one is lost."""
        push = self._push
        trusted = self._missed < MISSED_BEFORE_DISTRUST or self._missed * PUSHED_PER_MISSED <= self._pushed
        return push is not None and push.subscribed and trusted

    def look_for_all(self) -> None:
        """Whatever is waited for is due at once: notifications may have been missed."""
        with self._condition:
            self._schedule = [(0.0, task_id) for task_id in list(self._waited_for)]
            self._condition.notify_all()

    def _poll_failed(self, exc: errors.SurrealDBBackendError) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        lost = not self.backend.exception_safe_to_retry(exc)
        logger.warning("results cannot be fetched at the moment: %s", exc)
        # A raised error would end the greenlet that drains for all, for good; there a get() ends by its timeout.
        if isinstance(self.drainer, greenletDrainer):
            time.sleep(POLL_LAST)
        elif lost or now - self._failing_since >= OUTAGE:
            self._failing_since = None
            # Not an OSError: Celery would log it and go on waiting.
            raise errors.ResultsUnavailable(f"waiting for results was given up: {exc}") from exc

    def _look_for(self, ids: list[str], *, count_missed: bool = False) -> bool:
        """Fetch results and hand them out; whether any was news.

        :param count_missed: these were waited for while the LIVE query stood, which should have brought them.
        """
        pushed = count_missed and self._push is not None and self._push.subscribed
        on_message = self.on_message is not None
        began = time.monotonic()
        news = False
        for task_id, fetched in self.backend.fetch(ids, only_ready=not on_message):
            meta = {**fetched, "task_id": task_id}  # the id may be a UUID
            expected = pushed and task_id in self._sent
            handed_out = self._hand_out(meta, as_of=began, expected=expected)
            if handed_out and expected and meta["status"] in states.READY_STATES:
                self._missed += 1
            news = handed_out or news
        return news

    def _hand_out(self, meta: dict[str, Any], *, as_of: float | None = None, expected: bool = False) -> bool:
        """Tell those who wait, each state once, whichever thread brings it; whether there was anything to tell.

        :param as_of: when a look for it began; None for what was pushed, which comes in order.
        :param expected: LIVE should bring it.
        """
        task_id = meta["task_id"]
        if meta["status"] not in states.READY_STATES:
            if not self._claim(task_id, (meta["status"], repr(meta["result"])), as_of, expected=expected):
                return False
            self.on_state_change(meta, None)
            return True
        since = self._waited_for.pop(task_id, None)
        if since is None:
            return False
        try:
            self.on_state_change(meta, None)
        except BaseException:
            # A callback's: whoever waits has not been told yet.
            self._waited_for.setdefault(task_id, since)
            raise
        self.cancel_for(task_id)
        # What was buffered because its waiter had just gone would stay for ever.
        self._forget_buffered(task_id)
        return True

    def _claim(self, task_id: str, state: Any, as_of: float | None, *, expected: bool) -> bool:
        """Whether an unfinished state is news to on_message, and this thread's to tell."""
        if self.on_message is None or task_id not in self._waited_for:
            return False
        with self._claiming:
            told, when = self._seen.get(task_id, (None, 0.0))
            if told == state or (as_of is not None and when >= as_of):
                return False
            # A notification is on its way, behind those of the states before: told now, it would overtake them.
            if expected and self._unheard.get(task_id) != state:
                self._unheard[task_id] = state
                return False
            self._unheard.pop(task_id, None)
            self._seen[task_id] = state, time.monotonic()
        return True

    def on_state_change(self, meta: dict[str, Any], message: Any) -> None:
        """Tell those who wait. Celery pauses after each result, for 80 µs: that was half of a join of 500."""
        if self.on_message is not None:
            self.on_message(meta)
        if meta["status"] not in states.READY_STATES:
            return
        if meta["status"] == states.SUCCESS:
            self.backend._cache[meta["task_id"]] = meta
        waiting = waiting_on(self._pending_results, meta["task_id"])
        if not waiting:
            # It may be asked for in a moment.
            self._pending_messages.put(meta["task_id"], meta)
        for result in waiting:
            result._maybe_set_cache(meta)
            bucket = self.buckets.pop(result, None)
            if bucket is not None:
                bucket.append(result)

    def _forget_buffered(self, task_id: str) -> None:
        buffered = self._pending_messages
        try:
            dropped = buffered.pop(task_id)
        except KeyError:
            return
        buffered.total -= len(dropped)

    # -- push ---------------------------------------------------------------------------------------

    def _ensure_push(self) -> None:
        settings = self.backend.settings
        if settings.live == "off" or settings.scheme not in ("ws", "wss") or not self._addresses:
            if settings.live == "on" and settings.scheme not in ("ws", "wss"):
                raise ImproperlyConfigured(
                    f"surrealdb_live is 'on', and LIVE queries need a ws:// or wss:// surrealdb_url, not "
                    f"{settings.endpoint!r}; use 'auto'"
                )
            return
        push = self._push
        if push is None or not push.running:
            with self._condition:
                if self._push is None or not self._push.running:
                    if self._push is not None and self._push.impossible:
                        return
                    self._push = Push(self)

    def notified(self, reply: Reply) -> bool:
        """A LIVE query sent a record.

        :return: whether somebody who waits was told.
        """
        fields = reply.get("result")
        if reply.get("action") not in ("CREATE", "UPDATE") or not isinstance(fields, dict):
            return False
        if fields.get("task_id") not in self._waited_for:
            return False
        meta = self.backend.meta_from_decoded(self.backend.tasks.to_meta(fields))
        self._pushed += 1
        return self._hand_out(meta)

    def news(self) -> None:
        """Wake those who wait: a result was handed out, or there is somebody new to wait for."""
        with self._condition:
            self._news = True
            self._condition.notify_all()


class Push:
    """The process's LIVE query, its session, and the thread (or greenlet) that listens to it.

    :param consumer: whom notifications are for.
    """

    def __init__(self, consumer: ResultConsumer) -> None:
        self.running = True
        #: The server, or the way to it, has no LIVE queries: do not try again.
        self.impossible = False
        self.subscribed = False
        self._consumer = consumer
        self._inbox: list[Reply] = []
        self._stopping = threading.Event()
        self._asked_for: frozenset[str] = frozenset()
        self._live: Any = None
        #: The line that carries the LIVE query; when it breaks, the query is gone with it.
        self._line: Any = None
        self._connection = Connection(consumer.backend.settings, define=False, on_notification=self._inbox.append)
        self._thread = threading.Thread(target=self._run, name="surrealdb-results", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the LIVE query and its session, soon; does not wait."""
        self._stopping.set()

    def abandon(self) -> None:
        """In a forked child: the thread is not here, and the socket is closed by connection.py."""
        self.running = False

    def _run(self) -> None:
        pause = REOPEN_FIRST
        try:
            while not self._stopping.is_set() and self._consumer.anybody_waits:
                try:
                    self._subscribe()
                    self._listen()
                    pause = REOPEN_FIRST
                except errors.LiveNotSupported as exc:
                    self._unsupported(exc)
                    return
                except Exception as exc:
                    self.subscribed = False
                    level = logger.debug if understand_exception(exc) else logger.warning
                    level("results are polled until the LIVE query is back: %s", exc)
                    self._connection.disconnect()
                    self._live, self._asked_for = None, frozenset()
                    self._stopping.wait(pause)
                    pause = min(pause * 2, REOPEN_LAST)
        finally:
            self.running = self.subscribed = False
            self._end()

    def _unsupported(self, exc: Exception) -> None:
        self.impossible = True
        log = logger.warning if self._consumer.backend.settings.live == "on" else logger.debug
        log("this server has no LIVE queries, results are polled: %s", exc)

    def _subscribe(self) -> None:
        """Ask for the results of all addresses; the old question is withdrawn after the new one stands."""
        wanted = frozenset(self._consumer.addresses)
        if self._live is not None and wanted <= self._asked_for:
            return
        backend = self._consumer.backend
        table = backend.settings.table(statements.TASK)
        old = self._live
        _ = backend.connection.line  # opening it creates the table where there is none yet
        self._live = self._connection.run(statements.live_tasks(table), addresses=sorted(wanted))
        if self._live is None:
            raise errors.DatabaseMissing("the task table does not exist yet")
        self._asked_for = wanted
        self._line = self._connection.line
        if old is not None:
            self._connection.run(statements.KILL, live=old)
        self.subscribed = True
        # What was written before the question stood has not been notified.
        self._consumer.look_for_all()

    def _listen(self) -> None:
        consumer = self._consumer
        while not self._stopping.is_set() and consumer.anybody_waits:
            self._line.listen(LISTEN)
            told = False
            while self._inbox:
                reply = self._inbox.pop(0)
                if reply.get("action") == "KILLED":
                    raise errors.ConnectionFailed("the server ended the LIVE query")
                told = consumer.notified(reply) or told
            if told:
                consumer.news()
            self._subscribe()

    def _end(self) -> None:
        try:
            if self._live is not None and not self.impossible:
                self._connection.run(statements.KILL, live=self._live)
        except Exception as exc:
            logger.debug("the LIVE query was not ended: %s", exc)
        self._connection.close()
