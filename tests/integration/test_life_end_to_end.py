"""Labels of a task, from its sender over a broker and a real worker to what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, states

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules, SurrealDBScheduler
from surrealdb_celery_backend.results import Results
from tests.support.beats import SteppedClock, tick_until_idle
from tests.support.inprocess import TIMEOUT, after_its_retries, worker

pytestmark = pytest.mark.integration


def make(app_with: Callable[..., Celery]) -> Celery:
    """An app with a task that fails until somebody mends what it needs."""
    app = app_with()

    @app.task(name="import", bind=True, shared=False)
    def import_(self: Any, path: str, *, mended: bool = False, tries: int = 0) -> str:
        after_its_retries(self)
        if self.request.retries < tries:
            raise self.retry(exc=OSError(f"{path} is locked"), countdown=0, max_retries=tries)
        if not mended:
            raise FileNotFoundError(path)
        return path

    return app


def test_tags_and_a_retry_from_outside(app_with: Callable[..., Celery]) -> None:
    """A failed task is found by its tags, sent again from outside, and its successor found by what it repeats."""
    app = make(app_with)
    headers = {"tags": ["nightly", "import"], "meta": {"customer": 7}}
    with worker(app), Results(app) as results:
        first = app.tasks["import"].apply_async(("rows.csv",), headers=headers)
        first.get(timeout=TIMEOUT, propagate=False)
        [found] = results.find(tags="nightly", state="FAILURE").tasks
        assert (found.id, found.tags) == (first.id, ("nightly", "import"))
        assert results.get(first.id).meta == {"customer": 7}
        [sent] = results.retry([first.id], kwargs={"mended": True})
        assert sent.new_id is not None
        assert app.AsyncResult(sent.new_id).get(timeout=TIMEOUT) == "rows.csv"
        [again] = results.find(retry_of=first.id).tasks
        assert (again.id, again.state, again.retry_of) == (sent.new_id, states.SUCCESS, first.id)
        assert (again.tags, results.get(again.id).meta) == (("nightly", "import"), {"customer": 7})


def test_attempts_are_read(app_with: Callable[..., Celery]) -> None:
    """Each retry of a task is an attempt with its time, its error and its worker."""
    app = make(app_with)
    with worker(app), Results(app) as results:
        result = app.tasks["import"].apply_async(("rows.csv",), {"mended": True, "tries": 2})
        assert result.get(timeout=TIMEOUT) == "rows.csv"
        task = results.get(result.id)
    assert task.retries == 2
    assert [attempt.error and attempt.error.message for attempt in task.attempts] == ["rows.csv is locked"] * 2
    assert all(attempt.at is not None and attempt.worker == task.worker for attempt in task.attempts)


def test_the_entry_that_sent_a_task(app_with: Callable[..., Celery]) -> None:
    """What a beat sends is found by the name of its entry, and the entry's runs lead to the results."""
    app = make(app_with)
    with Schedules(app) as schedules, Results(app) as results, worker(app):
        schedules.add(ScheduleEntry("nightly import", "import", timedelta(seconds=10), kwargs={"path": "a.csv"}))
        clock = SteppedClock()  # begins when the entry is there, however long the worker took
        beat = SurrealDBScheduler(app, clock=clock)
        try:
            beat.max_interval = 0.01
            beat.tick()
            clock.advance(15)
            tick_until_idle(beat)
        finally:
            beat.close()
        [firing] = schedules.firings("nightly import")
        app.AsyncResult(firing.task_id).get(timeout=TIMEOUT, propagate=False)
        [task] = results.find(periodic="nightly import").tasks
        assert (task.id, task.periodic_task_name, task.state) == (firing.task_id, "nightly import", states.FAILURE)
        [firing] = schedules.firings("nightly import")
        assert firing.state == states.FAILURE
