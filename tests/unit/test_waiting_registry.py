"""Who waits for what, what a wait makes of records, and the callbacks of then(). No server."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery, states
from celery.result import EagerResult, GroupResult

from surrealdb_celery_backend.results.collecting import Collector, StateOrder, leaves_of, parents_of, single_parents_of
from surrealdb_celery_backend.results.members import Members, entry_of
from surrealdb_celery_backend.results.promises import SWEEP, Promises
from surrealdb_celery_backend.results.push import LiveQuery, RecordFilter
from surrealdb_celery_backend.results.waiters import Arrival, Waiter, Waiters

pytestmark = pytest.mark.unit

SUCCESS = {"status": states.SUCCESS, "result": 1}


@pytest.fixture
def app() -> Celery:
    """An app, for result objects. Its backend is not asked for anything."""
    return Celery("unit", backend="cache+memory://", broker="memory://", set_as_current=False)


def waiter() -> Waiter:
    """A waiter that hears nothing."""
    nothing: Any = None  # The registry does not look at them.
    return Waiter(mailbox=nothing, source=nothing)


def arrival(record: dict[str, Any], *, at: float = 0.0, task_id: str = "id", **how: bool) -> Arrival:
    """A record of a task."""
    return Arrival(task_id, record, at, **how)


def decode(record: dict[str, Any]) -> dict[str, Any]:
    """What a backend makes of a record."""
    if record.get("result") == "unreadable":
        raise ValueError("unreadable")
    return {**record, "children": [], "traceback": None}


# -- the registry --------------------------------------------------------------------------------------


def test_all_waiters_of_a_task_are_found() -> None:
    """Two waits of one task both hear of it, and one that ends leaves the other."""
    waiters, first, second = Waiters(), waiter(), waiter()
    waiters.add(first, ["a", "b"])
    waiters.add(second, ["a", "a"])
    waiters.add(first, ["a"])
    assert waiters.of("a") == (first, second)
    assert waiters.remove(first) == ["b"]
    assert waiters.of("a") == (second,)
    assert waiters.all() == [second]


def test_nothing_stays_of_waits_that_ended() -> None:
    """A task that has ended, and a wait that was given up, leave nothing behind."""
    waiters, first, second = Waiters(), waiter(), waiter()
    waiters.add(first, ["a", "b"])
    waiters.add(second, ["a", "c"])
    assert waiters.finish("a") == (first, second)
    assert waiters.finish("a") == ()
    assert (first.ids, second.ids) == ({"b"}, {"c"})
    assert waiters.remove(first) == ["b"]
    assert waiters.remove(first) == []
    assert waiters.remove(second) == ["c"]
    assert len(waiters) == 0


# -- states in order -----------------------------------------------------------------------------------


def test_states_are_told_in_order() -> None:
    """What a look fetched is not told after what was pushed since, nor before what is on its way."""
    order = StateOrder()

    def is_news(step: int, at: float, **how: Any) -> bool:
        return order.is_news(arrival({"status": "PROGRESS", "result": step}, at=at, **how))

    assert is_news(2, 1.0, pushed=True)
    assert not is_news(1, 0.5), "the look began before that came"
    assert not is_news(2, 2.0), "told already"
    assert not is_news(3, 3.0, expected=True), "LIVE brings it"
    assert is_news(3, 4.0, expected=True), "LIVE did not"
    assert not is_news(3, 5.0, pushed=True), "LIVE was late"
    assert is_news(4, 6.0, pushed=True)
    assert not is_news(3, 5.5, expected=True)


# -- collecting ----------------------------------------------------------------------------------------


def collector(results: list[Any], **more: Any) -> Collector:
    """What a wait for results does with records."""
    return Collector(results, decode=decode, **more)


def test_every_object_of_a_task_is_fulfilled(app: Celery) -> None:
    """Two result objects of one task, waited for together."""
    first, second = app.AsyncResult("id"), app.AsyncResult("id")
    collecting = collector([first, second])
    assert collecting.accept(arrival(SUCCESS)) == [first, second]
    assert (first.result, second.result, collecting.missing) == (1, 1, 0)
    assert collecting.accept(arrival(SUCCESS)) == []


def test_callbacks_run_once_however_often_a_result_comes(app: Celery) -> None:
    """Several threads may wait with the same result object."""
    result = app.AsyncResult("id")
    called: list[Any] = []
    result.on_ready.then(called.append)
    waits = [collector([result]) for _ in range(8)]
    threads = [threading.Thread(target=wait.accept, args=(arrival(SUCCESS),)) for wait in waits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert called == [result]
    assert [wait.missing for wait in waits] == [0] * 8


def test_what_cannot_be_decoded_is_raised_where_it_is_waited_for(app: Celery) -> None:
    """As is what a callback raises; others' records and callbacks are not this wait's concern."""
    bad = {"status": states.SUCCESS, "result": "unreadable"}
    with pytest.raises(ValueError, match="unreadable"):
        collector([app.AsyncResult("id")]).accept(arrival(bad))
    other = app.AsyncResult("other")
    other.on_ready.then(lambda _: 1 / 0)
    collecting = collector([app.AsyncResult("id")], others=[other, app.AsyncResult("bad")])
    assert collecting.accept(arrival(SUCCESS, task_id="other")) == []
    assert collecting.accept(arrival(bad, task_id="bad")) == []
    assert collecting.accept(arrival(bad, task_id="nobody's")) == []
    assert collecting.missing == 1
    raising = app.AsyncResult("id")
    raising.on_ready.then(lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        collector([raising]).accept(arrival(SUCCESS))


def test_messages_come_before_the_result_is_there(app: Celery) -> None:
    """on_message hears of each state of the results waited for, of nothing else, and first."""
    result, heard = app.AsyncResult("id"), []

    def hear(meta: dict[str, Any]) -> None:
        heard.append((meta["task_id"], meta["status"], meta["result"], not result.ignored and result._cache))

    collecting = collector([result], others=[app.AsyncResult("other")], on_message=hear)
    collecting.accept(arrival({"status": "PROGRESS", "result": 1}, pushed=True))
    collecting.accept(arrival(SUCCESS, task_id="other"))
    collecting.accept(arrival(SUCCESS, pushed=True))
    assert heard == [("id", "PROGRESS", 1, None), ("id", states.SUCCESS, 1, None)]


def test_a_parent_that_failed_is_known(app: Celery) -> None:
    """A parent that succeeded is only fulfilled."""
    parents = [app.AsyncResult("first"), app.AsyncResult("second")]
    collecting = collector([app.AsyncResult("id")], parents=parents)
    assert sorted(collecting.missing_parents) == ["first", "second"]
    collecting.accept(arrival(SUCCESS, task_id="first"))
    assert collecting.failed_parent is None
    collecting.accept(arrival({"status": states.FAILURE, "result": KeyError("no")}, task_id="second"))
    assert collecting.failed_parent is parents[1]
    assert not collecting.failed
    assert collecting.missing_parents == []


def test_results_that_others_fulfilled_are_found(app: Celery) -> None:
    """Their records may be gone before this wait sees them."""
    result = app.AsyncResult("id")
    collecting = collector([result])
    assert collecting.sweep() == []
    collector([result]).accept(arrival(SUCCESS))
    assert collecting.sweep() == [result]
    assert collecting.missing == 0


def test_parents_and_leaves(app: Celery) -> None:
    """A chain's parents come first to last; a header is a parent, but none of the single ones."""
    first = app.AsyncResult("first")
    header = GroupResult("header", [app.AsyncResult("part", parent=first)], parent=first)
    body = app.AsyncResult("body", parent=header)
    group = GroupResult("outer", [body, GroupResult("inner", [app.AsyncResult("deep")])])
    assert [each.id for each in parents_of([body])] == ["first", "header"]
    assert [each.id for each in single_parents_of(group.results)] == ["first"]
    assert [each.id for each in leaves_of([group])] == ["body", "deep"]


# -- the members of a group ----------------------------------------------------------------------------


def test_members_are_complete_when_all_their_results_are(app: Celery) -> None:
    """A group in a group comes when its last task has; what is there already, and what is ignored, at once."""
    plain, deep, twice = app.AsyncResult("plain"), app.AsyncResult("deep"), app.AsyncResult("twice")
    inner = GroupResult("inner", [deep, GroupResult("innermost", [twice])])
    ignored = app.AsyncResult("ignored")
    ignored.ignored = True
    eager = EagerResult("eager", 5, states.SUCCESS)
    members = Members([plain, inner, twice, ignored, eager])
    assert members.complete() == [ignored, eager]
    assert [entry_of(node)[1]["result"] for node in members.complete()] == [None, 5]
    assert members.missing == [plain, deep, twice, twice]
    assert members.complete_with([twice, twice]) == [twice]
    assert members.complete_with([deep]) == [inner]
    assert entry_of(inner) == ("inner", inner.results)
    collector([plain]).accept(arrival(SUCCESS, task_id="plain"))
    assert [entry_of(node)[1]["result"] for node in members.complete_with([plain])] == [1]


# -- then() --------------------------------------------------------------------------------------------


def test_callbacks_are_their_thread_s(app: Celery) -> None:
    """A thread serves the results that it gave a callback to itself; those of threads that ended are dropped."""
    promises = Promises()
    mine = app.AsyncResult("mine")
    promises.add(mine)

    def elsewhere() -> None:
        for number in range(2 * SWEEP):
            promises.add(app.AsyncResult(str(number)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert promises.mine() == [mine]
    for number in range(3 * SWEEP):
        promises.add(app.AsyncResult(str(number)))
    assert len(promises) <= 4 * SWEEP
    assert len(promises.mine()) == 3 * SWEEP + 1
    promises.discard(mine)
    promises.discard(app.AsyncResult("mine"))
    assert mine not in [each for each in promises.mine() if each is mine]


def test_under_greenlets_one_serves_all(app: Celery) -> None:
    """Nobody else does then."""
    promises = Promises(shared=True)
    result = app.AsyncResult("id")
    promises.add(result)
    assert promises.mine() == []
    assert promises.all() == [result]


# -- filters of LIVE queries -----------------------------------------------------------------------------


@dataclass
class Case:
    """A filter, and what it accepts."""

    wanted: RecordFilter
    accepted: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)


@pytest.mark.parametrize(
    "case",
    [
        Case(RecordFilter(), accepted=[{}, {"status": "X"}]),
        Case(
            RecordFilter.of(status=frozenset({"FAILURE"}), name=frozenset({"a", "b"})),
            accepted=[{"status": "FAILURE", "name": "b"}],
            refused=[{"status": "FAILURE"}, {"status": "SUCCESS", "name": "a"}, {"status": ["FAILURE"], "name": "a"}],
        ),
    ],
)
def test_filters(case: Case) -> None:
    """All fields must have one of their values; a field that is no text has none."""
    query = LiveQuery("task", (RecordFilter.of(task_id=frozenset({"id"})), case.wanted))
    for record in case.accepted:
        assert case.wanted.accepts(record)
        assert query.accepts(record)
    for record in case.refused:
        assert not case.wanted.accepts(record)
        assert not query.accepts(record)
        assert query.accepts({**record, "task_id": "id"})


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ((), "LIVE SELECT * FROM `p_task` WHERE false"),
        ((RecordFilter(), RecordFilter.of(name=frozenset("a"))), "LIVE SELECT * FROM `p_task`"),
        (
            (RecordFilter.of(reply_to=frozenset("b")), RecordFilter.of(name=frozenset("a"), status=frozenset("cd"))),
            "LIVE SELECT * FROM `p_task` WHERE (`reply_to` IN $values0) OR (`name` IN $values1 AND `status` IN $values2)",
        ),
    ],
)
def test_statements_of_filters(filters: tuple[RecordFilter, ...], text: str) -> None:
    """Values are bound, in the order of the fields; a filter without fields asks for everything."""
    statement, variables = LiveQuery("p_task", filters).statement()
    assert statement == text
    assert [variables[name] for name in sorted(variables)] == [
        sorted(values) for each in filters for _, values in each.fields
    ]


def test_a_query_knows_the_values_of_a_field_that_stands_alone() -> None:
    """Of one that stands beside others it does not: not every record with that value is asked for."""
    query = LiveQuery("task", (RecordFilter.of(a=frozenset("1"), b=frozenset("2")), RecordFilter.of(b=frozenset("3"))))
    assert query.named("a") == frozenset()
    assert query.named("b") == {"3"}
