"""What docs/scheduling.md shows is true: every command, statement and program runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state
from celery.bin.base import CLIContext
from click.testing import CliRunner

from surrealdb_celery_backend.beat import Schedules, statements
from surrealdb_celery_backend.cli import surrealdb
from tests.engines import Database, matrix
from tests.support.paths import CHECKOUT

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]

#: How long a state may take to be reached before the test fails, in seconds.
MAX_WAIT = 120


def blocks(language: str) -> list[str]:
    """Every block of a language on the page."""
    text = (CHECKOUT / "docs/scheduling.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def app(fresh_database: Database) -> Iterator[Celery]:
    """An app with the tasks that the page speaks of."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings, result_backend="disabled://", surrealdb_timeout=MAX_WAIT / 2)

    @app.task(name="shop.report", shared=False)
    def report(*args: Any) -> None:
        """Nothing: it is not run here."""

    @app.task(name="shop.poll", shared=False)
    def poll(*args: Any) -> None:
        """Nothing: it is not run here."""

    before = set(_state._on_app_finalizers)
    yield app
    _state._on_app_finalizers.intersection_update(before)


def test_every_command_runs(app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the page, one after the other, do what they are for."""
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("console") for line in block.splitlines() if " surrealdb " in line]
    assert len(lines) == 11
    for line in lines:
        words = shlex.split(line.removeprefix("$ "))
        assert words[:4] == ["celery", "-A", "proj", "surrealdb"]
        done = CliRunner().invoke(surrealdb, words[4:], obj=CLIContext(app, no_color=True, workdir=None))
        assert done.exit_code == 0, f"{line}\n{done.output}"
    with Schedules(app) as schedules:
        assert [entry.name for entry in schedules.entries()] == ["poll", "report"]
        assert schedules.get("poll").schedule == {"timedelta": 300}


def test_every_statement_runs(fresh_database: Database) -> None:
    """The statements of the page are refused by no engine."""
    by_hand, schema = blocks("surql")
    fresh_database.query(schema)
    fresh_database.query(by_hand)


def test_the_schema_of_the_page_is_the_one_that_is_made() -> None:
    """Who may not DEFINE is told to have made exactly what beat would make."""
    told = [line.rstrip(";") for line in blocks("surql")[-1].splitlines()]
    assert told == statements.define_schedules("").replace("`", "").split(";")


# The apps of earlier tests are still there, and are given the classes of the page again.
@pytest.mark.filterwarnings("ignore:Task name 'shop")
def test_every_program_runs(app: Celery) -> None:
    """The Python of the page runs: the interface, the runs of an entry and the class tasks."""
    interface, firings, class_tasks, _ = blocks("python")
    exec(interface, {"app": app})
    with Schedules(app) as schedules:
        report = schedules.get("report")
        assert (report.args, report.timezone) == (["eu"], "Europe/Berlin")
        assert report.run_requested_at is not None
        exec(firings, {"schedules": schedules})

    exec(class_tasks, {"__name__": "shop"})
    later = Celery("later", broker="memory://", set_as_current=False)
    assert later.tasks["shop.report_class"]("eu") == "report of eu"
    assert later.tasks["shop.poll_class"]() == 42


@pytest.mark.timeout(300)
def test_the_migration_takes_rows_of_the_real_package(app: Celery, fresh_database: Database) -> None:
    """The code for django-celery-beat loses nothing of its rows, and names those that make no entry."""
    if not matrix.in_ci():
        pytest.importorskip("django_celery_beat")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(CHECKOUT / "tests" / "support" / "django_rows.py"), blocks("python")[-1],
         json.dumps({**fresh_database.settings, "surrealdb_timeout": MAX_WAIT / 2})],
        capture_output=True,
        text=True,
        timeout=MAX_WAIT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    now = datetime.fromisoformat(outcome["now"])
    assert set(outcome["mistakes"]) == {"past", "eighth", "broken", "gone"}
    assert "its time has passed" in outcome["mistakes"]["past"]
    assert "schedule.day_of_week holds '8'" in outcome["mistakes"]["eighth"]
    assert "task holds 'shop.before'" in outcome["mistakes"]["gone"]
    with Schedules(app) as schedules:
        entries = {entry.name: entry for entry in schedules.entries()}
        runs = {name: schedules.next_runs(entry, 1) for name, entry in entries.items()}
    assert set(entries) == {"full", "grid", "ends", "sundays", "sun", "once", "done"}
    full = entries["full"]
    assert (full.schedule, full.args, full.kwargs) == ({"timedelta": 600}, ["eu", 5], {"a": None})
    assert full.options == {
        "queue": "slow",
        "exchange": "x",
        "routing_key": "k",
        "priority": 3,
        "headers": {"tenant": "acme"},
        "expires": 90,
    }
    assert (full.start_time, full.last_run_at) == (now - timedelta(days=2), now - timedelta(minutes=4))
    assert (full.total_run_count, full.description, full.active) == (7, "of the office", True)
    # An interval goes on from its last run.
    assert (runs["grid"][0] - (now - timedelta(minutes=4))) % timedelta(minutes=10) == timedelta(0)
    ends = entries["ends"]
    assert (ends.active, ends.expires_at) == (False, now + timedelta(days=30))
    assert ends.options == {"expires": now + timedelta(days=30)}
    assert entries["sundays"].timezone == "Asia/Tokyo"
    assert runs["sundays"][0].strftime("%a %H:%M %z") == "Sun 09:00 +0900"
    assert entries["sun"].schedule == {"solar": "sunset", "latitude": 52.5, "longitude": 13.4}
    assert (entries["once"].one_off, runs["once"]) == (True, [now + timedelta(days=1)])
    assert entries["done"].active is False
