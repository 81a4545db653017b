"""The meaning of failures of the server and the driver, and the remedy for each.

This is data, read by `connection` (what to do inside one call) and by
`SurrealDBBackend.exception_safe_to_retry` (what Celery may do again). Rows are tried in order; the
first that matches decides. SurrealDB 3 sends a `kind` and `details`; SurrealDB 2 sends text only,
so each meaning has a row for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .. import errors


class Remedy(Enum):
    """The remedies for a failure."""

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
    #: The request arrived damaged, or is wrong: send it once more on a new connection, and believe the second answer.
    ASK_AGAIN = "ask once more on a new connection"
    #: Repeating changes nothing.
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Failure:
    """One failed statement, request or connection, classified."""

    remedy: Remedy
    error: type[errors.SurrealDBBackendError]
    message: str

    def exception(self, note: str = "") -> errors.SurrealDBBackendError:
        """The exception to raise.

        Args:
            note: The operation; it stands in front of the server's words.

        Returns:
            The exception.
        """
        return self.error(f"{note}: {self.message}" if note else self.message)


@dataclass(frozen=True)
class ServerRule:
    """A row: how a failure is recognised, and what it means."""

    remedy: Remedy
    error: type[errors.SurrealDBBackendError]
    #: `code` of the JSON-RPC error of a whole request; None matches any.
    code: int | None = None
    #: `kind` of SurrealDB 3; None matches any.
    kind: str | None = None
    #: The innermost `details.kind` of SurrealDB 3; None matches any.
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
    # Requests that the server could not read (JSON-RPC 2.0, section 5.1): the line damaged them. A user's value that
    # no SurrealDB takes, and a method that it does not have, look alike, so what is refused twice is refused.
    ServerRule(Remedy.RECONNECT, errors.ServerUnavailable, code=-32700),
    ServerRule(Remedy.RECONNECT, errors.ServerUnavailable, code=-32600),
    ServerRule(Remedy.ASK_AGAIN, errors.StatementFailed, code=-32601),
    ServerRule(Remedy.ASK_AGAIN, errors.StatementFailed, code=-32602),
    ServerRule(Remedy.ASK_AGAIN, errors.StatementFailed, code=-32603, text=r"^expected .*"),
    ServerRule(
        Remedy.ASK_AGAIN,
        errors.UnstorableValue,
        text=r"failed to (decode cbor|parse) request|^(syntax|semantic)\(|unknown cbor tag|^expected (string|object key|a cbor)",
    ),
    # Statements are constants of this package: one that does not parse was damaged, or the server lacks something.
    ServerRule(
        Remedy.ASK_AGAIN,
        errors.StatementFailed,
        code=-32000,
        text=r"^(there was a problem with the database: )?parse error",
    ),
    # Records with a value that cannot be sent: a closure, a regex. The whole reply is refused.
    ServerRule(
        Remedy.GIVE_UP,
        errors.UnreadableRecord,
        text=r"unsupported value type|failed to encode cbor response|cannot be converted to public value",
    ),
    # Conflicts between writers (optimistic transactions): nothing was written.
    ServerRule(Remedy.RETRY_NOW, errors.WriteConflict, detail="TransactionConflict"),
    ServerRule(
        Remedy.RETRY_NOW,
        errors.WriteConflict,
        text=r"can be retried|write conflict|read or write conflict|transaction conflict|resource busy",
    ),
    # Sessions and tokens that ended.
    ServerRule(Remedy.SIGN_IN, errors.SessionExpired, detail="TokenExpired"),
    ServerRule(Remedy.SIGN_IN, errors.SessionExpired, detail="SessionExpired"),
    ServerRule(Remedy.SIGN_IN, errors.SessionExpired, text=r"(session|token) has expired|session expired"),
    ServerRule(Remedy.RECONNECT, errors.ServerUnavailable, kind="NotFound", detail="Session"),
    ServerRule(Remedy.RECONNECT, errors.ServerUnavailable, text=r"session not found"),
    # Sign-ins refused. Before "not allowed": SurrealDB 3 nests Auth inside NotAllowed.
    ServerRule(Remedy.GIVE_UP, errors.AuthenticationFailed, detail="InvalidAuth"),
    ServerRule(Remedy.GIVE_UP, errors.AuthenticationFailed, detail="InvalidPass"),
    ServerRule(Remedy.GIVE_UP, errors.AuthenticationFailed, detail="UnexpectedAuth"),
    ServerRule(Remedy.GIVE_UP, errors.AuthenticationFailed, detail="MissingUserOrPass"),
    ServerRule(Remedy.GIVE_UP, errors.AuthenticationFailed, detail="NoSigninTarget"),
    ServerRule(
        Remedy.GIVE_UP,
        errors.AuthenticationFailed,
        text=(
            r"problem with authentication|invalid (username|password|credentials)|verification failed"
            r"|no record was returned|sign-?in|signature|access method|authentication (failed|token)"
        ),
    ),
    # A session that lost its user (server restarted, user redefined) answers as an anonymous one.
    ServerRule(Remedy.SIGN_IN, errors.AuthenticationFailed, text=r"anonymous access not allowed"),
    # Missing namespaces, databases and tables.
    ServerRule(Remedy.NOTHING_THERE, errors.DatabaseNotFound, kind="NotFound", detail="Table"),
    ServerRule(Remedy.NOTHING_THERE, errors.DatabaseNotFound, text=r"the table '.*' does not exist"),
    ServerRule(Remedy.GIVE_UP, errors.DatabaseNotFound, kind="NotFound", detail="Namespace"),
    ServerRule(Remedy.GIVE_UP, errors.DatabaseNotFound, kind="NotFound", detail="Database"),
    ServerRule(
        Remedy.GIVE_UP,
        errors.DatabaseNotFound,
        text=r"the (namespace|database) '.*' does not exist|specify a (namespace|database)|no (namespace|database)",
    ),
    # LIVE is not to be had.
    ServerRule(Remedy.GIVE_UP, errors.LiveNotSupported, detail="LiveQueryNotSupported"),
    ServerRule(Remedy.GIVE_UP, errors.LiveNotSupported, detail="BadLiveQueryConfig"),
    ServerRule(Remedy.GIVE_UP, errors.LiveNotSupported, text=r"live ?quer(y|ies)|realtime"),
    # Rights.
    ServerRule(
        Remedy.GIVE_UP, errors.PermissionDenied, text=r"not enough permissions|permission|IAM error|not allowed"
    ),
    ServerRule(Remedy.GIVE_UP, errors.PermissionDenied, kind="NotAllowed"),
    # The store behind the server.
    ServerRule(
        Remedy.LATER,
        errors.StorageUnavailable,
        text=r"no space left|disk full|read[- ]?only|out of memory|memory threshold|shutting down|io error",
    ),
    ServerRule(Remedy.LATER, errors.StorageUnavailable, detail="Cancelled"),
    ServerRule(Remedy.LATER, errors.RequestTimedOut, detail="TimedOut"),
    ServerRule(Remedy.LATER, errors.RequestTimedOut, text=r"exceeded the timeout|timed out"),
    ServerRule(Remedy.RECONNECT, errors.ServerUnavailable, kind="Connection"),
    # Values the engine cannot hold.
    ServerRule(Remedy.GIVE_UP, errors.UnstorableValue, text=r"null byte|too large|too big|size limit"),
    ServerRule(Remedy.GIVE_UP, errors.UnstorableValue, kind="Serialization"),
    # The rest: statements that the engine does not take.
    ServerRule(Remedy.GIVE_UP, errors.StatementFailed),
)


def _innermost_detail(details: Any) -> str | None:
    kind = None
    while isinstance(details, Mapping) and isinstance(details.get("kind"), str):
        kind = details["kind"]
        details = details.get("details")
    return kind


def classify(reply: Mapping[str, Any] | str) -> Failure:
    """Classify a failed reply.

    Args:
        reply: A statement's `{status: 'ERR', result, kind?, details?}`, a request's `{code, message, kind?, details?}`,
            or the bare text that SurrealDB 2 sends for some failures.

    Returns:
        The failure, with what may be done about it.
    """
    if isinstance(reply, str):
        reply = {"message": reply}
    message = str(reply.get("message") or reply.get("result") or "unknown error").strip()
    kind, detail, code = reply.get("kind"), _innermost_detail(reply.get("details")), reply.get("code")
    for rule in SERVER_RULES:
        if rule.code is not None and rule.code != code:
            continue
        if rule.kind is not None and rule.kind != kind:
            continue
        if rule.detail is not None and rule.detail != detail:
            continue
        if rule.text is not None and not re.search(rule.text, message, re.IGNORECASE):
            continue
        return Failure(rule.remedy, rule.error, message)
    raise AssertionError("the last rule matches everything")  # pragma: no cover


_SDK = "surrealdb.errors."
#: The meaning of an exception of the driver, its transport or the socket, by the full name of its class;
#: the nearest base class decides. Names, so that a process that meets none of them imports none of their modules;
#: those of both SDK lines stand here.
DRIVER_RULES: dict[str, tuple[Remedy, type[errors.SurrealDBBackendError]]] = {
    _SDK + "SurrealError": (Remedy.GIVE_UP, errors.StatementFailed),
    # Errors of the server, as the SDK parsed them: `classify` looks at their kind and text instead.
    _SDK + "ServerError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "ValidationError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "ConfigurationError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "ThrownError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "QueryError": (Remedy.GIVE_UP, errors.StatementFailed),
    _SDK + "SerializationError": (Remedy.GIVE_UP, errors.UnstorableValue),
    _SDK + "NotAllowedError": (Remedy.GIVE_UP, errors.PermissionDenied),
    _SDK + "NotFoundError": (Remedy.GIVE_UP, errors.DatabaseNotFound),
    _SDK + "AlreadyExistsError": (Remedy.GIVE_UP, errors.RecordExists),
    _SDK + "InternalError": (Remedy.GIVE_UP, errors.StatementFailed),
    # Errors of the line.
    _SDK + "TransportError": (Remedy.RECONNECT, errors.ServerUnavailable),
    _SDK + "ConnectionUnavailableError": (Remedy.RECONNECT, errors.ServerUnavailable),
    _SDK + "TransportTimeoutError": (Remedy.RECONNECT, errors.RequestTimedOut),
    _SDK + "HttpStatusError": (Remedy.RECONNECT, errors.ServerUnavailable),
    _SDK + "UnexpectedResponseError": (Remedy.RECONNECT, errors.ServerUnavailable),
    "websockets.exceptions.WebSocketException": (Remedy.RECONNECT, errors.ServerUnavailable),
    "http.client.HTTPException": (Remedy.RECONNECT, errors.ServerUnavailable),
    "builtins.TimeoutError": (Remedy.RECONNECT, errors.RequestTimedOut),
    "builtins.OSError": (Remedy.RECONNECT, errors.ServerUnavailable),
    # Certificates do not become right by trying again, but a server may die during the handshake.
    "ssl.SSLError": (Remedy.GIVE_UP, errors.TLSFailed),
    "ssl.SSLEOFError": (Remedy.RECONNECT, errors.ServerUnavailable),
    "ssl.SSLZeroReturnError": (Remedy.RECONNECT, errors.ServerUnavailable),
    # Values that cannot be sent, or that came and cannot be read.
    "cbor2.CBOREncodeError": (Remedy.GIVE_UP, errors.UnstorableValue),
    "cbor2.CBORError": (Remedy.GIVE_UP, errors.UnreadableResult),
    "surrealdb.cbor._types.CBOREncodeError": (Remedy.GIVE_UP, errors.UnstorableValue),
    "surrealdb.cbor._types.CBORError": (Remedy.GIVE_UP, errors.UnreadableResult),
    "surrealdb_celery_backend.client.transport.MessageTooLarge": (Remedy.GIVE_UP, errors.UnstorableValue),
    "surrealdb_celery_backend.client.transport.ReplyTooLarge": (Remedy.GIVE_UP, errors.UnreadableRecord),
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


def classify_exception(exc: BaseException) -> Failure | None:
    """Classify an exception of the driver or the socket.

    Args:
        exc: The exception.

    Returns:
        The failure; None for an exception that is not theirs.
    """
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__]
    if _SDK + "ServerError" in names:
        fields = vars(exc)
        return classify({"message": str(exc), "kind": fields.get("kind"), "details": fields.get("details")})
    for name in names:
        if name in DRIVER_RULES:
            remedy, error = DRIVER_RULES[name]
            return Failure(remedy, error, str(exc) or type(exc).__name__)
    return None
