"""Each result is kept as long as its task, its message or the app asks, and a task that died not for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, chord, group, states

from tests.support.apps.contract_apps import request
from tests.support.apps.tasks_contract import failure
from tests.support.inprocess import TIMEOUT, worker

pytestmark = pytest.mark.integration

DAY = 86_400
UNREADY = (states.PENDING, states.RECEIVED, states.STARTED, states.RETRY, "PROGRESS")


def left(app: Celery) -> dict[str, Any]:
    """How many seconds each task's record still has, by the database's clock; None where it has no end."""
    text = "SELECT task_id, expires_at, time::now() AS now FROM task"
    return {
        task["task_id"]: task.get("expires_at") and (task["expires_at"] - task["now"]).total_seconds()
        for task in app.backend.connection.run(text)
    }


def about(seconds: float) -> Any:
    """A time that was this a moment ago."""
    return pytest.approx(seconds - 30, abs=30.1)


def pass_time(app: Celery, seconds: float, where: str = "true") -> None:
    """Let records be older than they are."""
    app.backend.connection.run(
        f"UPDATE task SET expires_at = expires_at - {int(seconds)}s WHERE expires_at AND {where}"
    )


# -- tasks that died ------------------------------------------------------------------------------


def store_unready(app: Celery, state: str, task_id: str | None = None) -> None:
    """Store a state of a task that has not ended."""
    app.backend.store_result(task_id or state, failure("builtin") if state == states.RETRY else {"n": 1}, state)


@pytest.mark.parametrize("expires", [DAY, None])
def test_unfinished_states_have_an_end(app_with: Callable[..., Celery], expires: Any) -> None:
    """A state of a task that has not ended goes after 30 days, however long results are kept."""
    app = app_with(result_expires=expires)
    for state in UNREADY:
        store_unready(app, state)
    assert left(app) == {state: about(30 * DAY) for state in UNREADY}
    app.backend.cleanup()
    assert set(left(app)) == set(UNREADY)
    pass_time(app, 31 * DAY)
    assert app.AsyncResult(states.STARTED).state == states.PENDING
    app.backend.cleanup()
    assert left(app) == {}


@pytest.mark.parametrize("given", [3600, "3600", timedelta(hours=1)], ids=repr)
def test_unfinished_expires(app_with: Callable[..., Celery], given: Any) -> None:
    """surrealdb_unfinished_expires says how long, as a number, text or timedelta."""
    app = app_with(surrealdb_unfinished_expires=given)
    store_unready(app, states.STARTED)
    assert left(app) == {states.STARTED: about(3600)}


@pytest.mark.parametrize("given", [None, 0, "0"], ids=repr)
def test_unfinished_for_ever(app_with: Callable[..., Celery], given: Any) -> None:
    """None and 0 keep unfinished states for ever, through every clean-up: their end is thousands of years off."""
    app = app_with(result_expires=60, surrealdb_unfinished_expires=given)
    store_unready(app, states.STARTED)
    app.backend.connection.run("CREATE task:older SET task_id = 'of an older version', status = 'STARTED'")
    for _ in range(2):
        app.backend.cleanup()
        assert set(left(app)) == {states.STARTED, "of an older version"}
        assert min(left(app).values()) > 7_000 * 365 * DAY


def test_every_state_renews_the_end(app_with: Callable[..., Celery]) -> None:
    """A task that is alive and says so stays, however long it runs; once it has ended, its result's lifetime counts."""
    app = app_with(result_expires=DAY)
    store_unready(app, states.STARTED, "long")
    for _ in range(3):
        pass_time(app, 29 * DAY)
        app.backend.cleanup()
        assert app.AsyncResult("long").state != states.PENDING
        store_unready(app, "PROGRESS", "long")
    assert left(app) == {"long": about(30 * DAY)}
    app.backend.store_result("long", 1, states.SUCCESS)
    assert left(app) == {"long": about(DAY)}


# -- lifetimes of some tasks ----------------------------------------------------------------------


def test_lifetimes_of_real_tasks(app_with: Callable[..., Celery]) -> None:
    """A real worker stores each result for as long as its message, its task or the table of patterns asks."""
    app = app_with(
        result_expires=DAY,
        surrealdb_retention={"short.*": 3600, "*.failing": {"failure_expires": 7 * DAY}},
        broker_url="memory://",
    )

    @app.task(name="plain", shared=False)
    def plain(*_: Any) -> int:
        return 1

    @app.task(name="short.by_pattern", shared=False)
    def by_pattern() -> int:
        return 1

    @app.task(name="by_attribute", shared=False, result_expires=timedelta(days=2))
    def by_attribute() -> int:
        return 1

    @app.task(name="a.failing", shared=False)
    def failing(*, fail: bool = True) -> None:
        if fail:
            raise ValueError

    ids = {
        "plain": plain.apply_async(),
        "header": plain.apply_async(headers={"result_expires": 600}),
        "header for ever": plain.apply_async(headers={"result_expires": None}),
        "pattern": by_pattern.apply_async(),
        "pattern and header": by_pattern.apply_async(headers={"result_expires": 600}),
        "attribute": by_attribute.apply_async(),
        "attribute and header": by_attribute.apply_async(headers={"result_expires": 600}),
        "failing": failing.apply_async(),
        "not failing": failing.apply_async(kwargs={"fail": False}),
        "of send_task": app.send_task("short.by_pattern"),
    }
    in_group = group(plain.s().set(headers={"result_expires": 600}), by_pattern.s()).apply_async()
    of_chord = chord([plain.s(), by_attribute.s()], plain.s().set(headers={"result_expires": 600})).apply_async()
    with worker(app):
        for result in (*ids.values(), in_group, of_chord):
            result.get(timeout=TIMEOUT, propagate=False)
    found = left(app)
    assert {name: found[result.id] for name, result in ids.items()} == {
        "plain": about(DAY),
        "header": about(600),
        "header for ever": pytest.approx(7_500 * 365.25 * DAY, rel=0.01),
        "pattern": about(3600),
        "pattern and header": about(600),
        "attribute": about(2 * DAY),
        "attribute and header": about(600),
        "failing": about(7 * DAY),
        "not failing": about(DAY),
        "of send_task": about(3600),
    }
    assert [found[result.id] for result in in_group.results] == [about(600), about(3600)]
    assert found[of_chord.id] == about(600)
    assert sorted(found[result.id] for result in of_chord.parent.results) == [about(DAY), about(2 * DAY)]
    pass_time(app, DAY + 60)
    app.backend.cleanup()
    assert set(left(app)) == {
        *(ids[name].id for name in ("header for ever", "attribute", "failing")),
        *(result.id for result in of_chord.parent.results if found[result.id] > 1.5 * DAY),
    }


def test_what_celery_gives_back_is_as_before(app_with: Callable[..., Celery]) -> None:
    """A lifetime of one's own shows nowhere in what Celery has of a result."""
    app = app_with(result_expires=DAY, surrealdb_retention={"contract.add": 60})
    app.backend.store_result("own", 1, states.SUCCESS, request=request("own"))
    app.backend.store_result("other", 1, states.SUCCESS, request=request("other", task="other"))
    assert left(app) == {"own": about(60), "other": about(DAY)}
    metas = [app.backend.get_task_meta(task_id) for task_id in ("own", "other")]
    assert set(metas[0]) == set(metas[1])
