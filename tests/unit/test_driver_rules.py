"""What may be retried is data: every failure of the server, the driver and the line is in one table."""

from __future__ import annotations

import http.client
import importlib
import inspect
import pkgutil
import socket
import ssl
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cbor2
import pytest
import surrealdb
import surrealdb.errors
import websockets.exceptions

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client import failures
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.failures import DRIVER_RULES, Remedy, classify, classify_exception
from surrealdb_celery_backend.client.transport import MessageTooLarge, TransportError
from surrealdb_celery_backend.settings import Settings

pytestmark = pytest.mark.unit

#: Classes that the stable line of the SDK does not have.
ONLY_IN_SDK_3 = {"TransportError", "TransportTimeoutError", "HttpStatusError", "InvalidUrlError"}


def exceptions_of(package: ModuleType) -> Iterator[type[BaseException]]:
    """Every exception class that a package defines, wherever in it."""
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    found: set[type[BaseException]] = set()
    for name in [package.__name__, *names]:
        for cls in vars(importlib.import_module(name)).values():
            is_ours = inspect.isclass(cls) and cls.__module__.partition(".")[0] == package.__name__
            if is_ours and issubclass(cls, BaseException):
                found.add(cls)
    yield from sorted(found, key=lambda cls: cls.__qualname__)


def instance(cls: type[BaseException]) -> BaseException:
    """An exception of a class, without what its own constructor wants to know."""
    plain = type(cls.__name__, (cls,), {"__str__": lambda _: "something went wrong"})
    exc = plain.__new__(plain, "something went wrong")
    assert isinstance(exc, BaseException)
    return exc


def of_library(module: ModuleType) -> list[type[BaseException]]:
    """The exceptions that a library's module of exceptions defines itself."""
    library = module.__name__.partition(".")[0]
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and issubclass(cls, BaseException)]
    return [cls for cls in classes if cls.__module__.partition(".")[0] == library and not issubclass(cls, NOT_FAILURES)]


def of_module(module: ModuleType) -> list[type[BaseException]]:
    """The exceptions that a module of the standard library defines itself."""
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and issubclass(cls, BaseException)]
    return [cls for cls in classes if cls.__module__ == module.__name__ and not issubclass(cls, NOT_FAILURES)]


#: Warnings are no failures, and these come from calling a library wrongly.
NOT_FAILURES = (
    Warning,
    getattr(websockets.exceptions, "ConcurrencyError", Warning),  # not in the oldest
    # Of a program that calls http.client in a wrong order.
    http.client.ImproperConnectionState,
)
SDK_EXCEPTIONS = list(exceptions_of(surrealdb))
OTHER_EXCEPTIONS = [
    *of_library(websockets.exceptions),
    *of_module(http.client),
    *of_library(cbor2),
    *(OSError, ConnectionError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError, TimeoutError),
    *(
        socket.gaierror,
        socket.herror,
        ssl.SSLError,
        ssl.SSLCertVerificationError,
        ssl.SSLEOFError,
        TransportError,
        MessageTooLarge,
    ),
]


def names(cls: type[BaseException]) -> str:
    """A test's id."""
    return f"{cls.__module__}.{cls.__qualname__}"


def test_the_sdk_has_error_classes() -> None:
    """The walk through the SDK finds its errors: otherwise the tests below would test nothing."""
    assert surrealdb.errors.SurrealError in SDK_EXCEPTIONS
    assert surrealdb.errors.ServerError in SDK_EXCEPTIONS
    assert len(SDK_EXCEPTIONS) >= 25


@pytest.mark.parametrize("cls", SDK_EXCEPTIONS, ids=names)
def test_every_class_of_the_sdk_is_in_the_table(cls: type[BaseException]) -> None:
    """Each error class of the installed SDK has a row, its own or its nearest base's; none is left to chance."""
    if cls.__module__ == "surrealdb.errors":
        assert names(cls) in DRIVER_RULES, "a class without a row of its own: say what may be done about it"
    assert classify_exception(instance(cls)) is not None


@pytest.mark.parametrize("cls", OTHER_EXCEPTIONS, ids=names)
def test_every_class_of_the_transports_is_in_the_table(cls: type[BaseException]) -> None:
    """The same for what websockets, http.client, cbor2 and sockets raise."""
    assert classify_exception(instance(cls)) is not None


def test_no_row_is_for_a_class_that_never_was() -> None:
    """A row's name is a class of this SDK line, or one of those that the other line adds: no typing mistakes."""
    for name in DRIVER_RULES:
        module_name, _, class_name = name.rpartition(".")
        cls = getattr(importlib.import_module(module_name), class_name, None)
        if cls is None:
            assert module_name == "surrealdb.errors"
            assert class_name in ONLY_IN_SDK_3
        else:
            assert f"{cls.__module__}.{cls.__qualname__}" == name


class RaisingTransport:
    """A transport that fails as told."""

    live = False
    forkable = True
    usable = True

    def __init__(self, exc: BaseException) -> None:
        self._exc = exc

    def request(self, method: str, params: list[Any], timeout: float) -> dict[str, Any]:
        raise self._exc

    def check_alive(self) -> None:
        """Nothing to see."""

    def listen(self, timeout: float) -> bool:
        raise self._exc

    def close(self) -> None:
        self.usable = False

    detach = close


@pytest.mark.parametrize("cls", [*SDK_EXCEPTIONS, *OTHER_EXCEPTIONS], ids=names)
def test_nothing_escapes_unmapped(cls: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the driver or the line raises leaves a connection as an error of ours, chained or said again."""
    connection = Connection(Settings(define_schema=False).options)
    monkeypatch.setattr(Connection, "_connect", lambda self, timeout: RaisingTransport(instance(cls)))
    with pytest.raises(errors.SurrealDBBackendError) as raised:
        connection.run("RETURN 1")
    assert str(raised.value)
    assert "root:root" not in str(raised.value)


# What servers sent, word for word: 3.x with kind and details, 2.x with text.
REPLIES: list[tuple[str, Any, Remedy, type[errors.SurrealDBBackendError]]] = [
    (
        "conflict 3.x",
        {
            "status": "ERR",
            "kind": "Query",
            "details": {"kind": "TransactionConflict"},
            "result": "Transaction conflict: Write conflict. This transaction can be retried",
        },
        Remedy.RETRY_NOW,
        errors.WriteConflict,
    ),
    (
        "conflict 2.x",
        {
            "status": "ERR",
            "result": "The query was not executed due to a failed transaction. There was a problem with a datastore "
            "transaction: Transaction write conflict",
        },
        Remedy.RETRY_NOW,
        errors.WriteConflict,
    ),
    (
        "session over",
        {"code": -32000, "message": "There was a problem with the database: The session has expired"},
        Remedy.SIGN_IN,
        errors.SessionExpired,
    ),
    (
        "token over",
        {"code": -32000, "message": "There was a problem with the database: The token has expired"},
        Remedy.SIGN_IN,
        errors.SessionExpired,
    ),
    (
        "wrong password",
        {"code": -32000, "message": "There was a problem with the database: There was a problem with authentication"},
        Remedy.GIVE_UP,
        errors.AuthenticationFailed,
    ),
    (
        "no table 3.x",
        {
            "status": "ERR",
            "kind": "NotFound",
            "details": {"kind": "Table", "details": {"name": "task"}},
            "result": "The table 'task' does not exist",
        },
        Remedy.NOTHING_THERE,
        errors.DatabaseNotFound,
    ),
    ("no table, text", {"result": "The table 'task' does not exist"}, Remedy.NOTHING_THERE, errors.DatabaseNotFound),
    (
        "record there",
        {"status": "ERR", "result": "Database record `task:1` already exists"},
        Remedy.GIVE_UP,
        errors.RecordExists,
    ),
    (
        "no rights",
        {"status": "ERR", "result": "IAM error: Not enough permissions to perform this action"},
        Remedy.GIVE_UP,
        errors.PermissionDenied,
    ),
    (
        "disk full",
        {"status": "ERR", "result": "There was a problem with the key-value store: IO error: No space left on device"},
        Remedy.LATER,
        errors.StorageUnavailable,
    ),
    (
        "read-only",
        {"status": "ERR", "result": "Couldn't write to a read only transaction"},
        Remedy.LATER,
        errors.StorageUnavailable,
    ),
    ("syntax", {"status": "ERR", "result": "Parse error: Unexpected token"}, Remedy.GIVE_UP, errors.StatementFailed),
    ("bare text", "something new", Remedy.GIVE_UP, errors.StatementFailed),
    ("nothing at all", {}, Remedy.GIVE_UP, errors.StatementFailed),
]


@pytest.mark.parametrize(
    ("reply", "remedy", "error"), [case[1:] for case in REPLIES], ids=[case[0] for case in REPLIES]
)
def test_replies_of_servers(reply: Any, remedy: Remedy, error: type[errors.SurrealDBBackendError]) -> None:
    """What a server's refusal means does not depend on which line of SurrealDB sent it."""
    failure = classify(reply)
    assert (failure.remedy, failure.error) == (remedy, error)


def test_an_error_of_the_sdk_is_understood_by_what_the_server_said() -> None:
    """The SDK's own class of a server error is less than the kind and details it carries."""
    exc = surrealdb.errors.NotFoundError(
        "NotFound", "The table 'task' does not exist", 0, {"kind": "Table", "details": {"name": "task"}}
    )
    failure = classify_exception(exc)
    assert failure is not None
    assert failure.remedy is Remedy.NOTHING_THERE


def test_an_exception_of_the_user_is_none_of_ours() -> None:
    """What neither driver nor line raised is passed on as it is."""
    assert classify_exception(KeyError("theirs")) is None


def test_retried_is_only_what_passes() -> None:
    """Celery's retries repeat lost lines, conflicts, ended sessions and a server out of order, nothing else."""
    for rule in failures.SERVER_RULES:
        may_pass = rule.remedy in (Remedy.RETRY_NOW, Remedy.RECONNECT, Remedy.LATER)
        is_session = rule.error is errors.SessionExpired
        assert issubclass(rule.error, errors.TransientError) == (may_pass or is_session), rule
    for name, (remedy, error) in DRIVER_RULES.items():
        assert issubclass(error, errors.TransientError) == (remedy is Remedy.RECONNECT), name
