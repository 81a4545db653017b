"""The Celery app. The environment says where the broker and the database are; else they are on this machine."""

from __future__ import annotations

import os

import folder_broker  # noqa: F401 - makes `folder:///path` a broker, for machines without one
from celery import Celery

app = Celery("schedules", include=["schedules.tasks"])
app.conf.update(
    broker_url=os.environ.get("CELERY_BROKER_URL", "folder:///tmp/surrealdb-celery-schedules"),
    result_backend=os.environ.get("CELERY_RESULT_BACKEND", "surrealdb://root:root@localhost:8000/celery/results"),
    result_extended=True,
    broker_connection_retry_on_startup=True,
    task_default_queue=os.environ.get("SCHEDULES_QUEUE", "schedules"),
    # As with every other beat: these entries are added when a beat starts. What is changed
    # in the database afterwards stays.
    beat_schedule={
        "heartbeat": {"task": "schedules.tasks.heartbeat", "schedule": 1.0},
    },
)
