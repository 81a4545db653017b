"""The project's app on an engine in memory, with a worker in a thread: Celery's own fixtures, on this backend.

`celery_session_app` and `celery_session_worker` of `celery.contrib.pytest` would make an app of their own;
the project's app has its tasks already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery.contrib.testing.worker import start_worker
from template import app as project

pytest_plugins = ["celery.contrib.pytest"]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

MEMORY = "surrealdb_celery_backend:SurrealDBBackend+mem://"


@pytest.fixture(scope="session")
def celery_config() -> dict[str, object]:
    """Configure the apps that `celery_app` and `celery_session_app` make."""
    return {"broker_url": "memory://", "result_backend": MEMORY, "result_extended": True}


@pytest.fixture(scope="session")
def app() -> Celery:
    """Give the project's app, its broker and its results in this process."""
    project.conf.update(
        broker_url="memory://",
        broker_transport_options={"polling_interval": 0.01},
        result_backend=MEMORY,
        result_extended=True,
    )
    return project


@pytest.fixture(scope="session")
def worker(app: Celery) -> Iterator[None]:
    """Run a worker beside the tests."""
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
        yield
