"""Sessions, tokens and passwords that end during a worker's life: sign in again once, and never in a storm."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.opening import REFUSAL_REMEMBERED
from tests.engines import Database, RunningEngine
from tests.support.faults.proxy import Proxy
from tests.support.states import until

#: How long sessions and tokens last that are to end during a test, in seconds.
SESSION = 1.5
#: And those that outlast it.
LASTING = 3600.0
THREADS = 6
#: How often sessions end in one test.
ENDS = 2


def define_user(database: Database, password: str = "secret", session: float = LASTING, *, name: str = "app") -> None:
    """A user of the database, whose sessions and tokens last so long."""
    milliseconds = int(session * 1000)
    database.query(
        f"DEFINE USER OVERWRITE {name} ON DATABASE PASSWORD '{password}' ROLES EDITOR "
        f"DURATION FOR TOKEN {milliseconds}ms, FOR SESSION {milliseconds}ms"
    )


def open_session(connection: Connection) -> None:
    """Open a session that ends soon. On a slow machine it may do so while it opens."""

    def opened() -> bool:
        try:
            return bool(connection.run("RETURN 1") == 1)
        except errors.SessionExpired:
            return False

    until(opened, "a session is open")


def let_session_end(connection: Connection) -> None:
    """Give the connection a session that ends soon, of the user `brief`; the one after it, its own user's, lasts.

    A call signs in once. So that every call succeeds however slow the machine is, it may meet one end only.
    """
    lasting = connection.options
    connection.reconfigure(replace(lasting, username="brief"))
    connection.disconnect()
    open_session(connection)
    connection.reconfigure(lasting)


USER = {"username": "app", "password": "secret", "auth_level": "database"}


@pytest.mark.parametrize("transport", ["url", "http_url"])
def test_session_shorter_than_the_process(transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """DURATION FOR TOKEN and FOR SESSION end again and again under threads: every call succeeds, one sign-in each time."""
    define_user(fresh_database)
    define_user(fresh_database, session=SESSION, name="brief")
    connection = connect(fresh_database, endpoint=getattr(proxy, transport), **USER)
    assert connection.run("RETURN 1") == 1
    done = threading.Event()

    def work(number: int) -> None:
        turns = 0
        while not done.is_set():
            assert connection.run("RETURN $value", value=[number, turns]) == [number, turns]
            turns += 1

    for _ in range(ENDS):
        let_session_end(connection)
        before = len(proxy.requests("signin"))
        done.clear()
        with ThreadPoolExecutor(THREADS) as pool:
            threads = [pool.submit(work, number) for number in range(THREADS)]
            try:
                until(
                    lambda before=before, threads=threads: (
                        len(proxy.requests("signin")) > before or any(one.done() for one in threads)
                    ),
                    "signed in again",
                )
            finally:
                done.set()
            for thread in threads:
                thread.result()
        assert len(proxy.requests("signin")) == before + 1, "one sign-in, whatever the number of threads"


def test_not_repeatable_after_the_session_ended(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A statement refused because the session ended did not run, so it is sent again even if it must not run twice."""
    define_user(fresh_database)
    define_user(fresh_database, session=SESSION, name="brief")
    connection = connect(fresh_database, endpoint=proxy.url, **USER)
    assert connection.run("RETURN 1") == 1
    count = 0
    for _ in range(ENDS):
        let_session_end(connection)
        before = len(proxy.requests("signin"))
        while len(proxy.requests("signin")) == before:
            connection.run_all("UPSERT counter:one SET value += 1", repeatable=False)
            count += 1
    assert fresh_database.query("SELECT VALUE value FROM counter:one") == [[count]]


def refused_quickly(connection: Any, calls: int) -> None:
    """So many calls from many threads are refused, each with the one clear error."""

    def call(_: int) -> None:
        with pytest.raises(
            errors.AuthenticationFailed, match=r"refused the sign-in of surrealdb_username 'app'.*check"
        ) as error:
            connection.run("RETURN 1")
        assert "secret" not in str(error.value)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(call, range(calls)))


def test_password_rotated(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """The password changes: the open session goes on until it ends, then one clear error, and no storm of sign-ins."""
    define_user(fresh_database, session=SESSION)
    connection = connect(fresh_database, endpoint=proxy.url, **USER)
    open_session(connection)
    define_user(fresh_database, "rotated")

    def is_refused() -> bool:
        try:
            connection.run("RETURN 1")
        except errors.AuthenticationFailed:
            return True
        return False

    until(is_refused, "the session ended and the old password is refused")
    started, before = time.monotonic(), len(proxy.requests("signin"))
    refused_quickly(connection, 200)
    allowed = 1 + (time.monotonic() - started) / REFUSAL_REMEMBERED
    assert len(proxy.requests("signin")) - before <= allowed
    define_user(fresh_database)
    assert until(lambda: not is_refused(), "the old password is taken again")


def test_wrong_password_from_the_start(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A wrong password: the same clear error for every call, without the password and without a storm."""
    define_user(fresh_database, "another")
    connection = connect(fresh_database, endpoint=proxy.url, **USER)
    started = time.monotonic()
    refused_quickly(connection, 200)
    assert len(proxy.requests("signin")) <= 1 + (time.monotonic() - started) / REFUSAL_REMEMBERED


def test_a_password_of_one_letter(fresh_database: Database, connect: Any) -> None:
    """What the server says stays readable, and does not show the password where it has it as a whole."""
    define_user(fresh_database, "e")
    connection = connect(fresh_database, **(USER | {"password": "e"}))
    with pytest.raises(errors.StatementFailed, match=r"the letter '\*\*' between others"):
        connection.run("THROW \"the letter 'e' between others\"")


def test_user_removed(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """The user is removed: one clear error once the session ended; defined again, the next call works."""
    define_user(fresh_database, session=SESSION)
    connection = connect(fresh_database, endpoint=proxy.url, **USER)
    open_session(connection)
    fresh_database.query("REMOVE USER app ON DATABASE")

    def refused() -> bool:
        try:
            connection.run("RETURN 1")
        except errors.AuthenticationFailed:
            return True
        return False

    until(refused, "the removed user is refused")
    define_user(fresh_database)
    until(lambda: not refused(), "the user is taken again")


def test_server_restarted_with_another_password(
    durable_engine: RunningEngine, connect: Any, closing: contextlib.ExitStack
) -> None:
    """The server comes back with another password of ours: one clear error, and recovery once it is the old one."""
    database = durable_engine.database()
    define = "DEFINE USER OVERWRITE operator ON ROOT PASSWORD '{}' ROLES OWNER"
    database.query(define.format("first"))
    proxy = closing.enter_context(Proxy(durable_engine.url))
    connection = connect(database, endpoint=proxy.url, username="operator", password="first")
    assert connection.run("RETURN 1") == 1
    database.query(define.format("second"))
    durable_engine.kill()
    durable_engine.restart()
    with pytest.raises(
        errors.AuthenticationFailed, match="surrealdb_username 'operator' at surrealdb_auth_level 'root'"
    ):
        connection.run("RETURN 2")
    before = len(proxy.requests("signin"))
    with pytest.raises(errors.AuthenticationFailed):
        connection.run("RETURN 3")
    assert len(proxy.requests("signin")) - before <= 1
    database.query(define.format("first"))

    def works() -> bool:
        try:
            return bool(connection.run("RETURN 4") == 4)
        except errors.AuthenticationFailed:
            return False

    until(works, "signed in with the password that is right again")


@pytest.mark.worker
@pytest.mark.redis
@pytest.mark.slow
def test_sessions_end_under_a_worker(
    live_engine: RunningEngine, proxy: Proxy, fresh_database: Database, start_worker: Any
) -> None:
    """A worker whose sessions end every moment: all results arrive, also those that are pushed."""
    define_user(fresh_database, session=SESSION)
    user = {f"surrealdb_{name}": value for name, value in USER.items()}
    worker = start_worker(fresh_database, {**user, "surrealdb_url": proxy.url})
    echo = worker.app.tasks["faults.echo"]
    sent = 0
    started = time.monotonic()
    while time.monotonic() - started < 3 * SESSION:
        tasks = [echo.delay(number) for number in range(10)]
        assert [task.get(timeout=30) for task in tasks] == list(range(10))
        sent += 10
    assert len(worker.ran()) == sent
    assert worker.alive
