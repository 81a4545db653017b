"""A task runs again under its id after it failed: what the later run says is seen at once, late messages are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context

from tests.engines import Database
from tests.support.apps import contract_apps

pytestmark = pytest.mark.integration

UNFINISHED = [states.STARTED, "PROGRESS", states.RETRY]


@pytest.fixture
def app(fresh_database: Database) -> Iterator[Celery]:
    """An app on a database that nobody used."""
    ours = contract_apps.ours(fresh_database)
    yield ours
    contract_apps.close(ours)


def run(retries: int = 0, message: str = "first", *, redelivered: bool = False) -> Context:
    """A run of a task, as its request tells of it."""
    return Context(
        id="task",
        retries=retries,
        properties={"delivery_tag": message},
        delivery_info={"redelivered": redelivered},
    )


def store(app: Celery, state: str, request: Context | None) -> None:
    """Store a state."""
    value: Any = ValueError(state) if state in states.EXCEPTION_STATES else {"says": state}
    app.backend.store_result("task", value, state, request=request)


LATER = {
    "a retry": run(1, "second"),
    "a retry of the same message": run(1, "first"),
    "sent again": run(0, "second"),
    "delivered again": run(0, "first", redelivered=True),
}


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
@pytest.mark.parametrize("end", [states.FAILURE, states.REVOKED])
def test_a_later_run(app: Celery, end: str, later: Context, state: str) -> None:
    """A state of a later run is seen although an earlier run has failed or was revoked, and then its end is."""
    store(app, states.STARTED, run())
    store(app, end, run())
    store(app, state, later)
    assert app.AsyncResult("task").state == state
    store(app, states.SUCCESS, later)
    assert app.AsyncResult("task").state == states.SUCCESS


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize("end", [states.FAILURE, states.REVOKED])
def test_a_late_message_of_the_run_that_ended(app: Celery, end: str, state: str) -> None:
    """What the run that ended said before, and what arrives after its end, is not seen."""
    store(app, end, run())
    store(app, state, run())
    assert app.AsyncResult("task").state == end


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_late_message_of_an_earlier_retry(app: Celery, state: str) -> None:
    """The third run failed for good: a message of the second that arrives late is not seen."""
    store(app, states.FAILURE, run(2, "third"))
    store(app, state, run(1, "second"))
    assert app.AsyncResult("task").state == states.FAILURE


@pytest.mark.parametrize(("ended", "says"), [(None, run(1)), (run(), None), (None, None)])
def test_runs_that_are_not_known(app: Celery, ended: Context | None, says: Context | None) -> None:
    """Where nobody knows of which run a state is, a task that has ended has ended."""
    store(app, states.FAILURE, ended)
    store(app, states.STARTED, says)
    assert app.AsyncResult("task").state == states.FAILURE


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_success_is_final(app: Celery, state: str) -> None:
    """No run replaces a SUCCESS."""
    store(app, states.SUCCESS, run())
    store(app, state, run(1, "second"))
    assert app.AsyncResult("task").state == states.SUCCESS


def test_stores_that_go_together(app: Celery) -> None:
    """Where several threads' stores go in one transaction, each is judged by its own run."""
    from surrealdb_celery_backend.results import statements

    backend = app.backend
    requests = {"new": (run(), run(0, "second")), "late": (run(), run())}
    for task_id, (first, _) in requests.items():
        backend.store_result(task_id, ValueError(1), states.FAILURE, request=first)
    variables: dict[str, Any] = {}
    shapes = []
    for number, (task_id, (_, second)) in enumerate(requests.items()):
        meta = {"status": states.STARTED, "result": None}
        record = backend.tasks.from_meta(task_id, meta, request=second)
        variables |= {f"{name}{number}": value for name, value in record.parameters.items()}
        shapes.append((tuple(record.more), False))
    stored = backend.connection.run(statements.store_tasks(shapes), **variables)
    assert stored == [[states.STARTED], []]
    assert app.AsyncResult("new").state == states.STARTED
    assert app.AsyncResult("late").state == states.FAILURE


@pytest.mark.parametrize("end", [states.SUCCESS, states.FAILURE])
@pytest.mark.parametrize("extended", [False, True])
def test_a_retry_that_is_stored_after_the_next_run(app: Celery, end: str, extended: bool) -> None:
    """Celery sends a retry before it stores that there is one: the attempt is kept, once, and the end stays."""
    app.conf.result_extended = extended
    store(app, states.RETRY, run(0))
    store(app, end, run(2))
    for _ in range(2):
        store(app, states.RETRY, run(1))
    # A run after the end is no attempt that led to it.
    if extended:
        store(app, states.RETRY, run(2, "second"))
    (record,) = app.backend.connection.run("SELECT status, result, attempts FROM task")
    if extended and end == states.FAILURE:
        assert record["status"] == states.RETRY  # of a later run
    else:
        assert record["status"] == end
        assert [attempt["retries"] for attempt in record["attempts"]] == [0, 1]
        assert {attempt["error"]["message"] for attempt in record["attempts"]} == {states.RETRY}


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_retry_that_is_stored_while_the_next_run_runs(app: Celery, state: str) -> None:
    """What the next run says of itself stays, and the attempt is kept, until the end."""
    store(app, states.STARTED, run(0))
    store(app, state, run(1, "second"))
    store(app, states.RETRY, run(0))
    (record,) = app.backend.connection.run("SELECT status, run, attempts FROM task")
    assert (record["status"], record["run"]) == (state, [1, "second"])
    assert {attempt["retries"] for attempt in record["attempts"]} == {0, *([1] if state == states.RETRY else [])}
    store(app, states.SUCCESS, run(2))
    (after,) = app.backend.connection.run("SELECT status, attempts FROM task")
    assert after == {"status": states.SUCCESS, "attempts": record["attempts"]}


@pytest.mark.parametrize("next_message", ["second", "first"])
def test_a_retry_whose_reply_was_lost(app: Celery, next_message: str) -> None:
    """A retry that is stored a second time, because nobody knows of the first, is one attempt."""
    for _ in range(2):
        store(app, states.RETRY, run(0))
    for _ in range(2):
        store(app, states.RETRY, run(1, next_message))
    (record,) = app.backend.connection.run("SELECT status, attempts FROM task")
    assert [attempt["retries"] for attempt in record["attempts"]] == [0, 1]
    # The same message, delivered again, is another attempt.
    store(app, states.RETRY, run(1, next_message, redelivered=True))
    (record,) = app.backend.connection.run("SELECT status, attempts FROM task")
    assert [attempt["retries"] for attempt in record["attempts"]] == [0, 1, 1]
