"""One request: sent, its reply checked and classified, write conflicts retried."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import errors
from .embedded import engine_failure
from .failures import Failure, Remedy, classify, classify_exception
from .options import Options
from .transport import Reply, Transport

logger = logging.getLogger(__name__)

#: How often a request that met a write conflict is sent again within one call.
CONFLICT_RETRIES = 60
#: From how many of them on that is worth a line in a log: the call has taken about a second.
CONFLICTS_TOLD = 20
#: The longest pause before the first such retry, in seconds; it grows up to the last.
CONFLICT_PAUSE_FIRST, CONFLICT_PAUSE_LAST = 0.002, 0.1
#: How much of a message is shown, in characters: a proxy may answer with a whole page.
MESSAGE_LENGTH = 2_000


class RequestFailed(Exception):
    """A whole request failed.

    Args:
        failure: The classified failure; its message is masked.
        sent: False where it certainly had no effect.
    """

    def __init__(self, failure: Failure, *, sent: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.sent = sent


class Requester:
    """Sends requests on transports.

    Args:
        options: Whose secrets are masked in what servers and libraries say.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        #: Round trips made so far.
        self.count = 0

    def send(self, transport: Transport, method: str, params: list[Any], deadline: float) -> Any:
        """Send one request; send it again as long as it meets write conflicts.

        A conflict is of one statement, or of the whole request: of `use`, which creates the database on SurrealDB 3, or
        of a sign-in, when many processes connect at once. All statements are sent again, so a text must either be one
        statement or one whose statements may be repeated once they took effect.

        Args:
            transport: The transport that carries it.
            method: A method of SurrealDB's RPC protocol.
            params: Its parameters.
            deadline: When the reply must have arrived, by the monotonic clock.

        Returns:
            The result; of a query a list with each statement's: its value, None for a read of a table that does not
            exist, or its `Failure`.

        Raises:
            RequestFailed: The request failed.
        """
        conflicts = 0
        conflict: Failure | None = None
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise RequestFailed(conflict or _timed_out(method), sent=False)
            reply = self._exchange(transport, method, params, remaining)
            error = reply.get("error")
            outcomes = None
            if error is not None:
                conflict = self.classify(error)
                if conflict.remedy is not Remedy.RETRY_NOW:
                    raise RequestFailed(conflict, sent=conflict.remedy is not Remedy.ASK_AGAIN)
            elif method == "query":
                outcomes, conflict = self._outcomes(reply)
                if conflict is None:
                    break
            elif "result" in reply:
                return reply["result"]
            else:
                raise self._damaged(reply)
            if conflicts >= CONFLICT_RETRIES or time.monotonic() >= deadline:
                break
            conflicts += 1
            _let_others_write(conflicts)
        if conflicts:
            level = logging.INFO if conflicts >= CONFLICTS_TOLD else logging.DEBUG
            logger.log(level, "%d write conflicts in one call were retried (%s)", conflicts, self.options.uri())
        if outcomes is None:
            assert conflict is not None
            raise RequestFailed(conflict, sent=True)
        return outcomes

    def _exchange(self, transport: Transport, method: str, params: list[Any], timeout: float) -> Reply:
        self.count += 1
        try:
            return transport.request(method, params, timeout)
        except Exception as exc:
            failed = self.failed(exc)
            if failed is exc:
                raise
            raise failed from exc

    def _outcomes(self, reply: Reply) -> tuple[list[Any], Failure | None]:
        """The outcome of each statement, and the last conflict among them."""
        outcomes: list[Any] = []
        conflict = None
        try:
            for statement in reply["result"]:
                status = statement["status"]
                if status == "OK":
                    outcomes.append(statement["result"])
                    continue
                if status != "ERR":
                    raise self._damaged(reply)
                failure = self.classify(statement)
                if failure.remedy is Remedy.RETRY_NOW:
                    conflict = failure
                outcomes.append(None if failure.remedy is Remedy.NOTHING_THERE else failure)
        except (KeyError, TypeError, AttributeError, IndexError) as exc:
            raise self._damaged(reply) from exc
        if not outcomes:
            raise self._damaged(reply)
        return outcomes, conflict

    def classify(self, refusal: Any) -> Failure:
        """Classify a refusal of the server.

        Args:
            refusal: The `error` of a reply, or a statement that failed.

        Returns:
            The failure, its message masked.

        Raises:
            RequestFailed: It is no refusal of SurrealDB's.
        """
        if not isinstance(refusal, (str, Mapping)):
            raise self._damaged(refusal)
        failure = classify(refusal)
        return replace(failure, message=self.options.mask(failure.message)[:MESSAGE_LENGTH])

    def failed(self, exc: Exception) -> Exception:
        """Return the exception to raise for one of the transport, the driver or an engine.

        Args:
            exc: The exception.

        Returns:
            The classified exception; the exception itself where it is none of theirs.
        """
        if isinstance(exc, (errors.SurrealDBBackendError, RequestFailed)):
            return exc
        # Of an engine in this process first: what would be a lost connection elsewhere cannot be waited for here.
        failure = engine_failure(self.options, exc) if self.options.embedded else None
        failure = failure or classify_exception(exc)
        if failure is None:
            return exc
        failure = replace(failure, message=self.options.mask(failure.message)[:MESSAGE_LENGTH])
        return RequestFailed(failure, sent=getattr(exc, "sent", True))

    def _damaged(self, reply: Any) -> RequestFailed:
        """A reply that is not SurrealDB's: the line damaged it."""
        shown = self.options.mask(repr(reply))[:200]
        message = f"the server sent something that is not SurrealDB's protocol: {shown}"
        return RequestFailed(Failure(Remedy.RECONNECT, errors.ServerUnavailable, message), sent=True)


def _timed_out(method: str) -> Failure:
    return Failure(Remedy.RECONNECT, errors.RequestTimedOut, f"no time was left for {method}")


def _let_others_write(conflicts: int) -> None:
    """Pause before a retry: exponential back-off with full jitter.

    Args:
        conflicts: How many conflicts the request has met.
    """
    ceiling = min(CONFLICT_PAUSE_FIRST * 1.3**conflicts, CONFLICT_PAUSE_LAST)
    time.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret
