"""A project's own code as a type checker sees it: `run.py types` reads it, nothing runs it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from celery import Celery

from surrealdb_celery_backend import SurrealDBBackend, aio, console, errors
from surrealdb_celery_backend.beat import AsyncTask, ScheduleEntry, Schedules, SyncTask
from surrealdb_celery_backend.console import Access
from surrealdb_celery_backend.results import Results, TaskDetail, TaskSummary, Workflow

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from typing_extensions import assert_type

    app = Celery("shop", broker="memory://", backend="surrealdb://localhost/celery/results")

    class Report(SyncTask):
        """A class task."""

        name = "shop.report"
        schedule = {"minute": "0", "hour": "9"}  # noqa: RUF012 - as a reader would write it

        def run(self, region: str) -> str:
            """Its work."""
            return region

    class Poll(AsyncTask):
        """A class task that is a coroutine."""

        name = "shop.poll"
        schedule = 90

        async def execute(self, office: str) -> int:
            """Its work."""
            await asyncio.sleep(0)
            return len(office)

    def look() -> None:
        """What was stored."""
        with Results(app) as results:
            since = datetime.now(timezone.utc) - timedelta(hours=1)
            page = results.find(state="FAILURE", since=since)
            assert_type(page.tasks, tuple[TaskSummary, ...])
            assert_type(page.tasks[0].name, str | None)
            assert_type(results.get("id"), TaskDetail)
            assert_type(results.tree("id"), Workflow)
            assert_type(len(results.tree("id")), int)

    def plan() -> None:
        """The schedule."""
        with Schedules(app) as schedules:
            entry = schedules.add(ScheduleEntry("report", "shop.report", {"timedelta": 60}, args=["eu"]))
            assert_type(entry, ScheduleEntry)
            assert_type(schedules.next_runs(entry, 1), list[datetime])
            try:
                schedules.pause("other")
            except errors.ScheduleNotFound as error:
                assert_type(error, errors.ScheduleNotFound)

    async def wait() -> None:
        """A result that is awaited."""
        async for meta in aio.watch(app.AsyncResult("id")):
            assert_type(meta, dict[str, Any])
        await aio.get(app.AsyncResult("id"), timeout=10)

    assert_type(console.app(app, allow_actions=True), Starlette)
    level: Access = Access.READ
    backend: type[SurrealDBBackend] = SurrealDBBackend
