"""Forks and threads share one backend: nobody waits for another's round trip, nobody reads another's reply."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, states

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.opening import State
from tests.engines import Database, RunningEngine
from tests.support.faults.proxy import Proxy, message
from tests.support.forking import in_fork
from tests.support.states import until

THREADS = 8
#: `surrealdb_timeout` of calls that are to run out of it, in seconds.
TIMEOUT = 1.0


def answers(connection: Connection, value: Any) -> None:
    """The connection gives the answer to what was asked, and not to something else."""
    assert connection.run("RETURN $value", value=value) == value


def test_fork_of_an_open_connection(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """os.fork after first use: the child opens its own line, and the parent's goes on undisturbed."""
    connection = connect(fresh_database, endpoint=proxy.url)
    answers(connection, "parent")
    lines = proxy.accepted

    def child() -> None:
        assert connection.state is State.UNOPENED
        for number in range(20):
            answers(connection, f"child {number}")

    in_fork(child)
    assert proxy.accepted == lines + 1
    for number in range(20):
        answers(connection, f"parent {number}")
    assert proxy.accepted == lines + 1, "the parent still has its first line"


def test_fork_while_another_thread_waits_for_a_reply(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """os.fork while a thread reads: its locks are held for ever in the child, which must not need them."""
    connection = connect(fresh_database, endpoint=proxy.url)
    answers(connection, "before")
    proxy.holding_replies = True
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(connection.run, "RETURN 'the waiting'")
        until(lambda: proxy.requests(text="the waiting"), "a thread waits for its reply")
        pid = os.fork()
        if pid == 0:
            try:
                answers(connection, "child")
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        until(lambda: proxy.accepted == 2, "the child connects")
        proxy.holding_replies = False
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert waiting.result() == "the waiting"


def test_fork_while_another_thread_waits_over_http(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """os.fork while a thread waits for an HTTP answer: the child has none of the parent's sockets, and connects anew."""
    connection = connect(fresh_database, endpoint=proxy.http_url)
    answers(connection, "parent")
    transport = connection.transport
    proxy.holding_replies = True
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(connection.run, "RETURN 'the waiting'")
        until(lambda: proxy.requests(text="the waiting"), "a thread waits for its answer")
        sockets = [each.socket for each in transport._connections]
        assert sockets
        accepted = proxy.accepted
        pid = os.fork()
        if pid == 0:
            try:
                assert {each.fileno() for each in sockets} == {-1}
                answers(connection, "child")
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        try:
            until(lambda: proxy.accepted > accepted, "the child connects")
            proxy.holding_replies = False
            ended, status = until(lambda: (waited := os.waitpid(pid, os.WNOHANG))[0] and waited, "the child ends")
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        assert (ended, os.waitstatus_to_exitcode(status)) == (pid, 0)
        assert waiting.result() == "the waiting"
    answers(connection, "parent")


def test_parent_closes_after_fork(engine: RunningEngine, fresh_database: Database, connect: Any) -> None:
    """The parent closing its connection does not close the child's, nor the other way round."""
    connection = connect(fresh_database)
    answers(connection, 1)

    def child() -> None:
        answers(connection, 2)
        connection.close()
        with pytest.raises(errors.ConnectionClosed):
            connection.run("RETURN 1")

    in_fork(child)
    answers(connection, 3)


def in_child_process(backend_url: str, queue: Any, app: Celery | None) -> None:
    """What a child of multiprocessing does: through the inherited backend (fork), or one of its own (spawn)."""
    if app is None:
        app = Celery("child", backend=backend_url, broker="memory://", set_as_current=False)
    app.backend.store_result("of-child", "from the child", states.SUCCESS)
    queue.put(app.backend.get_task_meta("of-parent")["result"])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, engine: RunningEngine, fresh_database: Database, closing: Any) -> None:
    """A backend used by the parent works in children of every kind that multiprocessing starts."""
    context: Any = multiprocessing.get_context(method)
    app = Celery("parent", backend=fresh_database.backend_url, broker="memory://", set_as_current=False)
    closing.callback(app.backend.close)
    app.backend.store_result("of-parent", "from the parent", states.SUCCESS)
    queue = context.Queue()
    inherited = app if method == "fork" else None
    process = context.Process(target=in_child_process, args=(fresh_database.backend_url, queue, inherited))
    process.start()
    assert queue.get(timeout=60) == "from the parent"
    process.join()
    queue.close()
    assert process.exitcode == 0
    assert app.backend.get_task_meta("of-child")["result"] == "from the child"


@pytest.mark.parametrize("transport", ["url", "http_url"])
def test_threads_do_not_wait_for_each_other(
    transport: str, proxy: Proxy, fresh_database: Database, connect: Any
) -> None:
    """With every reply held back, all threads' requests are under way: none waits for another's round trip."""
    connection = connect(fresh_database, endpoint=getattr(proxy, transport))
    answers(connection, "opened")
    proxy.holding_replies = True
    with ThreadPoolExecutor(THREADS) as pool:
        replies = [pool.submit(connection.run, "RETURN $number", number=number) for number in range(THREADS)]
        until(
            lambda: len(proxy.requests(text="RETURN $number")) == THREADS,
            f"{THREADS} requests under way at once",
        )
        assert not any(reply.done() for reply in replies)
        proxy.holding_replies = False
        assert [reply.result() for reply in replies] == list(range(THREADS))
    if transport == "url":
        assert proxy.accepted == 1, "one connection for all threads"


def test_threads_open_one_connection(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """Many threads that use a new backend at once open one line and sign in once."""
    connection = connect(fresh_database, endpoint=proxy.url)
    together = threading.Barrier(THREADS)

    def use(number: int) -> Any:
        together.wait()
        return connection.run("RETURN $number", number=number)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(use, range(THREADS))) == list(range(THREADS))
    assert proxy.accepted == 1
    assert len(proxy.requests("signin")) == 1


def test_replies_reach_those_who_asked(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """Threads that hammer one line get the answers to their own questions, whatever the size."""
    connection = connect(fresh_database, endpoint=proxy.url)

    def ask(number: int) -> None:
        for turn in range(40):
            answers(connection, f"{number}/{turn} " + "x" * (turn * turn * 97 % 70_000))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, range(THREADS)))
    assert proxy.accepted == 1


def test_late_reply_answers_nobody(proxy: Proxy, fresh_database: Database, connect: Any, clock: Any) -> None:
    """The reply of a request that was given up arrives later: it must not answer the next request."""
    connection = connect(fresh_database, endpoint=proxy.url)
    answers(connection, "opened")
    line = connection.transport
    proxy.holding_replies = True
    with ThreadPoolExecutor(1) as pool, clock.limit(connection, TIMEOUT):
        given_up = pool.submit(connection.run, "RETURN 'late'")
        until(lambda: proxy.requests(text="late"), "the request is under way")
        # Somebody else's reply keeps the line alive, so that it is the same line that the late reply comes on.
        silent_since = line._heard
        proxy.say(message({"id": "nobody", "result": [{"status": "OK", "result": "noise"}]}))
        until(lambda: line._heard > silent_since, "the noise was heard")
        clock.forward(TIMEOUT)
        with pytest.raises(errors.RequestTimedOut, match="surrealdb_timeout=1 s"):
            given_up.result()
    assert connection.state is State.OPEN, "a slow answer is no reason to give up the line"
    proxy.holding_replies = False
    for number in range(20):
        answers(connection, number)
    assert proxy.accepted == 1


def test_reply_of_a_broken_line_answers_nobody(
    proxy: Proxy, fresh_database: Database, connect: Any, clock: Any
) -> None:
    """A silent line is left behind for a new one, whose request ids are the same: nothing gets mixed up."""
    connection = connect(fresh_database, endpoint=proxy.url)
    answers(connection, "opened")
    proxy.holding_replies = True
    with ThreadPoolExecutor(1) as pool, clock.limit(connection, TIMEOUT):
        given_up = pool.submit(connection.run, "RETURN 'late'")
        until(lambda: proxy.requests(text="late"), "the request is under way")
        clock.forward(TIMEOUT)
        with pytest.raises(errors.RequestTimedOut):
            given_up.result()
    assert connection.state is State.UNOPENED, "not a word was heard: the line is dead"
    proxy.holding_replies = False
    for number in range(20):
        answers(connection, number)
    assert proxy.accepted == 2
