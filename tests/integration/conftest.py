"""Fixtures that several of the integration tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from tests.engines import Database

from . import contract_apps


@pytest.fixture
def app_with(fresh_database: Database) -> Iterator[Callable[..., Celery]]:
    """Make apps on one database."""
    made: list[Celery] = []

    def make(**conf: Any) -> Celery:
        made.append(contract_apps.ours(fresh_database, **conf))
        return made[-1]

    yield make
    for app in made:
        contract_apps.close(app)
