"""Fixtures of the fault tests: lines through a proxy, and connections that are closed at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from surrealdb_celery_backend.connection import Connection
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database, RunningEngine, matrix

from .proxy import Proxy, until
from .worker import Worker, worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here causes a fault."""
    for item in items:
        if "tests/faults/" in item.path.as_posix():
            item.add_marker(pytest.mark.fault)


def settings_for(database: Database, **changes: Any) -> Settings:
    """The settings that lead to a database."""
    settings = Settings(
        endpoint=database.engine.url,
        namespace=database.namespace,
        database=database.database,
        username=database.engine.username,
        password=database.engine.password,
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
        connection = Connection(settings_for(database, **changes))
        closing.callback(connection.close)
        return connection

    return make


@pytest.fixture
def proxy(engine: Any, closing: contextlib.ExitStack) -> Proxy:
    """A proxy in front of each engine in turn."""
    return closing.enter_context(Proxy(engine.url))


@pytest.fixture
def durable_engine(own_engine: RunningEngine, closing: contextlib.ExitStack) -> RunningEngine:
    """As `own_engine`, on a store that outlives the process: each engine in turn."""
    if own_engine.store != "mem":
        return own_engine
    return closing.enter_context(matrix.find(own_engine.spec.name, "surrealkv").start(0))


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
