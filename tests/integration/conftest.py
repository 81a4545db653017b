"""Fixtures that several of the integration tests share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.beat import Schedules
from surrealdb_celery_backend.results import Results
from tests.engines import Database
from tests.support.apps import contract_apps
from tests.support.apps.contract_apps import Both
from tests.support.beats import Beats
from tests.support.shell import ScheduleShell
from tests.support.waits import Side, our_threads, until


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


@pytest.fixture
def beats(fresh_database: Database) -> Iterator[Beats]:
    """An app and its beats, which end with the test."""
    beats = Beats(fresh_database)
    yield beats
    for scheduler in beats.schedulers:
        scheduler.close()


@pytest.fixture
def shell(fresh_database: Database) -> ScheduleShell:
    """A shell on a database of its own."""
    return ScheduleShell(fresh_database)


@pytest.fixture
def schedules(shell: ScheduleShell) -> Iterator[Schedules]:
    """The entries of the same app, for programs."""
    with Schedules(shell.app) as schedules:
        yield schedules


@pytest.fixture
def app(app_with: Callable[..., Celery]) -> Celery:
    """An app on a database of its own."""
    return app_with(surrealdb_timeout=60)


@pytest.fixture
def results(app: Celery) -> Iterator[Results]:
    """The stored results of `app`, for programs."""
    with Results(app) as results:
        yield results


@pytest.fixture
def both_with(fresh_database: Database, redis_url: str) -> Iterator[Callable[..., Both]]:
    """Make both apps, with settings of one's own."""
    made: list[Celery] = []

    def make(**conf: Any) -> Both:
        pair = Both(contract_apps.ours(fresh_database, **conf), contract_apps.reference(redis_url, **conf))
        made.append(pair.ours)
        return pair

    yield make
    for app in made:
        contract_apps.close(app)


@pytest.fixture
def both(both_with: Callable[..., Both]) -> Both:
    """Both apps with the settings that all have in common."""
    return both_with()


@pytest.fixture
def task_id() -> str:
    """An id that no test used before."""
    return str(uuid.uuid4())


@pytest.fixture(params=["auto", "off"])
def sides(request: pytest.FixtureRequest, fresh_database: Any) -> Iterator[tuple[Side, Side]]:
    """Who waits and who works."""
    others = our_threads()
    settings = fresh_database.settings | {"surrealdb_live": request.param}
    waiting, working = Side(settings), Side(fresh_database.settings)
    yield waiting, working
    waiting.backend.close()
    working.backend.close()
    until(lambda: not our_threads() - others, "the threads ended")
