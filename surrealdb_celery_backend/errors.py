"""The exceptions a user of the backend can meet. The docstring of each is its default message.

::

    SurrealDBBackendError
    ├── SettingsError                 (also celery.exceptions.ImproperlyConfigured)
    ├── TransientError                passes by itself; the same operation may succeed later
    │   ├── ServerUnavailable         (also ConnectionError)
    │   │   └── RequestTimedOut
    │   ├── StorageUnavailable
    │   ├── SessionExpired
    │   └── WriteConflict
    ├── ConnectionClosed
    ├── TLSFailed                     (also ConnectionError)
    ├── AuthenticationFailed
    ├── PermissionDenied
    ├── DatabaseNotFound
    ├── UnsupportedServer
    ├── EngineInUse
    ├── LiveNotSupported
    ├── StatementFailed
    ├── RecordExists
    ├── ResultsUnavailable            the database was away for too long; its cause says how
    │   ├── ReadFailed                (also celery.exceptions.BackendGetMetaError)
    │   ├── StoreFailed               (also celery.exceptions.BackendStoreError)
    │   └── WaitTimedOut              (also celery.exceptions.TimeoutError)
    ├── UnstorableValue               (also ValueError)
    ├── UnreadableResult
    ├── ResultNotFound                (also LookupError)
    ├── InvalidFilter                 (also ValueError)
    ├── InvalidArchive                (also ValueError)
    ├── UnreadableRecord
    ├── InvalidSchedule               (also ValueError)
    ├── ScheduleNotFound              (also LookupError)
    ├── ScheduleExists
    ├── ImportIncomplete
    └── LeaseLost
"""

from __future__ import annotations

import inspect

from celery.exceptions import BackendGetMetaError, BackendStoreError, ImproperlyConfigured
from celery.exceptions import TimeoutError as CeleryTimeoutError


class SurrealDBBackendError(Exception):
    """The SurrealDB result backend failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class SettingsError(SurrealDBBackendError, ImproperlyConfigured):
    """A surrealdb setting is not usable."""


class TransientError(SurrealDBBackendError):
    """A failure that passes by itself: the same operation may succeed later."""


class ServerUnavailable(TransientError, ConnectionError):
    """The SurrealDB server cannot be reached, or the connection to it was lost."""


class RequestTimedOut(ServerUnavailable):
    """The SurrealDB server did not answer within surrealdb_timeout."""


class TLSFailed(SurrealDBBackendError, ConnectionError):
    """The SurrealDB server and this client do not trust each other's TLS certificates."""


class ConnectionClosed(SurrealDBBackendError):
    """The backend was closed and does not connect again: close() is for when nobody uses it any more."""


class AuthenticationFailed(SurrealDBBackendError):
    """The SurrealDB server refused the sign-in."""


class SessionExpired(TransientError):
    """The SurrealDB server ended the session, and a new sign-in did not help."""


class PermissionDenied(SurrealDBBackendError):
    """The database user lacks a permission that the backend needs."""


class DatabaseNotFound(SurrealDBBackendError):
    """The namespace, database or table does not exist."""


class UnsupportedServer(SurrealDBBackendError):
    """The SurrealDB server is too old: 2.0 or newer is needed."""


class EngineInUse(SurrealDBBackendError):
    """An embedded SurrealDB engine can be used by one process only."""


class WriteConflict(TransientError):
    """Other writers kept changing the same record until the retries of a write conflict ran out."""


class RecordExists(SurrealDBBackendError):
    """The record exists already."""


class StatementFailed(SurrealDBBackendError):
    """The SurrealDB server refused a statement."""


class StorageUnavailable(TransientError):
    """The SurrealDB server cannot store anything at the moment."""


class LiveNotSupported(SurrealDBBackendError):
    """The SurrealDB server, or the way to it, has no LIVE queries."""


class ResultsUnavailable(SurrealDBBackendError):
    """The database could not be asked for results for too long."""

    def __init__(self, message: str | None = None, *, task_id: str = "", state: str = "") -> None:
        super().__init__(message)
        # Celery's classes do not hand the message on.
        self.args = (message or inspect.getdoc(type(self)),)
        #: Of which task, and which state was to be stored; empty where it is about more than one.
        self.task_id = task_id
        self.state = state


class ReadFailed(ResultsUnavailable, BackendGetMetaError):
    """A result could not be read, because the database was away for too long."""


class StoreFailed(ResultsUnavailable, BackendStoreError):
    """A result was not stored, because the database was away for too long."""


class WaitTimedOut(ResultsUnavailable, CeleryTimeoutError):
    """A result did not come in time, and the database was away meanwhile."""


class UnstorableValue(SurrealDBBackendError, ValueError):
    """A value cannot be stored in SurrealDB without loss."""


class UnreadableResult(SurrealDBBackendError):
    """A stored result cannot be decoded."""


class ResultNotFound(SurrealDBBackendError, LookupError):
    """Nothing is stored of that task."""


class InvalidFilter(SurrealDBBackendError, ValueError):
    """A filter of stored results makes no sense."""


class InvalidArchive(SurrealDBBackendError, ValueError):
    """A file is no export of results, or is damaged."""


class UnreadableRecord(SurrealDBBackendError):
    """A record holds a value that SurrealDB cannot send, or is too large to be read."""


class InvalidSchedule(SurrealDBBackendError, ValueError):
    """A schedule entry is wrong."""


class ScheduleNotFound(SurrealDBBackendError, LookupError):
    """There is no schedule entry of that name."""


class ScheduleExists(SurrealDBBackendError):
    """There is a schedule entry of that name already."""


class ImportIncomplete(SurrealDBBackendError):
    """Only some of the schedule entries of an import are written."""


class LeaseLost(SurrealDBBackendError):
    """Another beat process holds the schedule lease."""
