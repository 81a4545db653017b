"""A connection: statements run on one session that all threads share.

It is opened by the first statement; every thread and greenlet of the process shares it without waiting for the others'
round trips; a forked child opens its own. A lost transport, an ended session or a write conflict is dealt with inside
one call where that is safe; `failures` says when it is.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

from .. import errors
from . import deadlines, slow
from .embedded import open_engine
from .failures import Failure, Remedy
from .http import HTTPTransport
from .opening import REFUSAL_REMEMBERED, SharedTransport, State
from .options import Options
from .request import Requester, RequestFailed
from .secret import clean
from .session import Prepare, Session
from .telemetry import Telemetry, telemetry
from .transport import OnNotification, Transport
from .websocket import WebSocketTransport

logger = logging.getLogger(__name__)

#: How often a repeatable request is sent again on a new connection within one call. Longer outages are
#: the business of the caller's retries, which sleep in between.
RECONNECTS = 1
#: How many refusals that may be damage of the line, and are not, are remembered.
BELIEVED = 64


class Connection:
    """A session on SurrealDB.

    Args:
        options: Where to, as which user.
        prepare: Prepares each session that is opened, until it has succeeded once in this process.
        on_notification: Called with each notification of a LIVE query, by the thread that reads.
    """

    def __init__(
        self, options: Options, *, prepare: Prepare | None = None, on_notification: OnNotification | None = None
    ) -> None:
        self.options = options
        self._prepare = prepare
        self._on_notification = on_notification
        self._shared = SharedTransport(options)
        self._requester = Requester(options)
        #: Refusals that two connections gave alike.
        self._believed: deque[str] = deque(maxlen=BELIEVED)
        #: The server's second refusal of the same sign-in was believed: no more second attempts until one succeeds.
        self._refusal_believed = False
        self._telemetry: Telemetry | None = None
        self._watch()
        #: Whether it was open before, so that the next time is worth a line in a log.
        self._was_open = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.options.uri()} {self.state.value}>"

    def reconfigure(self, options: Options) -> None:
        """Use other options from now on: another time limit, or another password for the next session.

        Args:
            options: The options. The endpoint of a session that is open stays.
        """
        self.options = self._requester.options = self._shared.options = options
        self._watch()

    def _watch(self) -> None:
        """Decide what watches calls; the usual one is watched by nothing, at the price of one look."""
        if self._telemetry is None:
            self._telemetry = telemetry(self.options)
        self._watched = self._telemetry is not None or self.options.slow_call is not None

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._shared.state

    @property
    def request_count(self) -> int:
        """Round trips made so far, those of opening included."""
        return self._requester.count

    @property
    def transport(self) -> Transport:
        """The open transport, opened now if it was not."""
        return self._shared.get(self._deadline(), self._establish)

    def _deadline(self) -> float:
        """When a call that begins now has to end: all its round trips and retries share surrealdb_timeout."""
        return deadlines.deadline(self.options.timeout)

    # -- statements ---------------------------------------------------------------------------------

    def run(self, text: str, /, *, deadline: float | None = None, **variables: Any) -> Any:
        """Run one or more statements in one round trip.

        Args:
            text: SurrealQL.
            deadline: When the call has to end, by the monotonic clock; `surrealdb_timeout` from now if None.
            **variables: Its parameters.

        Returns:
            The value of the last statement; None for a read of a table that does not exist.

        Raises:
            SurrealDBBackendError: Any statement failed.
        """
        return self._values(text, variables, deadline, repeatable=True)[-1]

    def run_all(
        self, text: str, /, *, repeatable: bool = True, deadline: float | None = None, **variables: Any
    ) -> list[Any]:
        """Run statements in one round trip and return the value of each.

        Args:
            text: SurrealQL.
            repeatable: Whether running the statements twice does what running them once does. Only then are they
                sent again after the connection broke with the reply outstanding.
            deadline: When the call has to end, by the monotonic clock; `surrealdb_timeout` from now if None.
            **variables: Its parameters.

        Returns:
            A value per statement; None for a read of a table that does not exist.

        Raises:
            SurrealDBBackendError: The first statement that failed.
        """
        return self._values(text, variables, deadline, repeatable=repeatable)

    def attempt(
        self, text: str, /, *, repeatable: bool = True, deadline: float | None = None, **variables: Any
    ) -> list[Any]:
        """Like `run_all`, but a statement's failure is returned in its place, not raised.

        Write conflicts are retried here: all statements are sent again, so a text must either be one
        statement or one whose statements may be repeated once they took effect.

        Args:
            text: SurrealQL.
            repeatable: As of `run_all`.
            deadline: As of `run_all`.
            **variables: Its parameters.

        Returns:
            A value or a `Failure` per statement.

        Raises:
            SurrealDBBackendError: The whole request failed.
        """
        if not self._watched:
            return self._attempt(text, variables, deadline, repeatable=repeatable)
        return self._watched_attempt(text, variables, deadline, repeatable=repeatable)

    def _values(self, text: str, variables: dict[str, Any], deadline: float | None, *, repeatable: bool) -> list[Any]:
        attempt = self._watched_attempt if self._watched else self._attempt
        outcomes = attempt(text, variables, deadline, repeatable=repeatable)
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                raise outcome.exception()
        return outcomes

    def _watched_attempt(
        self, text: str, variables: dict[str, Any], deadline: float | None, *, repeatable: bool
    ) -> list[Any]:
        began, before = time.monotonic(), self._requester.count
        try:
            if self._telemetry is None:
                return self._attempt(text, variables, deadline, repeatable=repeatable)
            with self._telemetry.call(text, variables) as take:
                outcomes = self._attempt(text, variables, deadline, repeatable=repeatable)
                take(outcomes)
                return outcomes
        finally:
            slow.tell(self.options, text, variables, time.monotonic() - began, self._requester.count - before)

    def _attempt(self, text: str, variables: dict[str, Any], deadline: float | None, *, repeatable: bool) -> list[Any]:
        deadline = self._deadline() if deadline is None else deadline
        reconnects = sign_ins = 0
        while True:
            transport = self._shared.current or self._shared.get(deadline, self._establish)
            if not repeatable:
                transport.check_alive()
                if not transport.usable:
                    continue
            try:
                outcomes: list[Any] = self._requester.send(transport, "query", [text, variables], deadline)
            except RequestFailed as failed:
                failure, sent = failed.failure, failed.sent
                cause = clean(failed.__cause__, self.options.mask)
            else:
                return outcomes
            # An open session whose user is refused: the user was changed since.
            ended = failure.remedy is Remedy.SIGN_IN or failure.error is errors.AuthenticationFailed
            if ended and sign_ins == 0:
                sign_ins += 1
                logger.info("the session on %s ended: signing in again", self.options.uri())
                self._shared.drop(transport)
                continue
            if self._is_suspect(failure, reconnects):
                self._shared.drop(transport)
                if (repeatable or not sent) and reconnects < RECONNECTS:
                    reconnects += 1
                    # Not the message: a server's may quote a value.
                    logger.info("reconnecting to %s after %s", self.options.uri(), failure.error.__name__)
                    continue
            raise self._error(failure) from cause

    def _is_suspect(self, failure: Failure, reconnects: int) -> bool:
        """Whether a failure is the transport's fault, or may be.

        Args:
            failure: The failure.
            reconnects: How many new transports the call has had.
        """
        if failure.remedy is Remedy.RECONNECT:
            # Out of time: the transport may well be good, and others wait on it; where it is not, it knows that.
            return failure.error is not errors.RequestTimedOut
        if failure.remedy is not Remedy.ASK_AGAIN or failure.message in self._believed:
            return False
        if reconnects:
            # The second answer is the same: it is right, and need not be asked for twice again.
            self._believed.append(failure.message)
            return False
        return True

    def _error(self, failure: Failure) -> errors.SurrealDBBackendError:
        """The exception for a failed request, with what to do about it."""
        where = self.options.uri()
        if failure.error is errors.RequestTimedOut:
            return errors.RequestTimedOut(
                f"{where} did not answer within surrealdb_timeout={self.options.timeout:g} s ({failure.message})"
            )
        if failure.error is errors.ServerUnavailable:
            return errors.ServerUnavailable(
                f"{where} cannot be reached or dropped the connection ({failure.message}); "
                "check surrealdb_url and that the server runs"
            )
        if failure.error is errors.TLSFailed:
            return errors.TLSFailed(
                f"{where}: the TLS handshake failed ({failure.message}); check surrealdb_tls (ca_file, cert_file, "
                "key_file), and that surrealdb_url has the host name of the server's certificate"
            )
        return failure.exception()

    # -- opening and closing ------------------------------------------------------------------------

    def _establish(self, deadline: float) -> Transport:
        """Open a transport and its session. A failure that looks like damage of the line is tried once more."""
        tried = False
        while True:
            try:
                transport = self._establish_once(deadline)
            except RequestFailed as failed:
                failure, sent = failed.failure, failed.sent
                cause = clean(failed.__cause__, self.options.mask)
            else:
                self._refusal_believed = False
                self._watch()
                logger.log(logging.INFO if self._was_open else logging.DEBUG, "connected to %s", self.options.uri())
                self._was_open = True
                return transport
            refused = failure.error is errors.AuthenticationFailed
            damaged = failure.remedy is Remedy.ASK_AGAIN or (failure.remedy is Remedy.RECONNECT and sent)
            pause = REFUSAL_REMEMBERED if refused else 0.0
            in_time = time.monotonic() + pause < deadline and failure.error is not errors.RequestTimedOut
            if tried or not damaged or not in_time or (refused and self._refusal_believed):
                self._refusal_believed = refused
                raise self._error(failure) from cause
            tried = True
            time.sleep(pause)

    def _establish_once(self, deadline: float) -> Transport:
        try:
            transport = self._connect(deadline - time.monotonic())
        except Exception as exc:
            failed = self._requester.failed(exc)
            if failed is exc:
                raise
            raise failed from exc
        try:
            Session(self._requester, transport, deadline).open(self._prepare)
        except BaseException:
            transport.close()
            raise
        self._prepare = None  # once is enough for this process
        return transport

    def _connect(self, timeout: float) -> Transport:
        options = self.options
        if options.embedded:
            return open_engine(options.endpoint)
        tls = options.tls.context() if options.tls else None
        if options.scheme in ("http", "https"):
            return HTTPTransport(options.endpoint, tls=tls)
        return WebSocketTransport(options.endpoint, tls=tls, timeout=timeout, on_notification=self._on_notification)

    def disconnect(self) -> None:
        """Give up the transport but not the connection: the next statement opens another."""
        self._shared.drop()

    def close(self) -> None:
        """End the session. A statement run afterwards raises `ConnectionClosed`."""
        self._shared.close()
