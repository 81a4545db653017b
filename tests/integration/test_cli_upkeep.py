"""`celery surrealdb check`, `chords` and `cleanup` on engines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest

from surrealdb_celery_backend.results import Results
from surrealdb_celery_backend.results.checks import database
from tests.engines import Database, RunningEngine
from tests.support import history_data as data
from tests.support.apps.contract_apps import request
from tests.support.paths import CHECKOUT
from tests.support.shell import Shell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


@pytest.fixture(autouse=True)
def no_machine_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No round trip is long enough for a warning: the machine of a test may be slow."""
    monkeypatch.setattr(database, "SLOW", float("inf"))


@pytest.fixture
def shell(fresh_database: Database) -> Iterator[Shell]:
    """A shell on a database of its own."""
    shell = Shell(fresh_database, surrealdb_chord_lease=120)
    yield shell
    shell.close()


def test_a_good_setup_has_no_failures(shell: Shell) -> None:
    """Connection, latency, clocks, schema and rights are good; LIVE is where the engine has it."""
    findings = {each["subject"]: each for each in shell.json("check")}
    for subject in ("connection", "clocks", "schema", "rights"):
        assert findings[subject]["good"] is True, findings
    live = findings["LIVE"]
    assert live["good"] is (True if shell.database.engine.live else None), live
    assert findings["beat"]["good"] is None
    text = shell.ok("check")
    assert "a round trip" in text
    assert "root:root" not in text
    assert shell.json("tasks") == []


def test_the_documented_output_is_what_is_printed(live_engine: RunningEngine) -> None:
    """The page on troubleshooting shows the output of today, apart from figures and names of places."""

    def comparable(text: str) -> list[str]:
        lines = [re.sub(r"://\S+", "://…", line) for line in text.strip().splitlines()]
        return [re.sub(r"[\d.]+", "N", line) for line in lines]

    page = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
    shown = page.split("```text\n")[1].split("```")[0]
    shell = Shell(live_engine.database(), surrealdb_chord_lease=90, surrealdb_indexes="date_done")
    try:
        assert comparable(shell.ok("check")) == comparable(shown)
    finally:
        shell.close()


def test_what_fails_says_what_to_do(shell: Shell, dead_port: int) -> None:
    """A missing index, results that are ignored, a server that is not there: a line each, and the exit code is 1."""
    shell.ok("check")
    shell.database.query("REMOVE INDEX task_date_done ON task")
    shell.app.conf.task_ignore_result = True
    result = shell("check")
    assert result.exit_code == 1
    assert "lacks task_date_done" in result.stdout
    assert "schema --apply" in result.stdout
    assert "no result is stored" in result.stdout
    assert "2 of" in result.stderr
    away = Shell(shell.database, surrealdb_url=f"ws://127.0.0.1:{dead_port}/rpc", surrealdb_timeout=5)
    result = away("check")
    assert result.exit_code == 1
    assert "cannot be reached" in result.stdout
    away.close()


def test_what_works_is_no_failure(fresh_database: Database) -> None:
    """Settings that the worker takes are marked and explained, and the exit code is 0."""
    shell = Shell(fresh_database, surrealdb_timeout=60, surrealdb_chord_lease=60)
    try:
        text = shell.ok("check")
        assert "warn  settings    surrealdb_chord_lease (60 s) is not above surrealdb_timeout (60 s)" in text
        assert "-> raise surrealdb_chord_lease" in text
        (finding,) = (each for each in shell.json("check") if each["subject"] == "settings")
        assert (finding["good"], finding["severity"]) == (None, "advice")
    finally:
        shell.close()


def test_unfinished_chords_say_what_they_miss(shell: Shell) -> None:
    """The parts that are there are counted; tasks of the header that run are named with their states."""
    backend = shell.app.backend
    assert shell("chords").stderr == "no unfinished chords\n"
    backend.set_chord_size("c", 3)
    for number in (0, 1):
        sent_by = request(f"p{number}", group="c", group_index=number, chord={"chord_size": 3})
        backend.on_chord_part_return(sent_by, "SUCCESS", number)
    backend.store_result("p2", None, "STARTED", request=request("p2", group="c", group_index=2))
    with Results(shell.app) as results:
        [chord] = results.unfinished_chords()
    assert (chord.group_id, chord.size, chord.present) == ("c", 3, 2)
    assert [(part.task_id, part.state) for part in chord.missing] == [("p2", "STARTED")]
    assert "2 of 3" in shell.ok("chords")
    assert "STARTED p2" in shell.ok("chords")
    assert shell.json("chords")[0]["group_id"] == "c"


def test_cleanup_counts_first(shell: Shell) -> None:
    """A dry run counts by name and deletes nothing; then what has expired goes."""
    gone = data.NOW - timedelta(seconds=5)
    data.write(shell.app, [data.record(task_id=f"t{n}", expires_at=gone) for n in range(3)])
    data.write(shell.app, [data.record(task_id="kept")])
    printed = shell.ok("cleanup", "--dry-run")
    assert "would delete 3 expired records" in printed
    assert "shop.report" in printed
    assert shell.json("cleanup", "--dry-run")["records"]["task"] == 3
    assert "deleted 3 expired records" in shell.ok("cleanup")
    assert [task["id"] for task in shell.json("tasks")] == ["kept"]
