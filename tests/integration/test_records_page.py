"""docs/reference/records.md names the fields that records have."""

from __future__ import annotations

import re

import pytest
from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from tests.engines import Database, RunningEngine
from tests.support.paths import CHECKOUT

PAGE = CHECKOUT / "docs" / "reference" / "records.md"

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk, pytest.mark.timeout(300)]


def told(table: str) -> set[str]:
    """The fields that the page names for a table."""
    text = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## `{table}`\n(.*?)(?=^## )", text, flags=re.MULTILINE | re.DOTALL)
    return {
        name for row in re.findall(r"^\| (`[^|]+)\|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }


def test_every_field_is_on_the_page(live_engine: RunningEngine, fresh_database: Database) -> None:
    """Tasks that succeed, fail, retry, wait and tell their progress, a chord, keys and an entry: no field is left out."""
    app = Celery("records", broker="memory://", backend=fresh_database.backend_url, set_as_current=False)
    app.conf.update(
        result_extended=True, task_track_started=True, surrealdb_track_sent=True, surrealdb_redact=["password"]
    )

    @app.task(name="fails", shared=False)
    def fails(password: str) -> None:
        raise ValueError("wrong")

    @app.task(name="works", bind=True, max_retries=1, shared=False)
    def works(self, number: int) -> int:
        if self.request.retries == 0:
            raise self.retry(exc=OSError("again"), countdown=0)
        return number

    @app.task(name="total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
        headers = {"tags": ["nightly"], "meta": {"customer": 7}}
        single = works.apply_async((1,), headers=headers, priority=3, countdown=0.1)
        assert single.get(timeout=120) == 1
        failed = fails.delay(password="secret")
        failed.get(timeout=120, propagate=False)
        shape = group(works.si(number) for number in range(2)).apply_async()
        shape.save()
        assert shape.get(timeout=120) == [0, 1]
        body = chord([works.si(1), works.si(2)], total.s())()
        assert body.get(timeout=120) == 3
        unfinished = chord([works.si(1), works.si(2).set(queue="nobody")], total.s())()
        unfinished.parent[0].get(timeout=120)
        app.backend.store_result("running", {"current": 1, "total": 2, "message": "half"}, "PROGRESS")
        app.backend.store_result("large", "x" * 5_000, "SUCCESS")
        app.backend.set("key", "value")
        app.backend.incr("count")
        with Schedules(app) as schedules:
            schedules.add(ScheduleEntry("nightly", "works", {"minute": "0"}))
    app.backend.close()
    app.close()
    seen = {
        table: {name for record in fresh_database.query(f"SELECT * FROM {table}")[0] for name in record} - {"id"}
        for table in ("task", "group", "chord", "key", "schedule")
    }
    for table, fields in seen.items():
        assert fields <= told(table), table
    assert {"progress", "attempts", "error", "tags", "size", "sent_at", "run", "args_redacted"} <= seen["task"]
    assert {"size", "group_index", "claimant", "body"} <= seen["chord"]
