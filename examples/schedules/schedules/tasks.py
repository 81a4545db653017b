"""The tasks that the entries run: a function, and class tasks, which bring their entries with them."""

from __future__ import annotations

import asyncio

from surrealdb_celery_backend.beat import AsyncTask, SyncTask

from .app import app


@app.task
def heartbeat() -> str:
    """Run every second by an entry of the code."""
    return "alive"


@app.task
def add(x: int, y: int) -> int:
    """Run by an entry that `schedules.entries` puts into the database."""
    return x + y


class Report(SyncTask):
    """A task that is registered and scheduled by being defined."""

    name = "schedules.report"
    schedule = {"minute": "0", "hour": "9"}  # noqa: RUF012 - as short as a reader would write it
    entry = {"timezone": "Europe/Berlin", "kwargs": {"region": "eu"}}  # noqa: RUF012

    def run(self, region: str) -> str:
        """Write the report of every morning.

        Args:
            region: The part of the world that it is about.
        """
        return f"the report of {region}"


class Poll(AsyncTask):
    """The same with async: its event loop is kept, so that its clients can be kept too."""

    name = "schedules.poll"
    schedule = 2

    async def execute(self) -> str:
        """Ask two offices at once."""
        answers = await asyncio.gather(*(self._ask(office) for office in ("Lyon", "Oslo")))
        return " and ".join(answers)

    async def _ask(self, office: str) -> str:
        await asyncio.sleep(0)  # where a client of yours would wait for an answer
        return office
