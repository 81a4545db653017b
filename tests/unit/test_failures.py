"""What a server says when it fails, in the words of both lines, is understood and put to the right use."""

from __future__ import annotations

from typing import Any

import pytest

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.failures import SERVER_RULES, Failure, Remedy, classify

pytestmark = pytest.mark.unit


def v3(text: str, kind: str, *details: str) -> dict[str, Any]:
    """A failure as SurrealDB 3 sends it."""
    nested: dict[str, Any] | None = None
    for name in reversed(details):
        nested = {"kind": name} if nested is None else {"kind": name, "details": nested}
    return {"status": "ERR", "result": text, "kind": kind, "details": nested}


SAID = [
    # What engines said when asked for it: 2.3.10 in text only, 3.x with a kind.
    ("The query was not executed due to a failed transaction. Resource busy: ", Remedy.RETRY_NOW, errors.WriteConflict),
    (
        "Failed to commit transaction due to a read or write conflict. This transaction can be retried",
        Remedy.RETRY_NOW,
        errors.WriteConflict,
    ),
    (v3("Transaction conflict: Write conflict", "Query", "NotExecuted"), Remedy.RETRY_NOW, errors.WriteConflict),
    (v3("words to come", "Query", "TransactionConflict"), Remedy.RETRY_NOW, errors.WriteConflict),
    ("The session has expired", Remedy.SIGN_IN, errors.SessionExpired),
    (v3("x", "NotAllowed", "Auth", "TokenExpired"), Remedy.SIGN_IN, errors.SessionExpired),
    ("There was a problem with authentication", Remedy.GIVE_UP, errors.AuthenticationFailed),
    (v3("x", "NotAllowed", "Auth", "InvalidAuth"), Remedy.GIVE_UP, errors.AuthenticationFailed),
    ("Anonymous access not allowed: Not enough permissions", Remedy.SIGN_IN, errors.AuthenticationFailed),
    ("The table 'task' does not exist", Remedy.NOTHING_THERE, errors.DatabaseNotFound),
    (v3("x", "NotFound", "Table"), Remedy.NOTHING_THERE, errors.DatabaseNotFound),
    ("The namespace 'x' does not exist", Remedy.GIVE_UP, errors.DatabaseNotFound),
    (v3("x", "NotFound", "Database"), Remedy.GIVE_UP, errors.DatabaseNotFound),
    ("Database record `a:1` already exists", Remedy.GIVE_UP, errors.RecordExists),
    ("IAM error: Not enough permissions to perform this action", Remedy.GIVE_UP, errors.PermissionDenied),
    ("No space left on device", Remedy.LATER, errors.StorageUnavailable),
    ("The query was not executed because it exceeded the timeout", Remedy.LATER, errors.RequestTimedOut),
    # What quotes a name or a value may say anything.
    ("Database record `schedule:⟨signin report⟩` already exists", Remedy.GIVE_UP, errors.RecordExists),
    ("Database record `schedule:⟨session expired\nmails⟩` already exists", Remedy.GIVE_UP, errors.RecordExists),
    (
        v3("Database record `schedule:`write conflict`` already exists", "AlreadyExists", "Record"),
        Remedy.GIVE_UP,
        errors.RecordExists,
    ),
    (
        "Found 'read only' for field `status`, with record `task:a`, but field must conform to: $value != 'read only'",
        Remedy.GIVE_UP,
        errors.StatementFailed,
    ),
    (
        v3("Couldn't coerce value for field `n` of `task:a`: Expected `int` but found `'can be retried'`", "Internal"),
        Remedy.GIVE_UP,
        errors.StatementFailed,
    ),
    (
        v3("Database index `u` already contains 'write conflict', with record `task:a`", "Internal"),
        Remedy.GIVE_UP,
        errors.StatementFailed,
    ),
    ("Parse error: Unexpected token", Remedy.GIVE_UP, errors.StatementFailed),
    ({}, Remedy.GIVE_UP, errors.StatementFailed),
]


@pytest.mark.parametrize(("said", "remedy", "error"), SAID, ids=lambda value: str(value)[:40])
def test_servers_words(said: Any, remedy: Remedy, error: type[errors.SurrealDBBackendError]) -> None:
    """Each failure is of the class, and calls for the remedy, that its meaning asks for."""
    failure = classify(said)
    assert (failure.remedy, failure.error) == (remedy, error)


def test_last_rule_takes_everything() -> None:
    """No failure of a server stays without a meaning."""
    assert (SERVER_RULES[-1].kind, SERVER_RULES[-1].detail, SERVER_RULES[-1].text) == (None, None, None)


def test_exception_keeps_the_servers_words() -> None:
    """The exception says what was being done and what the server said."""
    exc = Failure(Remedy.GIVE_UP, errors.StatementFailed, "no").exception("storing a result")
    assert isinstance(exc, errors.StatementFailed)
    assert str(exc) == "storing a result: no"


def test_what_may_be_repeated() -> None:
    """Only what can pass by itself is repeated: never a wrong password or a missing right."""
    passing = (errors.ServerUnavailable, errors.RequestTimedOut, errors.WriteConflict, errors.StorageUnavailable)
    staying = (errors.AuthenticationFailed, errors.PermissionDenied, errors.SettingsError, errors.UnstorableValue)
    assert [error for error in passing if not issubclass(error, errors.TransientError)] == []
    assert [error for error in staying if issubclass(error, errors.TransientError)] == []


def test_default_messages() -> None:
    """Every exception of ours says something by itself: its docstring."""
    for name in dir(errors):
        error = getattr(errors, name)
        if isinstance(error, type) and issubclass(error, errors.SurrealDBBackendError):
            assert str(error()) == error.__doc__
