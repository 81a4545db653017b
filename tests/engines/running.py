"""An engine in a process of its own, that a test may talk to, stop, pause, kill and start again."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from typing_extensions import Self

#: How long an engine may take until it answers, in seconds. Generous: CI machines are slow.
START_TIMEOUT = 60.0

#: How long an engine may take to end after it was asked to, in seconds.
STOP_TIMEOUT = 60.0

#: How many ports are tried, if others take them between being found free and being listened on.
PORTS_TRIED = 5

# How often a server that cannot say that it is ready is asked, in seconds.
_ASK_AGAIN = 0.05


@dataclass(frozen=True)
class EngineSpec:
    """One engine to run tests against.

    Attributes:
        name: What `--engine` calls it; its version for those of the matrix.
        version: SurrealDB's version.
        store: ``mem``, ``surrealkv``, ``rocksdb``, or ``external``.
        live: LIVE queries notify.
        exact: Never are two writers told that each of them was the one (docs/stores.md).
    """

    name: str
    version: str
    store: str
    live: bool
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.store}"


def options_on() -> dict[str, str]:
    """The options that results are stored with when SURREALDB_TEST_OPTIONS is `on`: none of them changes what Celery sees."""
    if os.environ.get("SURREALDB_TEST_OPTIONS") != "on":
        return {}
    indexes = ("date_done", "name", "status", "worker", "queue", "root_id", "group_id", "error", "text")
    return {"result_format": "native", "track_sent": "true", "indexes": ",".join(indexes)}


class EngineFailed(Exception):
    """An engine did not start or did not end; the message has the end of its log."""


class NotPossible(Exception):
    """This engine is not ours to stop, pause or kill."""


@dataclass(frozen=True)
class Database:
    """A namespace and database of one test on a running engine. Neither exists before it is used."""

    engine: RunningEngine
    namespace: str
    database: str

    @property
    def settings(self) -> dict[str, Any]:
        """The `surrealdb_*` settings of `app.conf` that lead here."""
        return {
            "surrealdb_url": self.engine.url,
            "surrealdb_username": self.engine.username,
            "surrealdb_password": self.engine.password,
            "surrealdb_namespace": self.namespace,
            "surrealdb_database": self.database,
            **{f"surrealdb_{name}": value for name, value in options_on().items()},
        }

    @property
    def backend_url(self) -> str:
        """The same as one URL, for `result_backend` or ``CELERY_RESULT_BACKEND``."""
        scheme, address = self.engine.url.split("://")
        suffix = {"ws": "", "wss": "+wss", "http": "+http", "https": "+https"}[scheme]
        host = address.removesuffix("/rpc")
        userinfo = f"{self.engine.username}:{self.engine.password}"
        query = f"?{urlencode(options_on())}" if options_on() else ""
        return f"surrealdb{suffix}://{userinfo}@{host}/{self.namespace}/{self.database}{query}"

    @contextlib.contextmanager
    def connect(self) -> Any:
        """A blocking connection of the installed SDK, signed in and using this database."""
        from surrealdb import Surreal

        connection = Surreal(self.engine.url)
        try:
            connection.signin({"username": self.engine.username, "password": self.engine.password})
            connection.use(self.namespace, self.database)
            yield connection
        finally:
            connection.close()

    def query(self, text: str, variables: dict[str, Any] | None = None) -> list[Any]:
        """Run *text* and return the value of each statement; the first that failed raises AssertionError."""
        with self.connect() as connection:
            reply = connection.query_raw(text, variables or {})
        assert "result" in reply, reply
        for statement in reply["result"]:
            assert statement["status"] == "OK", statement["result"]
        return [statement["result"] for statement in reply["result"]]


class RunningEngine(ABC):
    """An engine that answers. As a context manager it is stopped at the end of the block."""

    username = "root"
    password = "root"

    def __init__(self, spec: EngineSpec, source: str) -> None:
        self.spec = spec
        #: Where the engine came from, in words.
        self.source = source
        self._run = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)

    @property
    @abstractmethod
    def url(self) -> str:
        """The `surrealdb_url`, such as ``ws://127.0.0.1:40123/rpc``."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The id of the process that runs now."""

    @abstractmethod
    def kill(self) -> None:
        """End it without warning (SIGKILL). `restart` brings it back."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers, until `resume`."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on after `pause`."""

    @abstractmethod
    def stop(self) -> None:
        """End it in good order. `restart` brings it back with its data, until `close`."""

    @abstractmethod
    def restart(self) -> None:
        """Start it again on the same port and data; stops it first if it runs. ``mem`` begins empty."""

    def close(self) -> None:
        """Stop it for good and delete its data, unless they are to be kept."""
        self.stop()

    @property
    def http_url(self) -> str:
        """The same server over HTTP, without ``/rpc``."""
        return "http" + self.url.removeprefix("ws").removesuffix("/rpc")

    @property
    def live(self) -> bool:
        """LIVE queries notify."""
        return self.spec.live

    @property
    def exact(self) -> bool:
        """Never are two writers told that each of them was the one."""
        return self.spec.exact

    @property
    def store(self) -> str:
        """The kind of storage."""
        return self.spec.store

    @property
    def version(self) -> str:
        """SurrealDB's version."""
        return self.spec.version

    def database(self) -> Database:
        """A namespace of this run and a database that no test had before."""
        return Database(self, f"test_{self._run}", f"db_{next(self._numbers)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<engine {self.spec} at {self.url}>"


class ExternalEngine(RunningEngine):
    """A server that somebody else runs ($SURREALDB_TEST_URL)."""

    def __init__(self, spec: EngineSpec, url: str, username: str, password: str) -> None:
        super().__init__(spec, "SURREALDB_TEST_URL")
        self._url = url.rstrip("/").removesuffix("/rpc") + "/rpc"
        self.username = username
        self.password = password

    @property
    def url(self) -> str:
        return self._url

    @property
    def pid(self) -> int:
        raise self._not_ours()

    def kill(self) -> None:
        raise self._not_ours()

    def pause(self) -> None:
        raise self._not_ours()

    def resume(self) -> None:
        raise self._not_ours()

    def stop(self) -> None:
        raise self._not_ours()

    def restart(self) -> None:
        raise self._not_ours()

    def close(self) -> None:
        """Remove what the tests made; the server goes on."""
        from surrealdb import Surreal

        connection = Surreal(self.url)
        try:
            connection.signin({"username": self.username, "password": self.password})
            connection.query_raw(f"REMOVE NAMESPACE IF EXISTS test_{self._run}", {})
        finally:
            connection.close()

    def _not_ours(self) -> NotPossible:
        return NotPossible("the server of SURREALDB_TEST_URL is not ours to stop, pause or kill")


#: Makes the command line of an engine from its data directory (None: in memory) and port (0: a free one).
Command = Callable[[Path | None, int], list[str]]


@dataclass
class _Process:
    """One run of an engine's program."""

    popen: subprocess.Popen[str]
    log: deque[str] = field(default_factory=lambda: deque(maxlen=40))
    threads: list[threading.Thread] = field(default_factory=list)


class ProcessEngine(RunningEngine):
    """An engine in a child process. It ends with its parent, however that ends, if its program watches stdin.

    Args:
        spec: What it is.
        source: Where it came from, in words.
        command: Makes the command line.
        announces: It prints ``ready: URL`` when it answers, and takes a free port for 0. Otherwise it is
            asked for its health.
        port: Where it listens; 0 for a free port.
        kept: A folder for its data, which stay; otherwise they go with it.
    """

    def __init__(
        self,
        spec: EngineSpec,
        source: str,
        command: Command,
        *,
        announces: bool,
        port: int = 0,
        kept: Path | None = None,
    ) -> None:
        super().__init__(spec, source)
        self._command = command
        self._announces = announces
        self._is_kept = kept is not None
        self._home = (kept or Path(tempfile.mkdtemp(prefix=f"surrealdb-{spec}-"))).resolve()
        self._port = port
        self._process: _Process | None = None
        try:
            self._start_first()
        except BaseException:
            self._remove()
            raise

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/rpc"

    @property
    def pid(self) -> int:
        return self._running().popen.pid

    def kill(self) -> None:
        self._running().popen.kill()
        self._reap()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is None:
            return
        popen = self._process.popen
        popen.terminate()
        # It may be paused, and then never sees the signal.
        with contextlib.suppress(ProcessLookupError):
            self.resume()
        try:
            popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            popen.kill()
            log = self._reap()
            raise EngineFailed(f"{self.spec} did not end within {STOP_TIMEOUT:g} s of SIGTERM\n{log}") from None
        status = popen.returncode
        log = self._reap()
        if self._announces and status != 0:
            raise EngineFailed(f"{self.spec} ended with status {status} instead of 0\n{log}")

    def restart(self) -> None:
        self.stop()
        self._start()

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self._remove()

    def _remove(self) -> None:
        if not self._is_kept:
            shutil.rmtree(self._home, ignore_errors=True)

    def _running(self) -> _Process:
        if self._process is None:
            raise EngineFailed(f"{self.spec} does not run: call restart() first")
        return self._process

    def _start_first(self) -> None:
        """Start on the port that was asked for, or on a free one, which is kept from now on."""
        if self._port != 0:
            self._start()
            return
        for left in reversed(range(PORTS_TRIED)):
            self._port = _free_port()
            try:
                self._start()
            except EngineFailed as error:
                # Somebody else was found the same port and took it first.
                if left == 0 or "in use" not in str(error):
                    raise
            else:
                return

    def _start(self) -> None:
        data = None if self.store == "mem" else self._home / "data"
        popen = subprocess.Popen(
            self._command(data, self._port),
            # Nothing of the checkout is to be importable by accident, and no signal meant for pytest to arrive.
            cwd=self._home,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process = self._process = _Process(popen)
        ready: deque[str] = deque(maxlen=1)
        settled = threading.Event()

        def follow(stream: Any, *, is_output: bool) -> None:
            for line in stream:
                process.log.append(line)
                if is_output and line.startswith("ready: "):
                    ready.append(line.split()[1])
                    settled.set()
            if is_output:
                settled.set()

        for stream, is_output in ((popen.stdout, True), (popen.stderr, False)):
            thread = threading.Thread(target=follow, args=(stream,), kwargs={"is_output": is_output}, daemon=True)
            thread.start()
            process.threads.append(thread)
        if self._announces:
            settled.wait(START_TIMEOUT)
        elif _answers(self._port, popen):
            ready.append(self.url)
        if not ready:
            popen.kill()
            raise EngineFailed(f"{self.spec} did not start: {self._reap() or 'it said nothing'}")
        self._port = int(ready[0].rpartition(":")[2].partition("/")[0])

    def _reap(self) -> str:
        """Forget the process once it ended, and return the end of its log."""
        process = self._running()
        process.popen.wait()
        for thread in process.threads:
            thread.join()
        for stream in (process.popen.stdin, process.popen.stdout, process.popen.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process = None
        return "".join(process.log).strip()


def _free_port() -> int:
    """A free port, where there is one outside of those that the system itself gives to connections and servers.

    Nobody is given such a port by chance while the engine that had it is down, so it can come back on it.
    """
    for port in random.SystemRandom().sample(_given_to_nobody(), 50):
        if _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _given_to_nobody() -> range:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32768
    # Below are the ports that servers have by custom: Redis, PostgreSQL, ….
    return range(20_000, first) if first > 21_000 else range(20_000, 32_768)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(port: int, popen: subprocess.Popen[str] | None) -> bool:
    """Ask for /health until it is answered; False if *popen* ended or the time is over."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and (popen is None or popen.poll() is None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        except OSError:
            time.sleep(_ASK_AGAIN)
        finally:
            connection.close()
    return False


class DockerEngine(RunningEngine):
    """SurrealDB's own server in a container, on a port of this machine that stays the same over restarts."""

    def __init__(self, spec: EngineSpec, image: str, port: int = 0, kept: Path | None = None) -> None:
        super().__init__(spec, f"Docker image {image}")
        from testcontainers.core.container import DockerContainer

        self._port = port or _free_port()
        data = "memory" if spec.store == "mem" else f"{spec.store}:///test-data"
        arguments = f"start --user root --pass root --bind 0.0.0.0:8000 {data}"
        # The image's own user may not write to the file system.
        self._container = DockerContainer(image).with_command(arguments).with_kwargs(user="root")
        if kept is not None:
            self._container.with_volume_mapping(str(kept.resolve()), "/test-data", "rw")
        # with_bind_ports would listen on every address of this machine.
        self._container.ports["8000"] = ("127.0.0.1", self._port)  # type: ignore[assignment]
        self._container.start()
        if not _answers(self._port, None):
            log = self._container.get_wrapped_container().logs(tail=40).decode()
            self._container.stop()
            raise EngineFailed(f"{spec} did not start: {log}")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/rpc"

    @property
    def pid(self) -> int:
        self._docker.reload()
        return int(self._docker.attrs["State"]["Pid"])

    @property
    def _docker(self) -> Any:
        return self._container.get_wrapped_container()

    def kill(self) -> None:
        self._docker.kill()
        self._docker.wait()

    def pause(self) -> None:
        self._docker.pause()

    def resume(self) -> None:
        self._docker.unpause()

    def stop(self) -> None:
        self._docker.reload()
        if self._docker.status == "paused":
            self.resume()
        self._docker.stop(timeout=int(STOP_TIMEOUT))

    def restart(self) -> None:
        self.stop()
        self._docker.start()
        if not _answers(self._port, None):
            raise EngineFailed(f"{self.spec} did not come back")

    def close(self) -> None:
        self._container.stop()
