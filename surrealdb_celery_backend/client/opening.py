"""The transport that all threads share: opened once for all, renewed when lost, forgotten after a fork."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum

from .. import errors
from . import embedded, forks
from .options import Options
from .transport import Transport

#: How long a refused sign-in is not tried again, in seconds: a worker full of tasks must not become a storm
#: of them, each of which costs the server a password hash.
REFUSAL_REMEMBERED = 1.0
#: Opens a transport and its session until a deadline, by the monotonic clock; raises SurrealDBBackendError.
Establish = Callable[[float], Transport]


class State(Enum):
    """Where a connection is in its life."""

    #: Not used yet, in this process; or lost, to be opened again by the next statement.
    UNOPENED = "unopened"
    #: Signed in, with namespace and database chosen.
    OPEN = "open"
    #: Closed by its owner: a statement raises instead of connecting again.
    CLOSED = "closed"


class _Opening:
    """One attempt to open the transport, whose outcome is that of all threads that wait for it."""

    def __init__(self, deadline: float) -> None:
        #: How much time it has, in seconds.
        self.time = deadline - time.monotonic()
        self.done = threading.Event()
        self.error: BaseException | None = None


class SharedTransport:
    """One transport for all threads.

    Args:
        options: Where it leads.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        #: Guards the fields here; never held during a round trip.
        self._lock = threading.Lock()
        self._closed = False
        self._transport: Transport | None = None
        self._opening: _Opening | None = None
        #: The last sign-in was refused, with this message, until when nobody asks again.
        self._refused: tuple[str, float] | None = None
        #: The parent process used an engine in its memory or directory through this.
        self._opened_by_parent = False
        forks.register(self._after_fork)

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        if self._closed:
            return State.CLOSED
        return State.UNOPENED if self.current is None else State.OPEN

    @property
    def current(self) -> Transport | None:
        """The transport, where it is open and usable."""
        transport = self._transport
        return transport if transport is not None and transport.usable else None

    def get(self, deadline: float, establish: Establish) -> Transport:
        """The transport, opened now if it was not.

        Args:
            deadline: When it must be there, by the monotonic clock.
            establish: Opens it and its session.

        Returns:
            A usable transport with an open session.

        Raises:
            ConnectionClosed: The connection was closed.
            RequestTimedOut: The time is over.
            SurrealDBBackendError: It cannot be opened.
        """
        while True:
            transport = self.current
            if transport is not None:
                return transport
            mine = _Opening(deadline)
            try:
                with self._lock:
                    self._check_usable()
                    transport, opening = self.current, self._opening
                    if transport is not None:
                        return transport
                    if opening is None:
                        self._opening = mine
                if opening is None:
                    return self._open_for_all(mine, deadline, establish)
            finally:
                # Wherever this thread is interrupted: else nobody could ever open again.
                if self._opening is mine:
                    self._opening = None
                mine.done.set()
            # Another thread opens: its outcome is ours, or a dead server would cost each thread the
            # timeouts of all before it. But for one that had little time left, which says nothing.
            if not opening.done.wait(max(0.0, deadline - time.monotonic())):
                raise errors.RequestTimedOut(
                    f"{self.options.uri()} did not answer within surrealdb_timeout={self.options.timeout:g} s "
                    "(no connection yet)"
                )
            hasty = 2 * opening.time < deadline - time.monotonic()
            if isinstance(opening.error, errors.RequestTimedOut) and hasty:
                continue
            if isinstance(opening.error, errors.SurrealDBBackendError):
                raise type(opening.error)(str(opening.error)) from opening.error

    def _open_for_all(self, mine: _Opening, deadline: float, establish: Establish) -> Transport:
        transport = None
        try:
            transport = establish(deadline)
        except BaseException as exc:
            mine.error = exc
            raise
        finally:
            with self._lock:
                closed = self._closed
                self._opening = None
                self._transport = None if closed else transport
                if isinstance(mine.error, errors.AuthenticationFailed):
                    self._refused = (str(mine.error), time.monotonic() + REFUSAL_REMEMBERED)
            mine.done.set()
        if closed:
            transport.close()
            raise errors.ConnectionClosed
        return transport

    def _check_usable(self) -> None:
        """Whether it makes sense to open a transport now. Called with the lock held."""
        if self._closed:
            raise errors.ConnectionClosed
        embedded.check_allowed(self.options, opened_by_parent=self._opened_by_parent)
        if self._refused is not None:
            message, until = self._refused
            if time.monotonic() < until:
                raise errors.AuthenticationFailed(message)
            self._refused = None

    def drop(self, transport: Transport | None = None) -> None:
        """Close a transport that is of no use: the next call opens another. Another thread may already have.

        Args:
            transport: The one; None for the one that is there.
        """
        with self._lock:
            transport = transport or self._transport
            if self._transport is transport:
                self._transport = None
        if transport is not None:
            transport.close()

    def close(self) -> None:
        """Close the transport for good."""
        with self._lock:
            self._closed = True
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _after_fork(self) -> None:
        # The locks may be held by threads of the parent, and the transport is the parent's.
        self._lock = threading.Lock()
        self._opening = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.detach()
            self._opened_by_parent = self._opened_by_parent or not transport.forkable
