"""LIVE queries: a session of its own, one thread that listens on it, any number of subscriptions.

A subscription asks for the changes of records, and may ask for others at any time: the new query stands before the old
one ends. Nothing may depend on it: in a cluster a write on another node is not notified, and a lost connection loses
its LIVE queries. After each (re)opening `on_standing` is called, for reading what came in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.utils.log import get_logger

from .. import errors
from ..client import surrealql
from ..client.connection import Connection
from ..client.failures import classify_exception
from ..client.transport import OnNotification, Transport
from . import statements

logger = get_logger(__name__)

#: How long the thread listens at a time, in seconds, before it sees whether it is still needed.
LISTEN = 0.5
#: The pause before a lost session is opened again, first and last, in seconds.
REOPEN_FIRST, REOPEN_LAST = 0.1, 10.0
#: How long another query may take to be asked, in seconds: the asking thread has other work.
ASK_TIMEOUT = 2.0

Values = frozenset[str]


@dataclass(frozen=True)
class RecordFilter:
    """Records whose fields hold one of the values given for each. Without fields, all records.

    Attributes:
        fields: Names of native fields, each with the values that it may have.
    """

    fields: tuple[tuple[str, Values], ...] = ()

    @classmethod
    def of(cls, **fields: Values) -> RecordFilter:
        """Make a filter.

        Args:
            **fields: The values that each field may have.

        Returns:
            The filter.
        """
        return cls(tuple(sorted(fields.items())))

    def accepts(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record is one of those.

        Args:
            record: The record's fields.
        """
        return all(isinstance(value := record.get(name), str) and value in values for name, values in self.fields)


@dataclass(frozen=True)
class Change:
    """A record that was written or deleted.

    Attributes:
        action: `CREATE`, `UPDATE` or `DELETE`.
        record: The record's fields; those it had, where it was deleted.
    """

    action: str
    record: Mapping[str, Any]


@dataclass(frozen=True)
class LiveQuery:
    """Changes of the records that any of the filters accepts.

    Attributes:
        table: The table's full name.
        filters: The filters; none for nothing.
    """

    table: str
    filters: tuple[RecordFilter, ...]

    def accepts(self, record: Mapping[str, Any]) -> bool:
        """Return whether a change of a record is asked for.

        Args:
            record: The record's fields.
        """
        return any(each.accepts(record) for each in self.filters)

    def named(self, field: str) -> Values:
        """Return the values of a field that some filter asks for by itself.

        Args:
            field: The field's name.
        """
        for each in self.filters:
            if len(each.fields) == 1 and each.fields[0][0] == field:
                return each.fields[0][1]
        return frozenset()

    def statement(self) -> tuple[str, dict[str, Any]]:
        """Return the SurrealQL text and its parameters."""
        shape = tuple(tuple(name for name, _ in each.fields) for each in self.filters)
        values = [sorted(values) for each in self.filters for _, values in each.fields]
        return statements.live(self.table, shape), {f"values{place}": each for place, each in enumerate(values)}


class Subscription:
    """One LIVE query of a :class:`Push`, whose filters may change. Made by :meth:`Push.subscribe`."""

    def __init__(
        self,
        push: Push,
        query: LiveQuery,
        on_change: Callable[[Change], None],
        on_standing: Callable[[LiveQuery], None],
        is_needed: Callable[[], bool],
    ) -> None:
        #: The query wanted.
        self.wanted = query
        #: The query that stands on the server; None while there is none.
        self.standing: LiveQuery | None = None
        self.on_change = on_change
        self.on_standing = on_standing
        self.is_needed = is_needed
        #: The server's id of the LIVE query. The push's to change, as `standing`.
        self.live: Any = None
        self._push = push

    def replace(self, query: LiveQuery) -> bool:
        """Ask for something, or something else; the old query ends when the new one stands.

        Waits for one round trip where the session is open. Where it is not, it is opened, without waiting.

        Args:
            query: The query wanted from now on.

        Returns:
            Whether it stands. If not, it will as soon as the session is open, and `on_standing` says so.
        """
        return self._push.replace(self, query)


class Push:
    """The session, and the thread (or greenlet) that listens while a subscription is needed.

    Args:
        connect: Makes the session's connection; takes what is called with each notification.
        prepare: Creates the table where there is none yet.
        required: Whether a server without LIVE queries is worth a warning.
    """

    def __init__(
        self,
        connect: Callable[[OnNotification], Connection],
        prepare: Callable[[], None],
        *,
        required: bool = False,
    ) -> None:
        #: The server, or the way to it, has no LIVE queries. It is not tried again.
        self.impossible = False
        self._connect = connect
        self._prepare = prepare
        self._required = required
        self._subscriptions: list[Subscription] = []
        #: Guards `_running`; never held during a round trip.
        self._lock = threading.Lock()
        #: Held while a LIVE query is asked: one at a time.
        self._asking = threading.Lock()
        self._running = False
        self._stopping = threading.Event()
        self._session: _Session | None = None

    def subscribe(
        self,
        query: LiveQuery,
        *,
        on_change: Callable[[Change], None],
        on_standing: Callable[[LiveQuery], None],
        is_needed: Callable[[], bool],
    ) -> Subscription:
        """Make a subscription. :meth:`Subscription.replace` has it stand.

        Args:
            query: The query wanted.
            on_change: Called with each change, by the thread that reads. It must not block. A change may come twice.
            on_standing: Called when the query stands after the session was (re)opened: changes before may have been
                missed.
            is_needed: Whether the session is still needed for it; asked twice a second.

        Returns:
            The subscription.
        """
        subscription = Subscription(self, query, on_change, on_standing, is_needed)
        self._subscriptions.append(subscription)
        return subscription

    def stop(self) -> None:
        """End the session soon. Does not wait."""
        self._stopping.set()

    def detach(self) -> None:
        """In a forked child: the thread is not here; the session's socket is the parent's."""
        self._lock, self._asking = threading.Lock(), threading.Lock()
        self._running = False
        self._stopping = threading.Event()
        self._session = None
        for subscription in self._subscriptions:
            subscription.standing = subscription.live = None

    def replace(self, subscription: Subscription, query: LiveQuery) -> bool:
        """See :meth:`Subscription.replace`.

        Args:
            subscription: Whose query it is.
            query: The query wanted from now on.

        Returns:
            Whether it stands.
        """
        with self._asking:
            subscription.wanted = query
            session = self._session
            if session is not None:
                try:
                    session.ask(subscription, time.monotonic() + ASK_TIMEOUT)
                except Exception as exc:
                    logger.debug("the LIVE query could not be changed: %s", exc)
                    session.lose()
                    return False
                return True
        self._start()
        return False

    def _start(self) -> None:
        """Open the session and listen, if nobody does. Does not wait."""
        with self._lock:
            if self._running or self.impossible:
                return
            self._running = True
            self._stopping = threading.Event()
            thread = threading.Thread(target=self._run, args=(self._stopping,), name="surrealdb-results", daemon=True)
            try:
                thread.start()
            except BaseException:
                self._running = False
                raise

    # -- the thread ------------------------------------------------------------------------------------

    def _is_needed(self, stopping: threading.Event) -> bool:
        return not stopping.is_set() and any(each.is_needed() for each in self._subscriptions)

    def _run(self, stopping: threading.Event) -> None:
        pause = REOPEN_FIRST
        while self._goes_on(stopping):
            session = _Session(self._connect, self._subscriptions, self._asking)
            try:
                self._open(session)
                pause = REOPEN_FIRST
                session.listen_while(lambda: self._is_needed(stopping))
            except errors.LiveNotSupported as exc:
                self.impossible = True
                log = logger.warning if self._required else logger.debug
                log("this server has no LIVE queries, results are polled: %s", exc)
            except Exception as exc:
                self._end(session)
                log = logger.debug if classify_exception(exc) else logger.warning
                log("results are polled until the LIVE query is back: %s", exc)
                stopping.wait(pause)
                pause = min(pause * 2, REOPEN_LAST)
            finally:
                self._end(session)

    def _goes_on(self, stopping: threading.Event) -> bool:
        """Decide whether the thread goes on. A later wait starts another."""
        with self._lock:
            if not self.impossible and self._is_needed(stopping):
                return True
            if self._stopping is stopping:
                self._running = False
            return False

    def _open(self, session: _Session) -> None:
        self._prepare()
        session.open()
        stood = []
        with self._asking:
            for subscription in self._subscriptions:
                if subscription.is_needed():
                    session.ask(subscription)
                    stood.append((subscription, subscription.wanted))
            self._session = session
        for subscription, query in stood:
            subscription.on_standing(query)

    def _end(self, session: _Session) -> None:
        with self._asking:
            if session.ended:
                return
            session.ended = True
            if self._session is session:
                self._session = None
            lives = [each.live for each in self._subscriptions if each.live is not None]
            for subscription in self._subscriptions:
                subscription.standing = subscription.live = None
        session.close(lives)


class _Session:
    """One connection with LIVE queries on it, from opening to its loss or end."""

    def __init__(
        self,
        connect: Callable[[OnNotification], Connection],
        subscriptions: list[Subscription],
        asking: threading.Lock,
    ) -> None:
        self._subscriptions = subscriptions
        self._asking = asking
        self._lost = False
        #: Its queries stand no more.
        self.ended = False
        self._connection = connect(self._notified)
        #: Carries the LIVE queries; when it breaks, they are gone with it.
        self._transport: Transport | None = None

    def open(self) -> None:
        """Connect."""
        self._transport = self._connection.transport
        if not self._transport.live:
            raise errors.LiveNotSupported

    def ask(self, subscription: Subscription, deadline: float | None = None) -> None:
        """Let a subscription's query stand, and end the one before. The caller holds the lock for asking.

        Args:
            subscription: Whose `wanted` is asked for.
            deadline: When it has to stand, by the monotonic clock; None is `surrealdb_timeout` from now.
        """
        query, old = subscription.wanted, subscription.live
        text, variables = query.statement()
        if old is None:
            live = self._connection.run(text, deadline=deadline, **variables)
        else:
            text = f"{text}; {surrealql.KILL}"
            live = self._connection.run_all(text, deadline=deadline, **variables, live=old)[0]
        if live is None:
            raise errors.DatabaseNotFound(f"the table {query.table!r} does not exist yet")
        if self._connection.transport is not self._transport:
            raise errors.ServerUnavailable("the connection of the LIVE queries was lost")
        subscription.live, subscription.standing = live, query

    def listen_while(self, is_needed: Callable[[], bool]) -> None:
        """Read notifications for as long as they are needed.

        Args:
            is_needed: Asked now and then.
        """
        transport = self._transport
        while transport is not None and is_needed():
            until = time.monotonic() + LISTEN
            heard = transport.listen(LISTEN)
            if self._lost:
                raise errors.ServerUnavailable("the server ended a LIVE query")
            if not heard and time.monotonic() < until:
                # Another thread asks something and reads meanwhile.
                with self._asking:
                    pass

    def lose(self) -> None:
        """Break the connection, which wakes the thread that listens."""
        self._lost = True
        self._connection.disconnect()

    def close(self, lives: list[Any]) -> None:
        """End the LIVE queries and the session.

        Args:
            lives: The server's ids of the queries.
        """
        transport = self._transport
        try:
            if transport is not None and transport.usable:
                for live in lives:
                    self._connection.run(surrealql.KILL, live=live)
        except Exception as exc:
            logger.debug("a LIVE query was not ended: %s", exc)
        self._connection.close()

    def _notified(self, reply: dict[str, Any]) -> None:
        """Hand a notification to its subscription. Called by the thread that reads, which must go on."""
        live, action, record = reply.get("id"), reply.get("action"), reply.get("result")
        mine = [each for each in self._subscriptions if each.live == live]
        if action == "KILLED":
            self._lost = self._lost or bool(mine)
            return
        if not isinstance(record, dict) or not isinstance(action, str):
            return
        change = Change(action, record)
        # Of a query that was asked a moment ago the id may not be known yet.
        for subscription in mine or self._subscriptions:
            if mine or subscription.wanted.accepts(record):
                try:
                    subscription.on_change(change)
                except Exception:
                    logger.exception("a notification could not be handed on")
