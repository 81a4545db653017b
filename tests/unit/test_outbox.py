"""The queue of writes that a worker's main loop does not wait for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from surrealdb_celery_backend.client import deadlines
from surrealdb_celery_backend.results import outbox as outbox_module
from surrealdb_celery_backend.results.outbox import MAX_FAILURES, Outbox
from tests.support.forking import in_fork
from tests.support.states import until

pytestmark = pytest.mark.unit


class Away(Exception):
    """The database is away: a failure that passes."""


class Refused(Exception):
    """The database refuses a write: a failure that stays."""


class Database:
    """A database that can be away; it keeps the order in which it was written to."""

    def __init__(self) -> None:
        self.away = False
        self.written: list[Any] = []
        self.threads: list[str] = []

    def ping(self) -> None:
        """Answer, or do not."""
        if self.away:
            raise Away("away")

    def write(self, value: Any) -> None:
        """Store a value."""
        self.ping()
        self.threads.append(threading.current_thread().name)
        self.written.append(value)


@pytest.fixture
def database() -> Database:
    """See :class:`Database`."""
    return Database()


@pytest.fixture
def outbox(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    """An outbox that tries again quickly."""
    monkeypatch.setattr(outbox_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(outbox_module, "LAST_PAUSE", 0.01)
    made = Outbox(lambda exc: isinstance(exc, Away), database.ping)
    yield made
    made.close(0)
    database.away = False
    until(lambda: made.outage is None, "the thread has ended")


def write(outbox: Outbox, database: Database, value: Any) -> None:
    """Write a value through the outbox."""
    outbox.write(f"writing {value}", lambda: database.write(value))


def test_a_database_that_answers(outbox: Outbox, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes are done at once, by the caller, with a limit on their time; no thread is started."""
    monkeypatch.setattr(outbox_module, "MAX_WAIT", 1000.0)  # however long the machine stands still in between
    limits: list[float | None] = []
    outbox.write("a look", lambda: limits.append(deadlines.time_left()))
    write(outbox, database, 1)
    assert database.written == [1]
    assert database.threads == [threading.current_thread().name]
    assert limits[0] is not None
    assert 0 < limits[0] <= 1000
    assert deadlines.time_left() is None


def test_an_outage(outbox: Outbox, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Writes are kept while the database is away, without asking it, and done in their order when it is back."""
    caplog.set_level(logging.WARNING)
    database.away = True
    for value in range(5):
        write(outbox, database, value)
    assert isinstance(outbox.outage, Away)
    assert len(outbox) == 5
    assert database.written == []
    database.away = False
    until(lambda: outbox.outage is None, "the outage is over")
    assert database.written == [0, 1, 2, 3, 4]
    until(lambda: "is back" in caplog.text, "the thread has said so")  # behind the end of the outage
    assert caplog.text.count("the worker goes on without its result database") == 1
    assert caplog.text.count("the result database is back; 5 results were stored late") == 1
    write(outbox, database, 5)
    assert database.threads[-1] == threading.current_thread().name


def test_an_outage_that_a_read_met(outbox: Outbox, database: Database) -> None:
    """With nothing to write, the end of an outage is noticed too."""
    database.away = True
    outbox.database_is_away(Away("a read"))
    database.away = False
    until(lambda: outbox.outage is None, "the outage is over")


def test_a_refused_write(outbox: Outbox, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A failure that stays is named in the log and stops no other write."""

    def refuse() -> None:
        raise Refused("no rights")

    outbox.write("writing X", refuse)
    assert "writing X was given up: no rights" in caplog.text
    database.away = True
    write(outbox, database, 1)

    def refuse_later() -> None:
        database.ping()
        refuse()

    outbox.write("writing Y", refuse_later)
    write(outbox, database, 2)
    database.away = False
    until(lambda: outbox.outage is None, "the outage is over")
    assert database.written == [1, 2]
    assert "writing Y was given up: no rights" in caplog.text


def test_a_write_that_never_succeeds(outbox: Outbox, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """One write that fails although the database answers does not hold up the others for ever."""
    tries = []

    def never() -> None:
        tries.append(1)
        raise Away("this one only")

    outbox.keep("writing X", never)
    outbox.keep("writing 1", lambda: database.write(1))
    until(lambda: database.written == [1], "the other is written")
    assert len(tries) == MAX_FAILURES
    assert "writing X was given up: this one only" in caplog.text


def test_a_full_queue(
    outbox: Outbox, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is bounded: what no longer fits is named in the log."""
    monkeypatch.setattr(outbox_module, "MAX_WRITES", 2)
    database.away = True
    for value in range(3):
        write(outbox, database, value)
    assert len(outbox) == 2
    assert "writing 2 was given up: 2 writes are waiting" in caplog.text
    database.away = False
    until(lambda: database.written == [0, 1], "the others are written")


def test_the_end(outbox: Outbox, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that ends waits a moment for its queue, and names what is lost."""
    release = threading.Event()

    def write_slowly() -> None:
        release.wait()
        database.write(0)

    outbox.keep("a slow write", write_slowly)
    outbox.keep("writing 1", lambda: database.write(1))
    threading.Timer(0.05, release.set).start()
    outbox.close(10)
    assert database.written == [0, 1]
    database.away = True
    write(outbox, database, 2)
    began = time.monotonic()
    outbox.close(0.05)
    assert time.monotonic() - began >= 0.05
    assert len(outbox) == 0
    assert "writing 2 was given up: away" in caplog.text


def test_a_fork(outbox: Outbox, database: Database) -> None:
    """After a fork, the child has an empty queue and no outage, and can use it."""
    database.away = True
    write(outbox, database, 1)

    def child() -> None:
        outbox.detach_after_fork()
        assert outbox.outage is None
        assert len(outbox) == 0
        database.away = False
        write(outbox, database, 2)
        assert database.written == [2]

    in_fork(child)
    assert len(outbox) == 1
