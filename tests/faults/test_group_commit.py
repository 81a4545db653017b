"""Stores of threads that meet go together, and each thread gets what became of its own, whatever fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import BackendStoreError

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.results import gathering, group_commit, statements
from surrealdb_celery_backend.results.backend import SurrealDBBackend
from surrealdb_celery_backend.results.records import TaskRecord
from tests.engines import Database
from tests.support.faults.proxy import Proxy
from tests.support.forking import in_fork
from tests.support.meeting import run_together
from tests.support.states import until

#: How long a thread here may take, in seconds: a limit for a hang, not a wait.
LIMIT = 30
#: The same for a process, which has to import Celery first.
PROCESS_LIMIT = 90
#: How many threads store for a while, and how many results each.
THREADS, TURNS = 8, 25


@pytest.fixture
def backend(proxy: Proxy, fresh_database: Database) -> Iterator[SurrealDBBackend]:
    """A backend that does not repeat what failed, connected through a proxy."""
    app = Celery("group-commit", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(
        fresh_database.settings, surrealdb_url=proxy.url, surrealdb_timeout=LIMIT, result_backend_always_retry=False
    )
    app.backend.connection.run("RETURN 1")
    yield app.backend
    app.backend.close()


class Gate:
    """Keeps the first request with a store from being sent until the stores of other threads wait for it.

    :param backend: whose requests.
    """

    def __init__(self, backend: SurrealDBBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        # Nobody goes on alone because this machine is slow.
        monkeypatch.setattr(gathering, "MAX_WAIT", LIMIT)
        monkeypatch.setattr(gathering, "MAX_IN_FLIGHT", 1)
        self.backend = backend
        self.texts: list[str] = []
        #: Called before the second request.
        self.then: Callable[[], Any] = lambda: None
        self._entered, self._open = threading.Event(), threading.Event()
        self._run = backend.connection.run
        monkeypatch.setattr(backend.connection, "run", self._gated)
        self.pool = ThreadPoolExecutor(20)
        self._first = self.pool.submit(backend.store_result, "first", "of all", states.SUCCESS)
        assert self._entered.wait(LIMIT)

    def _gated(self, text: str, /, **variables: Any) -> Any:
        self.texts.append(text)
        if len(self.texts) == 2:
            self.then()
        if not self._entered.is_set():
            self._entered.set()
            assert self._open.wait(LIMIT)
        return self._run(text, **variables)

    def together(self, *stores: Callable[[], Any]) -> list[Future[Any]]:
        """Let stores gather in this order, then let them go; what became of each."""
        futures = []
        for number, store in enumerate(stores, 1):
            futures.append(self.pool.submit(store))
            until(lambda number=number: self.backend.stores.gathering.waiting == number, "the store waits")
        self._open.set()
        self._first.result(LIMIT)
        for future in futures:
            future.exception(LIMIT)
        self.pool.shutdown()
        return futures


@pytest.fixture
def gate(backend: SurrealDBBackend, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """See :class:`Gate`."""
    return Gate(backend, monkeypatch)


def stores(backend: SurrealDBBackend, task_id: str, result: Any, state: str = states.SUCCESS) -> Callable[[], Any]:
    """A store, to be done in a thread."""
    return lambda: backend.store_result(task_id, result, state)


def test_threads_that_meet_share_one_request(backend: SurrealDBBackend, gate: Gate) -> None:
    """Seven stores that gather behind one become one request, and each has its own result."""
    for future in gate.together(*(stores(backend, f"id {number}", number) for number in range(7))):
        future.result()
    assert len(gate.texts) == 2
    assert dict(backend.get_many([f"id {number}" for number in range(7)], timeout=0)) == {
        f"id {number}": backend.get_task_meta(f"id {number}") for number in range(7)
    }
    assert [backend.get_result(f"id {number}") for number in range(7)] == list(range(7))


def test_no_request_grows_without_bound(backend: SurrealDBBackend, gate: Gate) -> None:
    """More stores than go together share as many requests as they need."""
    number = gathering.MAX_BATCH + 3
    for future in gate.together(*(stores(backend, f"id {n}", n) for n in range(number))):
        future.result()
    assert len(gate.texts) == 3
    assert [backend.get_result(f"id {n}") for n in range(number)] == list(range(number))


def test_rules_of_states_hold_within_a_transaction(backend: SurrealDBBackend, gate: Gate) -> None:
    """One task stored by several threads at once: its success stays, whoever came last."""
    for future in gate.together(
        stores(backend, "done before", 1),
        stores(backend, "done before", {"step": 2}, "PROGRESS"),
        stores(backend, "running", {"step": 1}, "PROGRESS"),
        stores(backend, "succeeds", "yes"),
        stores(backend, "succeeds", "no"),
    ):
        future.result()
    assert len(gate.texts) == 2 + 2, "the two that were not stored ask whether something is there"
    assert backend.get_task_meta("done before")["status"] == states.SUCCESS
    assert backend.get_task_meta("running")["result"] == {"step": 1}
    assert backend.get_task_meta("succeeds")["status"] == states.SUCCESS


def test_one_that_the_database_refuses(backend: SurrealDBBackend, gate: Gate) -> None:
    """A record that the database refuses is refused to its own thread; the others' are stored."""
    table = backend.settings.table(statements.TASK)
    backend.connection.run(f"DEFINE FIELD status ON {table} ASSERT $value != 'ODD'")
    good, bad, other = gate.together(
        stores(backend, "good", 1), stores(backend, "bad", 2, "ODD"), stores(backend, "other", 3)
    )
    good.result()
    other.result()
    with pytest.raises((errors.SurrealDBBackendError, BackendStoreError), match="ODD"):
        bad.result()
    assert backend.get_result("good") == 1
    assert backend.get_result("other") == 3
    assert backend.get_state("bad") == states.PENDING


def test_one_that_cannot_be_sent(backend: SurrealDBBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that cannot be encoded is an error of its own thread; the others' are stored."""
    from_meta = backend.tasks.from_meta

    def with_a_type_nobody_knows(task_id: Any, *args: Any, **kwargs: Any) -> TaskRecord:
        record = from_meta(task_id, *args, **kwargs)
        if task_id == "bad":
            record.fields["odd"] = object()
        return record

    monkeypatch.setattr(type(backend.tasks), "from_meta", staticmethod(with_a_type_nobody_knows))
    good, bad = gate.together(stores(backend, "good", 1), stores(backend, "bad", 2))
    good.result()
    with pytest.raises((TypeError, ValueError), match=r"no type for|cannot encode"):
        bad.result()
    assert backend.get_result("good") == 1


def test_the_line_breaks_under_them(backend: SurrealDBBackend, gate: Gate, proxy: Proxy) -> None:
    """The reply to stores that went together is cut off: they are sent again, and all are stored."""
    gate.then = lambda: proxy.cut_next_reply(1)
    for future in gate.together(*(stores(backend, f"id {number}", number) for number in range(5))):
        future.result()
    assert proxy.accepted == 2
    assert [backend.get_result(f"id {number}") for number in range(5)] == list(range(5))


def test_the_database_is_gone(backend: SurrealDBBackend, gate: Gate, proxy: Proxy) -> None:
    """Nobody is there to take stores that go together: each of their threads gets an error of its own."""

    def gone() -> None:
        # The port stays the proxy's: nobody else may be there in its place.
        proxy.refusing = True
        proxy.break_lines()

    gate.then = gone
    futures = gate.together(*(stores(backend, f"id {number}", number) for number in range(3)))
    raised = [future.exception() for future in futures]
    assert [type(error) for error in raised] == [errors.ServerUnavailable] * 3
    assert len({id(error) for error in raised}) == 3


def test_large_results_go_by_themselves(backend: SurrealDBBackend, gate: Gate) -> None:
    """A large result neither waits for the others nor makes them wait."""
    large = "x" * group_commit.LARGE
    gate.pool.submit(stores(backend, "large", large)).result(LIMIT)
    assert len(gate.texts) == 2, "stored while the first was still held back"
    gate.together()
    assert backend.get_result("large") == large


def test_many_threads_for_a_while(backend: SurrealDBBackend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads store two hundred results in fewer requests, each its own."""
    texts: list[str] = []
    run = backend.connection.run

    def counted(text: str, /, **variables: Any) -> Any:
        texts.append(text)
        return run(text, **variables)

    monkeypatch.setattr(backend.connection, "run", counted)

    def work(thread: int) -> None:
        for number in range(TURNS):
            backend.store_result(f"{thread} {number}", [thread, number], states.SUCCESS)

    run_together(work, THREADS, backend.stores.gathering, proxy, monkeypatch)
    assert len(texts) < THREADS * TURNS
    for thread in range(THREADS):
        for number in range(TURNS):
            assert backend.get_result(f"{thread} {number}") == [thread, number]


KILLED_WHILE_IT_WAITS = """
from gevent import monkey
monkey.patch_all()
import gevent
from types import SimpleNamespace
from gevent.event import Event
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results import gathering, group_commit
from surrealdb_celery_backend.results.records import TaskRecord

gathering.MAX_WAIT = 30
answered, sent = Event(), []


class Connection:
    options = SimpleNamespace(timeout=30)

    def run(self, text, /, **variables):
        sent.append(variables)
        answered.wait()
        return ["SUCCESS"]


def record(name):
    return TaskRecord(RecordID("task", name), {}, {})


stores = group_commit.GroupCommit(Connection())
lanes = [gevent.spawn(stores.store, record(number), ready=True) for number in range(gathering.MAX_IN_FLIGHT)]
waits = gevent.spawn(stores.store, record("killed"), ready=True)
gevent.idle()
assert stores.gathering.waiting == 1
waits.kill()
assert not stores.gathering.waiting
answered.set()
gevent.joinall(lanes, raise_error=True)
assert len(sent) == gathering.MAX_IN_FLIGHT, sent
"""


def test_a_greenlet_is_killed_while_its_store_waits() -> None:
    """What a killed greenlet was about to store is not stored later, over what is stored then."""
    pytest.importorskip("gevent")
    subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_WAITS], check=True, timeout=PROCESS_LIMIT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_while_stores_gather(backend: SurrealDBBackend, gate: Gate) -> None:
    """A child forked while stores wait stores its own at once: those who wait do so in the parent."""
    waiting = gate.pool.submit(stores(backend, "of the parent", "stored"))
    until(lambda: backend.stores.gathering.waiting == 1, "a store waits")
    in_fork(stores(backend, "of the child", "stored"))
    assert backend.get_result("of the child") == "stored"
    gate._open.set()
    waiting.result(LIMIT)
    gate.pool.shutdown()
