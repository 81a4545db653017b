"""Clean-up takes what has expired, in batches along an index, and never a task that has not finished."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery, states
from celery.beat import Scheduler

from surrealdb_celery_backend import backend as backend_module
from surrealdb_celery_backend import statements

from .tasks_contract import failure

pytestmark = pytest.mark.integration


def age(app: Celery, seconds: float, where: str = "true") -> None:
    """Let results be older than they are."""
    for field in ("date_done", "expires_at"):
        # Not IS NOT NONE, which on an indexed field is true of NONE too (SurrealDB 3).
        condition = f"{field} > d'1970-01-01T00:00:00Z' AND {where}"
        app.backend.connection.run(f"UPDATE task SET {field} = {field} - {int(seconds)}s WHERE {condition}")


def ids(app: Celery) -> set[str]:
    """The tasks that are still in the database."""
    return set(app.backend.connection.run("SELECT VALUE task_id FROM task") or ())


@pytest.mark.parametrize(
    ("expires", "lifetime"),
    [(60, 60.0), (60.5, 60.5), (timedelta(minutes=1), 60.0), (timedelta(days=1), 86400.0), (0, None), (None, None)],
    ids=repr,
)
def test_result_expires(app_with: Callable[..., Celery], expires: Any, lifetime: float | None) -> None:
    """result_expires may be a number, a timedelta, 0 or None; the last two keep results for ever."""
    app = app_with(result_expires=expires)
    before = datetime.now(timezone.utc)
    app.backend.store_result("a", 1, states.SUCCESS)
    after = datetime.now(timezone.utc)
    query = "SELECT VALUE [date_done, expires_at] FROM task"
    ((done, expires_at),) = app.backend.connection.run(query)
    if lifetime is None:
        assert not expires_at
        age(app, 10 * 365 * 86400)
        app.backend.cleanup()
        assert app.AsyncResult("a").state == states.SUCCESS
    else:
        assert before <= done <= after
        assert before <= expires_at - timedelta(seconds=lifetime) <= after
        age(app, lifetime + 5)
        assert app.AsyncResult("a").state == states.PENDING
        app.backend.cleanup()
        assert ids(app) == set()


def test_expired_results_are_gone_before_cleanup(app_with: Callable[..., Celery]) -> None:
    """A result past its time is not given out, and a task of that id may run again."""
    app = app_with(result_expires=60)
    app.backend.store_result("a", 1, states.SUCCESS)
    age(app, 120)
    assert app.AsyncResult("a").state == states.PENDING
    assert not app.backend.task_result_exists("a")
    app.backend.store_result("a", 2, states.SUCCESS)
    assert app.AsyncResult("a").result == 2


def test_unfinished_tasks_stay(app_with: Callable[..., Celery]) -> None:
    """However old, a task without an end is never deleted, and neither is what has not expired."""
    app = app_with(result_expires=60)
    for state in (states.PENDING, states.STARTED, states.RETRY, states.RECEIVED, "PROGRESS"):
        app.backend.store_result(state, failure("builtin") if state == states.RETRY else 1, state)
    app.backend.store_result("young", 1, states.SUCCESS)
    app.backend.store_result("old", 1, states.SUCCESS)
    age(app, 3600, "task_id = 'old'")
    app.backend.cleanup()
    assert ids(app) == {states.PENDING, states.STARTED, states.RETRY, states.RECEIVED, "PROGRESS", "young"}


def test_result_failure_expires(app_with: Callable[..., Celery]) -> None:
    """Failures live as long as result_failure_expires says, longer or shorter than the others."""
    app = app_with(result_expires=60, result_failure_expires=3600)
    if app.conf.get("result_failure_expires") is None:
        pytest.skip("this Celery has no result_failure_expires")
    app.backend.mark_as_failure("failed", failure("builtin"))
    app.backend.store_result("done", 1, states.SUCCESS)
    age(app, 120)
    app.backend.cleanup()
    assert ids(app) == {"failed"}
    age(app, 3600)
    app.backend.cleanup()
    assert ids(app) == set()


def test_shorter_lifetime_applies_to_what_is_there(app_with: Callable[..., Celery]) -> None:
    """Where result_expires was shortened, clean-up goes by the new one."""
    app_with(result_expires=None).backend.store_result("a", 1, states.SUCCESS)
    app = app_with(result_expires=60)
    app.backend.cleanup()
    assert ids(app) == {"a"}
    age(app, 120)
    app.backend.cleanup()
    assert ids(app) == set()


def test_groups_chords_and_keys_expire_too(app_with: Callable[..., Celery]) -> None:
    """Clean-up leaves nothing expired in any table."""
    app = app_with(result_expires=60)
    backend = app.backend
    app.GroupResult("a-group", [app.AsyncResult("a")]).save()
    backend.set_chord_size("a-chord", 3)
    backend.set("a-key", "a value")
    tables = (statements.GROUP, statements.CHORD, statements.KEY)
    for table in tables:
        backend.connection.run(f"UPDATE `{table}` SET expires_at = time::now() - 1s")
    assert app.GroupResult.restore("a-group") is None
    assert backend.get("a-key") is None
    backend.cleanup()
    assert [backend.connection.run(f"SELECT * FROM `{table}`") for table in tables] == [[], [], []]


def test_cleanup_of_an_empty_database(app_with: Callable[..., Celery]) -> None:
    """Clean-up may be the first thing that happens in a database."""
    app_with().backend.cleanup()


def test_batches(app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one batch of expired results is deleted, batch by batch."""
    monkeypatch.setattr(backend_module, "CLEANUP_BATCH", 10)
    app = app_with(result_expires=60)
    for number in range(35):
        app.backend.store_result(f"task-{number}", number, states.SUCCESS)
    age(app, 120)
    before = app.backend.connection.request_count
    app.backend.cleanup()
    assert ids(app) == set()
    # Four for the tasks, one for each other table, and one that finds none done before the cut-off.
    assert app.backend.connection.request_count - before >= 4


@pytest.mark.parametrize("which", ["expired", "done before"])
def test_cleanup_follows_an_index(app_with: Callable[..., Celery], which: str) -> None:
    """The engine says that it looks for what has expired along an index, not through the whole table."""
    app = app_with(result_expires=60)
    app.backend.store_result("a", 1, states.SUCCESS)
    text = statements.delete_expired("task") if which == "expired" else statements.delete_done_before("task")
    select = text.partition("= (")[2].rpartition(" LIMIT")[0]
    plan = app.backend.connection.run(
        f"LET $now = time::now(); {select} LIMIT $batch EXPLAIN",
        start=datetime(1970, 1, 1, tzinfo=timezone.utc),
        batch=10,
        cutoff=app.now() - timedelta(minutes=1),
        spared=[],
    )
    told = json.dumps(plan, default=str)
    assert "task_expires_at" in told if which == "expired" else "task_date_done" in told
    if which == "expired":
        # The range ends where what has not expired begins, which 3.0.2 overlooks where the condition has a call.
        assert re.search(r"<=d'2|\"to\": ", told), told
    assert "Iterate Table" not in told
    assert "TableScan" not in told


def test_beat_schedules_the_cleanup(app_with: Callable[..., Celery]) -> None:
    """Beat has celery.backend_cleanup in its schedule, and the task cleans up."""
    app = app_with(result_expires=60)
    scheduler = Scheduler(app, lazy=True)
    scheduler.install_default_entries({})
    assert scheduler.schedule["celery.backend_cleanup"].task == "celery.backend_cleanup"
    app.backend.store_result("a", 1, states.SUCCESS)
    age(app, 120)
    app.finalize()
    app.tasks["celery.backend_cleanup"]()
    assert ids(app) == set()
