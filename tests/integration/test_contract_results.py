"""Result objects by their ids: forgotten, cached, reloaded, fetched many at once and waited for, as with Celery's Redis backend."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import TimeoutError as ResultTimeout

from surrealdb_celery_backend.results import waiting
from tests.support.apps import contract_apps
from tests.support.apps.contract_apps import Both, described, outcome, request, seen, since_celery_5_7
from tests.support.apps.tasks_contract import failure
from tests.support.states import MAX_WAIT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.redis,
    # What Celery's Redis backend calls of redis-py is not ours to change.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

#: Before the keys of ids in Redis that are no UUIDs.
THIS_RUN = uuid.uuid4().hex


# -- ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "plain", "with-dash", "with:colon", "a/b", "⟨x⟩", "⟩`'\"\\", "ünï", "\N{PILE OF POO}", " ", "1", "01", "-1",
        "1.5", "true", "NONE", "task:x", "x" * 1000, "\n\t", "[1]", "{a: 1}", "u'x'", "$record", "--", ";",
    ],
    ids=ascii,
)  # fmt: skip
def test_any_text_is_an_id(both: Both, redis_url: str, name: str) -> None:
    """A task's and a group's id may be any text; nothing in it is taken for SurrealQL."""
    # These ids are the same in each run, and runs share Redis.
    apart = {"result_backend_transport_options": {"global_keyprefix": THIS_RUN}}
    both = both._replace(reference=contract_apps.reference(redis_url, **apart))

    def store(app: Celery) -> Any:
        app.backend.store_result(name, name, states.SUCCESS, request=request(name))
        group = app.GroupResult(name, [app.AsyncResult(name)])
        app.backend.save_group(name, group)
        found = seen(app.AsyncResult(name)), described(app.GroupResult.restore(name))
        many = dict(app.backend.get_many([name], timeout=0))
        app.backend.forget(name)
        app.backend.delete_group(name)
        gone = app.AsyncResult(name).state, app.GroupResult.restore(name)
        return found, list(many), gone

    both.same(store)


@since_celery_5_7
def test_uuid_as_id(both: Both) -> None:
    """An id given as a UUID is the same id as its text."""
    given = uuid.uuid4()

    def store(app: Celery) -> Any:
        app.backend.store_result(str(given), 1, states.SUCCESS)
        return app.backend.get_state(given), app.backend.get_state(str(given))

    assert both.same(store) == (states.SUCCESS, states.SUCCESS)
    both.ours.backend.store_result(given, 2, states.SUCCESS)
    assert both.ours.backend.get_result(str(given)) == 1


@since_celery_5_7
@pytest.mark.parametrize("later", [False, True], ids=["there already", "comes later"])
def test_waiting_for_a_uuid(both: Both, later: bool) -> None:
    """Whoever waits for ids given as UUIDs gets their results, alone, in a group and by get_many."""
    ids = [uuid.uuid4(), uuid.uuid4()]

    def wait(app: Celery) -> Any:
        results = [app.AsyncResult(task_id) for task_id in ids]

        def store() -> None:
            for number, task_id in enumerate(ids):
                app.backend.store_result(task_id, number, states.SUCCESS)

        def store_when_asked() -> None:
            if app.backend.get_state(ids[0]) == states.PENDING:
                store()

        if not later:
            store()
        one = results[0].get(timeout=30, on_interval=store_when_asked)
        many = {type(name).__name__: meta["status"] for name, meta in app.backend.get_many(ids, timeout=30)}
        return one, app.ResultSet(results).join(timeout=30), app.ResultSet(results).join_native(timeout=30), many

    assert both.same(wait) == (0, [0, 1], [0, 1], {"UUID": states.SUCCESS})


def test_bytes_as_id(both: Both, task_id: str) -> None:
    """An id given as bytes is the same id as its text, also to whoever waits."""

    def wait(app: Celery) -> Any:
        app.backend.store_result(task_id.encode(), 1, states.SUCCESS)
        return app.AsyncResult(task_id).get(timeout=30), app.AsyncResult(task_id.encode()).get(timeout=30)

    assert both.same(wait) == (1, 1)


@pytest.mark.parametrize("nothing", ["", None])
def test_empty_id(both: Both, nothing: Any) -> None:
    """An empty id is refused with Celery's own words."""
    both.same(
        lambda app: (
            outcome(lambda: app.backend.get_task_meta(nothing)),
            outcome(lambda: app.backend.store_result(nothing, 1, states.SUCCESS)),
            outcome(lambda: app.backend.restore_group(nothing)),
        )
    )


# -- forget, caches, reload --------------------------------------------------------------------------


def test_forget(both: Both, task_id: str) -> None:
    """A result that was forgotten is PENDING for everybody; forgetting twice is fine."""

    def forget(app: Celery) -> Any:
        app.backend.store_result(task_id, 1, states.SUCCESS)
        result = app.AsyncResult(task_id)
        result.get(timeout=5)
        result.forget()
        result.forget()
        return seen(app.AsyncResult(task_id))

    both.same(forget)


def test_forget_takes_the_parents_along(both: Both, task_id: str) -> None:
    """Forgetting a result forgets its parents too."""

    def forget(app: Celery) -> Any:
        parent = app.AsyncResult(f"{task_id}-parent")
        child = app.AsyncResult(task_id, parent=parent)
        for result in (parent, child):
            app.backend.store_result(result.id, 1, states.SUCCESS)
        child.forget()
        return [app.AsyncResult(result.id).state for result in (parent, child)]

    assert both.same(forget) == [states.PENDING, states.PENDING]


def test_reload(both_with: Callable[..., Both], task_id: str) -> None:
    """Success is cached where result_cache_max says so; reload_task_result asks again."""
    both = both_with(result_cache_max=10)

    def reload(app: Celery) -> Any:
        backend = app.backend
        backend.store_result(task_id, 1, states.SUCCESS)
        states_seen = [backend.get_state(task_id)]
        backend._forget(task_id)
        states_seen.append(backend.get_state(task_id))
        backend.reload_task_result(task_id)
        states_seen.append(backend.get_state(task_id))
        return states_seen

    assert both.same(reload) == [states.SUCCESS, states.SUCCESS, states.PENDING]


def test_what_was_read_is_not_read_again(both_with: Callable[..., Both], task_id: str) -> None:
    """With result_cache_max a result that was read comes from the cache to whoever waits, and what get() read is in it."""
    both = both_with(result_cache_max=10)

    def read(app: Celery) -> Any:
        backend = app.backend
        for number in (0, 1):
            backend.store_result(f"{task_id}-{number}", number, states.SUCCESS)
        got = app.AsyncResult(f"{task_id}-0").get(timeout=30), backend.get_result(f"{task_id}-1")
        cached = [backend.is_cached(f"{task_id}-{number}") for number in (0, 1)]
        for number in (0, 1):
            backend._forget(f"{task_id}-{number}")
        results = [app.AsyncResult(f"{task_id}-{number}") for number in (0, 1)]
        joined = app.ResultSet(results).join_native(timeout=30)
        again = [app.AsyncResult(result.id).get(timeout=30) for result in results]
        for result in results:
            app.AsyncResult(result.id).forget()
        return got, cached, joined, again, [backend.is_cached(result.id) for result in results]

    assert both.same(read) == ((0, 1), [True, True], [0, 1], [0, 1], [False, False])


def test_reloaded_state_does_not_hide_the_result(both: Both, both_with: Callable[..., Both], task_id: str) -> None:
    """An unfinished state in the cache is not what a get() waits for."""
    app = both_with(result_cache_max=10).ours
    app.backend.store_result(task_id, None, "PROGRESS")
    app.backend.reload_task_result(task_id)
    both.ours.backend.store_result(task_id, 1, states.SUCCESS)
    assert app.AsyncResult(task_id).get(timeout=30) == 1


# -- get_many ----------------------------------------------------------------------------------------


def test_get_many(both_with: Callable[..., Both], task_id: str) -> None:
    """Finished results are given once each, cached ones first, with on_message called for the fetched ones."""
    both = both_with(result_cache_max=10)

    def get_many(app: Celery) -> Any:
        backend = app.backend
        ids = [f"{task_id}-{number}" for number in range(5)]
        for number, name in enumerate(ids):
            backend.store_result(name, number, states.SUCCESS)
        backend.get_task_meta(ids[0])
        messages: list[Any] = []
        found = list(backend.get_many(ids, timeout=5, on_message=lambda meta: messages.append(meta["task_id"])))
        cached = found[0][0]
        return cached == ids[0], sorted((name, meta["result"]) for name, meta in found), sorted(messages)

    both.same(get_many)


@since_celery_5_7
def test_get_many_looks_once_with_timeout_0(both: Both, task_id: str) -> None:
    """timeout=0 gives what is there and then raises TimeoutError."""

    def get_many(app: Celery) -> Any:
        app.backend.store_result(task_id, 1, states.SUCCESS)
        found: list[str] = []

        def collect() -> None:
            found.extend(name for name, _ in app.backend.get_many([task_id, f"{task_id}-missing"], timeout=0))

        return outcome(collect), found

    result, found = both.same(get_many)
    assert result[1][2] == "TimeoutError"
    assert found == [task_id]


def test_get_many_ends_after_max_iterations(both: Both, task_id: str) -> None:
    """max_iterations ends the waiting without an error; on_interval is called in between."""

    def get_many(app: Celery) -> Any:
        calls: list[int] = []
        found = list(
            app.backend.get_many([task_id], interval=0.01, max_iterations=3, on_interval=lambda: calls.append(1))
        )
        return found, len(calls)

    assert both.same(get_many) == ([], 3)


@since_celery_5_7
def test_get_many_of_unfinished_and_custom_states(both: Both, task_id: str) -> None:
    """Unfinished results are not given, unless READY_STATES says that they are what is waited for."""

    def get_many(app: Celery) -> Any:
        app.backend.store_result(task_id, {"n": 1}, "PROGRESS")
        plain = outcome(lambda: list(app.backend.get_many([task_id], timeout=0)))
        custom = list(app.backend.get_many([task_id], timeout=0, READY_STATES=frozenset({"PROGRESS"})))
        return plain, [(name, meta["status"], meta["result"]) for name, meta in custom]

    both.same(get_many)


# -- waiting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [pytest.param(0, marks=since_celery_5_7), 0.05])
def test_get_times_out(both: Both, task_id: str, timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """get() of a result that never comes raises Celery's TimeoutError."""
    # Connecting is part of the first look here. Where it takes too long the error is another one, which says so.
    monkeypatch.setattr(waiting, "FIRST_LOOK", MAX_WAIT)
    both.same(lambda app: outcome(lambda: app.AsyncResult(task_id).get(timeout=timeout)))
    with pytest.raises(ResultTimeout):
        both.ours.AsyncResult(task_id).get(timeout=timeout)


@pytest.mark.parametrize("later", [False, True], ids=["there already", "comes later"])
def test_wait_for_pending_of_the_backend(both: Both, task_id: str, later: bool) -> None:
    """wait_for_pending() called by others than get() gives the result, or raises what the task raised."""

    def wait(app: Celery) -> Any:
        backend = app.backend
        names = f"{task_id}-good", f"{task_id}-bad"

        def store() -> None:
            if backend.get_state(names[0]) == states.PENDING:
                backend.store_result(names[0], 1, states.SUCCESS)
                backend.store_result(names[1], failure("own class"), states.FAILURE)

        if not later:
            store()
        good = backend.wait_for_pending(app.AsyncResult(names[0]), timeout=30, on_interval=store)
        return good, outcome(lambda: backend.wait_for_pending(app.AsyncResult(names[1]), timeout=30))

    if later:
        # Celery's Redis backend is told of nothing that it did not subscribe to.
        assert wait(both.ours)[0] == 1
    else:
        both.same(wait)
    assert not any(both.ours.backend._pending_results)


def test_get_waits_for_a_result_that_comes_later(both: Both, task_id: str) -> None:
    """get() returns once another thread has stored the result."""

    def wait(app: Celery) -> Any:
        began = threading.Event()
        backend = app.backend  # that of Redis is another one in each thread
        result = app.AsyncResult(task_id)

        def store() -> None:
            began.wait(60)
            backend.store_result(task_id, "late", states.SUCCESS)

        thread = threading.Thread(target=store)
        thread.start()
        try:
            # interval callbacks come from within the waiting.
            return result.get(timeout=60, on_interval=began.set)
        finally:
            began.set()
            thread.join()

    assert both.same(wait) == "late"


def test_get_calls_back(both: Both, task_id: str) -> None:
    """The callback gets id and result; on_message gets the meta."""

    def get(app: Celery) -> Any:
        app.backend.store_result(task_id, 5, states.SUCCESS)
        calls: list[Any] = []
        app.AsyncResult(task_id).get(timeout=5, callback=lambda name, value: calls.append((name, value)))
        return calls

    assert both.same(get) == [(task_id, 5)]
