"""The engines that tests run against behave as the servers that they stand for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from surrealdb import AsyncSurreal, RecordID, Surreal

from surrealdb_celery_backend.client import surrealql
from tests.engines import Database, RunningEngine, installed

pytestmark = pytest.mark.integration

#: How long a state may take to be reached before the test fails, in seconds.
MAX_WAIT = 60

#: How long a run of pytest inside a test may take before it counts as hanging, in seconds.
RUN_PATIENCE = 300

#: Larger than any message size that a WebSocket library allows by itself, in characters.
TEN_MEGABYTES = 10 * 1024 * 1024


@contextlib.contextmanager
def anonymous(url: str) -> Iterator[Any]:
    """A connection on which nobody signed in."""
    with Surreal(url) as connection:
        yield connection


def statements(reply: dict[str, Any]) -> list[Any]:
    """Each statement's value; a statement that failed is a failed test."""
    assert "result" in reply, reply
    assert [statement["status"] for statement in reply["result"]] == ["OK"] * len(reply["result"]), reply
    return [statement["result"] for statement in reply["result"]]


def test_says_its_version(engine: RunningEngine, fresh_database: Database) -> None:
    """An engine answers with the version that the matrix says it is, over RPC and over HTTP."""
    with fresh_database.connect() as connection:
        assert str(connection.version()).endswith(engine.version)
    assert requests.get(f"{engine.http_url}/version", timeout=MAX_WAIT).text.endswith(engine.version)
    assert requests.get(f"{engine.http_url}/health", timeout=MAX_WAIT).status_code == 200


def test_refuses_a_wrong_password(engine: RunningEngine) -> None:
    """A wrong password is refused in SurrealDB's words, and the connection stays without rights."""
    with anonymous(engine.url) as connection:
        with pytest.raises(Exception, match="There was a problem with authentication"):
            connection.signin({"username": "root", "password": "wrong"})
        assert "error" in connection.query_raw("RETURN 1", {})


def test_refuses_anonymous_access(engine: RunningEngine, fresh_database: Database) -> None:
    """Who did not sign in can neither read nor write, also after choosing a database."""
    fresh_database.query("DEFINE TABLE thing; CREATE thing:1")
    with anonymous(engine.url) as connection:
        connection.use(fresh_database.namespace, fresh_database.database)
        for text in ("RETURN 1", "SELECT * FROM thing", "CREATE thing:2", "INFO FOR ROOT"):
            reply = connection.query_raw(text, {})
            assert "Not enough permissions" in reply["error"]["message"]
    assert fresh_database.query("SELECT VALUE id FROM thing") == [[RecordID("thing", 1)]]


def test_invalidate_ends_the_sign_in(fresh_database: Database) -> None:
    """After `invalidate` the connection is anonymous again, and others are not."""
    with fresh_database.connect() as other, fresh_database.connect() as connection:
        connection.invalidate()
        assert "error" in connection.query_raw("RETURN 1", {})
        assert statements(other.query_raw("RETURN 1", {})) == [1]


def test_databases_are_apart(engine: RunningEngine) -> None:
    """Two connections with different databases do not see each other's records, also when they alternate."""
    first, second = engine.database(), engine.database()
    with first.connect() as one, second.connect() as other:
        for number in range(5):
            for connection, mine in ((one, "one"), (other, "other")):
                record = RecordID("thing", number)
                text = "CREATE $record SET owner = $mine RETURN NONE"
                statements(connection.query_raw(text, {"record": record, "mine": mine}))
        text = "SELECT VALUE owner FROM thing; RETURN session::db()"
        assert statements(one.query_raw(text, {})) == [["one"] * 5, first.database]
        assert statements(other.query_raw(text, {})) == [["other"] * 5, second.database]


def test_variables_belong_to_a_connection(fresh_database: Database) -> None:
    """What `let` sets is seen by later queries of that connection only, and a query's own variables go before."""
    with fresh_database.connect() as one, fresh_database.connect() as other:
        one.let("who", {"name": "one", "bytes": b"\x00\xff"})
        other.let("who", "other")
        assert statements(one.query_raw("RETURN $who; RETURN $n", {"n": 5})) == [
            {"name": "one", "bytes": b"\x00\xff"},
            5,
        ]
        assert statements(one.query_raw("RETURN $who", {"who": "mine"})) == ["mine"]
        assert statements(other.query_raw("RETURN $who", {})) == ["other"]
        one.unset("who")
        assert statements(one.query_raw("RETURN $who = NONE", {})) == [True]


def test_values_pass_unchanged(fresh_database: Database) -> None:
    """Text, bytes, numbers, nested and empty values come back equal, and NULL stays apart from NONE."""
    value = {"text": "å⟩`'\"\n", "bytes": bytes(range(256)), "big": 2**62, "float": 0.1, "list": [[], {}, [True]]}
    text = "CREATE thing:1 SET value = $value, null = NULL RETURN NONE; SELECT VALUE value FROM ONLY thing:1"
    fresh_database.query("DEFINE TABLE thing")
    assert fresh_database.query(text, {"value": value})[1] == value
    assert fresh_database.query("RETURN [(SELECT VALUE null FROM ONLY thing:1) = NULL, thing:1.other = NONE]") == [
        [True, True]
    ]


def test_sign_in_below_root(engine: RunningEngine, fresh_database: Database) -> None:
    """Namespace and database users get in where they are known, with the rights of their level only."""
    fresh_database.query(
        "DEFINE USER ns_user ON NAMESPACE PASSWORD 'secret' ROLES OWNER;"
        "DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER; DEFINE TABLE thing; CREATE thing:1"
    )
    where = {"namespace": fresh_database.namespace, "database": fresh_database.database}
    with anonymous(engine.url) as connection:
        connection.signin({"namespace": where["namespace"], "username": "ns_user", "password": "secret"})
        connection.use(where["namespace"], where["database"])
        assert statements(connection.query_raw("CREATE thing:2 RETURN VALUE id", {})) == [[RecordID("thing", 2)]]
        assert connection.query_raw("INFO FOR ROOT", {})["result"][0]["status"] == "ERR"
    with anonymous(engine.url) as connection:
        tokens = connection.signin({**where, "username": "viewer", "password": "secret"})
        assert statements(connection.query_raw("RETURN session::db(); CREATE thing:3", {})) == [where["database"], []]
        # Another connection's requests in between do not lend their rights.
        assert len(fresh_database.query("SELECT * FROM thing")[0]) == 2
        assert statements(connection.query_raw("CREATE thing:3", {})) == [[]]
        with anonymous(engine.url) as second:
            second.authenticate(tokens.access)
            assert len(statements(second.query_raw("SELECT * FROM thing", {}))[0]) == 2


def test_record_access(engine: RunningEngine, fresh_database: Database) -> None:
    """A record user signs up and in, and sees what the table's permissions allow."""
    fresh_database.query(
        "DEFINE TABLE person PERMISSIONS FOR select WHERE id = $auth.id; DEFINE TABLE secret; CREATE secret:1;"
        "DEFINE ACCESS account ON DATABASE TYPE RECORD"
        " SIGNUP (CREATE person SET name = $name, pass = crypto::argon2::generate($pass))"
        " SIGNIN (SELECT * FROM person WHERE name = $name AND crypto::argon2::compare(pass, $pass))"
    )
    where = {"namespace": fresh_database.namespace, "database": fresh_database.database, "access": "account"}
    for name in ("ada", "bob"):
        with anonymous(engine.url) as connection:
            connection.signup({**where, "variables": {"name": name, "pass": "secret"}})
    with anonymous(engine.url) as connection:
        with pytest.raises(Exception, match="No record was returned"):
            connection.signin({**where, "variables": {"name": "ada", "pass": "wrong"}})
        connection.signin({**where, "variables": {"name": "ada", "pass": "secret"}})
        text = "SELECT VALUE name FROM person; SELECT * FROM secret"
        assert statements(connection.query_raw(text, {})) == [["ada"], []]


def test_answers_over_http(engine: RunningEngine, fresh_database: Database) -> None:
    """The same RPC over HTTP: sign-in gives a token, headers choose the database, and nobody else gets in."""
    fresh_database.query("DEFINE TABLE thing; CREATE thing:1")
    with anonymous(engine.http_url) as connection:
        assert "error" in connection.query_raw("RETURN 1", {})
        connection.signin({"username": "root", "password": "root"})
        connection.use(fresh_database.namespace, fresh_database.database)
        assert statements(connection.query_raw("SELECT VALUE id FROM thing", {})) == [[RecordID("thing", 1)]]
    refused = requests.post(f"{engine.http_url}/rpc", data=b"\xa0", auth=("root", "wrong"), timeout=MAX_WAIT)
    assert refused.status_code == 401


def test_limits_of_ranges(engine: RunningEngine, fresh_database: Database) -> None:
    """A LIMIT is honoured while a range of ids is read where a function returns the range; 0 reads all of it."""
    fresh_database.query("INSERT INTO t $all RETURN NONE", {"all": [{"id": n, "n": n} for n in range(5_000)]})
    until_last = "SELECT VALUE (IF n = 4999 { THROW 'read the last' } ELSE { n }) FROM %s LIMIT $limit"
    text = until_last % surrealql.limited("t:0..")
    assert fresh_database.query(text, {"limit": 2}) == [[0, 1]]
    if engine.version.startswith("2."):
        with pytest.raises(Exception, match="read the last"):
            fresh_database.query(text, {"limit": 0})
        return
    plan = "SELECT VALUE n FROM %s LIMIT 2 EXPLAIN FULL"
    in_text, by_function = (
        max(int(rows) for rows in re.findall(r"'output_rows': (\d+)", str(fresh_database.query(plan % records))))
        for records in ("t:0..", surrealql.limited("t:0.."))
    )
    assert (in_text, by_function) == (5_000, 2)


def test_carries_large_results(fresh_database: Database) -> None:
    """A value of 10 MB is stored and comes back whole."""
    large = "å" + "x" * TEN_MEGABYTES
    fresh_database.query("DEFINE TABLE thing; CREATE thing:1 SET value = $value RETURN NONE", {"value": large})
    assert fresh_database.query("SELECT VALUE value FROM ONLY thing:1") == [large]


def test_one_connection_multiplexes(engine: RunningEngine, fresh_database: Database) -> None:
    """50 requests on one connection are answered each with its own result, and none waits for a slow one."""

    async def run() -> None:
        connection = AsyncSurreal(engine.url)
        await connection.signin({"username": engine.username, "password": engine.password})
        await connection.use(fresh_database.namespace, fresh_database.database)
        texts = ["SLEEP 8s", *["RETURN $n"] * 50]
        asked = [asyncio.create_task(connection.query_raw(text, {"n": n})) for n, text in enumerate(texts)]
        answered: list[int] = []

        def note(n: int, _: asyncio.Task[Any]) -> None:
            answered.append(n)

        for n, task in enumerate(asked):
            task.add_done_callback(partial(note, n))
        slow, *replies = await asyncio.gather(*asked)
        # By the order of the answers: this process may stand still for a while, and then find all of them.
        assert answered[-1] == 0
        assert [statements(reply)[0] for reply in replies] == list(range(1, 51))
        assert "result" in slow
        await connection.close()

    asyncio.run(run())


def test_live_queries_notify_their_connection(live_engine: RunningEngine, fresh_database: Database) -> None:
    """A write is pushed to the connection whose LIVE query it matches, and to no other."""
    fresh_database.query("DEFINE TABLE thing")
    with fresh_database.connect() as subscriber, fresh_database.connect() as writer:
        [live_id] = statements(subscriber.query_raw("LIVE SELECT * FROM thing WHERE to = 'me'", {}))
        received: list[Any] = []
        notified = threading.Event()

        def listen() -> None:
            for notification in subscriber.subscribe_live(live_id):
                received.append(notification)
                notified.set()
                return

        listener = threading.Thread(target=listen)
        listener.start()
        # The first is for nobody; the connection that writes must not be sent the second.
        statements(writer.query_raw("CREATE thing:1 SET to = 'you'; CREATE thing:2 SET to = 'me'", {}))
        assert notified.wait(MAX_WAIT)
        listener.join()
        assert "thing" in str(received)
        assert "me" in str(received)
        assert "you" not in str(received)
        assert statements(writer.query_raw("RETURN 1", {})) == [1]


def test_live_queries_end_with_their_connection(live_engine: RunningEngine, fresh_database: Database) -> None:
    """A closed connection leaves no LIVE query behind."""
    fresh_database.query("DEFINE TABLE thing")
    with fresh_database.connect() as watcher:
        text = "INFO FOR TABLE thing"
        with fresh_database.connect() as subscriber:
            statements(subscriber.query_raw("LIVE SELECT * FROM thing", {}))
            assert len(statements(watcher.query_raw(text, {}))[0]["lives"]) == 1
        # The server learns of the close by itself; how soon is not promised, so it is asked until it knows.
        deadline = time.monotonic() + MAX_WAIT
        while time.monotonic() < deadline:
            if not statements(watcher.query_raw(text, {}))[0]["lives"]:
                return
            time.sleep(0.01)
        pytest.fail("the LIVE query outlived its connection")


def test_refuses_live_where_nothing_would_come(engine: RunningEngine, fresh_database: Database) -> None:
    """An engine without LIVE says so instead of accepting a query that never notifies."""
    if engine.live:
        pytest.skip("this engine notifies")
    fresh_database.query("DEFINE TABLE thing")
    with fresh_database.connect() as connection:
        reply = connection.query_raw("LIVE SELECT * FROM thing", {})
        told = reply["error"]["message"] if "error" in reply else reply["result"][0]["result"]
        assert "Unable to perform the realtime query" in told
        assert statements(connection.query_raw("RETURN 'LIVE SELECT * FROM thing'", {})) == ["LIVE SELECT * FROM thing"]


def test_bad_messages_are_answered(engine: RunningEngine, fresh_database: Database) -> None:
    """An unknown method and bytes that are no request are errors; the server goes on."""
    with fresh_database.connect() as connection:
        socket = connection.socket
        for message in (b"", b"\x01", b"\xa1", b"\xff" * 8, b"\xa1fmethodfnobody", b"\xbb" + b"\xff" * 8):
            socket.send(message)
            assert b"error" in socket.recv()
        assert statements(connection.query_raw("RETURN 1", {})) == [1]


def test_stop_and_restart(own_engine: RunningEngine) -> None:
    """Stopped and started again, an engine has the same address, and its data unless it kept them in memory."""
    database = own_engine.database()
    database.query("DEFINE TABLE thing; CREATE thing:1")
    url, before = own_engine.url, own_engine.pid
    own_engine.restart()
    assert own_engine.url == url
    assert own_engine.pid != before
    kept = database.query("DEFINE TABLE IF NOT EXISTS thing; SELECT VALUE id FROM thing")[1]
    assert kept == ([] if own_engine.store == "mem" else [RecordID("thing", 1)])


def test_kill(own_engine: RunningEngine) -> None:
    """Killed, an engine is gone at once, and comes back on the same port."""
    database = own_engine.database()
    with database.connect() as connection:
        own_engine.kill()
        with pytest.raises(Exception, match=r"."):
            connection.query_raw("RETURN 1", {})
    own_engine.restart()
    assert database.query("RETURN 1") == [1]


def test_pause(own_engine: RunningEngine) -> None:
    """Paused, an engine answers nothing; resumed, it answers what was asked meanwhile."""
    database = own_engine.database()
    with database.connect() as connection:
        own_engine.pause()
        answer: list[Any] = []
        asking = threading.Thread(target=lambda: answer.append(connection.query_raw("RETURN 1", {})))
        asking.start()
        asking.join(0.5)
        assert asking.is_alive()
        own_engine.resume()
        asking.join(MAX_WAIT)
        assert statements(answer[0]) == [1]


def test_stops_with_open_connections(own_engine: RunningEngine) -> None:
    """SIGTERM ends an engine with status 0 while clients are connected and a request is being answered."""
    database = own_engine.database()
    with database.connect() as connection:

        def ask() -> None:
            with contextlib.suppress(Exception):  # whatever the SDK makes of a server that went away
                connection.query_raw("SLEEP 500ms", {})

        asking = threading.Thread(target=ask)
        asking.start()
        pid = own_engine.pid
        own_engine.stop()  # raises if the status is not 0
        asking.join(MAX_WAIT)
        assert not asking.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's Python in the checkout, without what the caller's environment says about engines."""
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("SURREALDB_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.CHECKOUT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=RUN_PATIENCE,
        check=False,
    )


#: For tests that run pytest: the limit of the run inside, and some.
runs_pytest = pytest.mark.timeout(RUN_PATIENCE + 100)

#: One quick test on each engine, in a run of its own.
ONE_TEST = ("-m", "pytest", "-p", "no:cacheprovider", f"{__file__}::test_says_its_version")


@runs_pytest
def test_a_missing_engine_is_told(tmp_path: Path) -> None:
    """Where an engine is not installed the run passes at home, and says which is missing and what to do."""
    ended = run_python(*ONE_TEST, SURREALDB_TEST_ENGINES=str(tmp_path))
    assert "engine 3.0.2 rocksdb: did not run:" in ended.stdout
    assert "python -m tests.engines install" in ended.stdout or "needs Node" in ended.stdout
    assert ended.returncode == 0, ended.stdout


@runs_pytest
@pytest.mark.parametrize("variables", [{"CI": "true"}, {"SURREALDB_TEST_REQUIRE": "3.0.2"}])
def test_a_missing_engine_fails_where_it_is_required(tmp_path: Path, variables: dict[str, str]) -> None:
    """In CI, or where it is asked for, a run without an expected engine fails although each test passed."""
    ended = run_python(*ONE_TEST, SURREALDB_TEST_ENGINES=str(tmp_path), **variables)
    assert "engine 3.0.2: required, but no test ran on it" in ended.stdout
    assert ended.returncode == 1, ended.stdout
    assert "failed" not in ended.stdout


@runs_pytest
def test_a_running_server_is_used(engine: RunningEngine) -> None:
    """SURREALDB_TEST_URL replaces all engines, and tests that would stop the server are skipped."""
    tests = (*ONE_TEST, f"{__file__}::test_kill", f"{__file__}::test_databases_are_apart")
    ended = run_python(*tests, SURREALDB_TEST_URL=engine.url, SURREALDB_TEST_VERSION=engine.version)
    assert "engine external external: 2 passed, 1 skipped (SURREALDB_TEST_URL)" in ended.stdout
    assert ended.returncode == 0, ended.stdout
    with engine.database().connect() as connection:
        assert connection.query_raw("RETURN 1", {})["result"][0]["result"] == 1


@runs_pytest
def test_processes_of_xdist_are_counted_together() -> None:
    """Tests that pytest-xdist spreads over processes are counted per engine all the same."""
    ended = run_python(*ONE_TEST, "-n", "2", f"{__file__}::test_databases_are_apart", "--engine", "2.3.10")
    if "did not run" in ended.stdout:
        pytest.skip("engine 2.3.10 is not installed")
    assert "engine 2.3.10 mem: 2 passed" in ended.stdout, ended.stdout


@runs_pytest
def test_an_unknown_engine_is_refused() -> None:
    """A name that no engine has is refused with those that there are."""
    ended = run_python(*ONE_TEST, "--engine", "9.9")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--engine is '9.9': choose one of 3.0.2, 3.2.4, 2.3.10" in ended.stderr


def test_serves_one_for_people(engine: RunningEngine) -> None:
    """`python -m tests.engines serve` says where it answers, and a signal ends it with status 0."""
    command = [sys.executable, "-m", "tests.engines", "serve", "--engine", engine.spec.name, "--store", engine.store]
    with subprocess.Popen(command, cwd=installed.CHECKOUT, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        url = next(line.split()[1] for line in serving.stdout if line.startswith("ready: "))
        with Surreal(url) as connection:
            connection.signin({"username": "root", "password": "root"})
        serving.send_signal(signal.SIGINT)
        assert serving.wait(MAX_WAIT) == 0
