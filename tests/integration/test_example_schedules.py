"""The project of examples/schedules runs as its page says: class tasks, entries of both kinds, a beat that takes over."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.engines import RunningEngine
from tests.support.processes import MAX_WAIT
from tests.support.projects import Project
from tests.support.states import until

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.worker, pytest.mark.timeout(600)]

# The schedules themselves are tested on every engine; a project on one of them.


def prepared(live_engine: RunningEngine, folder: Path, broker: str = "") -> Project:
    """The project, on a database of its own."""
    database = live_engine.database()
    # Before there is anybody else: programs that make a database at the same time may be refused.
    database.query("DEFINE TABLE IF NOT EXISTS task")
    return Project("schedules", database, folder, broker)


def last_report() -> date:
    """The day of the last report: it is due at nine in Berlin."""
    return (datetime.now(ZoneInfo("Europe/Berlin")) - timedelta(hours=9)).date()


def results(project: Project) -> set[tuple[str, str]]:
    """The names of the tasks that succeeded, and what they returned."""
    (rows,) = project.database.query("SELECT name, result FROM task WHERE status = 'SUCCESS'")
    return {(row["name"], row["result"]) for row in rows}


@pytest.mark.parametrize("broker", ["folder", "redis", "rabbitmq"])
def test_entries_of_code_and_database_run(
    live_engine: RunningEngine, tmp_path: Path, broker: str, request: pytest.FixtureRequest
) -> None:
    """A beat runs the entries of the code, of class tasks, and those that a program adds meanwhile."""
    url = "" if broker == "folder" else request.getfixturevalue(f"{broker}_url")
    project, day = prepared(live_engine, tmp_path, url), last_report()
    beat = ("beat", "-S", "surrealdb", "--loglevel", "INFO", "--pidfile=")
    with project.worker("--pool", "solo"), project.celery("beat", *beat):
        until(lambda: ("schedules.tasks.heartbeat", '"alive"') in results(project), "the code's entry ran", MAX_WAIT)
        until(lambda: ("schedules.poll", '"Lyon and Oslo"') in results(project), "the async task ran", MAX_WAIT)
        listed = project.python("-m", "schedules.entries")
        # One was changed before its first run, the other asked for out of turn.
        until(lambda: ("schedules.tasks.add", "42") in results(project), "the added entry ran", MAX_WAIT)
        until(lambda: ("schedules.tasks.add", "30") in results(project), "the entry asked for ran", MAX_WAIT)
        again = project.python("-m", "schedules.entries")
    assert re.search(r"^heartbeat: \d+ runs, next at \S+", listed, flags=re.MULTILINE)
    reports = "0" if last_report() == day else "[01]"
    assert re.search(rf"^schedules.report: {reports} runs, next at \S+ 09:00:00\+0[12]:00", listed, flags=re.MULTILINE)
    assert re.search(r"^add on the last Friday of the month: .* 17:00:00-0[45]:00", listed, flags=re.MULTILINE)
    assert len(again.splitlines()) == len(listed.splitlines()) == 6


def test_the_other_beat_takes_over(live_engine: RunningEngine, tmp_path: Path) -> None:
    """The second beat runs on where the first was killed; each run has one result."""
    project = prepared(live_engine, tmp_path)
    with project.worker("--pool", "solo"):
        printed = project.python("-m", "schedules.takeover")
    assert re.search(r"^active: the (first|second) beat\nkilled; \d+ runs until then\nactive: the other beat", printed)
    counts = re.search(r"^(\d+) runs, (\d+) results", printed, flags=re.MULTILINE)
    assert counts, printed
    assert counts[1] == counts[2]
