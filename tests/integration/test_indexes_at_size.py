"""Indexes that are asked for when there are many records: no store waits for them, and a command creates them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from celery import Celery

from surrealdb_celery_backend.results import schema
from tests.engines import Database
from tests.support import history_data as data
from tests.support.shell import Shell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with more than ten records is large, and nothing was said before."""
    monkeypatch.setattr(schema, "FEW", 10)
    monkeypatch.setattr(schema, "_said", set())


@pytest.fixture
def large(app_with: Callable[..., Celery]) -> Celery:
    """An app with eleven results and the indexes of the defaults."""
    app = app_with()
    data.write(app, [data.record(task_id=f"t{n}") for n in range(11)])
    return app


@pytest.fixture
def shell(large: Celery, fresh_database: Database) -> Iterator[Shell]:
    """A shell on that table, whose app asks for more indexes."""
    shell = Shell(fresh_database, surrealdb_indexes="date_done,name,text")
    yield shell
    shell.close()


def indexes(app: Celery) -> set[str]:
    """The indexes of the table of tasks."""
    return set(app.backend.connection.run("INFO FOR TABLE task")["indexes"])


def test_opening_a_session_creates_none_on_a_large_table(
    large: Celery, app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture
) -> None:
    """Workers start and store at once, and the log says once what to do."""
    there = indexes(large)
    with caplog.at_level(logging.WARNING):
        for number in range(2):
            app = app_with(surrealdb_indexes="date_done,name,text")
            app.backend.store_result(f"new-{number}", 1, "SUCCESS")
            assert app.backend.get_state(f"new-{number}") == "SUCCESS"
            assert indexes(app) == there
    [said] = [record.getMessage() for record in caplog.records if "lacks" in record.getMessage()]
    assert "lacks task_name, task_text_message, task_text_traceback: run `celery surrealdb schema --apply`" in said


def test_the_command_creates_them(shell: Shell) -> None:
    """`schema` names them, `--apply` creates them and says which it is at; after it nothing is missing."""
    for name in ("task_name", "task_text_message", "task_text_traceback"):
        assert f"missing: index {name}" in shell("schema").stderr
    applied = shell("schema", "--apply")
    assert applied.exit_code == 0, applied.output
    assert "creating index task_name" in applied.stderr
    assert {"task_name", "task_text_message", "task_text_traceback"} <= indexes(shell.app)
    assert "up to date" in shell("schema").stderr
    assert len(shell.json("tasks", "--name", "shop.report")) == 11


def test_a_small_table_gets_them_when_a_session_is_opened(app_with: Callable[..., Celery]) -> None:
    """While there is little to read, nobody has to do anything."""
    data.write(app_with(), [data.record(task_id=f"t{n}") for n in range(10)])
    app = app_with(surrealdb_indexes="date_done,name,text")
    assert {"task_name", "task_text_message", "task_text_traceback"} <= indexes(app)
