"""The development server: what its command says and does, and what programs can do with it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from surrealdb import RecordID, Surreal
from surrealdb.data.cbor import decode, encode

from tests.engines import installed
from tests.support.ports import held_port

devserver = pytest.importorskip("surrealdb_celery_backend.devserver")
DevServer, DevServerError = devserver.DevServer, devserver.DevServerError
engine, messages = (importlib.import_module(f"{devserver.__name__}.{name}") for name in ("engine", "messages"))

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        installed.sdk_of_this_environment() is None,
        reason="the installed SDK has no engine: pip install 'surrealdb-celery-backend[embedded]'",
    ),
]

MODULE = [sys.executable, "-m", "surrealdb_celery_backend.devserver"]

#: How long the command may take to start or to end, in seconds.
MAX_WAIT = 90

#: Programs that start at one moment.
PROGRAMS = 8


class Command:
    """The command in a process of its own, its output line by line."""

    def __init__(self, *arguments: str) -> None:
        self.popen = subprocess.Popen(
            [*MODULE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._unread: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._unread.put(line.rstrip("\n"))
        self._unread.put(None)

    def ready(self) -> str:
        """Wait for the ready line and return its URL."""
        while True:
            line = self._unread.get(timeout=MAX_WAIT)
            assert line is not None, self.popen.communicate()
            self.lines.append(line)
            if line.startswith("ready: "):
                return line.split()[1]

    def ends(self) -> int:
        """Wait until it ended and return its status."""
        return self.popen.wait(MAX_WAIT)

    def close(self) -> None:
        """End it, whatever it does, and free what it held."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self._reader.join()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[Command]:
    """The command, ended with the block."""
    running = Command(*arguments)
    try:
        yield running
    finally:
        running.close()


def refusal(*arguments: str) -> str:
    """What the command says when it does not start; it must be one sentence and no traceback."""
    ended = subprocess.run([*MODULE, *arguments], capture_output=True, text=True, timeout=MAX_WAIT, check=False)
    assert ended.returncode == 1, ended
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    return ended.stderr


@contextlib.contextmanager
def signed_in(url: str, database: str = "test", password: str = "root") -> Iterator[Any]:
    """A connection as the root user."""
    with Surreal(url) as connection:
        connection.signin({"username": "root", "password": password})
        connection.use("test", database)
        yield connection


def test_says_how_to_connect() -> None:
    """It prints settings that can be pasted, that it is for development only, and last where it answers."""
    with command("--port", "0") as running:
        url = running.ready()
        told = "\n".join(running.lines)
        assert re.fullmatch(r"ws://127\.0\.0\.1:\d+/rpc", url)
        assert "development only" in told
        assert f'app.conf.surrealdb_url = "{url}"' in told
        assert 'app.conf.surrealdb_username = "root"' in told
        address = url.removeprefix("ws://").removesuffix("/rpc")
        assert f"CELERY_RESULT_BACKEND=surrealdb://root:root@{address}/celery/results" in told
        with signed_in(url) as connection:
            assert connection.query_raw("RETURN 1", {})["result"][0]["result"] == 1


def test_keeps_a_chosen_password_to_itself() -> None:
    """A password given on the command line works and is printed nowhere; a name is printed fit to be pasted."""
    with command("--port", "0", "--password", "s3cr3t-\"'`\\å") as running:
        url = running.ready()
        assert "s3cr3t" not in "\n".join(running.lines)
        with signed_in(url, password="s3cr3t-\"'`\\å") as connection:
            assert "result" in connection.query_raw("RETURN 1", {})
    with command("--port", "0", "--username", 'm"e@å') as running:
        running.ready()
        told = "\n".join(running.lines)
        assert 'app.conf.surrealdb_username = "m\\"e@å"' in told
        assert "surrealdb://m%22e%40%C3%A5:root@" in told


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_in_good_order(name: signal.Signals, tmp_path: Path) -> None:
    """SIGINT and SIGTERM end it with status 0 and no noise, with a client connected; what it stored is kept."""
    data = str(tmp_path / "data")
    with command("--port", "0", "--path", data) as running, signed_in(running.ready()) as connection:
        reply = connection.query_raw("DEFINE TABLE thing; CREATE thing:1 SET n = 5", {})
        assert [statement["status"] for statement in reply["result"]] == ["OK", "OK"]
        running.popen.send_signal(name)
        assert running.ends() == 0
        assert running.popen.stderr is not None
        assert running.popen.stderr.read() == ""
    with command("--port", "0", "--path", data) as running, signed_in(running.ready()) as connection:
        assert connection.query_raw("SELECT VALUE n FROM thing", {})["result"][0]["result"] == [5]


def test_survives_being_killed(tmp_path: Path) -> None:
    """After SIGKILL the directory opens again with what was stored."""
    data = str(tmp_path / "data")
    with command("--port", "0", "--path", data) as running:
        with signed_in(running.ready()) as connection:
            connection.query_raw("DEFINE TABLE thing; CREATE thing:1 SET n = 5", {})
        running.popen.kill()
        running.ends()
    with command("--port", "0", "--path", data) as running, signed_in(running.ready()) as connection:
        assert connection.query_raw("SELECT VALUE n FROM thing", {})["result"][0]["result"] == [5]


def test_stops_with_its_parent() -> None:
    """Asked to, it also ends when its standard input does."""
    with command("--port", "0", "--stop-with-parent") as running:
        running.ready()
        assert running.popen.stdin is not None
        running.popen.stdin.close()
        assert running.ends() == 0


def test_writes_a_ready_file(tmp_path: Path) -> None:
    """Once it answers, --ready-file says where and which process."""
    file = tmp_path / "ready.json"
    with command("--port", "0", "--ready-file", str(file)) as running:
        url = running.ready()
        told = json.loads(file.read_text())
        assert (told["url"], told["pid"]) == (url, running.popen.pid)
        assert told["http_url"] == "http" + url.removeprefix("ws").removesuffix("/rpc")


def test_a_directory_has_one_server(tmp_path: Path) -> None:
    """A second server on the same directory does not start, and says why; the first goes on."""
    data = str(tmp_path / "data")
    with command("--port", "0", "--path", data) as running:
        url = running.ready()
        assert "another process has open" in refusal("--port", "0", "--path", data)
        with signed_in(url) as connection:
            assert "result" in connection.query_raw("RETURN 1", {})


def test_a_directory_keeps_its_password(tmp_path: Path) -> None:
    """A directory whose root user has another password is refused instead of printing settings that do not work."""
    data = str(tmp_path / "data")
    with DevServer(port=0, path=data):
        pass
    told = refusal("--port", "0", "--path", data, "--password", "other-secret")
    assert "another password" in told
    assert "other-secret" not in told


def test_refuses_what_cannot_be(tmp_path: Path) -> None:
    """Each wrong argument is refused with its name, what it held and what to do."""
    file = tmp_path / "file"
    file.touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"--port {port} is in use" in refusal("--port", port)
    assert "--host is '0.0.0.0'" in refusal("--host", "0.0.0.0")
    assert "--host is 'example.org'" in refusal("--host", "example.org")
    assert "--port is 70000" in refusal("--port", "70000")
    assert "add --path" in refusal("--store", "surrealkv")
    assert "--store mem keeps nothing" in refusal("--store", "mem", "--path", str(tmp_path))
    assert f"--path is '{file}'" in refusal("--path", str(file))
    assert "--path is empty" in refusal("--path", "")
    assert "--username is empty" in refusal("--username", "")
    missing = str(tmp_path / "missing" / "ready.json")
    assert f"--ready-file is '{missing}', which cannot be written" in refusal("--port", "0", "--ready-file", missing)


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an embedded engine it says what to install."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(DevServerError, match=re.escape("pip install 'surrealdb-celery-backend[embedded]'")):
        DevServer(port=0).start()


def test_serves_inside_a_program(tmp_path: Path) -> None:
    """`DevServer` serves in a thread: ready inside the block, and port and directory free after it, again and again."""
    with held_port() as port:
        for number in range(3):
            with DevServer(port=port, path=tmp_path / "data") as server:
                with signed_in(server.url) as connection:
                    text = "DEFINE TABLE IF NOT EXISTS thing; CREATE $record; SELECT VALUE id FROM thing"
                    reply = connection.query_raw(text, {"record": RecordID("thing", number)})
                    assert len(reply["result"][2]["result"]) == number + 1
                told = requests.get(f"{server.http_url}/version", timeout=MAX_WAIT).text
                assert told == f"surrealdb-{server.version}"
            with pytest.raises(OSError, match=r"refused"):
                socket.create_connection(("127.0.0.1", port), timeout=MAX_WAIT).close()


def test_reports_a_failed_start_to_the_program() -> None:
    """`DevServer.start` raises what the command would say, and the object can be started later."""
    with held_port() as port:
        second = DevServer(port=port)
        with DevServer(port=port), pytest.raises(DevServerError, match="is in use"):
            second.start()
        second.start()
        second.stop()
        second.stop()


def test_listens_on_ipv6_loopback() -> None:
    """A loopback address of IPv6 works like the other."""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6")
    with DevServer(host="::1", port=0) as server:
        assert requests.get(f"{server.http_url}/health", timeout=MAX_WAIT).status_code == 200


def test_speaks_cbor_only() -> None:
    """A WebSocket without the subprotocol cbor, or a text message, is turned away with the reason."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    with DevServer(port=0) as server:
        with pytest.raises(InvalidStatus) as refused, connect(server.url):
            pass
        assert refused.value.response.status_code == 400
        assert b"subprotocol cbor" in (refused.value.response.body or b"")
        with connect(server.url, subprotocols=["cbor"]) as socket_:  # type: ignore[list-item]
            socket_.send("{}")
            with pytest.raises(ConnectionClosed, match="send CBOR"):
                socket_.recv(timeout=MAX_WAIT)


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://localhost:3000"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "http://allowed.example"}, True),
        ({"Origin": "SAME"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "127.0.0.1.evil.example:8000"}, False),
        ({"Host": "[::1"}, False),
        ({"Host": "localhost"}, True),
        ({"Host": "[::1]:8000"}, True),
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str], answered: bool) -> None:
    """A web page, whatever name it made point here, cannot sign in: not by POST, not over a WebSocket."""
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    body = encode({"id": 1, "method": "signin", "params": [{"user": "root", "pass": "root"}]})
    with DevServer(port=0, allow_origins=["http://allowed.example"]) as server:
        sent = {name: server.http_url if value == "SAME" else value for name, value in headers.items()}
        reply = requests.post(f"{server.http_url}/rpc", data=body, headers=sent, timeout=MAX_WAIT)
        assert (reply.status_code == 200) is answered
        if answered:
            assert "result" in decode(reply.content)
        else:
            assert reply.status_code == 403
            assert requests.get(f"{server.http_url}/version", headers=sent, timeout=MAX_WAIT).status_code == 403
        if "Host" in sent:
            return
        refused = contextlib.nullcontext() if answered else pytest.raises(InvalidStatus, match="403")
        with refused, connect(server.url, subprotocols=["cbor"], additional_headers=sent):  # type: ignore[list-item]
            pass


def test_the_command_allows_an_origin() -> None:
    """--allow-origin lets pages of that origin in, and no others."""
    with command("--port", "0", "--allow-origin", "http://allowed.example/") as running:
        address = "http" + running.ready().removeprefix("ws").removesuffix("/rpc")
        for origin, status in (("http://allowed.example", 200), ("http://other.example", 403)):
            assert (
                requests.get(f"{address}/version", headers={"Origin": origin}, timeout=MAX_WAIT).status_code == status
            )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_data_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else may read the stored results, in whichever way the server was started."""
    before = os.umask(0o022)
    try:
        with DevServer(port=0, path=tmp_path / "in-program" / "data"):
            pass
        with command("--port", "0", "--path", str(tmp_path / "command" / "data")) as running:
            running.ready()
        (tmp_path / "given").mkdir()
        with command("--port", "0", "--path", str(tmp_path / "given")) as running:
            running.ready()
    finally:
        os.umask(before)
    for made in ("in-program/data", "command/data"):
        assert (tmp_path / made).stat().st_mode & 0o077 == 0
    for made in ("command/data", "given"):
        files = [file for file in (tmp_path / made).rglob("*") if file.is_file()]
        assert files
        assert [file for file in files if file.stat().st_mode & 0o077] == []


def test_the_ready_file_follows_no_link(tmp_path: Path) -> None:
    """A link that somebody put in the ready file's place is replaced, and its target stays as it is."""
    other = tmp_path / "other"
    other.write_text("kept")
    file = tmp_path / "ready.json"
    file.symlink_to(other)
    with command("--port", "0", "--ready-file", str(file)) as running:
        (tmp_path / f"ready.json.{running.popen.pid}").symlink_to(other)
        running.ready()
        assert json.loads(file.read_text())["pid"] == running.popen.pid
    assert not file.is_symlink()
    assert other.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file() and not path.is_symlink()) == [
        "other",
        "ready.json",
    ]


def test_names_in_headers_are_ascii() -> None:
    """Over HTTP it takes a namespace and a database in ASCII only, as a server does, and says so."""
    with DevServer(port=0) as server:
        for header in ("Surreal-NS", "Surreal-DB"):
            refused = requests.post(
                f"{server.http_url}/rpc", data=b"", headers={header: b"n\xc3\xa4m"}, timeout=MAX_WAIT
            )
            assert (refused.status_code, "have to be ASCII" in refused.text) == (400, True)


def test_sessions_of_a_client_are_its_own() -> None:
    """Sessions that a client attaches itself work where the engine has them, and for that client only."""
    with DevServer(port=0) as server, signed_in(server.url) as connection, signed_in(server.url) as other:
        if not hasattr(connection, "new_session") or server.version.startswith("2."):
            pytest.skip("this engine has no sessions")
        session = connection.attach()
        connection.signin({"username": "root", "password": "root"}, session_id=session)
        connection.use("test", "apart", session_id=session)
        assert connection.query_raw("RETURN session::db()", {}, session_id=session)["result"][0]["result"] == "apart"
        assert connection.query_raw("RETURN session::db()", {})["result"][0]["result"] == "test"
        stolen = other.query_raw("RETURN session::db()", {}, session_id=session)
        assert "Session not found" in stolen["error"]["message"]
        connection.detach(session)
        gone = connection.query_raw("RETURN 1", {}, session_id=session)
        assert "Session not found" in gone["error"]["message"]


def test_reset_gives_everything_back() -> None:
    """After `reset` a connection is as new: anonymous, without database and variables; the server goes on."""
    with DevServer(port=0) as server, signed_in(server.url) as connection:
        connection.let("name", 1)
        connection.socket.send(encode({"id": "1", "method": "reset", "params": []}))
        assert "result" in decode(connection.socket.recv())
        assert "error" in connection.query_raw("RETURN $name", {})
        connection.signin({"username": "root", "password": "root"})
        assert "Specify a namespace" in connection.query_raw("INFO FOR DB", {})["result"][0]["result"]
        connection.use("test", "test")
        assert connection.query_raw("RETURN $name = NONE", {})["result"][0]["result"] is True


def test_a_new_database_is_made_once() -> None:
    """Programs that start at one moment use a database that is new: none is refused, and all that they write is in it.

    In memory 3.2.4 would make it twice at times, and what was written into the first is gone.
    """
    names = [f"new{number}" for number in range(300)]
    refusals: list[str] = []
    together = threading.Barrier(PROGRAMS)
    with DevServer(port=0) as server, contextlib.ExitStack() as stack, ThreadPoolExecutor(PROGRAMS) as pool:
        connections = [stack.enter_context(signed_in(server.url)) for _ in range(PROGRAMS)]

        def start(number: int) -> None:
            for name in names:
                together.wait(MAX_WAIT)
                try:
                    connections[number].use("test", name)
                    connections[number].query_raw(f"CREATE program:{number}", {})
                except Exception as error:
                    refusals.append(str(error))

        for started in [pool.submit(start, number) for number in range(PROGRAMS)]:
            started.result()
        assert refusals == []
        for name in names:
            connections[0].use("test", name)
            assert len(connections[0].query_raw("SELECT * FROM program", {})["result"][0]["result"]) == PROGRAMS


@pytest.mark.parametrize(
    ("method", "parameters", "may"),
    [
        ("query", ["SELECT * FROM task WHERE status = 'SUCCESS'", {}], False),
        ("query", ["RETURN time::now(); INFO FOR DB", {}], False),
        ("query", ["{ LET $stored = (upsert $r CONTENT $t); RETURN $stored }", {}], True),
        ("query", ["RETURN fn/* of ours */::count()", {}], True),
        ("query", ["ACCESS tokens ON DATABASE GRANT FOR USER anna", {}], True),
        ("query", [RecordID("text", 1)], True),
        ("use", ["test", "new"], True),
        ("signin", [{"user": "root", "pass": "root"}], False),
        ("signin", [{"ns": "test", "db": "test", "user": "root", "pass": "root"}], False),
        ("signin", [{"ns": "test", "db": "test", "ac": "people", "user": "anna", "pass": "root"}], True),
        ("signin", [], True),
        ("signin", ["root"], True),
        ("authenticate", ["token"], True),
        ("select", [RecordID("task", 1)], False),
        ("merge", [RecordID("task", 1), {}], True),
        ("unknown", [], True),
    ],
)
def test_what_may_write(method: str, parameters: list[Any], may: bool) -> None:
    """What writes, or may, is told from what only reads: where a store is not exact, only the latter goes beside others."""
    assert engine.writes(messages.Request.of(method, *map(encode, parameters))) is may


def test_ends_when_the_process_does() -> None:
    """A program that forgets to stop its server ends all the same, with status 0."""
    ended = subprocess.run([sys.executable, "-c", FORGETS_ITS_SERVER], timeout=MAX_WAIT, check=False)
    assert ended.returncode == 0


#: Before Python 3.12 a process aborts if it ends while a thread of the engine still hands over a result. The server
#: gives them 0.1 s for it; here it ends only once none of them was seen at work, as a thread kept from its core is.
FORGETS_ITS_SERVER = """
import os, time
from pathlib import Path
from surrealdb_celery_backend.devserver import DevServer
def at_work():
    for thread in Path("/proc/self/task").glob("*/stat"):
        if int(thread.parent.name) != os.getpid():
            try:
                yield thread.read_text().rpartition(")")[2].split()[0] == "R"
            except OSError:
                pass
DevServer(port=0).start()
idle = 0
while idle < 3:
    time.sleep(0.01)  # without it they might all be waiting for the interpreter
    idle = 0 if any(at_work()) else idle + 1
"""
