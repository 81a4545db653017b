"""Every page of the console, asked over loopback."""

from __future__ import annotations

import contextlib
import http.client
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.engines import Database

from ..accounting import Accounts, alone, peak_memory, tree
from .build import DataSet, environment
from .commands import CHECKOUT
from .tasks import NOTHING, RARE, RARE_ERROR, RARE_TAG, RARE_WORKER

#: Above it a page is marked, in seconds.
LIMIT = 0.2
#: For how long figures that are being counted are waited for, and how long it may take until the console listens.
PATIENCE, START_TIMEOUT = 300.0, 300.0
#: What a page says whose figures are not all there, or that looked at as many records as a page does.
_PENDING = (b"being counted", b"Being counted", b"still being counted", b"are being read")
_STOPPED = re.compile(rb"([\d,]+) records were looked at, and there are more")
_ROW = b'<tr data-id="'


@dataclass
class Asked:
    """What a page took.

    Attributes:
        page: As the table shows it.
        status: Of the last answer.
        seconds: Of each request.
        engine: Seconds of CPU of the engine per request, and of the console.
        console: Seconds of CPU of the console per request.
        size: Bytes of the last answer.
        rows: Tasks that it listed.
        note: What else there is to say of the answer.
        complete: Seconds from the first request on until figures that are counted in the background were complete.
    """

    page: str
    status: int = 0
    seconds: list[float] = field(default_factory=list)
    engine: float = 0.0
    console: float = 0.0
    size: int = 0
    rows: int = 0
    note: str = ""
    complete: float | None = None

    @property
    def median(self) -> float:
        """Of its times."""
        return statistics.median(self.seconds)

    @property
    def good(self) -> bool:
        """Whether it answered."""
        return self.status == 200


@dataclass(frozen=True)
class Console:
    """A console that runs.

    Attributes:
        pid: Its process.
        port: Where it listens.
    """

    pid: int
    port: int


def pages(data: DataSet, cursor: str, deep: str) -> dict[str, str]:
    """The pages, as they are shown, and their addresses.

    Args:
        data: The data set that they show.
        cursor: Where the second page of a list begins.
        deep: Where a page of a list begins that is half way down.
    """
    known = data.known
    begin, end = data.back(timedelta(days=15)), data.back(timedelta(days=15, hours=-1))
    lists: dict[str, dict[str, str]] = {
        "first page": {},
        "next page": {"after": cursor},
        "page half way down": {"after": deep},
        "state FAILURE": {"state": "FAILURE"},
        "ended": {"state": "SUCCESS,FAILURE,REVOKED"},
        "not ended": {"state": "PENDING,RECEIVED,STARTED,PROGRESS,RETRY"},
        "name of many": {"name": "shop.mail.send"},
        "name web.*": {"name": "web.*"},
        "name of five": {"name": RARE},
        "name of five, looked on": {"name": RARE, "on": "1"},
        "name of none": {"name": NOTHING},
        "worker of many": {"worker": "celery@web-3"},
        "worker of few": {"worker": RARE_WORKER},
        "queue": {"queue": "slow"},
        "error of many": {"error": "OperationalError"},
        "error of few": {"error": RARE_ERROR},
        "text of many": {"text": "mail server"},
        "text of none": {"text": "no such words"},
        "min_runtime": {"min_runtime": "60"},
        "periodic": {"periodic": "daily-report"},
        "tags of many": {"tags": "vip"},
        "tags of few": {"tags": RARE_TAG},
        "argument of few": {"argument": "order-7777"},
        "root": {"root": known["root"]},
        "group": {"group": known["group"]},
        "an hour 15 days ago": {"since": begin, "until": end},
    }
    day = urlencode({"state": "FAILURE", "since": data.back(timedelta(days=1))})

    def of(path: str, what: str) -> str:
        return f"{path}?id={quote(known[what])}"

    return {
        **{f"overview, {span}": f"/?span={span}" for span in ("24h", "1h", "7d")},
        **{f"chart: {what}": f"/chart/{what}.svg?span=24h" for what in ("ended", "runtime", "queue_time")},
        **{f"tasks: {shown}": f"/tasks?{urlencode(given)}" for shown, given in lists.items()},
        "task, succeeded": of("/task", "succeeded"),
        "task, failed": of("/task", "failed"),
        "task of a workflow": of("/task", "member"),
        "task, the body of a chord": of("/task", "body"),
        "groups": "/groups",
        "group": of("/group", "group"),
        "chord that waits": of("/group", "waiting"),
        "schedules": "/schedules",
        "schedule, edited": "/schedules/edit?name=daily-report",
        "metrics": "/metrics",
        "health": "/health",
        "export.csv, failures of a day": f"/tasks/export.csv?{day}",
        "api/tasks": "/api/tasks",
        "api/tasks, name of five": f"/api/tasks?name={RARE}",
        "api/task": of("/api/task", "failed"),
        "api/workflow": of("/api/workflow", "member"),
        **{f"api/stats by {by}": f"/api/stats?by={by}" for by in ("name", "hour", "worker", "queue")},
        "api/chords": "/api/chords",
        "api/schedules": "/api/schedules",
        "api/openapi.json": "/api/openapi.json",
    }


@contextlib.contextmanager
def console(database: Database, indexes: str, folder: Path) -> Iterator[Console]:
    """A console in a process of its own, as people start it.

    Args:
        database: Whose results it shows.
        indexes: `surrealdb_indexes`.
        folder: For its log.
    """
    log = folder / "console.log"
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.million.app", "surrealdb", "console", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment(database, indexes), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Console(process.pid, _port(process, log))
    finally:
        process.terminate()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.02)
    raise RuntimeError(f"the console did not start: {log.read_text()}")


def time_pages(
    data: DataSet, database: Database, places: tuple[str, str], folder: Path, *, runs: int
) -> tuple[list[Asked], float]:
    """Ask for all pages; what they took, and MiB of the console at its peak.

    Args:
        data: The data set.
        database: Where it is.
        places: Where the second page of a list begins, and one half way down.
        folder: For the console's log.
        runs: How often each.
    """
    with console(database, data.indexes, folder) as running:
        accounts = Accounts({"engine": tree(database.engine.pid), "console": alone(running.pid)})
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
        found = []
        for shown, path in pages(data, *places).items():
            asked = Asked(shown)
            with accounts.used() as cpu:
                began = time.monotonic()
                pending = [_ask(connection, path, asked) for _ in range(runs)][-1]
            asked.engine, asked.console = cpu["engine"] / runs, cpu["console"] / runs
            if pending:
                asked.complete = _until_complete(connection, path, asked, began)
            print(f"{shown}: {asked.status}, {asked.median * 1000:.0f} ms", file=sys.stderr, flush=True)
            found.append(asked)
        connection.close()
        return found, peak_memory(running.pid)


def _ask(connection: http.client.HTTPConnection, path: str, asked: Asked) -> bool:
    """Ask once; whether figures are missing in the answer."""
    began = time.monotonic()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    asked.seconds.append(time.monotonic() - began)
    asked.status, asked.size, asked.rows = response.status, len(body), body.count(_ROW)
    stopped = _STOPPED.search(body)
    asked.note = f"stopped after {stopped[1].decode()} records" if stopped else ""
    is_page = "text/html" in (response.getheader("Content-Type") or "")
    return response.status in {202, 204} or (is_page and any(each in body for each in _PENDING))


def _until_complete(connection: http.client.HTTPConnection, path: str, asked: Asked, began: float) -> float | None:
    """Ask until the figures are there; seconds from the first request on, None where they did not come."""
    again = Asked(asked.page)
    while time.monotonic() < began + PATIENCE:
        time.sleep(0.1)
        if not _ask(connection, path, again):
            asked.status = again.status
            return time.monotonic() - began
    return None
