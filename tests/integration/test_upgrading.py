"""What docs/upgrading.md says: an export of one SurrealDB is imported by another, and nothing is lost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery.result import GroupResult

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.results.checks import database
from tests.engines import RunningEngine, Unavailable, matrix
from tests.support.shell import Shell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk, pytest.mark.timeout(300)]

RESULTS: dict[str, Any] = {"sum": 5, "text": "ünï", "nothing": None, "nested": {"a": [1.5, None, "x" * 10_000]}}


def report(region: str) -> None:
    """A task of the schedule; it is not run here."""


def engine_of(version: str) -> RunningEngine:
    """A new engine in memory; the test is skipped where it cannot be had, and in CI fails."""
    try:
        return matrix.start(version, "mem")
    except Unavailable as error:
        if matrix.in_ci():
            raise
        pytest.skip(f"SurrealDB {version}: {error}")


@pytest.mark.parametrize(("before", "after"), [("2.3.10", "3.2.4"), ("3.2.4", "3.0.2"), ("3.0.2", "2.3.10")])
def test_an_export_goes_from_any_version_to_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    """Results, failures, a group and a schedule entry are there on the other server, as they were."""
    monkeypatch.setattr(database, "SLOW", 60)  # `check` fails where requests are slow, as on a busy machine
    file = str(tmp_path / "before.jsonl.gz")
    with engine_of(before) as old, closing(Shell(old.database())) as shell:
        backend = shell.app.backend
        for task_id, value in RESULTS.items():
            backend.store_result(task_id, value, "SUCCESS")
        backend.store_result("failed", ValueError("wrong"), "FAILURE", traceback="ValueError: wrong")
        GroupResult("group", [shell.app.AsyncResult(task_id) for task_id in RESULTS], app=shell.app).save()
        shell.app.task(name="shop.report", shared=False)(report)
        with Schedules(shell.app) as schedules:
            schedules.add(ScheduleEntry("nightly", "shop.report", {"minute": "0", "hour": "3"}, args=["eu"]))
        shell.ok("export", file)
    with engine_of(after) as new, closing(Shell(new.database(), surrealdb_chord_lease=120)) as shell:
        shell.ok("import", file)
        checked = shell("check")
        assert checked.exit_code == 0, checked.output
        assert {task_id: shell.app.AsyncResult(task_id).get(timeout=60) for task_id in RESULTS} == RESULTS
        failed = shell.app.AsyncResult("failed")
        assert (failed.state, failed.traceback) == ("FAILURE", "ValueError: wrong")
        assert isinstance(failed.result, ValueError)
        restored = GroupResult.restore("group", app=shell.app)
        assert restored is not None
        assert restored.join(timeout=60) == list(RESULTS.values())
        with Schedules(shell.app) as schedules:
            assert schedules.get("nightly").args == ["eu"]
