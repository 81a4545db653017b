"""Limits of the server: results that are too large, a full disk, a read-only store, a server that is too old."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database, RunningEngine, Unavailable, matrix
from tests.support.faults.fake import FakeServer, err, ok, server
from tests.support.faults.proxy import Proxy
from tests.support.states import MAX_WAIT

#: A tmpfs of this size is full after some large results.
DISK = "40m"
RESULT = 500_000


def test_large_results(engine: RunningEngine, fresh_database: Database, connect: Any) -> None:
    """A result of 5 MB is stored and fetched, byte for byte."""
    connection = connect(fresh_database)
    value = os.urandom(5_000_000)
    connection.run("CREATE task:large SET result = $value RETURN NONE", value=value)
    assert connection.run("SELECT VALUE result FROM task:large") == [value]


def test_result_larger_than_the_server_takes() -> None:
    """A server with a limit closes the line with code 1009: one clear error, and the next result is stored."""
    with FakeServer(lambda method, _: ok(1) if method == "query" else {"result": None}, limit=100_000) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False, timeout=MAX_WAIT).options)
        assert connection.run("RETURN 1") == 1
        with pytest.raises(errors.UnstorableValue, match="are larger than the server takes"):
            connection.run("RETURN $value", value="x" * 200_000)
        assert connection.run("RETURN 1") == 1
        connection.close()


def test_result_larger_than_the_server_takes_over_http(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """HTTP status 413, as SurrealDB answers above 4 MiB: one clear error."""
    connection = connect(fresh_database, endpoint=proxy.http_url)
    assert connection.run("RETURN 1") == 1
    proxy.answer_next_with(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(errors.UnstorableValue, match="413"):
        connection.run("RETURN 2")


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk that is soon full."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(mounted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"a full disk cannot be made here: {error}")
    if done.returncode:
        pytest.skip(f"a full disk cannot be made here: {done.stderr.strip()}")
    monkeypatch.setattr(tempfile, "tempdir", str(mounted))
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.mark.parametrize(("version", "store"), [("3.0.2", "rocksdb"), ("3.2.4", "surrealkv"), ("2.3.10", "surrealkv")])
def test_full_disk(version: str, store: str, small_disk: Path, connect: Any) -> None:
    """The disk is full: a clear error that Celery's retries may repeat, reads go on, and with room it stores again."""
    try:
        provider = matrix.find(version, store)
    except Unavailable as error:
        pytest.skip(str(error))
    if provider.source == "SURREALDB_TEST_URL" or "Docker" in provider.source:
        pytest.skip("the engine does not store on a disk of ours")
    with provider.start(0) as own:
        connection = connect(own.database())
        connection.run("CREATE task:first SET value = 1")

        def fill() -> None:
            while True:
                connection.run("CREATE task SET value = $value RETURN NONE", value=os.urandom(RESULT))

        with pytest.raises(errors.StorageUnavailable, match=r"(?i)no (storage )?space"):
            fill()
        assert connection.run("SELECT VALUE value FROM task:first") == [1]
        subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
        # RocksDB wants a restart after its disk was full; SurrealKV goes on.
        own.kill()
        own.restart()
        connection.run("CREATE task:after SET value = $value RETURN NONE", value=os.urandom(RESULT))
        assert connection.run("SELECT VALUE value FROM task:first") == [1]


@pytest.mark.parametrize(
    "text",
    [
        "There was a problem with the key-value store: IO error: Read-only file system: While open a file for appending",
        "Couldn't write to a read only transaction",
        "The server is in read-only mode",
        "The memory threshold has been exceeded",
    ],
)
def test_server_that_cannot_store(text: str) -> None:
    """A read-only or overfull server: one clear error in the server's words, repeated by Celery's retries only."""
    with server(err(text)) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False).options)
        with pytest.raises(errors.StorageUnavailable) as refused:
            connection.run("CREATE x")
        connection.close()
        assert text in str(refused.value)
        assert isinstance(refused.value, errors.TransientError)
        assert fake.count("query") == 1


@pytest.mark.parametrize("version", ["surrealdb-1.5.6", "surrealdb-1.0.0+20230913.54aedcd", "1.4.2"])
def test_server_older_than_2(version: str) -> None:
    """A server older than 2.0: one clear error that names the version, before anything is asked of it."""
    with server(err("not to be asked"), version) as fake:
        connection = Connection(Settings(endpoint=fake.url).options)
        with pytest.raises(errors.UnsupportedServer, match=rf"runs SurrealDB .*{version[-5:]}; 2.0 or newer is needed"):
            connection.run("RETURN 1")
        connection.close()
        assert fake.count("query") == 0


@pytest.mark.parametrize("version", ["surrealdb-2.0.0", "surrealdb-3.2.4", "surrealdb-10.0.0-beta.1", "who knows"])
def test_server_new_enough_or_unknown(version: str) -> None:
    """2.0, later, and versions that cannot be read are taken."""
    with server({"result": [{"status": "OK", "result": 1}]}, version) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False).options)
        assert connection.run("RETURN 1") == 1
        connection.close()


def test_server_that_does_not_tell_its_version() -> None:
    """Capabilities can forbid asking for the version: that is no reason not to work."""

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "version":
            return {"error": {"code": -32000, "message": "RPC method 'version' is not allowed"}}
        return {"result": [{"status": "OK", "result": 1}] if method == "query" else None}

    with FakeServer(answer) as fake:
        connection = Connection(Settings(endpoint=fake.url, define_schema=False).options)
        assert connection.run("RETURN 1") == 1
        connection.close()
