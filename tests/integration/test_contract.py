"""What is stored through our backend comes back as it does through Celery's Redis backend, attribute by attribute."""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from celery import Celery, states
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as ResultTimeout
from kombu.exceptions import ContentDisallowed

from tests.engines import Database

from . import contract_apps
from .contract_apps import described, outcome, request, seen, since_celery_5_7
from .tasks_contract import FAILURES, failure

pytestmark = [
    pytest.mark.integration,
    pytest.mark.redis,
    # What Celery's Redis backend calls of redis-py is not ours to change.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

SERIALIZERS = ("json", "pickle", "yaml", "msgpack")
#: Before the keys of ids in Redis that are no UUIDs.
THIS_RUN = uuid.uuid4().hex


class Both(NamedTuple):
    """Two apps that differ in nothing but where results go."""

    ours: Celery
    reference: Celery

    def same(self, act: Callable[[Celery], Any]) -> Any:
        """Do something with both apps; what it gives must be equal.

        Returns:
            What ours gave.
        """
        expected = act(self.reference)
        got = act(self.ours)
        assert got == expected
        return got


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
def test_get_times_out(both: Both, task_id: str, timeout: float) -> None:
    """get() of a result that never comes raises Celery's TimeoutError."""
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


# -- settings that change how results are stored -----------------------------------------------------


@pytest.mark.parametrize("writer", SERIALIZERS)
@pytest.mark.parametrize("reader", SERIALIZERS)
def test_readable_after_the_serializer_changed(
    both_with: Callable[..., Both], task_id: str, writer: str, reader: str
) -> None:
    """A result written before result_serializer changed can be read after it, children and arguments too."""
    before, after = both_with(result_serializer=writer).ours, both_with(result_serializer=reader).ours
    children = [before.AsyncResult(f"{task_id}-child")]
    before.backend.store_result(task_id, {"a": [1, "ü"]}, states.SUCCESS, request=request(task_id, children=children))
    failed = f"{task_id}-failed"
    before.backend.mark_as_failure(failed, failure("own class"), traceback="Traceback …")
    before.backend.save_group(task_id, before.GroupResult(task_id, children))
    assert seen(after.AsyncResult(task_id)) == seen(before.AsyncResult(task_id))
    assert described(after.AsyncResult(failed).result) == described(before.AsyncResult(failed).result)
    assert described(after.GroupResult.restore(task_id)) == described(before.GroupResult.restore(task_id))


def test_content_that_is_not_accepted(both_with: Callable[..., Both], task_id: str) -> None:
    """A pickled result is not unpickled where result_accept_content does not allow it, and the error says so."""
    writer = both_with(result_serializer="pickle")
    reader = both_with(result_serializer="json", result_accept_content=["json"]).ours
    writer.ours.backend.store_result(task_id, 1, states.SUCCESS)
    with pytest.raises(ContentDisallowed, match="pickle"):
        reader.backend.get_task_meta(task_id)


@since_celery_5_7
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("compression", ["gzip", "bzip2"])
def test_compression(both_with: Callable[..., Both], task_id: str, serializer: str, compression: str) -> None:
    """result_compression changes nothing but the size, and old results are readable after it was switched."""
    both = both_with(result_serializer=serializer, result_compression=compression)
    if both.reference.backend.compression is None:
        pytest.skip("this Celery has no result_compression")
    value = {"text": "ab" * 10_000}

    def store(app: Celery) -> Any:
        children = [app.AsyncResult(f"{task_id}-child")]
        app.backend.store_result(task_id, value, states.SUCCESS, request=request(task_id, children=children))
        app.backend.save_group(task_id, app.GroupResult(task_id, children))
        return seen(app.AsyncResult(task_id)), described(app.GroupResult.restore(task_id))

    both.same(store)
    record = both.ours.backend.connection.run("SELECT VALUE result FROM task")[0]
    assert len(record) < 1000
    off = both_with(result_serializer=serializer).ours
    assert off.AsyncResult(task_id).result == value


@pytest.mark.parametrize("conf", [
    {"result_backend_transport_options": {"global_keyprefix": "prefix"}},
    {"result_backend_transport_options": {"global_keyprefix": "prefix:"}},
    {"surrealdb_table_prefix": "my-"},
    {"surrealdb_table_prefix": "`⟩\\ü "},
    {"surrealdb_table_prefix": "a_", "result_backend_transport_options": {"global_keyprefix": "b"}},
], ids=str)  # fmt: skip
def test_prefixes_keep_apps_apart(both_with: Callable[..., Both], task_id: str, conf: dict[str, Any]) -> None:
    """Two apps with different prefixes share a database without seeing each other's results."""
    plain, prefixed = both_with().ours, both_with(**conf).ours
    group = prefixed.GroupResult(task_id, [prefixed.AsyncResult(task_id)])
    assert prefixed.AsyncResult(task_id).state == states.PENDING
    prefixed.backend.store_result(task_id, 1, states.SUCCESS)
    group.save()
    assert plain.AsyncResult(task_id).state == states.PENDING
    assert plain.GroupResult.restore(task_id) is None
    assert prefixed.AsyncResult(task_id).result == 1
    assert prefixed.GroupResult.restore(task_id) == group
    assert prefixed.backend.settings.table("task") in plain.backend.connection.run("INFO FOR DB")["tables"]
    prefixed.backend.cleanup()


def test_keys_have_the_prefix(both_with: Callable[..., Both], task_id: str) -> None:
    """Whoever asks for the key of a task or group gets the one that Celery's other backends have, and it works."""
    both = both_with(result_backend_transport_options={"global_keyprefix": "prefix"})

    def keys(app: Celery) -> Any:
        backend = app.backend
        backend.store_result(task_id, 1, states.SUCCESS)
        made = [backend.get_key_for_task(task_id), backend.get_key_for_group("a"), backend.get_key_for_chord("a")]
        return [key.decode() if isinstance(key, bytes) else key for key in made], backend.decode(backend.get(made[0]))[
            "result"
        ]

    assert both.same(keys) == (
        [f"prefix_celery-task-meta-{task_id}", "prefix_celery-taskset-meta-a", "prefix_chord-unlock-a"],
        1,
    )


# -- the object itself -------------------------------------------------------------------------------


def test_backend_can_be_pickled(both: Both, task_id: str) -> None:
    """A pickled backend is a new one of the current app with the same URL and lifetime."""
    backend = both.ours.backend
    backend.store_result(task_id, 1, states.SUCCESS)
    both.ours.set_current()
    copy = pickle.loads(pickle.dumps(backend))
    try:
        assert type(copy) is type(backend)
        assert (copy.url, copy.expires, copy.settings) == (backend.url, backend.expires, backend.settings)
        assert copy.get_result(task_id) == 1
    finally:
        copy.close()


def test_backend_from_a_url_can_be_pickled(fresh_database: Database) -> None:
    """The URL is what travels, with the password in it, and an own lifetime too."""
    app = contract_apps.app_on(fresh_database.backend_url)
    app.set_current()
    from surrealdb_celery_backend import SurrealDBBackend

    backend = SurrealDBBackend(app=app, url=fresh_database.backend_url, expires=timedelta(minutes=1))
    copy = pickle.loads(pickle.dumps(backend))
    try:
        assert copy.expires == 60
        assert copy.settings == backend.settings
    finally:
        copy.close()
        backend.close()
        contract_apps.close(app)


def test_results_can_be_pickled(both: Both, task_id: str) -> None:
    """AsyncResult and GroupResult travel by pickle."""
    app = both.ours
    app.set_current()
    app.backend.store_result(task_id, 1, states.SUCCESS)
    result = app.AsyncResult(task_id, parent=app.AsyncResult("a-parent"))
    group = app.GroupResult("a-group", [result])
    assert pickle.loads(pickle.dumps(result)) == result
    assert pickle.loads(pickle.dumps(group)) == group
    copy = pickle.loads(pickle.dumps(result))
    assert copy.get(timeout=5) == 1


def test_one_backend_serves_all_threads(both: Both) -> None:
    """The app makes one backend, not one per thread, and results of concurrent threads do not mix."""
    app = both.ours
    app.backend  # noqa: B018 - made by this thread
    backends: set[int] = set()
    wrong: list[Any] = []

    def work(number: int) -> None:
        backends.add(id(app.backend))
        for count in range(20):
            name = f"thread-{number}-{count}"
            app.backend.store_result(name, [number, count], states.SUCCESS)
            got = app.backend.get_task_meta(name, cache=False)["result"]
            if got != [number, count]:
                wrong.append((name, got))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(backends) == 1


def test_one_backend_per_thread_if_asked_for(both_with: Callable[..., Both], task_id: str) -> None:
    """result_backend_thread_safe = False is heard: each thread has a backend of its own, and all work."""
    app = both_with(result_backend_thread_safe=False).ours
    backends: list[Any] = [app.backend]

    def work() -> None:
        backends.append(app.backend)
        app.backend.store_result(task_id, 1, states.SUCCESS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    try:
        assert backends[0] is not backends[1]
        assert app.AsyncResult(task_id).get(timeout=30) == 1
    finally:
        backends[1].close()


@since_celery_5_7
def test_capabilities(both: Both) -> None:
    """What the backend says of itself is what Celery's own says, but for the clean-up that beat does for ours."""
    names = (
        "supports_native_join", "supports_failure_expires", "supports_result_compression", "persistent", "is_async",
        "READY_STATES", "UNREADY_STATES", "EXCEPTION_STATES", "expires", "accept", "serializer", "content_type",
        "content_encoding",
    )  # fmt: skip
    both.same(lambda app: {name: getattr(app.backend, name, "absent") for name in names})
    assert both.ours.backend.supports_autoexpire is False
