"""A thread is interrupted at any line, as by Ctrl-C or Celery's soft time limit: nobody else is held up, then or later."""

from __future__ import annotations

import linecache
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client import protocol, values
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.http import HTTPTransport
from surrealdb_celery_backend.client.websocket import WebSocketTransport
from surrealdb_celery_backend.results import gathering
from surrealdb_celery_backend.results.group_commit import GroupCommit
from surrealdb_celery_backend.results.records import TaskRecord
from surrealdb_celery_backend.settings import Settings
from tests.support.faults.fake import FakeServer, ok, server
from tests.support.states import MAX_WAIT, until

#: A limit for a hang, in seconds.
LIMIT = 30


class Interrupted(BaseException):
    """What a signal's handler raises."""


def interrupt(call: Callable[[], Any], line: int, files: tuple[str, ...], lock: Callable[[], Any]) -> bool:
    """Make a call and raise at the so-many-th line of these files that it passes; False where there are fewer.

    :param lock: the lock that the files' `with` statements take: the interpreter looks for signals before they take
        it, and not between their last line and its release.
    """
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.endswith(files) or frame.f_code.co_name == "__del__":
            return None
        if event == "line":
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            # Nor where nothing is called.
            if text in ("try:", "finally:") or text == "self._lock.acquire()":
                return trace
            if text in ("with self._lock:", "self._lock.release()") and lock() is not None and lock().locked():
                return trace
            passed += 1
            if passed == line:
                sys.settrace(None)
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupted:
        pass
    finally:
        sys.settrace(before)
    return passed >= line


class Told:
    """A connection that answers what it is told to.

    :param answer: called with the records of each request.
    """

    options = SimpleNamespace(timeout=LIMIT)

    def __init__(self, answer: Callable[[list[Any]], Any] = lambda records: None) -> None:
        self._answer = answer
        self.deadlines: list[float | None] = []

    def run(self, text: str, /, *, deadline: float | None = None, **variables: Any) -> Any:
        """Store."""
        records = [value for name, value in variables.items() if name.startswith("r")]
        self.deadlines.append(deadline)
        self._answer(records)
        return ["SUCCESS"] if "r" in variables else [["SUCCESS"] for _ in records]


def record(name: Any) -> TaskRecord:
    """A record that the connection above tells by its name."""
    return TaskRecord(name, {}, {})


class Meeting:
    """Stores of other threads that wait until this one's takes them along."""

    def __init__(self, connection: Told, *names: str) -> None:
        self.stores = GroupCommit(connection)  # type: ignore[arg-type]
        self.stores.gathering.under_way = gathering.MAX_IN_FLIGHT
        self._pool = ThreadPoolExecutor(len(names))
        self.others = []
        for number, name in enumerate(names, 1):
            self.others.append(self._pool.submit(self.stores.store, record(name), ready=True))
            until(lambda number=number: self.stores.gathering.waiting == number, "the store waits")
        self.stores.gathering.under_way = 0

    def store(self, name: Any = "mine") -> Any:
        """Store in this thread."""
        return self.stores.store(record(name), ready=True)

    def end(self) -> None:
        """All are stored, and nothing is left behind."""
        for other in self.others:
            assert other.result(LIMIT) == ["SUCCESS"]
        self._pool.shutdown()
        assert not self.stores.gathering._lock.locked()
        assert self.stores.gathering.under_way == 0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on alone because this machine is slow."""
    monkeypatch.setattr(gathering, "MAX_WAIT", 10 * LIMIT)


@pytest.mark.parametrize("line", range(1, 111))
def test_who_takes_stores_along_is_interrupted(line: int) -> None:
    """Whoever is interrupted with others' stores in hand leaves them to their threads, at once."""
    meeting = Meeting(Told(), "one", "other")
    interrupt(
        meeting.store, line, ("results/gathering.py", "results/group_commit.py"), lambda: meeting.stores.gathering._lock
    )
    meeting.store("later")
    meeting.end()


def test_a_soft_time_limit_during_a_common_store() -> None:
    """Celery's soft time limit ends the task that is interrupted, and is no refusal of its store."""

    def answer(records: list[Any]) -> None:
        if len(records) > 1:
            raise SoftTimeLimitExceeded

    meeting = Meeting(Told(answer), "other")
    with pytest.raises(SoftTimeLimitExceeded):
        meeting.store()
    meeting.end()


def test_a_conflict_concerns_its_own_store_only() -> None:
    """One task that others keep writing to makes no other's store fail."""

    def answer(records: list[Any]) -> None:
        if "contested" in records:
            raise errors.WriteConflict

    meeting = Meeting(Told(answer), "other")
    with pytest.raises(errors.WriteConflict):
        meeting.store("contested")
    meeting.end()


def test_a_common_store_ends_in_the_time_of_those_who_wait() -> None:
    """Who stops with others' stores in hand does not send them after they were given up."""
    connection = Told()
    meeting = Meeting(connection, "other")
    taken = meeting.stores.gathering._queue[0]
    meeting.store()
    meeting.end()
    (deadline,) = connection.deadlines
    assert deadline is not None
    assert deadline - taken.deadline < LIMIT / 2
    given_up = Meeting(connection, "given up", "other")
    given_up.stores.gathering._queue[0].given_up = True
    given_up.stores.gathering._queue[0].outcome = ["SUCCESS"]  # its thread has gone
    sent: list[Any] = []
    connection._answer = sent.append
    given_up.store()
    assert sent == [["mine", "other"]]
    given_up._pool.shutdown()


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    """A server that answers each query with 1."""
    with server(ok(1)) as made:
        yield made


@pytest.mark.parametrize("line", range(1, 111))
def test_a_request_is_interrupted(line: int, fake: FakeServer) -> None:
    """The line goes on for the others, or says that it broke: no reply is lost, nobody waits for a reader."""
    made = WebSocketTransport(fake.url, tls=None, timeout=MAX_WAIT)
    files = ("client/websocket.py", "client/protocol.py")
    interrupt(lambda: made.request("query", ["RETURN 1", {}], MAX_WAIT), line, files, lambda: made._lock)
    assert not made._lock.locked()
    assert not made._protocol.pending
    assert not made._reading
    if made.usable:
        made._heard = 0.0  # as after a pause: what has come meanwhile is read first
        assert made.request("query", ["RETURN 1", {}], LIMIT)["result"] == ok(1)["result"]
    made.close()


@pytest.mark.parametrize("line", range(1, 141))
def test_who_opens_the_connection_is_interrupted(line: int, fake: FakeServer) -> None:
    """Others open it: at once, not never."""
    connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=LIMIT).options)
    files = ("client/connection.py", "client/opening.py", "client/request.py", "client/session.py")
    shared = connection._shared
    interrupt(lambda: connection.run("RETURN 1"), line, files, lambda: shared._lock)
    assert not shared._lock.locked()
    assert shared._opening is None
    assert connection.run("RETURN 1") == 1
    connection.close()


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, SoftTimeLimitExceeded])
def test_interrupted_while_a_reply_is_decoded(
    exception: type[BaseException], fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reaches whoever is interrupted: cbor2 wraps what its decoders raise, and garbage looks alike."""

    def interrupted(*_: Any) -> Any:
        raise exception

    connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=LIMIT).options)
    connection.run("RETURN 1")
    with monkeypatch.context() as patched:
        patched.setattr(protocol, "decode", lambda _: values.decode(b"\xcc\x82\x01\x02"))
        patched.setitem(values._DECODERS, 12, interrupted)
        with pytest.raises(exception):
            connection.run("RETURN 1")
    assert connection.run("RETURN 1") == 1
    connection.close()


def test_interrupted_while_a_reply_over_http_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same there."""

    def interrupted(*_: Any) -> Any:
        raise SoftTimeLimitExceeded

    line = HTTPTransport("http://localhost/rpc", tls=None)
    monkeypatch.setattr(line, "_post", lambda *_: (200, b"\xcc\x82\x01\x02"))
    monkeypatch.setitem(values._DECODERS, 12, interrupted)
    with pytest.raises(SoftTimeLimitExceeded):
        line.request("ping", [], LIMIT)
    line.close()


def test_who_opens_has_little_time_left(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread whose call is nearly over takes nobody along who has time."""
    connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=LIMIT).options)
    establish, over, waits = connection._establish, threading.Event(), threading.Event()

    def slow(deadline: float) -> Any:
        if over.is_set():
            return establish(deadline)
        waits.set()
        assert over.wait(LIMIT)
        raise errors.RequestTimedOut

    monkeypatch.setattr(connection, "_establish", slow)
    with ThreadPoolExecutor(2) as pool:
        # Little beside the other's, and enough to come to the server, however slow the machine.
        hasty = pool.submit(connection.run, "RETURN 1", deadline=time.monotonic() + LIMIT)
        assert waits.wait(LIMIT)
        opening = connection._shared._opening
        assert opening is not None
        waiting = threading.Event()
        wait = opening.done.wait

        def noted(timeout: float | None) -> bool:
            waiting.set()
            return wait(timeout)

        monkeypatch.setattr(opening.done, "wait", noted)
        patient = pool.submit(connection.run, "RETURN 1", deadline=time.monotonic() + 10 * LIMIT)
        assert waiting.wait(LIMIT)
        over.set()
        with pytest.raises(errors.RequestTimedOut):
            hasty.result(LIMIT)
        assert patient.result(LIMIT) == 1
    connection.close()
