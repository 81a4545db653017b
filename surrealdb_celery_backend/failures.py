"""What a failure of the server or the driver means, and what may be done about it.

This is data, read by :mod:`~surrealdb_celery_backend.connection` (what to do inside one call) and by
``SurrealDBBackend.exception_safe_to_retry`` (what Celery may do again). Rows are tried in order; the
first that matches decides. SurrealDB 3 sends a ``kind`` and ``details``; SurrealDB 2 sends text only,
so each meaning has a row for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from . import errors


class Remedy(Enum):
    """What can be done about a failure."""

    #: The statement took no effect because another writer was at the record: send it again at once.
    RETRY_NOW = "retry now"
    #: The line is gone or stuck: send again on a new connection, if the statement may be repeated.
    RECONNECT = "retry on a new connection"
    #: The session ended: sign in once more, then send again.
    SIGN_IN = "sign in again"
    #: The table does not exist: a read has nothing to find (SurrealDB 3; SurrealDB 2 answers with nothing).
    NOTHING_THERE = "nothing there"
    #: The server is up but cannot serve (shutting down, disk full): later may help, now does not.
    LATER = "try later"
    #: Repeating changes nothing.
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Failure:
    """One failed statement, request or connection, understood."""

    remedy: Remedy
    error: type[errors.SurrealDBBackendError]
    message: str

    def exception(self, note: str = "") -> errors.SurrealDBBackendError:
        """The exception to raise, with ``note`` (what was being done) in front of the server's words."""
        return self.error(f"{note}: {self.message}" if note else self.message)


@dataclass(frozen=True)
class ServerRule:
    """A row: how a failure is recognised, and what it means."""

    remedy: Remedy
    error: type[errors.SurrealDBBackendError]
    #: ``kind`` of SurrealDB 3; None matches any.
    kind: str | None = None
    #: The innermost ``details.kind`` of SurrealDB 3; None matches any.
    detail: str | None = None
    #: Searched in the text, without regard to case; None matches any.
    text: str | None = None


SERVER_RULES: tuple[ServerRule, ...] = (
    # Texts that quote a record's id or value, which is the user's. First: it may say anything that stands below.
    ServerRule(Remedy.GIVE_UP, errors.RecordExists, kind="AlreadyExists", detail="Record"),
    ServerRule(Remedy.GIVE_UP, errors.RecordExists, text=r"(?s)^database record .* already exists$"),
    ServerRule(
        Remedy.GIVE_UP,
        errors.StatementFailed,
        text=r"(?s)^(found .* for field|couldn't coerce value for field|database index .* already contains) ",
    ),
    # Conflicts between writers (optimistic transactions): nothing was written.
    ServerRule(Remedy.RETRY_NOW, errors.WriteConflict, detail="TransactionConflict"),
    ServerRule(
        Remedy.RETRY_NOW,
        errors.WriteConflict,
        text=r"can be retried|write conflict|read or write conflict|transaction conflict|resource busy",
    ),
    # Sessions and tokens that ended.
    ServerRule(Remedy.SIGN_IN, errors.SessionEnded, detail="TokenExpired"),
    ServerRule(Remedy.SIGN_IN, errors.SessionEnded, detail="SessionExpired"),
    ServerRule(Remedy.SIGN_IN, errors.SessionEnded, text=r"(session|token) has expired|session expired"),
    ServerRule(Remedy.RECONNECT, errors.ConnectionFailed, kind="NotFound", detail="Session"),
    ServerRule(Remedy.RECONNECT, errors.ConnectionFailed, text=r"session not found"),
    # Sign-ins refused. Before "not allowed": SurrealDB 3 nests Auth inside NotAllowed.
    ServerRule(Remedy.GIVE_UP, errors.SignInRefused, detail="InvalidAuth"),
    ServerRule(Remedy.GIVE_UP, errors.SignInRefused, detail="InvalidPass"),
    ServerRule(Remedy.GIVE_UP, errors.SignInRefused, detail="UnexpectedAuth"),
    ServerRule(Remedy.GIVE_UP, errors.SignInRefused, detail="MissingUserOrPass"),
    ServerRule(Remedy.GIVE_UP, errors.SignInRefused, detail="NoSigninTarget"),
    ServerRule(
        Remedy.GIVE_UP,
        errors.SignInRefused,
        text=(
            r"problem with authentication|invalid (username|password|credentials)|verification failed"
            r"|no record was returned|sign-?in|signature|access method|authentication (failed|token)"
        ),
    ),
    # A session that lost its user (server restarted, user redefined) answers as an anonymous one.
    ServerRule(Remedy.SIGN_IN, errors.SignInRefused, text=r"anonymous access not allowed"),
    # What does not exist.
    ServerRule(Remedy.NOTHING_THERE, errors.DatabaseMissing, kind="NotFound", detail="Table"),
    ServerRule(Remedy.NOTHING_THERE, errors.DatabaseMissing, text=r"the table '.*' does not exist"),
    ServerRule(Remedy.GIVE_UP, errors.DatabaseMissing, kind="NotFound", detail="Namespace"),
    ServerRule(Remedy.GIVE_UP, errors.DatabaseMissing, kind="NotFound", detail="Database"),
    ServerRule(
        Remedy.GIVE_UP,
        errors.DatabaseMissing,
        text=r"the (namespace|database) '.*' does not exist|specify a (namespace|database)|no (namespace|database)",
    ),
    # LIVE is not to be had.
    ServerRule(Remedy.GIVE_UP, errors.LiveNotSupported, detail="LiveQueryNotSupported"),
    ServerRule(Remedy.GIVE_UP, errors.LiveNotSupported, detail="BadLiveQueryConfig"),
    ServerRule(Remedy.GIVE_UP, errors.LiveNotSupported, text=r"live ?quer(y|ies)|realtime"),
    # Rights.
    ServerRule(Remedy.GIVE_UP, errors.NotPermitted, text=r"not enough permissions|permission|IAM error|not allowed"),
    ServerRule(Remedy.GIVE_UP, errors.NotPermitted, kind="NotAllowed"),
    # The store behind the server.
    ServerRule(
        Remedy.LATER,
        errors.ServerOutOfOrder,
        text=r"no space left|disk full|read[- ]?only|out of memory|memory threshold|shutting down|io error",
    ),
    ServerRule(Remedy.LATER, errors.ServerOutOfOrder, detail="Cancelled"),
    ServerRule(Remedy.LATER, errors.RequestTimedOut, detail="TimedOut"),
    ServerRule(Remedy.LATER, errors.RequestTimedOut, text=r"exceeded the timeout|timed out"),
    ServerRule(Remedy.RECONNECT, errors.ConnectionFailed, kind="Connection"),
    # Values the engine cannot hold.
    ServerRule(Remedy.GIVE_UP, errors.UnstorableValue, text=r"null byte|too large|too big|size limit"),
    ServerRule(Remedy.GIVE_UP, errors.UnstorableValue, kind="Serialization"),
    # Whatever is left is a statement the engine does not take.
    ServerRule(Remedy.GIVE_UP, errors.StatementFailed),
)


def _innermost_detail(details: Any) -> str | None:
    kind = None
    while isinstance(details, Mapping) and isinstance(details.get("kind"), str):
        kind = details["kind"]
        details = details.get("details")
    return kind


def understand(reply: Mapping[str, Any] | str) -> Failure:
    """What a failed reply means.

    :param reply: a statement's ``{status: 'ERR', result, kind?, details?}``, a request's
        ``{code, message, kind?, details?}``, or the bare text that SurrealDB 2 sends for some failures.
    :return: the failure, with what may be done about it.
    """
    if isinstance(reply, str):
        reply = {"message": reply}
    message = str(reply.get("message") or reply.get("result") or "unknown error").strip()
    kind, detail = reply.get("kind"), _innermost_detail(reply.get("details"))
    for rule in SERVER_RULES:
        if rule.kind is not None and rule.kind != kind:
            continue
        if rule.detail is not None and rule.detail != detail:
            continue
        if rule.text is not None and not re.search(rule.text, message, re.IGNORECASE):
            continue
        return Failure(rule.remedy, rule.error, message)
    raise AssertionError("the last rule matches everything")  # pragma: no cover


_SDK, _REQUESTS = "surrealdb.errors.", "requests.exceptions."
#: What an exception of the driver, of its transport or of the socket means, by the full name of its class;
#: the nearest base class decides. Names, because whoever meets none of them need not import their modules;
#: those of both SDK lines stand here.
DRIVER_RULES: dict[str, tuple[Remedy, type[errors.SurrealDBBackendError]]] = {
    _SDK + "SurrealError": (Remedy.GIVE_UP, errors.StatementFailed),
    # Errors of the server, as the SDK parsed them: `understand` looks at their kind and text instead.
    _SDK + "ServerError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "ValidationError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "ConfigurationError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "ThrownError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "QueryError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "SerializationError": (Remedy.GIVE_UP, errors.UnstorableValue),
    _SDK + "NotAllowedError": (Remedy.GIVE_UP, errors.NotPermitted),
    _SDK + "NotFoundError": (Remedy.GIVE_UP, errors.DatabaseMissing),
    _SDK + "AlreadyExistsError": (Remedy.GIVE_UP, errors.RecordExists),
    _SDK + "InternalError": (Remedy.GIVE_UP, errors.StatementFailed),
    # Errors of the line.
    _SDK + "TransportError": (Remedy.RECONNECT, errors.ConnectionFailed),
    _SDK + "ConnectionUnavailableError": (Remedy.RECONNECT, errors.ConnectionFailed),
    _SDK + "TransportTimeoutError": (Remedy.RECONNECT, errors.RequestTimedOut),
    _SDK + "HttpStatusError": (Remedy.RECONNECT, errors.ConnectionFailed),
    _SDK + "UnexpectedResponseError": (Remedy.RECONNECT, errors.ConnectionFailed),
    "websockets.exceptions.WebSocketException": (Remedy.RECONNECT, errors.ConnectionFailed),
    _REQUESTS + "Timeout": (Remedy.RECONNECT, errors.RequestTimedOut),
    _REQUESTS + "RequestException": (Remedy.RECONNECT, errors.ConnectionFailed),
    "urllib3.exceptions.TimeoutError": (Remedy.RECONNECT, errors.RequestTimedOut),
    "urllib3.exceptions.HTTPError": (Remedy.RECONNECT, errors.ConnectionFailed),
    "builtins.TimeoutError": (Remedy.RECONNECT, errors.RequestTimedOut),
    "builtins.OSError": (Remedy.RECONNECT, errors.ConnectionFailed),
    # Certificates do not become right by trying again, but a server may die during the handshake.
    "ssl.SSLError": (Remedy.GIVE_UP, errors.InsecureConnection),
    "ssl.SSLEOFError": (Remedy.RECONNECT, errors.ConnectionFailed),
    "ssl.SSLZeroReturnError": (Remedy.RECONNECT, errors.ConnectionFailed),
    _REQUESTS + "SSLError": (Remedy.GIVE_UP, errors.InsecureConnection),
    # Values that cannot be sent, or that came and cannot be read.
    "cbor2.CBOREncodeError": (Remedy.GIVE_UP, errors.UnstorableValue),
    "cbor2.CBORError": (Remedy.GIVE_UP, errors.UnreadableResult),
    "surrealdb.cbor._types.CBOREncodeError": (Remedy.GIVE_UP, errors.UnstorableValue),
    "surrealdb.cbor._types.CBORError": (Remedy.GIVE_UP, errors.UnreadableResult),
    "surrealdb_celery_backend.wire.MessageTooLarge": (Remedy.GIVE_UP, errors.UnstorableValue),
    # Mistakes in what was asked.
    "websockets.exceptions.InvalidURI": (Remedy.GIVE_UP, errors.SettingsError),
    _SDK + "UnsupportedEngineError": (Remedy.GIVE_UP, errors.SettingsError),
    _SDK + "UnsupportedFeatureError": (Remedy.GIVE_UP, errors.LiveNotSupported),
    _SDK + "InvalidUrlError": (Remedy.GIVE_UP, errors.SettingsError),
    _SDK + "InvalidRecordIdError": (Remedy.GIVE_UP, errors.UnstorableValue),
    _SDK + "InvalidDurationError": (Remedy.GIVE_UP, errors.UnstorableValue),
    _SDK + "InvalidGeometryError": (Remedy.GIVE_UP, errors.UnstorableValue),
    _SDK + "InvalidTableError": (Remedy.GIVE_UP, errors.UnstorableValue),
}


def _wrapped(exc: BaseException) -> BaseException | None:
    """The exception that one of requests or urllib3 was made of."""
    for inner in (getattr(exc, "reason", None), *exc.args[:1]):
        if isinstance(inner, BaseException):
            return inner
    return None


def understand_exception(exc: BaseException) -> Failure | None:
    """What an exception of the driver or the socket means; None for one that is not theirs."""
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__]
    if _SDK + "ServerError" in names:
        fields = vars(exc)
        return understand({"message": str(exc), "kind": fields.get("kind"), "details": fields.get("details")})
    if _REQUESTS + "SSLError" in names:
        # Whatever happened to TLS is this one; what it wraps says what did.
        inner = exc
        while (wrapped := _wrapped(inner)) is not None:
            inner = wrapped
        names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(inner).__mro__] + names
    for name in names:
        if name in DRIVER_RULES:
            remedy, error = DRIVER_RULES[name]
            return Failure(remedy, error, str(exc) or type(exc).__name__)
    return None


#: Errors of ours after which the same operation may succeed later: what Celery's retry loop may repeat.
SAFE_TO_RETRY: tuple[type[errors.SurrealDBBackendError], ...] = (
    errors.ConnectionFailed,
    errors.WriteConflict,
    errors.SessionEnded,
    errors.ServerOutOfOrder,
)
