"""Lines that break, stall or lie: every call ends in time, with a clear error or on a new connection."""

from __future__ import annotations

import importlib.util
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.frames import Opcode

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client import sockets
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database, RunningEngine
from tests.support.faults.proxy import Proxy, Request, frame, message
from tests.support.states import until

#: `surrealdb_timeout` of calls that are to run out of it, in seconds. All others have time, however slow the machine.
TIMEOUT = 1.0
#: What a call may take longer than that, in seconds: a machine can be slow, and a call that forgot its limit hangs.
GRACE = 20.0
#: How long a process may take that imports eventlet and Celery first, in seconds.
PROCESS_LIMIT = 90
#: How many threads share an attempt to connect: one after the other they would take longer than that together.
THREADS = 60
#: What a refused, silent or broken line is called, all of which Celery's retries may repeat.
LINE_ERRORS = errors.ServerUnavailable

TRANSPORTS = ["url", "http_url"]
#: For faults between the proxy and us, in which the engine behind has no part: one engine is enough.
any_engine = pytest.mark.usefixtures("live_engine")


@contextmanager
def runs_out(connection: Connection, match: str = "did not answer") -> Iterator[None]:
    """The one call made here is not answered, and ends by its `surrealdb_timeout`, which is short."""
    patient = connection.options
    connection.reconfigure(replace(patient, timeout=TIMEOUT))
    started = time.monotonic()
    try:
        with pytest.raises(errors.RequestTimedOut, match=match):
            yield
    finally:
        connection.reconfigure(patient)
    assert time.monotonic() - started < TIMEOUT + GRACE


@pytest.fixture
def connection(proxy: Proxy, fresh_database: Database, connect: Any) -> Connection:
    """A connection through the proxy that was used already."""
    made: Connection = connect(fresh_database, endpoint=proxy.url)
    assert made.run("RETURN 1") == 1
    return made


def pause(engine: RunningEngine) -> None:
    """SIGSTOP, and wait until every thread has stopped: one that has not may still answer."""
    engine.pause()
    with suppress(ChildProcessError):  # in a container, which Docker stops whole
        os.waitid(os.P_PID, engine.pid, os.WSTOPPED | os.WNOWAIT)


def test_database_is_stopped_and_continued(own_engine: RunningEngine, connect: Any) -> None:
    """SIGSTOP of the server: the call ends in time; after SIGCONT the same connection object works on."""
    connection = connect(own_engine.database())
    assert connection.run("RETURN 1") == 1
    pause(own_engine)
    try:
        with runs_out(connection, "did not answer within surrealdb_timeout=1 s"):
            connection.run("RETURN 2")
        with runs_out(connection):
            connection.run("RETURN 3")
    finally:
        own_engine.resume()
    assert connection.run("RETURN 4") == 4


def test_database_is_killed(own_engine: RunningEngine, connect: Any) -> None:
    """SIGKILL of the server: calls fail at once and say what cannot be reached; after a restart they work."""
    connection = connect(own_engine.database())
    assert connection.run("RETURN 1") == 1
    own_engine.kill()
    with pytest.raises(LINE_ERRORS, match=r"surrealdb://root:\*\*@127.0.0.1:\d+.*check surrealdb_url"):
        connection.run("RETURN 2")
    own_engine.restart()
    assert connection.run("RETURN 3") == 3


@any_engine
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nobody_listens(transport: str, fresh_database: Database, connect: Any, dead_port: int) -> None:
    """A port on which nobody listens: one clear error, at once."""
    scheme = {"url": "ws", "http_url": "http"}[transport]
    connection = connect(fresh_database, endpoint=f"{scheme}://127.0.0.1:{dead_port}/rpc")
    with pytest.raises(LINE_ERRORS, match="cannot be reached"):
        connection.run("RETURN 1")


@any_engine
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connections_are_closed_at_once(transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A balancer without a server behind it takes connections and closes them: a clear error, and then recovery."""
    connection = connect(fresh_database, endpoint=getattr(proxy, transport))
    proxy.refusing = True
    with pytest.raises(LINE_ERRORS, match="cannot be reached or dropped the connection"):
        connection.run("RETURN 1")
    proxy.refusing = False
    assert connection.run("RETURN 1") == 1


@any_engine
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_silence_from_the_start(transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """Connections are taken and nothing is ever said: also the handshake and the sign-in have an end."""
    connection = connect(fresh_database, endpoint=getattr(proxy, transport))
    proxy.ignoring = True
    with runs_out(connection):
        connection.run("RETURN 1")
    proxy.ignoring = False
    assert connection.run("RETURN 1") == 1


@any_engine
def test_silence_is_not_paid_once_per_thread(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """Many threads that need a new connection to a silent server all end in time: they share one attempt."""
    connection = connect(fresh_database, endpoint=proxy.url, timeout=TIMEOUT)
    proxy.ignoring = True
    together = threading.Barrier(THREADS)

    def call(_: int) -> float:
        together.wait()
        started = time.monotonic()
        with pytest.raises(errors.RequestTimedOut):
            connection.run("RETURN 1")
        return time.monotonic() - started

    with ThreadPoolExecutor(THREADS) as pool:
        assert max(pool.map(call, range(THREADS))) < TIMEOUT + GRACE


@any_engine
@pytest.mark.parametrize("step", ["signin", "version", "use", "DEFINE", "RETURN"])
def test_silence_at_each_step_of_opening(
    step: str, proxy: Proxy, fresh_database: Database, connect: Any, clock: Any
) -> None:
    """The server falls silent during sign-in, hand-shaking or the first statement: one time limit covers all."""
    connection = connect(fresh_database, endpoint=proxy.url)

    def asked(request: Request) -> None:
        # Each step takes a part of the time. Replies pass until the step is reached, and none after.
        clock.forward(TIMEOUT / 10)
        if request.method == step or step in request.text:
            proxy.holding_replies = True

    proxy.on_request = asked
    with ThreadPoolExecutor(1) as pool, clock.limit(connection, TIMEOUT):
        started = clock.monotonic()
        call = pool.submit(connection.run, "RETURN 1")
        until(lambda: proxy.holding_replies or call.done(), "the step is reached")
        # The limit of the call is over, and that of no step that had one of its own.
        clock.forward(started + 1.05 * TIMEOUT - clock.monotonic())
        with pytest.raises(errors.RequestTimedOut):
            call.result(TIMEOUT + GRACE)
    proxy.on_request = None
    proxy.holding_replies = False
    assert connection.run("RETURN 2") == 2


@any_engine
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("lost", ["losing_replies", "losing_requests"])
def test_how_late_a_call_ends(lost: str, transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A call without an answer ends within a second after its limit. The machine may be busy for some, not for all."""
    late = []
    for _ in range(5):
        connection = connect(fresh_database, endpoint=getattr(proxy, transport))
        connection.run("RETURN 1")
        setattr(proxy, lost, True)
        started = time.monotonic()
        with runs_out(connection):
            connection.run("RETURN 'lost'")
        late.append(time.monotonic() - started - TIMEOUT)
        setattr(proxy, lost, False)
        if late[-1] <= 1:
            return
    pytest.fail(f"late by {late} s")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("lost", ["losing_replies", "losing_requests"])
def test_half_open(lost: str, transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """Packets vanish in one direction: the call ends in time, and the next one is on a new connection."""
    connection = connect(fresh_database, endpoint=getattr(proxy, transport))
    connection.run("RETURN 1")
    setattr(proxy, lost, True)
    with runs_out(connection):
        connection.run("RETURN 'lost'")
    setattr(proxy, lost, False)
    assert connection.run("RETURN 2") == 2
    (after,) = proxy.requests(text="RETURN 2")
    lines = [request.line for request in proxy.requests(text="lost")]
    assert len(lines) <= 1, "what had no answer in time is not asked again"
    assert after.line not in lines


@any_engine
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("after", [0, 1, 3, 10, 30])
def test_reply_cut_in_the_middle(
    after: int, transport: str, proxy: Proxy, fresh_database: Database, connect: Any
) -> None:
    """A reply breaks off anywhere, even inside a frame's header: a repeatable request succeeds on a new connection."""
    connection = connect(fresh_database, endpoint=getattr(proxy, transport))
    connection.run("RETURN 1")
    lines = proxy.accepted
    proxy.cut_next_reply(after)
    assert connection.run("RETURN 'whole'") == "whole"
    assert not proxy.armed
    assert proxy.accepted > lines
    assert len(proxy.requests(text="whole")) == 2


@any_engine
@pytest.mark.parametrize("after", [0, 1, 5, 40])
def test_request_cut_in_the_middle(after: int, proxy: Proxy, connection: Connection) -> None:
    """A request breaks off on its way: it is sent again on a new connection."""
    proxy.cut_next_request(after)
    assert connection.run("RETURN 'whole and long enough to be cut'") == "whole and long enough to be cut"
    assert proxy.accepted == 2


def test_large_reply_cut_in_the_middle(proxy: Proxy, connection: Connection) -> None:
    """A reply of megabytes breaks off half way: what was read of it is of no consequence."""
    value = "x" * 2_000_000
    proxy.cut_next_reply(1_000_000)
    assert connection.run("RETURN $value", value=value) == value
    assert not proxy.armed
    assert proxy.accepted == 2


GARBAGE: dict[str, Callable[[], bytes]] = {
    "bytes that are no frame": lambda: b"\xff" * 64,
    "another protocol": lambda: b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>" + b"upstream is away " * 99,
    "a frame that is no CBOR": lambda: frame(b"\x9f\xff\xff\x00garbage"),
    "a truncated message": lambda: frame(b"\xa2bid"),
    "a text frame": lambda: frame(b'{"id": "1", "result": []}', Opcode.TEXT),
    "no map": lambda: message([1, 2, 3]),
    "a reserved opcode": lambda: b"\x83\x00",
    "a frame that claims exabytes": lambda: b"\x82\xff" + b"\xff" * 8,
}


@any_engine
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_the_place_of_a_reply(kind: str, proxy: Proxy, connection: Connection) -> None:
    """Whatever is not SurrealDB's protocol ends the line, and the request succeeds on a new one."""
    proxy.answer_next_with(GARBAGE[kind]())
    assert connection.run("RETURN 'clean'") == "clean"
    assert proxy.accepted == 2


@any_engine
def test_garbage_for_ever(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """Only ever garbage: one clear error after one repetition, no endless reconnecting."""
    connection = connect(fresh_database, endpoint=proxy.url)
    proxy.answer_next_with(b"220 mail.example ESMTP\r\n")
    with pytest.raises(LINE_ERRORS, match="no WebSocket there"):
        connection.run("RETURN 1")
    assert connection.run("RETURN 2") == 2


@any_engine
@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhuh?",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"\x00\x01\x02\x03 this is not HTTP\r\n\r\n",
    ],
    ids=["a web page", "a gateway's error", "no HTTP at all"],
)
def test_garbage_over_http(reply: bytes, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """What answers over HTTP is no SurrealDB: the request is repeated once, and succeeds or says what came."""
    connection = connect(fresh_database, endpoint=proxy.http_url)
    assert connection.run("RETURN 1") == 1
    proxy.answer_next_with(reply)
    assert connection.run("RETURN 2") == 2


@any_engine
def test_reply_for_another_request(proxy: Proxy, fresh_database: Database, connect: Any, clock: Any) -> None:
    """A reply with an id that nobody waits for is dropped; the request ends by its time limit."""
    connection = connect(fresh_database, endpoint=proxy.url)
    assert connection.run("RETURN 1") == 1
    proxy.answer_next_with(message({"id": "999999", "result": [{"status": "OK", "result": "not yours"}]}))
    with ThreadPoolExecutor(1) as pool, clock.limit(connection, TIMEOUT):
        call = pool.submit(connection.run, "RETURN 'mine'")
        until(lambda: not proxy.armed, "the reply was replaced")
        clock.forward(TIMEOUT)
        with pytest.raises(errors.RequestTimedOut):
            call.result(TIMEOUT + GRACE)
    assert connection.run("RETURN 2") == 2


@any_engine
def test_server_that_only_pings(proxy: Proxy, connection: Connection) -> None:
    """A server that is alive enough to ping but never answers: the call ends in time all the same."""
    proxy.losing_replies = True
    chatter = threading.Event()

    def talk() -> None:
        while not chatter.wait(0.02):
            proxy.say(frame(b"still here", Opcode.PING))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with runs_out(connection):
            connection.run("RETURN 1")
    finally:
        chatter.set()
        thread.join()
    proxy.losing_replies = False
    assert connection.run("RETURN 2") == 2


@any_engine
@pytest.mark.parametrize("begins", [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_server_that_trickles_over_http(begins: bytes, fresh_database: Database, connect: Any) -> None:
    """A server that sends its HTTP answer, or the head of it, byte by byte, for ever: the call ends in time."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(begins)
                    while not ended.wait(0.05):
                        client.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        connection = connect(fresh_database, endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}/rpc")
        try:
            with runs_out(connection):
                connection.run("RETURN 1")
        finally:
            ended.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # nobody may have come in time
            thread.join()


@pytest.mark.parametrize("scheme", ["wss", "https"])
def test_server_dies_in_the_tls_handshake(scheme: str, closing: Any) -> None:
    """The line ends there without a word: an error of the line, which passes, and not of a certificate."""
    listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.recv(65536)
                client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    connection = Connection(Settings(endpoint=f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/rpc").options)
    closing.callback(connection.close)
    try:
        with pytest.raises(LINE_ERRORS, match="cannot be reached or dropped the connection"):
            connection.run("RETURN 1")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("silent", [3, 2])
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_a_name_with_several_addresses(scheme: str, silent: int, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the time of the call: those that are silent do not take it from the last, or have it each anew."""
    tried = []

    class Silent(socket.socket):
        def connect(self, address: Any) -> None:
            tried.append(address)
            if len(tried) > silent:
                raise ConnectionRefusedError
            clock.forward(self.gettimeout())
            raise TimeoutError("timed out")

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 80)) for number in range(3)]
    # Of this module only: a test's other threads have sockets too.
    names = {name: getattr(socket, name) for name in dir(socket)}
    monkeypatch.setattr(
        sockets, "socket", SimpleNamespace(**names | {"socket": Silent, "getaddrinfo": lambda *_: found})
    )
    connection = Connection(Settings(endpoint=f"{scheme}://many.example/rpc").options)
    began = clock.monotonic()
    with pytest.raises(OSError):  # noqa: PT011 - what kind is of no matter here
        connection._connect(TIMEOUT).request("ping", [], TIMEOUT)
    assert tried == [address for *_, address in found]
    assert clock.monotonic() - began < 1.1 * TIMEOUT


TWO_GREENLETS_SEND = """
import eventlet
eventlet.monkey_patch()
import socket
from websockets.server import ServerProtocol
from surrealdb_celery_backend.client.websocket import WebSocketTransport

listener = socket.create_server(("127.0.0.1", 0))


def serve():
    client, _ = listener.accept()
    protocol = ServerProtocol(subprotocols=["cbor"])
    protocol.receive_data(client.recv(65536))
    (request,) = protocol.events_received()
    protocol.send_response(protocol.accept(request))
    for data in protocol.data_to_send():
        client.sendall(data)
    return client  # and takes nothing any more


server = eventlet.spawn(serve)
line = WebSocketTransport(f"ws://127.0.0.1:{listener.getsockname()[1]}/rpc", tls=None, timeout=60)


def send():
    try:
        line.request("query", ["x" * 20_000_000], 1)
    except OSError:
        return "an error of the line"


greenlets = [eventlet.spawn(send) for _ in range(3)]
assert [greenlet.wait() for greenlet in greenlets] == ["an error of the line"] * 3
assert not line._protocol.pending
"""


def test_greenlets_of_eventlet_send_at_once() -> None:
    """Large results on a line that is full: eventlet lets one greenlet only wait for a socket."""
    if importlib.util.find_spec("eventlet") is None:
        pytest.skip("needs eventlet")
    subprocess.run([sys.executable, "-c", TWO_GREENLETS_SEND], check=True, timeout=PROCESS_LIMIT)


def test_lines_reset_under_load(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """RST of every connection while many threads have requests under way: each call gets its own answer."""
    connection = connect(fresh_database, endpoint=proxy.url)
    assert connection.run("RETURN 1") == 1
    done = threading.Event()
    turns = [0] * 4

    def hammer(number: int) -> None:
        while not done.is_set():
            asked = [number, turns[number]]
            assert connection.run("RETURN $value", value=asked) == asked
            turns[number] += 1

    with ThreadPoolExecutor(len(turns)) as pool:
        threads = [pool.submit(hammer, number) for number in range(len(turns))]

        def all_went_on(since: list[int]) -> bool:
            """Whether the call that each thread is in began after `since`, or one of them failed."""
            return all(now > then + 1 for now, then in zip(turns, since, strict=True)) or any(
                thread.done() for thread in threads
            )

        try:
            # A call renews its line once: only one that began after the last reset can be met by the next.
            for _ in range(10):
                since = list(turns)
                until(lambda since=since: all_went_on(since), "every thread got answers")
                proxy.break_lines()
            # Before it ends, or the last reset may have met nobody.
            since = list(turns)
            until(lambda: all_went_on(since), "every thread got answers after the last reset")
        finally:
            done.set()
        for thread in threads:
            thread.result()
    assert proxy.accepted > 10


def test_server_closes_an_idle_line(proxy: Proxy, connection: Connection) -> None:
    """The server went away while nobody used the line: it is noticed before sending, also for what may not be repeated."""
    line: Any = connection.transport
    proxy.break_lines()
    until(lambda: select.select([line], [], [], 0)[0], "the news that it was reset is there")
    value = connection.run_all("RETURN 'once'", repeatable=False)[-1]
    assert value == "once"
    assert len(proxy.requests(text="once")) == 1, "nothing was sent into the dead line"


def test_not_repeatable_is_never_sent_twice(proxy: Proxy, connection: Connection) -> None:
    """The line breaks while a statement that must not run twice is under way: an error, and it was sent once."""
    proxy.cut_next_reply(0)
    with pytest.raises(LINE_ERRORS, match="dropped the connection"):
        connection.run_all("UPSERT counter:one SET value += 1", repeatable=False)
    assert len(proxy.requests(text="counter:one")) == 1
    assert connection.run("RETURN 2") == 2


def test_increment_whose_reply_was_lost(proxy: Proxy, fresh_database: Database, closing: Any) -> None:
    """`backend.incr` whose reply was lost raises instead of adding one twice."""
    from celery import Celery

    app = Celery("incr", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings | {"surrealdb_url": proxy.url})
    closing.callback(app.backend.close)
    assert app.backend.incr("hits") == 1
    proxy.cut_next_reply(0)
    with pytest.raises(LINE_ERRORS):
        app.backend.incr("hits")
    assert len(proxy.requests(text="value += 1")) == 2
    assert app.backend.get("hits") in (1, 2)
