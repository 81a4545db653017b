"""The client's log lines: slow calls, reconnects, conflicts. None has a value or a secret."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest
from celery import Celery, states

from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.secret import Secret
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.errors import StatementFailed

pytestmark = pytest.mark.integration

CLIENT = "surrealdb_celery_backend.client"
SLOW = f"{CLIENT}.slow"
SECRET = "s3cr3t"


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    """What a logger said."""
    return [each.getMessage() for each in caplog.records if each.name == logger]


def test_a_slow_call_is_one_line_without_values(
    app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture
) -> None:
    """It has the kinds of the statements, the tables and the time."""
    app = app_with(surrealdb_slow_call="0.1", surrealdb_timeout=60)
    connection = app.backend.connection
    connection.run("RETURN 1")
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        connection.run(f"SLEEP 150ms; SELECT * FROM `task` WHERE name = '{SECRET} FROM `x`' OR name = $it", it=SECRET)
        connection.run(f'SLEEP 150ms; RETURN "DELETE {SECRET}"')
        connection.run(
            "SLEEP 150ms; UPSERT $record CONTENT $task RETURN NONE",
            record=RecordID("task", SECRET),
            task={"task_id": SECRET, "name": SECRET},
        )
    told = lines(caplog, SLOW)
    kinds = ["SELECT on task", "RETURN", "UPSERT on task"]
    assert [line.partition(" took ")[0] for line in told] == [f"slow call: {each}" for each in kinds]
    for line in told:
        found = re.search(r"took (\d+\.\d{3}) s, 1 round trips \(surrealdb_slow_call=0\.1\)$", line)
        assert found is not None, line
        assert float(found[1]) >= 0.15
    assert SECRET not in caplog.text


def test_a_call_below_the_limit_has_no_line(app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture) -> None:
    """However slow the machine: the limit is an hour."""
    app_with(surrealdb_slow_call=3600, surrealdb_timeout=60).backend.connection.run("SLEEP 150ms; RETURN 1")
    assert lines(caplog, SLOW) == []


def test_a_slow_call_that_fails_is_told_too(app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture) -> None:
    """Its error is raised as ever, and its line has nothing of it."""
    app = app_with(surrealdb_slow_call=0.1, surrealdb_timeout=60)
    app.backend.connection.run("RETURN 1")
    caplog.clear()
    with pytest.raises(StatementFailed, match=SECRET):
        app.backend.connection.run(f"SLEEP 150ms; THROW '{SECRET}'")
    assert len(lines(caplog, SLOW)) == 1
    assert SECRET not in caplog.text


@pytest.mark.parametrize("conf", [{}, {"surrealdb_slow_call": 0}, {"surrealdb_slow_call": None}], ids=repr)
def test_it_is_off_by_default(
    app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture, conf: dict[str, object]
) -> None:
    """Without the setting nothing is logged of a slow call."""
    app_with(**conf, surrealdb_timeout=60).backend.connection.run("SLEEP 150ms; RETURN 1")
    assert lines(caplog, SLOW) == []


def test_reconnects_are_told(app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture) -> None:
    """The first connection is a line for debugging, each later one is information; neither has the password."""
    app = app_with(surrealdb_timeout=60)
    options = app.backend.settings.options
    assert isinstance(options.password, Secret)
    connection = Connection(options)
    with caplog.at_level(logging.DEBUG, CLIENT):
        connection.run("RETURN 1")
        connection.disconnect()
        connection.run("RETURN 1")
    connection.close()
    told = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == f"{CLIENT}.connection"]
    assert told == [("DEBUG", f"connected to {options.uri()}"), ("INFO", f"connected to {options.uri()}")]
    assert f":{options.password.reveal()}@" not in caplog.text


def test_nothing_of_a_result_is_logged(app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture) -> None:
    """With every call told, no line has an id, a result, an argument or an error of a task."""
    app = app_with(surrealdb_slow_call=1e-6, surrealdb_timeout=60)
    with caplog.at_level(logging.DEBUG):
        app.backend.store_result(SECRET, {"x": SECRET}, states.SUCCESS)
        app.backend.store_result(f"{SECRET}2", ValueError(SECRET), states.FAILURE, traceback=SECRET)
        assert app.AsyncResult(SECRET).get(timeout=60) == {"x": SECRET}
        app.backend.set(SECRET, SECRET)
        assert app.backend.get(SECRET) == SECRET
        app.AsyncResult(SECRET).forget()
        app.backend.cleanup()
    told = lines(caplog, SLOW)
    assert any("on task" in line for line in told)
    assert any("DELETE" in line for line in told)
    assert SECRET not in caplog.text
