"""Writers that meet: conflicts are retried with jitter inside one call, within bounds, and counted in the log."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client import request
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.request import CONFLICT_RETRIES
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results import statements
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database, RunningEngine
from tests.support.faults.fake import err, ok, server

WRITERS, TURNS = 6, 30
#: How often they do so at most until some of them have collided.
ROUNDS = 20
#: `surrealdb_timeout` where it is not to end a call, in seconds: however slow the machine, retries come to their number.
LONG = 60.0

CONFLICT = err("Transaction conflict: Write conflict. This transaction can be retried", kind="Query")


def test_increments_of_many_writers(
    engine: RunningEngine, fresh_database: Database, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Six connections add to one counter: each call succeeds although they collide, and the log counts how often."""
    connections = [connect(fresh_database) for _ in range(WRITERS)]
    connections[0].run("RETURN 1")
    record = RecordID(statements.KEY, "hits")
    together = threading.Barrier(WRITERS)

    def write(connection: Connection) -> None:
        connection.run("RETURN 1")
        together.wait()
        for _ in range(TURNS):
            connection.run_all(statements.INCREMENT, record=record, key="hits", repeatable=False)

    written = 0
    collides = engine.store == "rocksdb"
    with caplog.at_level(logging.DEBUG, "surrealdb_celery_backend"), ThreadPoolExecutor(WRITERS) as pool:
        for _ in range(ROUNDS):
            list(pool.map(write, connections))
            written += WRITERS * TURNS
            if not collides or "write conflicts in one call were retried" in caplog.text:
                break
        else:
            pytest.fail(f"no writes collided in {ROUNDS} rounds")
    total = connections[0].run("SELECT VALUE value FROM $record", record=record)[0]
    if engine.exact:
        assert total == written
    else:
        # These stores do not detect every conflict: how much they lose is chance. None may count twice.
        assert 0 < total <= written


def test_many_processes_define_the_tables_at_once(
    engine: RunningEngine, fresh_database: Database, connect: Any
) -> None:
    """A pool starts and every process creates namespace, database and tables at once: none fails."""
    connections = [connect(fresh_database) for _ in range(10)]
    together = threading.Barrier(len(connections))

    def start(connection: Connection) -> Any:
        together.wait()
        return connection.run("SELECT * FROM task")

    with ThreadPoolExecutor(len(connections)) as pool:
        assert list(pool.map(start, connections)) == [[]] * len(connections)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses: it is their number that is of interest."""
    monkeypatch.setattr(request, "CONFLICT_PAUSE_LAST", 0.001)


@pytest.mark.usefixtures("quick")
def test_conflicts_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """A record that is always being written by others: after a bounded number of retries one clear error."""
    with server(CONFLICT) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=LONG).options)
        with caplog.at_level(logging.DEBUG, "surrealdb_celery_backend"), pytest.raises(errors.WriteConflict):
            connection.run("UPDATE x:1 SET n += 1")
        connection.close()
        assert fake.count("query") == CONFLICT_RETRIES + 1
    assert f"{CONFLICT_RETRIES} write conflicts in one call" in caplog.text


def test_conflicts_end_with_the_time_limit() -> None:
    """Retries never outlast surrealdb_timeout."""
    with server(CONFLICT) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=0.3).options)
        with pytest.raises((errors.WriteConflict, errors.RequestTimedOut)):
            connection.run("UPDATE x:1 SET n += 1")
        connection.close()
        assert fake.count("query") <= CONFLICT_RETRIES


@pytest.mark.usefixtures("quick")
def test_conflict_of_a_later_statement() -> None:
    """A conflict of the second statement only, in a reply that is otherwise good, is not overlooked."""
    replies = [{"result": ok(1)["result"] + CONFLICT["result"]}, ok(1, 2)]
    with server(lambda method, params: replies.pop(0)) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=LONG).options)
        assert connection.run_all("RETURN 1; UPDATE x:1 SET n += 1") == [1, 2]
        connection.close()
        assert fake.count("query") == 2


@pytest.mark.usefixtures("quick")
def test_pauses_are_jittered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two retries in a row wait equally long, and no wait is longer than the last ceiling."""
    pauses: list[float] = []
    monkeypatch.setattr(request, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    with server(CONFLICT) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=LONG).options)
        with pytest.raises(errors.WriteConflict):
            connection.run("UPDATE x:1 SET n += 1")
        connection.close()
    assert len(pauses) == CONFLICT_RETRIES
    assert len(set(pauses)) == CONFLICT_RETRIES
    assert max(pauses) <= request.CONFLICT_PAUSE_LAST
