"""Results are read while the database is away, hangs or is slow."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import BackendError, BackendGetMetaError, BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeoutError

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.results import fetching
from tests.engines import Database
from tests.support.faults.proxy import Proxy
from tests.support.states import until

#: A limit that no machine takes for a minute of retries.
LIMIT = 1.0
SOON = 20.0


@contextlib.contextmanager
def client(**settings: Any) -> Iterator[Celery]:
    """An app outside of any worker."""
    app = Celery("client", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(settings)
    try:
        yield app
    finally:
        app.backend.close()


READS = {
    "state": lambda app: app.AsyncResult("some").state,
    "result": lambda app: app.AsyncResult("some").result,
    "group": lambda app: app.GroupResult.restore("some"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_outside_a_worker_gives_up_early(read: Any, dead_port: int) -> None:
    """Nobody listens: a read ends within surrealdb_read_timeout, with one error of the backend's, and its cause."""
    with client(surrealdb_url=f"ws://127.0.0.1:{dead_port}", surrealdb_read_timeout=LIMIT) as app:
        began = time.monotonic()
        with pytest.raises(errors.ResultsUnavailable, match="cannot be reached") as raised:
            read(app)
        assert time.monotonic() - began < SOON
        assert isinstance(raised.value.__cause__, errors.ServerUnavailable)


def test_a_read_of_a_server_that_hangs(proxy: Proxy, fresh_database: Database) -> None:
    """The server says nothing any more: a read ends within surrealdb_read_timeout, not surrealdb_timeout."""
    settings = {**fresh_database.settings, "surrealdb_url": proxy.url, "surrealdb_timeout": 60}
    with client(**settings, surrealdb_read_timeout=LIMIT) as app:
        # Not read: connecting may take longer than a read may.
        app.backend.store_result("before", 1, "SUCCESS")
        proxy.losing_replies = True
        began = time.monotonic()
        with pytest.raises(errors.ReadFailed, match="did not answer"):
            _ = app.AsyncResult("some").state
        assert LIMIT / 2 < time.monotonic() - began < SOON


def test_one_family_of_errors(dead_port: int) -> None:
    """What an outage leads to is ResultsUnavailable, and what Celery raises for the same."""
    settings = {"result_backend_max_retries": 1, "result_backend_max_sleep_between_retries_ms": 1}
    with client(surrealdb_url=f"ws://127.0.0.1:{dead_port}", **settings) as app:
        with pytest.raises(errors.ResultsUnavailable) as stored:
            app.backend.store_result("some", 1, "SUCCESS")
        with pytest.raises(errors.ResultsUnavailable) as read:
            app.backend.get_state("some")
        with pytest.raises(errors.ResultsUnavailable) as saved:
            app.GroupResult("some", [app.AsyncResult("member")]).save()
        assert isinstance(stored.value, BackendStoreError)
        assert (stored.value.task_id, stored.value.state) == ("some", "SUCCESS")
        assert isinstance(read.value, BackendGetMetaError)
        assert read.value.task_id == "some"
        for raised in (stored, read, saved):
            assert isinstance(raised.value.__cause__, errors.ServerUnavailable)
    assert issubclass(errors.ReadFailed, BackendError)


def test_a_store_outside_a_worker_goes_on(
    proxy: Proxy, fresh_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """surrealdb_read_timeout is for reads: a store is retried for as long as Celery's settings say."""
    settings = {**fresh_database.settings, "surrealdb_url": proxy.url, "surrealdb_read_timeout": 0.01}
    with client(**settings, result_backend_base_sleep_between_retries_ms=100) as app:
        app.backend.store_result("before", 1, "SUCCESS")
        proxy.refusing = True
        proxy.break_lines()
        retries = []

        def comes_back(seconds: float) -> None:
            retries.append(seconds)
            proxy.refusing = len(retries) < 4

        app.backend._sleep = comes_back
        app.backend.store_result("after", 1, "SUCCESS")
        assert len(retries) == 4
    with client(**fresh_database.settings) as app:
        assert app.AsyncResult("after").get(timeout=SOON) == 1


LARGE = 100_000
#: What a line brings in a second, and how long one request may take: all results together take longer.
RATE, TIMEOUT = 4_000_000, 3
MANY = 200


@pytest.fixture
def many_large(proxy: Proxy, fresh_database: Database) -> Iterator[tuple[Celery, list[str]]]:
    """An app that reaches the database over a slow line, and 200 results of 100 KB."""
    ids = [f"large-{number}" for number in range(MANY)]
    with client(**fresh_database.settings) as app:
        for task_id in ids:
            app.backend.store_result(task_id, task_id + "x" * LARGE, "SUCCESS")
    settings = {**fresh_database.settings, "surrealdb_url": proxy.url, "surrealdb_timeout": TIMEOUT}
    with client(**settings, surrealdb_live="off") as app:
        assert app.AsyncResult("none").state == "PENDING"
        proxy.reply_rate = RATE
        yield app, ids


def test_many_large_results_over_a_slow_line(many_large: tuple[Celery, list[str]], proxy: Proxy) -> None:
    """get_many and join of 20 MB at 4 MB/s: no reply takes longer than surrealdb_timeout, and none is asked for again."""
    app, ids = many_large
    before = len(proxy.requests("query"))
    got = {task_id: meta["result"] for task_id, meta in app.backend.get_many(ids, timeout=60)}
    assert got == {task_id: task_id + "x" * LARGE for task_id in ids}
    assert len(proxy.requests("query")) - before <= 1 + MANY * (LARGE + 1000) // fetching.MAX_BYTES + 1


def test_a_join_of_many_large_results_over_a_slow_line(many_large: tuple[Celery, list[str]]) -> None:
    """The same for join(): all results arrive."""
    app, ids = many_large
    group = app.GroupResult("group", [app.AsyncResult(task_id) for task_id in ids])
    assert group.join_native(timeout=60) == [task_id + "x" * LARGE for task_id in ids]


def test_one_large_result_over_a_slow_line(proxy: Proxy, fresh_database: Database) -> None:
    """A result that takes longer than surrealdb_timeout arrives as long as it keeps coming, and is asked for once.

    Not where surrealdb_read_timeout says that the caller may not wait.
    """
    value = "x" * 12_000_000
    with client(**fresh_database.settings) as app:
        app.backend.store_result("large", value, "SUCCESS")
    settings = {**fresh_database.settings, "surrealdb_url": proxy.url, "surrealdb_timeout": 2}
    with client(**settings, surrealdb_live="off") as app:
        assert app.AsyncResult("none").state == "PENDING"
        proxy.reply_rate = RATE
        before = len(proxy.requests("query"))
        assert [meta["result"] for _, meta in app.backend.get_many(["large"], timeout=0)] == [value]
        assert len(proxy.requests("query")) - before == 1
    with client(**settings, surrealdb_live="off", surrealdb_read_timeout=1) as app:
        app.backend.store_result("before", 1, "SUCCESS")
        with pytest.raises(errors.ReadFailed, match="did not answer"):
            _ = app.AsyncResult("large").state


MEMORY = """
import resource, sys
from celery import Celery
app = Celery("reader", backend=sys.argv[1], broker="memory://", set_as_current=False)
app.conf.result_cache_max = 10
ids = [f"large-{number}" for number in range(int(sys.argv[2]))]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert app.AsyncResult(ids[0]).state == "SUCCESS"
before, total = peak(), 0
for task_id, meta in app.backend.get_many(ids, timeout=60):
    total += len(meta["result"])
print(total, peak() - before)
"""


def test_memory_of_a_reader(fresh_database: Database) -> None:
    """A reader that drops what it got needs memory for one reply only, however many large results there are."""
    number = 600
    with client(**fresh_database.settings) as app:
        for each in range(number):
            app.backend.store_result(f"large-{each}", "x" * LARGE, "SUCCESS")
    command = [sys.executable, "-c", MEMORY, fresh_database.backend_url, str(number)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    total, more = map(int, output.split())
    assert total == number * LARGE
    # KiB, of 60 MB.
    assert more < 10 * fetching.MAX_BYTES / 1024


def come_back(app: Celery, proxy: Proxy, late: list[str]) -> None:
    """The database is back once somebody has tried in vain, and stores what is late."""
    accepted = proxy.accepted
    until(lambda: proxy.accepted > accepted + 3, "it is tried again")
    proxy.refusing = False
    for task_id in late:
        app.backend.store_result(task_id, task_id, "SUCCESS")


def test_get_many_outlasts_an_outage(proxy: Proxy, fresh_database: Database) -> None:
    """Lines break while many results are waited for: those that are there arrive once each, over new lines."""
    settings = {**fresh_database.settings, "surrealdb_url": proxy.url}
    with client(**settings, result_backend_max_sleep_between_retries_ms=10) as app:
        ids = [f"id-{number}" for number in range(50)]
        for task_id in ids[:40]:
            app.backend.store_result(task_id, task_id, "SUCCESS")
        got = []
        thread = threading.Thread(target=come_back, args=(app, proxy, ids[40:]))
        for task_id, _ in app.backend.get_many(ids, timeout=60, interval=0.01):
            got.append(task_id)
            if len(got) == 40:
                proxy.refusing = True
                proxy.break_lines()
                thread.start()
        thread.join()
        assert sorted(got) == sorted(ids)


def test_get_many_that_ends_in_an_outage(dead_port: int) -> None:
    """With a timeout, it says what went wrong; without one, it ends when Celery's retries do."""
    settings = {"result_backend_max_retries": 2, "result_backend_max_sleep_between_retries_ms": 1}
    with client(surrealdb_url=f"ws://127.0.0.1:{dead_port}", **settings) as app:
        with pytest.raises(errors.WaitTimedOut, match="cannot be reached") as timed_out:
            list(app.backend.get_many(["a", "b"], timeout=0.2, interval=0.05))
        assert isinstance(timed_out.value, CeleryTimeoutError)
        assert isinstance(timed_out.value.__cause__, errors.ServerUnavailable)
        with pytest.raises(errors.ResultsUnavailable, match="given up"):
            list(app.backend.get_many(["a", "b"]))
