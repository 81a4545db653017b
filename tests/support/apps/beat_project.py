"""The Celery project that test_beat_processes.py starts beats and workers of. Set up by environment variables."""

from __future__ import annotations

import json
import os
from typing import Any

import redis
from celery import Celery

from surrealdb_celery_backend.beat import AsyncTask

SETTINGS: dict[str, Any] = json.loads(os.environ["BEAT_PROJECT"])
#: The Redis list that every run is written to.
RUNS = os.environ["BEAT_PROJECT_RUNS"]

app = Celery("beat_project")
app.conf.update(SETTINGS)


@app.task(bind=True, name="project.note")
def note(self: Any, *args: Any) -> None:
    """Write down that it ran."""
    headers = self.request.headers or {}
    run = {
        "id": self.request.id,
        "entry": headers.get("periodic_task_name") or getattr(self.request, "periodic_task_name", None),
        "due_at": headers.get("due_at") or getattr(self.request, "due_at", None),
        "args": args,
    }
    with redis.Redis.from_url(SETTINGS["broker_url"]) as client:
        client.rpush(RUNS, json.dumps(run))


class Loop(AsyncTask):
    """Says which event loop it ran on, in which process."""

    name = "project.loop"

    async def execute(self, value: int) -> list[int]:
        """Return the value, and where it was."""
        import asyncio

        await asyncio.sleep(0)
        return [value, id(asyncio.get_running_loop()), os.getpid()]
