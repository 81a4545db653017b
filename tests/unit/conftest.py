"""Fixtures that several of the unit tests share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of ours is in the environment, and none was warned of."""
    for variable in os.environ:
        if "SURREALDB" in variable.upper():
            monkeypatch.delenv(variable)
    monkeypatch.setattr("surrealdb_celery_backend.settings.declared._warned", set())
