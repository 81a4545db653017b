"""The Celery app."""

from __future__ import annotations

import folder_broker  # noqa: F401 - makes `folder:///path` a broker, for machines without one
from celery import Celery
from celery.schedules import crontab

from surrealdb_celery_backend.contrib import backup

from .settings import settings

celery_app = Celery(
    "service",
    broker=settings().broker_url,
    backend=settings().result_backend.get_secret_value(),
    include=["service.tasks", backup.__name__],
)
celery_app.conf.update(
    timezone=settings().time_zone,
    task_default_queue=settings().queue,
    broker_connection_retry_on_startup=True,
    # Names, arguments and workers are stored with the results, and tasks from their sending on.
    result_extended=True,
    task_track_started=True,
    surrealdb_track_sent=True,
    beat_scheduler="surrealdb",
    beat_schedule={
        "nightly backup": {
            "task": backup.NAME,
            "schedule": crontab(hour=3, minute=0),
            "kwargs": {"folder": str(settings().backup_folder), "keep_days": settings().backup_days},
        },
    },
)
