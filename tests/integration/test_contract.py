"""States, metas and exceptions come back as through Celery's Redis backend, attribute by attribute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import TaskRevokedError

from tests.support.apps.contract_apps import Both, described, outcome, request, seen, since_celery_5_7
from tests.support.apps.tasks_contract import FAILURES, failure

pytestmark = [
    pytest.mark.integration,
    pytest.mark.redis,
    # What Celery's Redis backend calls of redis-py is not ours to change.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

SERIALIZERS = ("json", "pickle", "yaml", "msgpack")


# -- states and metas ------------------------------------------------------------------------------


def test_unknown_task_is_pending(both: Both, task_id: str) -> None:
    """A result that was never stored is PENDING, also as the very first thing asked of an empty database."""
    values = both.same(lambda app: seen(app.AsyncResult(task_id)))
    assert values["state"] == described(states.PENDING)


@pytest.mark.parametrize("state", [*sorted(states.ALL_STATES), "PROGRESS", "my own state"])
@pytest.mark.parametrize("extended", [True, False], ids=["extended", "plain"])
def test_every_state(both_with: Callable[..., Both], task_id: str, state: str, extended: bool) -> None:
    """Each state comes back with its result, its traceback and its ready, successful and failed."""
    both = both_with(result_extended=extended)
    result = failure("own class") if state in states.EXCEPTION_STATES else {"done": 3, "of": 7}
    traceback = "Traceback: here" if state in states.EXCEPTION_STATES else None

    def store(app: Celery) -> Any:
        app.backend.store_result(task_id, result, state, traceback=traceback, request=request(task_id))
        return seen(app.AsyncResult(task_id))

    both.same(store)


def test_no_state(both: Both, task_id: str) -> None:
    """A state of None, which no task of Celery's has, is given back as it was stored."""

    def store(app: Celery) -> Any:
        app.backend.store_result(task_id, 1, None)
        return app.backend.get_state(task_id), app.backend.get_result(task_id)

    assert both.same(store) == (None, 1)


def test_update_state_outside_a_task(both: Both, task_id: str) -> None:
    """A state that is stored without a request has no name, no children and no parent."""

    def store(app: Celery) -> Any:
        app.tasks["contract.add"].update_state(task_id=task_id, state="PROGRESS", meta={"done": 1})
        return seen(app.AsyncResult(task_id))

    both.same(store)


@pytest.mark.parametrize(
    "fields",
    [
        {"group": "a-group"},
        {"parent_id": "a-parent", "root_id": "a-root"},
        {"children": None},
        {"args": None, "kwargs": None},
        {"args": (), "kwargs": {}},
        {"args": [{"deep": [1, None]}], "kwargs": {"käse": "⟩`'\"\\"}},
        {"hostname": None, "task": None},
        {"retries": 17},
        {"retries": None},
        {"delivery_info": None},
        {"delivery_info": {}},
        {"delivery_info": {"routing_key": ""}},
        {"reply_to": None},
        {"stamps": {"monitor": ["one", "two"], "hidden": 1}, "stamped_headers": ["monitor"]},
        {"stamps": {"args": "a stamp that is called as a field"}, "stamped_headers": ["args"]},
        {"stamps": {"monitor": 1}, "stamped_headers": None},
    ],
    ids=lambda fields: ",".join(f"{key}={value!r}" for key, value in fields.items())[:40],
)
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_fields_of_the_request(
    both_with: Callable[..., Both], task_id: str, fields: dict[str, Any], serializer: str
) -> None:
    """What result_extended adds, group, parent and stamps come back as they do from Redis, missing ones too."""
    both = both_with(result_serializer=serializer)

    def store(app: Celery) -> Any:
        app.backend.store_result(task_id, 3, states.SUCCESS, request=request(task_id, **fields))
        return seen(app.AsyncResult(task_id)), sorted(app.backend.get_task_meta(task_id))

    both.same(store)


def test_children(both: Both, task_id: str) -> None:
    """Children are results again, groups among them, with their own children reachable."""

    def store(app: Celery) -> Any:
        one, two = app.AsyncResult(f"{task_id}-1"), app.AsyncResult(f"{task_id}-2")
        children = [one, app.GroupResult(f"{task_id}-group", [two, app.GroupResult(f"{task_id}-inner", [one])])]
        app.backend.store_result(task_id, 1, states.SUCCESS, request=request(task_id, children=children))
        for result in (one, two):
            app.backend.store_result(result.id, result.id, states.SUCCESS, request=request(result.id))
        found = app.AsyncResult(task_id)
        collected = [(node.id, described(value)) for node, value in found.collect(timeout=10)]
        return seen(found), collected, [(described(p), described(n)) for p, n in found.iterdeps(intermediate=True)]

    both.same(store)


def test_date_done_is_when_it_was_stored(both: Both, task_id: str) -> None:
    """date_done is a datetime in the app's time zone, to the microsecond, and has no part in unfinished tasks."""
    both.ours.backend.store_result(task_id, 1, states.STARTED)
    assert both.ours.AsyncResult(task_id).date_done is None
    before = datetime.now().astimezone()
    both.ours.backend.store_result(task_id, 1, states.SUCCESS)
    after = datetime.now().astimezone()
    done = both.ours.AsyncResult(task_id).date_done
    assert before <= done <= after
    assert both.ours.backend.get_task_meta(task_id)["date_done"].endswith("+00:00")


@pytest.mark.parametrize("conf", [{"timezone": "Europe/Berlin"}, {"timezone": "Asia/Kathmandu"}, {"enable_utc": False}])
def test_date_done_in_other_time_zones(both_with: Callable[..., Both], task_id: str, conf: dict[str, Any]) -> None:
    """date_done comes back in the zone that Redis gives it in."""
    both = both_with(**conf)

    def store(app: Celery) -> Any:
        app.backend.store_result(task_id, 1, states.SUCCESS)
        done = app.AsyncResult(task_id).date_done
        text = app.backend.get_task_meta(task_id)["date_done"]
        # Without the time: isoformat() leaves out microseconds that happen to be 0.
        return type(done), done.utcoffset(), type(text), text.partition("T")[2].lstrip("0123456789:.")

    both.same(store)


@pytest.mark.parametrize("first", [states.SUCCESS, states.FAILURE, states.REVOKED, states.STARTED, "PROGRESS"])
@pytest.mark.parametrize("second", [states.SUCCESS, states.FAILURE, states.RETRY])
def test_what_replaces_what(both: Both, task_id: str, first: str, second: str) -> None:
    """A SUCCESS is final, as on Redis; beyond that, a task that has ended is never set back to running."""

    def store(app: Celery) -> str:
        for state in (first, second):
            exception = failure("builtin") if state in states.EXCEPTION_STATES else state
            app.backend.store_result(task_id, exception, state)
        app.backend._cache.clear()
        return str(app.backend.get_state(task_id))

    if first in states.READY_STATES and second not in states.READY_STATES:
        assert store(both.ours) == first
    else:
        both.same(store)


@since_celery_5_7
def test_task_result_exists(both: Both, task_id: str) -> None:
    """Something stored as PENDING exists, something never stored does not."""

    def exists(app: Celery) -> Any:
        before = app.backend.task_result_exists(task_id)
        app.backend.store_result(task_id, None, states.PENDING)
        return before, app.backend.task_result_exists(task_id), app.AsyncResult(task_id).exists()

    assert both.same(exists) == (False, True, True)


# -- exceptions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("kind", FAILURES)
def test_exceptions(both_with: Callable[..., Both], task_id: str, kind: str, serializer: str) -> None:
    """An exception comes back as its class with its arguments, or as what Redis makes of it where it cannot."""
    both = both_with(result_serializer=serializer)

    def store(app: Celery) -> Any:
        app.backend.mark_as_failure(task_id, failure(kind), traceback="Traceback …", request=request(task_id))
        return seen(app.AsyncResult(task_id))

    # An exception whose arguments show an address differs from call to call.
    if kind == "unserialisable arguments" and serializer in ("yaml", "msgpack"):
        assert outcome(lambda: store(both.ours))[:2] == outcome(lambda: store(both.reference))[:2]
    else:
        both.same(lambda app: outcome(lambda: store(app)))


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_cause_of_an_exception(both_with: Callable[..., Both], task_id: str, serializer: str) -> None:
    """What Redis keeps of a chain of exceptions is kept."""
    both = both_with(result_serializer=serializer)

    def store(app: Celery) -> Any:
        exc = failure("own class")
        exc.__cause__ = failure("builtin")
        app.backend.mark_as_failure(task_id, exc, traceback="Traceback …")
        return seen(app.AsyncResult(task_id))

    both.same(store)


def test_get_raises_with_the_remote_traceback(both: Both, task_id: str) -> None:
    """get() raises the task's exception; with propagate=False it returns it."""

    def get(app: Celery) -> Any:
        app.backend.mark_as_failure(task_id, failure("own class"), traceback="Traceback: over there")
        result = app.AsyncResult(task_id)
        return (
            outcome(lambda: result.get(timeout=5)),
            outcome(lambda: result.get(timeout=5, propagate=False)),
            outcome(result.maybe_throw),
            result.traceback,
        )

    both.same(get)


def test_revoked(both: Both, task_id: str) -> None:
    """A revoked task raises TaskRevokedError with its reason."""

    def revoke(app: Celery) -> Any:
        app.backend.mark_as_revoked(task_id, "expired", request=request(task_id))
        return seen(app.AsyncResult(task_id))

    values = both.same(revoke)
    assert values["result"] == described(TaskRevokedError("expired"))


def test_retry(both: Both, task_id: str) -> None:
    """A task that will be retried has the exception of the last attempt."""

    def retry(app: Celery) -> Any:
        app.backend.mark_as_retry(task_id, failure("fields"), traceback="Traceback …", request=request(task_id))
        return seen(app.AsyncResult(task_id))

    both.same(retry)
