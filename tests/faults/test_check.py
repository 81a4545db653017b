"""What would fail at a worker's first task is said when it starts, in one line, and stops nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.results.checks import Finding, Severity, check, database
from tests.engines import Database, RunningEngine
from tests.support.faults.proxy import Proxy
from tests.support.states import until


@contextlib.contextmanager
def findings(**settings: Any) -> Iterator[dict[str, Finding]]:
    """What a check finds, by name."""
    pool = settings.pop("pool", None)
    app = Celery("checked", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(settings)
    try:
        yield {finding.subject: finding for finding in check(app.backend, pool=pool)}
    finally:
        app.backend.close()


def test_all_is_well(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong: each check says so, and leaves nothing behind."""
    # The machine of a test may be slow.
    monkeypatch.setattr(database, "SLOW", float("inf"))
    with findings(**fresh_database.settings) as found:
        assert list(found) == ["connection", "rights", "clocks", "latency"]
        assert {finding.severity for finding in found.values()} == {Severity.OK}
    for table in ("task", "group", "chord", "key"):
        assert fresh_database.query(f"SELECT * FROM {table}") == [[]]


def test_wrong_password(fresh_database: Database) -> None:
    """A wrong password is an error that does not show it."""
    with findings(**fresh_database.settings | {"surrealdb_password": "not-the-one"}) as found:
        assert list(found) == ["connection"]
        assert found["connection"].severity is Severity.ERROR
        assert "check the name, the password" in str(found["connection"])
        assert "not-the-one" not in str(found["connection"])


def test_nobody_listens(dead_port: int) -> None:
    """A database that is away is a warning: the worker need not stop for it."""
    with findings(surrealdb_url=f"ws://127.0.0.1:{dead_port}") as found:
        assert found["connection"].severity is Severity.WARNING
        assert "cannot be reached" in str(found["connection"])


def test_a_server_without_tls(proxy: Proxy, fresh_database: Database) -> None:
    """TLS to a server that speaks none is said to be just that."""
    url = proxy.url.replace("ws://", "wss://")
    with findings(**fresh_database.settings | {"surrealdb_url": url}) as found:
        assert found["connection"].severity is Severity.ERROR
        assert str(found["connection"]).startswith("the server speaks no TLS at this port; use ws://")


def test_a_user_who_may_only_look(fresh_database: Database) -> None:
    """Missing rights name the tables."""
    fresh_database.query("DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER")
    with findings(**fresh_database.settings) as found:
        assert found["rights"].severity is Severity.OK
    user = {"surrealdb_username": "viewer", "surrealdb_password": "secret", "surrealdb_auth_level": "database"}
    with findings(**fresh_database.settings | user, surrealdb_define_schema=False) as found:
        assert found["rights"].severity is Severity.ERROR
        assert "task, group, chord, key" in str(found["rights"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"surrealdb_url": "mem://", "pool": "celery.concurrency.prefork"}, "in the memory of each process"),
        ({"surrealdb_url": "surrealkv://none", "pool": "celery.concurrency.prefork"}, "inside one process only"),
        ({"surrealdb_url": "http://127.0.0.1:1", "surrealdb_live": "on"}, "has no LIVE queries"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], text: str) -> None:
    """They are found without a request: no engine is opened, no server is asked."""
    with findings(**settings) as found:
        assert list(found) == ["settings"]
        assert found["settings"].severity is Severity.ERROR
        assert text in str(found["settings"])


@pytest.mark.worker
@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_worker_says_it_when_it_starts(own_engine: RunningEngine, start_worker: Any) -> None:
    """A worker with a wrong password, and one whose database is away, start, and say what is wrong."""
    database = own_engine.database()
    worker = start_worker(database, {"surrealdb_password": "not-the-one"})
    until(lambda: "result backend, connection: " in worker.log, "the log says what is wrong")
    assert "refused the sign-in" in worker.log
    assert worker.alive
    own_engine.kill()
    worker = start_worker(database)
    until(lambda: "cannot be reached" in worker.log, "the log says that the database is away")
    assert worker.alive
