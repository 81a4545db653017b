"""Fetches of threads that meet go together, and each thread gets its own result, whatever fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, states
from kombu.exceptions import ContentDisallowed

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results import gathering
from surrealdb_celery_backend.results.backend import SurrealDBBackend
from surrealdb_celery_backend.results.gathering import Gathering
from surrealdb_celery_backend.results.records import SMALL
from tests.engines import Database
from tests.support.faults.proxy import Proxy
from tests.support.forking import in_fork
from tests.support.meeting import run_together
from tests.support.states import until

#: How long a thread here may take, in seconds: a limit for a hang, not a wait.
LIMIT = 30
#: How many threads fetch for a while, and how often each.
THREADS, TURNS = 8, 25


@pytest.fixture
def backend(proxy: Proxy, fresh_database: Database) -> Iterator[SurrealDBBackend]:
    """A backend that does not repeat what failed, connected through a proxy."""
    app = Celery("fetches", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(
        fresh_database.settings,
        surrealdb_url=proxy.url,
        surrealdb_timeout=LIMIT,
        surrealdb_read_timeout=LIMIT,
        result_backend_always_retry=False,
    )
    for number in range(7):
        app.backend.store_result(f"id {number}", number, states.SUCCESS)
    yield app.backend
    app.backend.close()


class Gate:
    """Keeps the first request from being sent until the fetches of other threads wait for it."""

    def __init__(self, backend: SurrealDBBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        # Nobody goes on alone because this machine is slow.
        monkeypatch.setattr(gathering, "MAX_WAIT", LIMIT)
        monkeypatch.setattr(gathering, "MAX_IN_FLIGHT", 1)
        self.backend = backend
        self.requests: list[Any] = []
        #: Called before the second request.
        self.then: Callable[[], Any] = lambda: None
        self.opened = threading.Event()
        self._entered = threading.Event()
        self._run = backend.connection.run
        monkeypatch.setattr(backend.fetcher, "_run", self._gated)
        self.pool = ThreadPoolExecutor(20)
        self._first = self.fetch("id 0")
        assert self._entered.wait(LIMIT)

    def _gated(self, text: str, /, **variables: Any) -> Any:
        self.requests.append(variables["records"])
        if len(self.requests) == 2:
            self.then()
        if not self._entered.is_set():
            self._entered.set()
            assert self.opened.wait(LIMIT)
        return self._run(text, **variables)

    def fetch(self, task_id: str) -> Future[dict[str, Any]]:
        """Fetch in another thread."""
        return self.pool.submit(self.backend.get_task_meta, task_id, cache=False)

    def together(self, *task_ids: str) -> list[Future[dict[str, Any]]]:
        """Let fetches gather in this order, then let them go; what became of each."""
        futures = []
        for number, task_id in enumerate(task_ids, 1):
            futures.append(self.fetch(task_id))
            until(lambda number=number: self.backend.fetcher.gathering.waiting == number, "the fetch waits")
        self.opened.set()
        assert self._first.result(LIMIT)["result"] == 0
        for future in futures:
            future.exception(LIMIT)
        self.pool.shutdown()
        return futures


@pytest.fixture
def gate(backend: SurrealDBBackend, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """See :class:`Gate`."""
    return Gate(backend, monkeypatch)


def test_threads_that_meet_share_one_request(backend: SurrealDBBackend, gate: Gate) -> None:
    """What is there, what failed, what is not there and what is asked for twice: each thread gets its own."""
    backend.store_result("failed", ValueError("no"), states.FAILURE)
    asked = ["id 3", "failed", "id 3", "nothing there", "id 5"]
    metas = [future.result() for future in gate.together(*asked)]
    assert len(gate.requests) == 2
    assert [meta["status"] for meta in metas] == ["SUCCESS", "FAILURE", "SUCCESS", "PENDING", "SUCCESS"]
    assert [meta["result"] for meta in metas[::2]] == [3, 3, 5]
    assert repr(metas[1]["result"]) == "ValueError('no')"
    assert metas[0] == backend.get_task_meta("id 3")


def test_no_request_grows_without_bound(backend: SurrealDBBackend, gate: Gate) -> None:
    """More fetches than go together share as many requests as they need."""
    asked = [f"id {number % 7}" for number in range(gathering.MAX_BATCH + 3)]
    results = [future.result()["result"] for future in gate.together(*asked)]
    assert results == [number % 7 for number in range(gathering.MAX_BATCH + 3)]
    assert len(gate.requests) == 3


def test_a_large_result_makes_nobody_wait(backend: SurrealDBBackend, gate: Gate) -> None:
    """It is no part of the common reply: its own thread asks for it alone."""
    large = "x" * (SMALL + 1)
    backend.store_result("large", large, states.SUCCESS)
    first, second, third = gate.together("id 1", "large", "id 2")
    assert [future.result()["result"] for future in (first, second, third)] == [1, large, 2]
    assert [len(asked) if isinstance(asked, list) else 1 for asked in gate.requests] == [1, 3, 1]


@pytest.mark.parametrize("field", ["encoding = 'application/x-python-serialize'", "result = 1..9"])
def test_one_that_cannot_be_read(backend: SurrealDBBackend, gate: Gate, field: str) -> None:
    """A record that nobody may decode, or that no client can, is an error of its own thread."""
    gate._run(f"UPDATE $record SET {field}", record=RecordID(backend.tasks.table, "id 4"))
    good, bad, other = gate.together("id 1", "id 4", "id 2")
    assert [good.result()["result"], other.result()["result"]] == [1, 2]
    with pytest.raises((ContentDisallowed, errors.SurrealDBBackendError)):
        bad.result()


def test_the_line_breaks_under_them(gate: Gate, proxy: Proxy) -> None:
    """The reply to fetches that went together is cut off: it is asked for again."""
    gate.then = lambda: proxy.cut_next_reply(1)
    assert [future.result()["result"] for future in gate.together("id 1", "id 2", "id 3")] == [1, 2, 3]
    assert proxy.accepted == 2


def test_the_database_is_gone(gate: Gate, proxy: Proxy) -> None:
    """Nobody is there to answer: each thread gets an error of its own."""

    def gone() -> None:
        proxy.refusing = True
        proxy.break_lines()

    gate.then = gone
    raised = [future.exception() for future in gate.together("id 1", "id 2", "id 3")]
    assert [type(error) for error in raised] == [errors.ServerUnavailable] * 3
    assert len({id(error) for error in raised}) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_while_fetches_gather(backend: SurrealDBBackend, gate: Gate) -> None:
    """A child forked while fetches wait fetches its own at once: those who wait do so in the parent."""
    waiting = gate.fetch("id 1")
    until(lambda: backend.fetcher.gathering.waiting == 1, "a fetch waits")
    in_fork(lambda: backend.get_task_meta("id 2", cache=False))
    gate.opened.set()
    assert waiting.result(LIMIT)["result"] == 1
    gate.pool.shutdown()


def test_one_thread_alone(backend: SurrealDBBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is alone waits for nobody: each fetch is one request, sent by itself at once."""
    monkeypatch.setattr(Gathering, "_turn", lambda *_: pytest.fail("it waited"))
    before = backend.connection.request_count
    for number in range(7):
        assert backend.get_task_meta(f"id {number}", cache=False)["result"] == number
    assert backend.connection.request_count - before == 7


def test_many_threads_for_a_while(backend: SurrealDBBackend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads fetch two hundred times in fewer requests, each its own."""

    def work(thread: int) -> None:
        for number in range(TURNS):
            name = (thread + number) % 7
            assert backend.get_task_meta(f"id {name}", cache=False)["result"] == name

    before = backend.connection.request_count
    run_together(work, THREADS, backend.fetcher.gathering, proxy, monkeypatch)
    assert backend.connection.request_count - before < THREADS * TURNS


def test_a_thread_with_little_time_takes_nobodys() -> None:
    """The time of the thread that sends is over: those with more time ask by themselves."""
    entered, may_go = threading.Event(), threading.Event()

    def alone(what: str, deadline: float) -> str:
        if what == "first":
            entered.set()
            assert may_go.wait(LIMIT)
        return what

    def together(those: list[str], deadline: float) -> list[str]:
        raise errors.RequestTimedOut("too late")

    gathered = Gathering(alone, together)
    now = time.monotonic()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(gathering, "MAX_WAIT", LIMIT)
        patch.setattr(gathering, "MAX_IN_FLIGHT", 1)
        first = pool.submit(gathered.send, "first", now + LIMIT)
        assert entered.wait(LIMIT)
        hasty = pool.submit(gathered.send, "hasty", now + LIMIT)
        until(lambda: gathered.waiting == 1, "it waits")
        patient = pool.submit(gathered.send, "patient", now + 10 * LIMIT)
        until(lambda: gathered.waiting == 2, "it waits")
        may_go.set()
        assert first.result(LIMIT) == "first"
        with pytest.raises(errors.RequestTimedOut):
            hasty.result(LIMIT)
        assert patient.result(LIMIT) == "patient"
