"""The Celery app. The environment says where the broker and the database are; else they are on this machine."""

from __future__ import annotations

import os

import folder_broker  # noqa: F401 - makes `folder:///path` a broker, for machines without one
from celery import Celery

app = Celery("workflows", include=["workflows.tasks"])
app.conf.update(
    broker_url=os.environ.get("CELERY_BROKER_URL", "folder:///tmp/surrealdb-celery-workflows"),
    result_backend=os.environ.get("CELERY_RESULT_BACKEND", "surrealdb://root:root@localhost:8000/celery/results"),
    # The names of the tasks, for the picture.
    result_extended=True,
    # Finds a whole workflow in one request.
    surrealdb_indexes="date_done,root_id",
    broker_connection_retry_on_startup=True,
    task_default_queue=os.environ.get("WORKFLOWS_QUEUE", "workflows"),
)
