"""The app: its settings come from the environment, and its tasks are registered."""

from __future__ import annotations

import pytest
from celery import Celery
from template.environment import settings


def test_settings_have_their_types() -> None:
    """JSON is read as JSON, all else as text; what is not Celery's is left alone."""
    found = settings(
        {
            "CELERY_BROKER_URL": "redis://localhost",
            "CELERY_RESULT_EXTENDED": "true",
            "CELERY_WORKER_CONCURRENCY": "3",
            "CELERY_ACCEPT_CONTENT": '["json", "yaml"]',
            "CELERY_TIMEZONE": "Europe/Berlin",
            "CELERY_SURREALDB_PASSWORD": "12345",
            "CELERY_CONFIG_MODULE": "celeryconfig",
            "CELERY_LOG_LEVEL": "20",
            "HOME": "/nowhere",
        }
    )
    assert found == {
        "broker_url": "redis://localhost",
        "result_extended": True,
        "worker_concurrency": 3,
        "accept_content": ["json", "yaml"],
        "timezone": "Europe/Berlin",
    }


def test_a_misspelt_name_is_refused() -> None:
    """A variable that Celery would ignore in silence is an error that names it."""
    with pytest.raises(ValueError, match="CELERY_RESULT_EXTENDET is no setting"):
        settings({"CELERY_RESULT_EXTENDET": "true"})


def test_tasks_are_registered(app: Celery) -> None:
    """Every task of the package is known by its name."""
    names = {name for name in app.tasks if name.startswith("template.")}
    assert names >= {
        "template.tasks.add",
        "template.tasks.describe",
        "template.tasks.fetch",
        "template.tasks.order",
        "template.tasks.price",
        "template.tasks.slow",
        "template.periodic.heartbeat",
    }


def test_celerys_fixtures_work_on_the_backend(celery_app: Celery, celery_worker: object) -> None:
    """An app that a test makes for itself stores its results in an engine in memory, too."""

    @celery_app.task(name="made.by.a.test")  # type: ignore[untyped-decorator]
    def double(x: int) -> int:
        return x * 2

    celery_worker.reload()  # type: ignore[attr-defined]
    result = double.delay(21)
    assert result.get(timeout=30) == 42
    assert type(celery_app.backend).__name__ == "SurrealDBBackend"
