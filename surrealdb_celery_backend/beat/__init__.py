"""Periodic tasks kept in SurrealDB: ``celery -A proj beat -S surrealdb``. See docs/scheduling.md."""

from __future__ import annotations

from .class_tasks import AsyncTask, SyncTask
from .entry import ScheduleEntry
from .scheduler import SurrealDBScheduler
from .schedules import Schedules
from .store import Firing
from .stored import ActiveBeat, StoredSchedule

__all__ = [
    "ActiveBeat",
    "AsyncTask",
    "Firing",
    "ScheduleEntry",
    "Schedules",
    "StoredSchedule",
    "SurrealDBScheduler",
    "SyncTask",
]
