"""Periodic tasks, in code. With `celery beat -S surrealdb` they can be changed and paused in the database."""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab

from .app import app
from .tasks import add


@app.on_after_finalize.connect
def set_up(sender: Any, **_: object) -> None:
    """Add entries when the app is complete."""
    sender.add_periodic_task(30.0, add.s(1, 1), name="add every 30 seconds")
    sender.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), add.s(2, 2), name="add on Mondays")


@app.task
def heartbeat() -> str:
    """Run by the entry of `CELERY_BEAT_SCHEDULE` or `celeryconfig.py`."""
    return "alive"
