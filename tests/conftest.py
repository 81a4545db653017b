"""Fixtures of all tests: other services, and a clean start. Engines come from tests/engines/plugin.py."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from celery import Celery
from kombu.transport import memory

from tests.engines import matrix

pytest_plugins = ["tests.engines.plugin"]


#: The files that take longest, longest first. Begun last, one of them keeps a process busy after all others are done.
LONGEST = (
    "faults/test_chord_kills.py",
    "integration/test_beat_processes.py",
    "integration/test_guides.py",
    "faults/test_main_loop.py",
    "faults/test_clean_ends.py",
    "integration/test_example_template.py",
    "integration/test_waiting.py",
    "integration/test_example_demo.py",
    "faults/test_restart.py",
    "integration/test_engines.py",
    "integration/test_installed.py",
    "integration/test_worker.py",
    "integration/test_history_find.py",
    "integration/test_devserver.py",
    "integration/test_example_schedules.py",
    "faults/test_rights.py",
    "integration/test_chords.py",
    "faults/test_sessions.py",
)


# After pytest's own order, which puts what takes no shared engine last, the longest among it.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest files, and run what depends on no line of the SDK with one of them."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(f"{item.path.parent.name}/{item.path.name}", len(ranks)))
    if matrix.sdk() == "2" and not config.getoption("everything"):
        for item in items:
            if item.get_closest_marker("one_sdk") or item.get_closest_marker("program"):
                item.add_marker(pytest.mark.skip(reason="depends on no line of the SDK: runs with SDK 3"))


@pytest.fixture(autouse=True)
def logging_as_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what Celery's worker in this process, in an earlier test, did to logging and to the environment."""
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("CELERY_LOG_FILE", "CELERY_LOG_LEVEL", "CELERY_LOG_REDIRECT", "CELERY_LOG_REDIRECT_LEVEL"):
        monkeypatch.delenv(name, raising=False)


#: Current in every test until that makes another so.
_NOBODYS = Celery("nobodys", set_as_current=False)


@pytest.fixture(autouse=True)
def no_app_of_earlier_tests() -> None:
    """Have no app of an earlier test be current, as one is that had a worker in this process: it was closed."""
    _NOBODYS.set_current()
    _NOBODYS.set_default()


@pytest.fixture(autouse=True)
def no_messages_of_earlier_tests() -> None:
    """Empty Kombu's broker in memory, which is one for the whole process: a worker would run what others sent."""
    for name, messages in list(memory.Channel.queues.items()):
        while "pidbox" not in name and messages.qsize():
            messages.get_nowait()


def _service(variable: str, default: str, port: int) -> str:
    """The URL of a service that answers; otherwise the test is skipped, and in CI it fails."""
    url = os.environ.get(variable, default)
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or port), timeout=60).close()
    except OSError as error:
        reason = f"no {parts.scheme} server at {parts.hostname}:{parts.port or port} ({error}): set {variable}"
        if matrix.in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return url


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis server, database 0: use keys of your own."""
    return _service("REDIS_TEST_URL", "redis://127.0.0.1:6379/0", 6379)


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """A RabbitMQ server: use queues of your own."""
    return _service("RABBITMQ_TEST_URL", "amqp://guest:guest@127.0.0.1:5672//", 5672)


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL server and database for the tests."""
    return _service("POSTGRES_TEST_URL", "postgresql://postgres@127.0.0.1:5432/test", 5432)


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port where nobody listens, and nobody else can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
