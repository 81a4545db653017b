"""The exceptions a user of the backend can meet. The docstring of each is its default message."""

from __future__ import annotations

import inspect

from celery.exceptions import ImproperlyConfigured


class SurrealDBBackendError(Exception):
    """The SurrealDB result backend failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class SettingsError(SurrealDBBackendError, ImproperlyConfigured):
    """A surrealdb setting is not usable."""


class ConnectionFailed(SurrealDBBackendError, ConnectionError):
    """The SurrealDB server cannot be reached, or the connection to it was lost."""


class RequestTimedOut(ConnectionFailed):
    """The SurrealDB server did not answer within surrealdb_timeout."""


class InsecureConnection(SurrealDBBackendError, ConnectionError):
    """The SurrealDB server and this client do not trust each other's TLS certificates."""


class ConnectionClosed(SurrealDBBackendError):
    """The backend was closed and does not connect again: close() is for when nobody uses it any more."""


class SignInRefused(SurrealDBBackendError):
    """The SurrealDB server refused the sign-in."""


class SessionEnded(SurrealDBBackendError):
    """The SurrealDB server ended the session, and a new sign-in did not help."""


class NotPermitted(SurrealDBBackendError):
    """The database user lacks a permission that the backend needs."""


class DatabaseMissing(SurrealDBBackendError):
    """The namespace, database or table does not exist."""


class UnsupportedServer(SurrealDBBackendError):
    """The SurrealDB server is too old: 2.0 or newer is needed."""


class EngineInUse(SurrealDBBackendError):
    """An embedded SurrealDB engine can be used by one process only."""


class WriteConflict(SurrealDBBackendError):
    """Other writers kept changing the same record until the retries of a write conflict ran out."""


class RecordExists(SurrealDBBackendError):
    """The record exists already."""


class StatementFailed(SurrealDBBackendError):
    """The SurrealDB server refused a statement."""


class ServerOutOfOrder(SurrealDBBackendError):
    """The SurrealDB server cannot store anything at the moment."""


class LiveNotSupported(SurrealDBBackendError):
    """The SurrealDB server, or the way to it, has no LIVE queries."""


class ResultsUnavailable(SurrealDBBackendError):
    """The database could not be asked for results for too long."""


class UnstorableValue(SurrealDBBackendError, ValueError):
    """A value cannot be stored in SurrealDB without loss."""


class UnreadableResult(SurrealDBBackendError):
    """A stored result cannot be decoded."""


class InvalidSchedule(SurrealDBBackendError, ValueError):
    """A schedule entry is wrong."""


class ScheduleNotFound(SurrealDBBackendError, LookupError):
    """There is no schedule entry of that name."""


class ScheduleExists(SurrealDBBackendError):
    """There is a schedule entry of that name already."""


class LeaseLost(SurrealDBBackendError):
    """Another beat process holds the schedule lease."""
