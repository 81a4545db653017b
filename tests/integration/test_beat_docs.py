"""What docs/scheduling.md and examples/scheduling.py show is true: every command, statement and program runs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state
from celery.bin.base import CLIContext
from click.testing import CliRunner

from surrealdb_celery_backend import statements
from surrealdb_celery_backend.beat import Schedules
from surrealdb_celery_backend.cli import surrealdb
from tests.engines import Database

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
#: How long a state may take to be reached before the test fails, in seconds.
PATIENCE = 120


def blocks(language: str) -> list[str]:
    """Every block of a language on the page."""
    text = (ROOT / "docs/scheduling.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def app(fresh_database: Database) -> Iterator[Celery]:
    """An app with the tasks that the page speaks of."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings, result_backend="disabled://", surrealdb_timeout=PATIENCE / 2)

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
    """The Python of the page runs: the interface, the class tasks, and the migration with it."""
    interface, class_tasks, migration = blocks("python")
    exec(interface, {"app": app})
    with Schedules(app) as schedules:
        report = schedules.get("report")
        assert (report.args, report.timezone) == (["eu"], "Europe/Berlin")
        assert report.run_requested_at is not None

    exec(class_tasks, {"__name__": "shop"})
    later = Celery("later", broker="memory://", set_as_current=False)
    assert later.tasks["shop.report_class"]("eu") == "report of eu"
    assert later.tasks["shop.poll_class"]() == 42

    namespace: dict[str, Any] = {}
    exec(migration, namespace)
    common = {
        "task": "shop.report",
        "args": '["eu"]',
        "kwargs": "",
        "queue": "slow",
        "exchange": None,
        "routing_key": None,
        "priority": None,
        "enabled": True,
        "one_off": False,
        "start_time": None,
        "expires": None,
        "description": "",
        "total_run_count": 7,
        "interval": None,
        "crontab": None,
        "solar": None,
        "clocked": None,
    }
    crontab = dict.fromkeys(("minute", "day_of_week", "day_of_month", "month_of_year"), "*")
    tasks = [
        SimpleNamespace(**{**common, "name": "i", "interval": SimpleNamespace(schedule=5)}),
        SimpleNamespace(
            **{**common, "name": "c", "crontab": SimpleNamespace(**crontab, hour="9", timezone="Asia/Tokyo")}
        ),
        SimpleNamespace(
            **{
                **common,
                "name": "o",
                "clocked": SimpleNamespace(clocked_time=datetime(2036, 1, 1, tzinfo=timezone.utc)),
            }
        ),
    ]
    try:
        import ephem  # noqa: F401
    except ImportError:
        pass
    else:
        sun = SimpleNamespace(event="sunset", latitude=Decimal("52.5"), longitude=Decimal("13.4"))
        tasks.append(SimpleNamespace(**{**common, "name": "s", "solar": sun}))
    namespace["migrate"](app, tasks)
    with Schedules(app) as schedules:
        entries = {entry.name: entry for entry in schedules.entries()}
    assert entries["i"].schedule == {"timedelta": 5}
    assert entries["i"].options == {"queue": "slow"}
    assert entries["i"].total_run_count == 7
    assert entries["c"].timezone == "Asia/Tokyo"
    assert entries["c"].schedule == {"hour": "9"}
    assert entries["o"].schedule == {"clocked": "2036-01-01T00:00:00+00:00"}


@pytest.mark.worker
@pytest.mark.timeout(600)
def test_the_example_runs(fresh_database: Database, tmp_path: Path) -> None:
    """The example's beat and worker run its entries, the one that is added meanwhile too."""
    environment = {
        **os.environ,
        "CELERY_RESULT_BACKEND": fresh_database.backend_url,
        "EXAMPLES_BROKER_FOLDER": str(tmp_path / "broker"),
    }
    # Before there is anybody else: who makes a database and its tables at the same time may be refused.
    fresh_database.query("DEFINE TABLE IF NOT EXISTS task")
    started = []
    try:
        for name, arguments in (
            ("worker", ["worker", "--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat"]),
            ("beat", ["beat", "-S", "surrealdb_celery_backend.beat:SurrealDBScheduler", "--pidfile="]),
        ):
            with (tmp_path / f"{name}.log").open("wb") as log:
                command = [sys.executable, "-m", "celery", "-A", "scheduling", *arguments, "-l", "INFO"]
                started.append(
                    subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )
        deadline = time.monotonic() + PATIENCE
        asked = False
        while True:
            logs = "\n".join(file.read_text(errors="replace")[-3000:] for file in sorted(tmp_path.glob("*.log")))
            assert time.monotonic() < deadline, logs
            results = fresh_database.query("SELECT name, result FROM task WHERE status = 'SUCCESS'")[0]
            found = {(row["name"], row["result"]) for row in results}
            if ("tasks.add", "5") in found and not asked:
                done = subprocess.run(
                    [sys.executable, "scheduling.py"],
                    cwd=EXAMPLES,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                assert re.search(r"^add every second: ran \d+ times, next at \S+", done.stdout, flags=re.MULTILINE)
                assert re.search(r"^scheduling.report: .*09:00:00\+0[12]:00", done.stdout, flags=re.MULTILINE)
                asked = True
            if ("scheduling.poll", '"polled the office"') in found:
                break
            time.sleep(0.1)
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(PATIENCE)
