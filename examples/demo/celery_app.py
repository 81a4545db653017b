"""The Celery app of the examples.

Without any setting it expects SurrealDB on this machine, as
`python -m surrealdb_celery_backend.devserver` starts it, and passes its messages
through a folder. `CELERY_RESULT_BACKEND` and `CELERY_BROKER_URL` say otherwise:

    CELERY_RESULT_BACKEND=surrealdb://user:password@db.example:8000/celery/results
    CELERY_BROKER_URL=redis://localhost:6379/0
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import folder_broker
from celery import Celery

app = Celery("examples", include=["tasks"])
app.conf.update(
    broker_url=os.environ.get("CELERY_BROKER_URL", "folder://"),
    result_backend=os.environ.get("CELERY_RESULT_BACKEND", "surrealdb://root:root@localhost:8000/celery/results"),
    # Keep each task's name, arguments, worker and queue beside its result.
    result_extended=True,
    # Store that a task has started, so that waiting and running can be told apart.
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    # Names of its own, for servers that others use too.
    task_default_queue=os.environ.get("EXAMPLES_QUEUE", "surrealdb-celery-examples"),
    surrealdb_table_prefix=os.environ.get("EXAMPLES_TABLE_PREFIX", ""),
)

if app.conf.broker_url.startswith("folder"):
    app.conf.broker_transport_options = folder_broker.options(
        Path(os.environ.get("EXAMPLES_BROKER_FOLDER") or Path(tempfile.gettempdir(), "surrealdb-celery-examples"))
    )
