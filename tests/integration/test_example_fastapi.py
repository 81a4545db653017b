"""The FastAPI service of examples/ runs as its page says: it sends, awaits and streams; backups, Flower, the console."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.engines import Database, RunningEngine
from tests.support.processes import MAX_WAIT
from tests.support.programs import Programs, programs
from tests.support.states import until

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.worker, pytest.mark.timeout(600)]

for package in ("fastapi", "flower", "pydantic_settings", "aiosqlite"):
    pytest.importorskip(package)


def told(client: httpx.Client, sent: httpx.Response) -> dict[str, Any]:
    """What became of a task that was sent, when it has ended."""
    assert sent.status_code == 202, sent.text
    while True:
        answer: dict[str, Any] = client.get(sent.json()["url"], params={"wait": 60}).json()
        if answer["state"] in {"SUCCESS", "FAILURE"}:
            return answer


def backup_of(age: timedelta) -> str:
    """The name of a backup that is so old."""
    return f"surrealdb-celery-{datetime.now(timezone.utc) - age:%Y%m%dT%H%M%SZ}.jsonl.gz"


def far_from_night() -> str:
    """A zone where it is about noon: the nightly entry runs when it is asked for, and not by itself as well."""
    ahead = 12 - datetime.now(timezone.utc).hour
    # The sign in these names is that of POSIX: what is to be added to get UTC.
    return f"Etc/GMT{-ahead:+d}"


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="flower-") as folder:
        yield Path(folder) / "socket"


def test_the_service_runs(live_engine: RunningEngine, tmp_path: Path, socket_path: Path) -> None:
    """Every address of the service does what it is for; beat makes the backup; Flower and the console are there."""
    database, backups = live_engine.database(), tmp_path / "backups"
    backups.mkdir()
    old, recent = backups / backup_of(timedelta(days=3)), backups / backup_of(timedelta(days=1))
    for path in (old, recent):
        path.write_text("x")
    more = {
        "SERVICE_DATABASE": str(tmp_path / "words.sqlite3"),
        "SERVICE_BACKUP_FOLDER": str(backups),
        "SERVICE_BACKUP_DAYS": "2",
        "SERVICE_TIME_ZONE": far_from_night(),
        "SERVICE_CONSOLE_PASSWORD": "geheim",
        "FLOWER_UNIX_SOCKET": str(socket_path),
    }
    names = ("web", "worker", "beat", "flower")
    with (
        programs("fastapi_service", database, tmp_path, *names, **more) as running,
        httpx.Client(base_url=running.url, timeout=MAX_WAIT) as client,
    ):
        tasks_are_told(client)
        progress_is_streamed(client)
        beat_makes_the_backup(running, database, backups, kept=recent, gone=old)
        the_console_is_mounted(client)
        transport = httpx.HTTPTransport(uds=str(socket_path))
        with httpx.Client(transport=transport, base_url="http://flower", timeout=MAX_WAIT) as flower:
            name = running.environment["WORKER_NAME"]
            until(lambda: name in flower.get("/workers").text, "Flower knows the worker", MAX_WAIT)
    assert "geheim" not in running.printed()


def tasks_are_told(client: httpx.Client) -> None:
    """Status, result and error of a task; a coroutine and a function use the database that was prepared for them."""
    report = client.post("/reports", json={"pages": 2, "seconds_a_page": 0})
    assert told(client, report) == {"state": "SUCCESS", "result": "2 pages", "error": None, "progress": None}
    failed = told(client, client.post("/reports", json={"pages": 0}))
    assert (failed["state"], failed["error"]) == ("FAILURE", "ValueError: a report of 0 pages has nothing to say")
    assert client.get("/tasks/nobody").status_code == 404
    assert client.post("/reports", json={"pages": "many"}).status_code == 422

    # In either process of the worker, whichever task comes first.
    counted = [client.post("/words", json={"text": "one two one"}) for _ in range(4)]
    assert [told(client, each)["result"] for each in counted] == [3] * 4
    assert client.get("/words/top", params={"number": 2}).json() == [["one", 8], ["two", 4]]


def progress_is_streamed(client: httpx.Client) -> None:
    """Each state is an event, the end is the last one, and the stream ends with it."""

    def streamed() -> set[str]:
        sent = client.post("/reports", json={"pages": 3, "seconds_a_page": 0.2}).json()
        with client.stream("GET", sent["events"]) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in response.iter_lines() if line]
        events = list(zip(lines[::2], lines[1::2], strict=True))
        assert events[-1] == ("event: SUCCESS", 'data: "3 pages"')
        return {data for name, data in events if name == "event: PROGRESS"}

    # On a slow machine a stream may begin when all pages are written.
    seen = until(streamed, "progress is streamed", MAX_WAIT)
    assert seen <= {f'data: {{"current": {n}, "total": 3, "message": "page {n}"}}' for n in (1, 2, 3)}


def beat_makes_the_backup(running: Programs, database: Database, backups: Path, *, kept: Path, gone: Path) -> None:
    """The nightly entry, asked for now: a compressed file with all records; older ones than the days kept are gone."""
    query = "SELECT VALUE name FROM schedule WHERE name = 'nightly backup'"
    until(lambda: database.query(query)[0], "beat has deployed its entries", MAX_WAIT)
    printed = running.python("-m", "celery", "-A", "service", "surrealdb", "schedule", "run", "nightly backup")
    assert "asked beat to run nightly backup" in printed
    until(lambda: not gone.exists(), "the backup is made, and old ones are deleted", MAX_WAIT)
    (made,) = set(backups.iterdir()) - {kept}
    with gzip.open(made, "rt") as file:
        assert sum("task_id" in json.loads(line) for line in file) >= 7


def the_console_is_mounted(client: httpx.Client) -> None:
    """It asks for the password, its links stay below its prefix, and a task appears while a page is open."""
    assert client.get("/console/").status_code == 401
    known = ("ada", "geheim")
    page = client.get("/console/tasks", auth=known)
    links = re.findall(r'(?:href|src|action|data-events|data-task)="([^"]+)"', page.text)
    assert links
    assert [each for each in links if not each.startswith(("/console/", "#"))] == []
    for each in {link for link in links if "/static/" in link}:
        assert client.get(each, auth=known).status_code == 200, each
    with client.stream("GET", "/console/events", auth=known) as events:
        lines = events.iter_lines()
        assert next(lines) == "retry: 2000"
        assert next(line for line in lines if line.startswith("event: ")) == "event: following"
        with httpx.Client(base_url=client.base_url, timeout=MAX_WAIT) as other:
            task_id = other.post("/reports", json={"pages": 1, "seconds_a_page": 0}).json()["id"]
        assert next(line for line in lines if task_id in line).startswith("data: ")


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_it_runs_on_a_real_broker(
    live_engine: RunningEngine, tmp_path: Path, broker: str, request: pytest.FixtureRequest
) -> None:
    """`CELERY_BROKER_URL` names a server of one's own."""
    url = request.getfixturevalue(broker)
    more = {"SERVICE_DATABASE": str(tmp_path / "words.sqlite3")}
    with (
        programs("fastapi_service", live_engine.database(), tmp_path, "web", "worker", broker=url, **more) as running,
        httpx.Client(base_url=running.url, timeout=MAX_WAIT) as client,
    ):
        assert told(client, client.post("/words", json={"text": "one two one"}))["result"] == 3
        assert client.get("/words/top").json() == [["one", 2], ["two", 1]]
