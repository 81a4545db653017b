"""The guides lead where they say: each is followed from an empty folder, with real programs, to its end."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import Database, RunningEngine
from tests.support.guides import Block, Guide, blocks
from tests.support.ports import held_port
from tests.support.states import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.worker,
    pytest.mark.timeout(600),
    pytest.mark.program,
]

#: The database of the pages.
ADDRESS = "surrealdb://root:root@localhost:8000/celery/results"

#: Two tasks that have ended, as a worker stores them.
FILL = """
from celery.app.task import Context
from shop import app

for name, result, state in (("add", 5, "SUCCESS"), ("divide", ValueError("x"), "FAILURE")):
    request = Context(id=name, task=f"shop.{name}", args=[1, 2], kwargs={}, hostname="celery@one")
    app.backend.store_result(name, result, state, request=request)
"""


def test_start_in_five_minutes(live_engine: RunningEngine, fresh_database: Database, tmp_path: Path, port: int) -> None:
    """A task, a worker, a failure found by a command, a check and the console."""
    replaced = {ADDRESS: fresh_database.backend_url, "surrealdb console": f"surrealdb console --port {port}"}
    with Guide(tmp_path, replaced) as guide:
        guide.follow("docs/start.md")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/tasks") as answer:
            page = answer.read().decode()
    assert "shop.divide" in page
    assert len(guide.ran) == 7
    (rows,) = fresh_database.query("SELECT name, status FROM task")
    assert {(row["name"], row["status"]) for row in rows} == {("shop.add", "SUCCESS"), ("shop.divide", "FAILURE")}


def test_a_plain_celery_project(live_engine: RunningEngine, fresh_database: Database, tmp_path: Path) -> None:
    """Worker and beat, an entry that is changed while beat runs, a chord, figures, and the tests of the tasks."""
    with Guide(tmp_path, {ADDRESS: fresh_database.backend_url}) as guide:
        guide.follow("docs/celery.md")
    assert len(guide.ran) == 9
    (entry,) = fresh_database.query("SELECT name, schedule FROM schedule WHERE name = 'report'")[0]
    assert entry == {"name": "report", "schedule": {"timedelta": 300}}


def test_a_django_project(live_engine: RunningEngine, fresh_database: Database, tmp_path: Path, port: int) -> None:
    """A new project with a worker, beat, the check, the admin's page, and the tests of its tasks."""
    pytest.importorskip("django")
    with Guide(tmp_path, {ADDRESS: fresh_database.backend_url, "8001": str(port)}) as guide:
        guide.follow("docs/django.md")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/admin/") as answer:
            assert "/admin/login/" in answer.url
    assert len(guide.ran) == 12
    (entries,) = fresh_database.query("SELECT VALUE task FROM schedule")
    assert "orders.tasks.report" in entries


def test_a_service_with_fastapi(
    live_engine: RunningEngine, fresh_database: Database, tmp_path: Path, port: int
) -> None:
    """A report that is sent, awaited and watched through the service, and the console in it."""
    pytest.importorskip("fastapi")
    with Guide(tmp_path, {ADDRESS: fresh_database.backend_url, "8080": str(port)}) as guide:
        guide.follow("docs/fastapi.md")
        failed = guide.says(f"curl -s -X POST 'http://127.0.0.1:{port}/reports?pages=0'")
        address = f"http://127.0.0.1:{port}/reports/{json.loads(failed)['id']}"
        state = until(
            lambda: (found := json.loads(guide.says(f"curl -s {address}")))["state"] == "FAILURE" and found, ""
        )
    assert state == {"state": "FAILURE", "error": "a report has at least one page"}
    assert len(guide.ran) == 7


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a page's web program, which starts only after several others."""
    with held_port() as port:
        yield port


@pytest.fixture
def shop(fresh_database: Database, tmp_path: Path) -> Iterator[Guide]:
    """The shop of the first page, with a result and a failure."""
    folder = tmp_path / "shop"
    folder.mkdir()
    replaced = {
        ADDRESS: fresh_database.backend_url,
        ADDRESS.replace("/results", "/restored"): fresh_database.backend_url.replace("/db_", "/restored_"),
    }
    with Guide(folder, replaced) as guide:
        guide.write(next(block for block in blocks("docs/start.md") if block.title == "shop.py"))
        guide.write(Block("python", "fill.py", FILL))
        guide.says("python fill.py")
        yield guide


@pytest.mark.parametrize(
    ("page", "commands"),
    [("docs/backup.md", 6), ("docs/upgrading.md", 3), ("docs/operating.md", 4), ("docs/migrating.md", 2)],
)
def test_commands_of_a_page(live_engine: RunningEngine, shop: Guide, page: str, commands: int) -> None:
    """Each command of the page ends well, one after the other."""
    shop.follow(page)
    assert len(shop.ran) == commands
