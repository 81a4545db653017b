"""Groups of results: saved, restored, joined and forgotten as on Celery's Redis backend."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import GroupResult, ResultSet

from tests.engines import Database
from tests.support.apps import contract_apps
from tests.support.apps.contract_apps import described, group_seen, outcome
from tests.support.apps.tasks_contract import failure

pytestmark = [
    pytest.mark.integration,
    pytest.mark.redis,
    # What Celery's Redis backend calls of redis-py is not ours to change.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


@pytest.fixture
def app(fresh_database: Database) -> Iterator[Celery]:
    """An app of ours on a database that nobody used."""
    ours = contract_apps.ours(fresh_database)
    yield ours
    contract_apps.close(ours)


@pytest.fixture
def same(app: Celery, redis_url: str) -> Callable[[Callable[[Celery], Any]], Any]:
    """Do something with both apps; what it gives must be equal and is returned."""
    reference = contract_apps.reference(redis_url)

    def compare(act: Callable[[Celery], Any]) -> Any:
        expected = act(reference)
        got = act(app)
        assert got == expected
        return got

    return compare


@pytest.fixture
def name() -> str:
    """The beginning of ids that no test used before."""
    return str(uuid.uuid4())


def stored(app: Celery, name: str, *values: Any) -> GroupResult:
    """A group whose members have these values; an exception fails its member, None leaves it PENDING."""
    results = []
    for number, value in enumerate(values):
        result = app.AsyncResult(f"{name}-{number}")
        if isinstance(value, BaseException):
            app.backend.mark_as_failure(result.id, value, traceback="Traceback …")
        elif value is not None:
            app.backend.store_result(result.id, value, states.SUCCESS)
        results.append(result)
    return app.GroupResult(name, results)


def nested(app: Celery, name: str) -> GroupResult:
    """Groups in groups, three levels deep, with parents."""
    inner = app.GroupResult(f"{name}-inner", [app.AsyncResult(f"{name}-a"), app.AsyncResult(f"{name}-b")])
    middle = app.GroupResult(f"{name}-middle", [inner, app.AsyncResult(f"{name}-c")], parent=inner)
    parent = app.AsyncResult(f"{name}-parent", parent=app.AsyncResult(f"{name}-grandparent"))
    return app.GroupResult(name, [app.AsyncResult(f"{name}-d"), middle], parent=parent)


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_nested_groups_survive_saving(fresh_database: Database, redis_url: str, name: str, serializer: str) -> None:
    """A saved group comes back with every level, parents included, whatever the serializer."""
    ours = contract_apps.ours(fresh_database, result_serializer=serializer)
    reference = contract_apps.reference(redis_url, result_serializer=serializer)
    try:
        found = []
        for app in (ours, reference):
            group = nested(app, name)
            group.save()
            restored = app.GroupResult.restore(name)
            assert restored == group
            found.append(described(restored.as_tuple()))
        assert found[0] == found[1]
    finally:
        contract_apps.close(ours)


def test_group_that_was_never_saved(same: Any, name: str) -> None:
    """Restoring what is not there gives None, also as the first thing asked of an empty database."""
    assert same(lambda app: app.GroupResult.restore(name)) is None


def test_delete(same: Any, name: str) -> None:
    """A deleted group is gone, deleting again is fine, and its members stay."""

    def delete(app: Celery) -> Any:
        group = stored(app, name, 1, 2)
        group.save()
        group.delete()
        group.delete()
        return app.GroupResult.restore(name), [result.state for result in group.results]

    assert same(delete) == (None, [states.SUCCESS] * 2)


def test_saving_again_replaces(same: Any, name: str) -> None:
    """A group saved again has the members of the last time."""

    def save(app: Celery) -> Any:
        stored(app, name, 1, 2, 3).save()
        stored(app, name, 1).save()
        return len(app.GroupResult.restore(name))

    assert same(save) == 1


@pytest.mark.parametrize(
    "values",
    [(1, 2, 3), (1, failure("own class"), 3), (1, None, 3), (None, None), (0, "", [])],
    ids=["all", "one failed", "one waits", "all wait", "false values"],
)
def test_everything_that_can_be_asked_of_a_group(same: Any, name: str, values: tuple[Any, ...]) -> None:
    """Each method of GroupResult gives what it gives on Redis."""

    def ask(app: Celery) -> Any:
        group = stored(app, name, *values)
        # What is complete must not time out on a slow machine.
        timeout = 0.1 if None in values else 60
        joins = {
            f"{method}, propagate={propagate}": outcome(
                lambda method=method, propagate=propagate: getattr(group, method)(timeout=timeout, propagate=propagate)
            )
            for method in ("get", "join", "join_native")
            for propagate in (True, False)
            # Celery takes a second to find that a timeout has passed: once is enough.
            if None not in values or (method, propagate) == ("get", True)
        }
        if None not in values:
            joins["native"] = sorted((task_id, meta["status"]) for task_id, meta in group.iter_native(timeout=60))
        return group_seen(group), joins, outcome(group.maybe_throw), group.supports_native_join

    same(ask)


def test_result_set(same: Any, name: str) -> None:
    """A set of results can be added to, taken from, joined and forgotten."""

    def ask(app: Celery) -> Any:
        members = stored(app, name, 1, 2, 3).results
        results = ResultSet(members[:2], app=app)
        results.add(members[2])
        results.add(members[2])
        joined = results.join(timeout=60)
        results.remove(members[0])
        fewer = results.get(timeout=60)
        results.discard(members[0])
        results.update([members[0]])
        counted = results.completed_count()
        results.forget()
        gone = [result.state for result in members]
        results.clear()
        return joined, fewer, counted, gone, len(results)

    assert same(ask) == ([1, 2, 3], [2, 3], 3, [states.PENDING] * 3, 0)


def test_join_calls_back(same: Any, name: str) -> None:
    """Callbacks of join and join_native get each member's id and value, in order."""

    def join(app: Celery) -> Any:
        group, calls = stored(app, name, 1, 2), []
        group.join(timeout=60, callback=lambda *call: calls.append(call))
        group.join_native(timeout=60, callback=lambda *call: calls.append(call))
        return calls

    same(join)


def test_join_waits_for_what_comes_later(app: Celery, name: str) -> None:
    """A join ends when the last member is there, in the order of the group, not of their coming."""
    group = stored(app, name, 0, None, None)
    waiting = threading.Event()

    def store() -> None:
        waiting.wait(60)
        for number in (2, 1):
            app.backend.store_result(f"{name}-{number}", number, states.SUCCESS)

    thread = threading.Thread(target=store)
    thread.start()
    try:
        assert group.join_native(timeout=60, on_interval=waiting.set) == [0, 1, 2]
    finally:
        waiting.set()
        thread.join()


def test_empty_group(app: Celery, name: str) -> None:
    """A group without members is joined at once, where Redis raises from within a generator."""
    group = stored(app, name)
    assert (group.get(timeout=60), group.join(timeout=60), group.join_native(timeout=60)) == ([], [], [])
    assert list(group.iter_native(timeout=60)) == []


def test_group_in_a_group(same: Any, name: str) -> None:
    """An inner group is joined to a list of its own."""

    def ask(app: Celery) -> Any:
        outer = app.GroupResult(name, [*stored(app, name, 3).results, stored(app, f"{name}-inner", 1, 2)])
        return outer.join(timeout=60), outer.join_native(timeout=60)

    assert same(ask) == ([3, [1, 2]], [3, [1, 2]])


def test_iter_native_of_a_group_in_a_group(app: Celery, name: str) -> None:
    """iter_native gives inner groups as their members, and ends."""
    inner = stored(app, f"{name}-inner", 1, 2)
    outer = app.GroupResult(name, [*stored(app, name, 3).results, inner])
    found = {
        task_id: [result.id for result in value] if isinstance(value, list) else value["result"]
        for task_id, value in outer.iter_native(timeout=60)
    }
    assert found == {f"{name}-0": 3, f"{name}-inner": [f"{name}-inner-0", f"{name}-inner-1"]}


def test_a_group_whose_tasks_never_come_times_out(app: Celery, name: str) -> None:
    """A join of what never comes ends with Celery's TimeoutError."""
    with pytest.raises(ResultTimeout):
        stored(app, name, 1, None).join(timeout=0.1)
    with pytest.raises(ResultTimeout):
        stored(app, name, 1, None).join_native(timeout=0.1)


def test_revoke_without_a_worker(app: Celery, name: str) -> None:
    """Revoking and terminating where no worker runs does no harm to results."""
    group = stored(app, name, 1, None)
    group.revoke()
    group.results[1].revoke(terminate=True)
    assert [result.state for result in group.results] == [states.SUCCESS, states.PENDING]


def test_forgetting_a_group_forgets_its_members(same: Any, name: str) -> None:
    """forget() of a restored group deletes its members' results."""

    def forget(app: Celery) -> Any:
        group = stored(app, name, 1, 2)
        group.save()
        app.GroupResult.restore(name).forget()
        return [app.AsyncResult(result.id).state for result in group.results]

    assert same(forget) == [states.PENDING] * 2


def test_big_group_is_joined_in_few_round_trips(app: Celery, name: str) -> None:
    """Joining 300 finished results does not ask for each."""
    group = stored(app, name, *range(1, 301))
    before = app.backend.connection.request_count
    assert group.join_native(timeout=60) == list(range(1, 301))
    assert app.backend.connection.request_count - before <= 3
