"""Fixtures of the fault tests: lines through a proxy, and connections that are closed at the end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from surrealdb_celery_backend.client import connection as connection_module
from surrealdb_celery_backend.client import deadlines, opening, request, sockets, websocket
from surrealdb_celery_backend.client import http as http_module
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.results.schema import preparation
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database
from tests.support.faults.proxy import Proxy
from tests.support.faults.worker import Worker, worker
from tests.support.states import MAX_WAIT, until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here causes a fault."""
    for item in items:
        if "tests/faults/" in item.path.as_posix():
            item.add_marker(pytest.mark.fault)


def settings_for(database: Database, **changes: Any) -> Settings:
    """The settings that lead to a database. Whoever does not test a time limit has time, however slow the machine."""
    settings = Settings(
        endpoint=database.engine.url,
        namespace=database.namespace,
        database=database.database,
        username=database.engine.username,
        password=database.engine.password,
        timeout=2 * MAX_WAIT,
    )
    return replace(settings, **changes)


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    """What is entered here is closed at the end of the test, last first."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(closing: contextlib.ExitStack) -> Callable[..., Connection]:
    """Make connections: ``connect(database, endpoint=…, timeout=…)``."""

    def make(database: Database, **changes: Any) -> Connection:
        settings = settings_for(database, **changes)
        connection = Connection(settings.options, prepare=preparation(settings))
        closing.callback(connection.close)
        return connection

    return make


class Clock:
    """The clock of connections, which moves when the test says so: no call runs out of time before that.

    Their waits for a reply take real time, `surrealdb_timeout` at most, and then look at this clock again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = time.monotonic()
        self.sleep = time.sleep

    def monotonic(self) -> float:
        """The time, a little later at each look, so that what is later is greater."""
        with self._lock:
            self._now += 1e-6
            return self._now

    def forward(self, seconds: float) -> None:
        """So much time passes."""
        with self._lock:
            self._now += seconds

    @contextlib.contextmanager
    def limit(self, connection: Connection, seconds: float) -> Iterator[None]:
        """Calls that begin here have so much time. If the test fails, it is over: nobody waits for them."""
        patient = connection.options
        connection.reconfigure(replace(patient, timeout=seconds))
        try:
            yield
        finally:
            self.forward(seconds)
            connection.reconfigure(patient)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """See :class:`Clock`."""
    made = Clock()
    for module in (connection_module, deadlines, http_module, opening, request, sockets, websocket):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def proxy(engine: Any, closing: contextlib.ExitStack) -> Proxy:
    """A proxy in front of each engine in turn."""
    return closing.enter_context(Proxy(engine.url))


@pytest.fixture
def broker(redis_url: str) -> str:
    """Database 7 of the Redis server: the queues are the tests' own."""
    return urlsplit(redis_url)._replace(path="/7").geturl()


@pytest.fixture
def start_worker(broker: str, tmp_path: Path, closing: contextlib.ExitStack) -> Callable[..., Worker]:
    """Start workers: ``start_worker(database, pool="threads", …)``."""

    def start(database: Database, settings: dict[str, Any] | None = None, **options: Any) -> Worker:
        log = tmp_path / f"worker{len(list(tmp_path.iterdir()))}.log"
        return closing.enter_context(worker(log, broker, {**database.settings, **(settings or {})}, **options))

    return start


__all__ = ["settings_for", "until"]
