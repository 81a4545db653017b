"""Brings records to those that wait for them: looks for what is due, and has a LIVE query push what it can.

There is one dispatcher for each database and process, however many backend instances there are. While there are waits,
and for five seconds after, it has one thread that looks and one that listens.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from celery.utils.log import get_logger

from .. import errors
from ..client import forks
from ..client.connection import Connection
from ..client.secret import Secret
from ..client.transport import OnNotification
from ..settings import Settings
from . import statements
from .addresses import FIELD, process_address
from .feed import Feed
from .live_cover import LiveCover
from .own_tasks import OwnTasks
from .polling import Coverage, Schedule
from .promises import Promises
from .push import Change, LiveQuery, Push
from .waiters import Arrival, Looked, Source, Trouble, Waiter, Waiters

logger = get_logger(__name__)

#: How long threads and LIVE query outlive the last wait, in seconds: the next get() may be near.
LINGER = 5.0
#: The pause between looks while they fail, first and last, in seconds.
FAILING_FIRST, FAILING_LAST = 0.1, 1.0
#: A result that was waited for at least so long, in seconds, was looked for in vain before.
LOOKED_FOR = Coverage.NONE.value.first / 2
BY_ADDRESS = (Coverage.ADDRESS, Coverage.PROVEN_ADDRESS)


class Dispatcher:
    """The waits of one process for results of one database.

    Args:
        settings: Where the database is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sent = OwnTasks()
        self.promises = Promises()
        table = settings.table(statements.TASK)
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self._push = Push(self._connect, self._prepare, required=settings.live == "on")
        #: Follows the changes of tasks, for those that wait for none in particular.
        self.feed = Feed(self._push, table)
        self._subscription = self._push.subscribe(
            LiveQuery(table, ()), on_change=self.deliver_change, on_standing=self._stands, is_needed=self._is_needed
        )
        self._reset()
        forks.register(self._detach)

    def _reset(self) -> None:
        #: Guards everything below; never held during a round trip or while a mailbox is filled.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiters = Waiters()
        self._schedule = Schedule()
        self._cover = LiveCover(self.settings.table(statements.TASK))
        #: The failure of looks at the moment, and how many failed in a row.
        self._trouble: Trouble | None = None
        self._failures = 0
        #: When the look that is under way began.
        self._looking_since: float | None = None
        self._running = False
        #: When the thread that looks wakes by itself; minus infinity while it is awake.
        self._asleep_until = float("-inf")
        self._last_wait = float("-inf")

    def _detach(self) -> None:
        """In a forked child: waits and threads are the parent's."""
        self._reset()
        self.sent = OwnTasks()
        self.promises = Promises(shared=self.promises.shared)
        self._push.detach()
        self.feed.detach()

    def __len__(self) -> int:
        """Return how many tasks are waited for."""
        return len(self._waiters)

    def __bool__(self) -> bool:
        """A dispatcher counts even where nothing is waited for."""
        return True

    def __contains__(self, task_id: object) -> bool:
        """Return whether a task is waited for."""
        return task_id in self._waiters

    @property
    def standing(self) -> LiveQuery | None:
        """The query that stands on the server; None while there is none."""
        return self._subscription.standing

    @property
    def is_in_trouble(self) -> bool:
        """Whether looks fail at the moment."""
        return self._trouble is not None

    @property
    def unanswered(self) -> float:
        """For how long the look that is under way has had no answer, in seconds; 0 where none is."""
        since = self._looking_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def live_is_possible(self) -> bool:
        """Whether LIVE queries are worth a try."""
        settings = self.settings
        return settings.live != "off" and settings.scheme in ("ws", "wss") and not self._push.impossible

    @property
    def live_is_trusted(self) -> bool:
        """Whether the LIVE query has brought what it was asked for."""
        with self._lock:
            return self._cover.trust.is_kept(time.monotonic())

    @property
    def planned(self) -> int:
        """How many looks are planned, those that nobody needs any more included."""
        return self._schedule.entries

    def waits_for(self, task_id: str) -> int:
        """Return how many wait for a task.

        Args:
            task_id: The task's id.
        """
        return len(self._waiters.of(task_id))

    def relies_on_live(self, task_id: str) -> bool:
        """Return whether a look found nothing of a task that the LIVE query names: it has to bring it.

        Args:
            task_id: The task's id.
        """
        return self._schedule.relied_on(task_id)

    # -- sources and waits ---------------------------------------------------------------------------

    def join(self, source: Source) -> None:
        """Serve a backend.

        Args:
            source: The backend's. It is held weakly.
        """
        self._sources.add(source)

    def leave(self, source: Source, error: Exception) -> None:
        """End the waits of a backend that is closed, and with the last backend everything else.

        Args:
            source: The backend's.
            error: The exception that ends its waits.
        """
        self._sources.discard(source)
        for waiter in self._waiters_now(source):
            waiter.mailbox.put(Trouble(error, time.monotonic(), passes=False))
        if not self._sources:
            self._push.stop()
            with self._lock:
                self._last_wait = float("-inf")
                self._changed.notify_all()

    def open(self, waiter: Waiter, task_ids: Iterable[str]) -> None:
        """Register a wait: results pushed from now on arrive. Nothing is looked for yet.

        Args:
            waiter: The waiter.
            task_ids: Ids of tasks.
        """
        ids = list(task_ids)
        with self._lock:
            self._last_wait = time.monotonic()
            self._waiters.add(waiter, ids)

    def look_for(self, waiter: Waiter, *, at_once: bool = False) -> None:
        """Begin to look for what a waiter still waits for.

        Args:
            waiter: The waiter.
            at_once: Whether nobody has looked for it yet.
        """
        now = time.monotonic()
        with self._lock:
            for task_id in waiter.ids:
                pause = 0.0 if at_once else self._coverage(task_id, now).value.first
                self._schedule.add(task_id, now, pause)
            if waiter.ids:
                self._wake()

    def close(self, waiter: Waiter) -> None:
        """End a wait. Nothing of it stays.

        Args:
            waiter: The waiter.
        """
        with self._lock:
            if self._sources:
                self._last_wait = time.monotonic()
            for task_id in self._waiters.remove(waiter):
                self._schedule.drop(task_id)

    def _wake(self) -> None:
        """Have the thread see what is due. Called with the lock held."""
        if not self._running:
            self._running = True
            thread = threading.Thread(target=self._run, name="surrealdb-waiting", daemon=True)
            try:
                thread.start()
            except BaseException:
                self._running = False
                raise
        elif (self._schedule.next_due or 0.0) < self._asleep_until:
            self._changed.notify_all()

    def _waiters_now(self, source: Source | None = None) -> list[Waiter]:
        with self._lock:
            return [waiter for waiter in self._waiters.all() if source is None or waiter.source is source]

    # -- the thread that looks -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    due = self._next_due()
                    if not due:
                        self._trouble, self._failures = None, 0
                        self._cover.trust.forgive()
                        self._running = False
                        return
                self._look(self._ask_live(due))
        except BaseException as exc:
            logger.exception("the thread that looks for results ended")
            with self._lock:
                self._running = False
            failed = errors.ResultsUnavailable(f"the thread that looks for results ended: {exc}")
            for waiter in self._waiters_now():
                waiter.mailbox.put(Trouble(failed, time.monotonic(), passes=False))

    def _next_due(self) -> list[str]:
        """Wait for what is due; nothing once nobody has waited for a while. Called with the lock held."""
        while True:
            now = time.monotonic()
            due = self._schedule.take_due(now)
            if due:
                return due
            until = self._schedule.next_due
            if until is None:
                until = self._last_wait + LINGER
                if until <= now:
                    return []
            self._asleep_until = until
            self._changed.wait(until - now)
            self._asleep_until = float("-inf")

    def _look(self, due: list[str]) -> None:
        began = time.monotonic()
        with self._lock:
            waiters = {id(each): each for task_id in due for each in self._waiters.of(task_id)}
        if not waiters:
            return
        source = next(iter(waiters.values())).source
        only_ready = not any(waiter.wants_states for waiter in waiters.values())
        found = set()
        self._looking_since = began
        try:
            for task_id, record in source.fetch_records(due, only_ready=only_ready):
                found.add(task_id)
                self._looking_since = time.monotonic()
                self.deliver(Arrival(task_id, record, began))
        except errors.ConnectionClosed as exc:
            # One backend was closed meanwhile. The others' waits go on with theirs.
            self._failed(exc, began, self._waiters_now(source), passes=False)
        except Exception as exc:
            self._failed(exc, began, self._waiters_now(), passes=source.passes(exc))
        else:
            self._looked([waiter for waiter in waiters.values() if waiter.wants_looks])
        self._looking_since = None
        now = time.monotonic()
        with self._lock:
            pause = min(FAILING_FIRST * 2**self._failures, FAILING_LAST) if self._failures else 0.0
            for task_id in due:
                coverage = self._coverage(task_id, now)
                self._schedule.plan(task_id, now, coverage, at_least=pause, soon=task_id in found)

    def _looked(self, waiters: list[Waiter]) -> None:
        with self._lock:
            recovered, self._trouble, self._failures = self._trouble is not None, None, 0
        if recovered:
            logger.warning("results can be fetched again")
            waiters = self._waiters_now()
        for waiter in waiters:
            waiter.mailbox.put(Looked(recovered=recovered))

    def _failed(self, exc: Exception, began: float, waiters: list[Waiter], *, passes: bool) -> None:
        with self._lock:
            known = self._trouble
            trouble = Trouble(exc, began if known is None else known.since, passes=passes)
            if passes:
                self._trouble = trouble
                self._failures = min(self._failures + 1, 16)
        log = logger.warning if known is None else logger.debug
        log("results cannot be fetched at the moment: %s", exc)
        for waiter in waiters:
            waiter.mailbox.put(trouble)

    def deliver(self, arrival: Arrival) -> None:
        """Put a record into the mailboxes of all that wait for it. Nobody waits for a finished task afterwards.

        Args:
            arrival: The record.
        """
        task_id, ready = arrival.task_id, arrival.ready
        with self._lock:
            waiters = self._waiters.of(task_id)
            if arrival.pushed:
                address = arrival.record.get(FIELD)
                self._cover.came(task_id, address, self._subscription.standing, waited_for=bool(waiters))
            elif waiters:
                arrival = self._found(arrival, ready=ready)
            if ready:
                self._waiters.finish(task_id)
                self._schedule.drop(task_id)
        for waiter in waiters:
            if ready or waiter.wants_states:
                waiter.mailbox.put(arrival)

    def _found(self, arrival: Arrival, *, ready: bool) -> Arrival:
        """Note what a look found of what LIVE had to bring. Called with the lock held."""
        task_id, now = arrival.task_id, time.monotonic()
        coverage = self._coverage(task_id, now)
        if ready and self._schedule.relied_on(task_id):
            self._cover.trust.found(task_id, now)
        elif ready and coverage in BY_ADDRESS and self._schedule.age(task_id, now) >= coverage.value.first:
            self._cover.did_not_come()
        return arrival if coverage is Coverage.NONE else replace(arrival, expected=True)

    # -- push ----------------------------------------------------------------------------------------

    def _coverage(self, task_id: str, now: float) -> Coverage:
        return self._cover.coverage(task_id, self._subscription.standing, self.sent, now)

    def _ask_live(self, due: list[str]) -> list[str]:
        """Let the LIVE query name what is due and was looked for in vain.

        Returns:
            What to look for now: what is due, and what the query names since, which may have come before that.
        """
        if not self.live_is_possible:
            return due
        began = time.monotonic()
        with self._lock:
            old = [each for each in due if self._schedule.age(each, began) >= LOOKED_FOR]
            standing = self._subscription.standing
            query = None
            if old and (standing is None or self._cover.may_replace(began)):
                query = self._cover.wanted(old, self._waiters, standing, self.sent, address=process_address())
        if query is None or not self._subscription.replace(query):
            return due
        with self._lock:
            self._cover.replaced(began, time.monotonic())
            new = query.named("task_id") - (standing.named("task_id") if standing is not None else frozenset())
            return list(dict.fromkeys([*due, *(each for each in new if each in self._waiters)]))

    def _is_needed(self) -> bool:
        return bool(self._waiters) or time.monotonic() - self._last_wait < LINGER

    def _stands(self, _: LiveQuery) -> None:
        """The LIVE query stands anew: earlier writes have not been notified."""
        with self._lock:
            self._cover.trust.forgive()
        self.look_now()

    def look_now(self) -> None:
        """Look for everything that is waited for: notifications may have been missed. Does not wait."""
        with self._lock:
            self._schedule.look_at_once(time.monotonic())
            if len(self._schedule):
                self._wake()

    def deliver_change(self, change: Change) -> None:
        """Put a record of which a LIVE query notified into the mailboxes of all that wait for it.

        Args:
            change: The notification.
        """
        task_id = change.record.get("task_id")
        if change.action != "DELETE" and isinstance(task_id, str):
            self.deliver(Arrival(task_id, change.record, time.monotonic(), pushed=True))

    def _connect(self, on_notification: OnNotification) -> Connection:
        return Connection(self.settings.options, on_notification=on_notification)

    def _prepare(self) -> None:
        for source in list(self._sources):
            source.prepare()
            return


_dispatchers: weakref.WeakValueDictionary[tuple[Any, ...], Dispatcher] = weakref.WeakValueDictionary()
_dispatchers_lock = threading.Lock()


def _renew_lock() -> None:
    global _dispatchers_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _dispatchers_lock = threading.Lock()


forks.register(_renew_lock)


def dispatcher_of(settings: Settings) -> Dispatcher:
    """Return this process's dispatcher for a database.

    Args:
        settings: Where the database is, and as whom it is used.
    """
    key = (
        settings.endpoint,
        settings.namespace,
        settings.database,
        settings.prefix,
        settings.live,
        settings.username,
        settings.auth_level,
        settings.access,
        None if settings.token is None else Secret(settings.token),
    )
    with _dispatchers_lock:
        dispatcher = _dispatchers.get(key)
        if dispatcher is None:
            dispatcher = _dispatchers[key] = Dispatcher(settings)
        return dispatcher
