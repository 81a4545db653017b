"""The servers of a run: those that answer are used, the others are started from the system's packages."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

#: How long a server may take until it answers, in seconds.
START_TIMEOUT = 60.0


class NoServer(Exception):
    """A server is neither there nor can it be started here."""


@dataclass(frozen=True)
class Server:
    """A server of a run.

    :param url: where it answers.
    :param pid: its process, if this run started it.
    """

    url: str
    pid: int | None


@contextlib.contextmanager
def redis() -> Iterator[Server]:
    """A Redis server of this run's own, so that its CPU is that of one purpose; else one that answers already.

    :raises NoServer: there is neither ``redis-server`` on PATH nor one at $REDIS_TEST_URL or on the usual port.
    """
    program = shutil.which("redis-server")
    if program is None:
        url = os.environ.get("REDIS_TEST_URL", "redis://127.0.0.1:6379/0")
        if not _answers(_port(url)):
            raise NoServer("no redis-server on PATH and no Redis on port 6379: install the package redis-server")
        yield Server(url, None)
        return
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
        with _running(command, port) as pid:
            yield Server(f"redis://127.0.0.1:{port}/0", pid)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL database: $POSTGRES_TEST_URL, one on the usual port, or one started for this run.

    :raises NoServer: PostgreSQL is not installed either.
    """
    url = os.environ.get("POSTGRES_TEST_URL", "postgresql://postgres@127.0.0.1:5432/test")
    if _answers(_port(url)):
        yield url
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if on_path is None and not programs:
        raise NoServer("no PostgreSQL on port 5432 and none installed: install the package postgresql")
    binaries = Path(on_path).parent if on_path else programs[-1].parent
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        # PostgreSQL refuses to run as root, who can be the package's user instead.
        become: list[str] = []
        if os.geteuid() == 0:
            become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            os.chown(directory, pwd.getpwnam("postgres").pw_uid, -1)
        initialise = [str(binaries / "initdb"), "-D", f"{directory}/data", "-U", "postgres", "-A", "trust"]
        subprocess.run([*become, *initialise], check=True, stdout=subprocess.DEVNULL, cwd=directory)
        server = [str(binaries / "postgres"), "-D", f"{directory}/data", "-p", str(port), "-k", directory]
        with _running([*become, *server, "-c", "listen_addresses=127.0.0.1"], port, cwd=directory):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def _running(command: list[str], port: int, cwd: str | None = None) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoServer(f"{command[0]} did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _port(url: str) -> int:
    return urlsplit(url).port or 0


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
