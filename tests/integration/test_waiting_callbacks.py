"""Callbacks of waits, and results that cannot be decoded: each concerns the wait that it belongs to.

On each engine, with LIVE queries where it has them and without.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from celery import states
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import GroupResult, ResultSet
from kombu.exceptions import ContentDisallowed
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import errors
from tests.support.waits import Side, in_background, is_waited_for, until

pytestmark = pytest.mark.integration


#: Results that cannot be decoded: what is stored, in which state, by whom.
UNREADABLE: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "failure that is no exception": ({"reason": "not an exception"}, states.FAILURE, {}),
    "content type that is not accepted": (
        {"pickled": (1,)},
        states.SUCCESS,
        {"result_serializer": "pickle", "accept_content": ["pickle", "json"]},
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_result_that_cannot_be_decoded_concerns_its_own_wait(
    fresh_database: Any, sides: tuple[Side, Side], kind: str
) -> None:
    """Its own get() raises, again and again; six others that wait meanwhile, and a group, get theirs."""
    waiting, working = sides
    value, state, settings = UNREADABLE[kind]
    strange = Side(fresh_database.settings, **settings)
    others = [waiting.app.AsyncResult(uuid()) for _ in range(6)]
    members = GroupResult(uuid(), [waiting.app.AsyncResult(uuid()) for _ in range(3)], app=waiting.app)
    values = [in_background(lambda result=result: result.get(timeout=60)) for result in [*others, members]]
    bad = uuid()
    bad_value = in_background(lambda: waiting.app.AsyncResult(bad).get(timeout=60))
    is_waited_for(waiting, bad, *(result.id for result in [*others, *members.results]))
    strange.backend.store_result(bad, value, state)
    with pytest.raises((ValueError, ContentDisallowed)) as first:
        bad_value()
    assert not isinstance(first.value, ResultTimeout)
    for number, result in enumerate([*others, *members.results]):
        working.backend.store_result(result.id, number, states.SUCCESS)
    assert [each() for each in values] == [0, 1, 2, 3, 4, 5, [6, 7, 8]]
    with pytest.raises(type(first.value)):
        waiting.app.AsyncResult(bad).get(timeout=60)
    strange.backend.close()


def test_a_record_that_cannot_be_sent_concerns_its_own_wait(fresh_database: Any) -> None:
    """Somebody wrote a regex into it: its own get() names it, alone and in a group, and the other waits go on.

    Looks for the other are due at other times: one of them asks for this record alone.
    """
    waiting, working = Side(fresh_database.settings | {"surrealdb_live": "off"}), Side(fresh_database.settings)
    good, late, bad = (waiting.app.AsyncResult(uuid()) for _ in range(3))
    values = [in_background(lambda: late.get(timeout=60))]
    is_waited_for(waiting, late.id)
    time.sleep(0.5)
    bad_value = in_background(lambda: bad.get(timeout=60))
    group = GroupResult(uuid(), [waiting.app.AsyncResult(bad.id), good], app=waiting.app)
    group_value = in_background(lambda: group.get(timeout=60))
    is_waited_for(waiting, bad.id, good.id)
    fresh_database.query(
        f"CREATE task:⟨{bad.id}⟩ SET task_id = '{bad.id}', status = 'SUCCESS', encoding = 'application/json', "
        "result = '1', note = /a+/, expires_at = time::now() + 1h RETURN NONE"
    )
    for value in (bad_value, group_value):
        with pytest.raises(errors.UnreadableRecord, match=f"task '{bad.id}' cannot be read"):
            value()
    time.sleep(0.5)
    for number, result in enumerate([good, late]):
        working.backend.store_result(result.id, number, states.SUCCESS)
    assert [value() for value in values] == [1]
    assert ResultSet([good, late], app=waiting.app).get(timeout=60) == [0, 1]
    for side in (waiting, working):
        side.backend.close()


@pytest.mark.parametrize("how", ["then", "on_message", "on_message of a group", "on_interval"])
def test_what_a_callback_raises_is_raised_by_its_get(sides: tuple[Side, Side], how: str) -> None:
    """As with Redis; another wait of the process goes on, and the same result is there for the next get()."""
    waiting, working = sides
    result, other = waiting.sends(), waiting.sends()
    other_value = in_background(lambda: other.get(timeout=60))

    def get() -> Any:
        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        if how == "then":
            result.then(fail)
            return result.get(timeout=60)
        if how == "on_message of a group":
            return GroupResult(uuid(), [result], app=waiting.app).get(timeout=60, on_message=fail)
        return result.get(timeout=60, **{how: fail})

    value = in_background(get)
    is_waited_for(waiting, other.id)
    # on_interval ends its wait by itself, perhaps before anybody looks.
    if how != "on_interval":
        is_waited_for(waiting, result.id)
        working.backend.store_result(result.id, 1, states.SUCCESS, request=waiting.request_of(result))
    with pytest.raises(ZeroDivisionError):
        value()
    working.backend.store_result(result.id, 1, states.SUCCESS)
    working.backend.store_result(other.id, 2, states.SUCCESS, request=waiting.request_of(other))
    assert other_value() == 2
    assert waiting.app.AsyncResult(result.id).get(timeout=60) == 1


@pytest.mark.parametrize("waits_with", ["get", "join of a group", "get of another task"])
def test_callbacks_run_in_the_thread_that_waits(sides: tuple[Side, Side], waits_with: str) -> None:
    """then(), then() of a group and on_message: where what is thread-local is the waiting thread's."""
    waiting, working = sides
    result, other, called = waiting.sends(), waiting.sends(), []
    requests = [waiting.request_of(result), waiting.request_of(other)]
    mine = threading.local()

    def note(_: Any) -> None:
        called.append(getattr(mine, "thread", None))

    def wait() -> Any:
        mine.thread = "the one that waits"
        if waits_with == "get":
            result.then(note)
            return result.get(timeout=60, on_message=note)
        if waits_with == "join of a group":
            members = GroupResult(uuid(), [result, other], app=waiting.app)
            members.then(note)
            result.then(note)
            return members.get(timeout=60)
        result.then(note)
        return other.get(timeout=60, on_message=note)

    value = in_background(wait)
    is_waited_for(waiting, result.id, *([other.id] if waits_with != "get" else []))
    working.backend.store_result(result.id, 1, states.SUCCESS, request=requests[0])
    if waits_with == "get of another task":
        until(lambda: called, "the callback ran")
    working.backend.store_result(other.id, 2, states.SUCCESS, request=requests[1])
    assert value() == {"get": 1, "join of a group": [1, 2], "get of another task": 2}[waits_with]
    assert called == ["the one that waits"] * 2


def test_a_callback_of_another_thread_is_not_called_here(sides: tuple[Side, Side]) -> None:
    """A result that another thread gave a callback to is that thread's to fulfil."""
    waiting, working = sides
    result, mine, called = waiting.app.AsyncResult(uuid()), waiting.app.AsyncResult(uuid()), []
    go = threading.Event()

    def elsewhere() -> Any:
        result.then(lambda _: called.append(threading.get_ident()))
        go.wait(60)
        return result.get(timeout=60), threading.get_ident()

    value = in_background(elsewhere)
    working.backend.store_result(result.id, 1, states.SUCCESS)
    mine_value = in_background(lambda: mine.get(timeout=60))
    is_waited_for(waiting, mine.id)
    working.backend.store_result(mine.id, 2, states.SUCCESS)
    assert mine_value() == 2
    assert called == []
    go.set()
    returned, thread = value()
    assert (returned, called) == (1, [thread])


@pytest.mark.parametrize("where", ["on_message", "then", "on_interval"])
def test_a_get_inside_a_callback(sides: tuple[Side, Side], where: str) -> None:
    """It is one more wait: it ends as soon as its result is there, and holds up nobody else."""
    waiting, working = sides
    outer, inner, other = (waiting.app.AsyncResult(uuid()) for _ in range(3))
    got: list[Any] = []

    def get_inner(*_: Any) -> None:
        if not got:
            got.append(waiting.app.AsyncResult(inner.id).get(timeout=60))

    def get_outer() -> Any:
        if where == "then":
            outer.then(get_inner)
            return outer.get(timeout=60)
        return outer.get(timeout=60, **{where: get_inner})

    value = in_background(get_outer)
    other_value = in_background(lambda: other.get(timeout=60))
    is_waited_for(waiting, outer.id, other.id)
    if where != "on_interval":
        working.backend.store_result(outer.id, "outer", states.SUCCESS)
    is_waited_for(waiting, inner.id)
    working.backend.store_result(other.id, "other", states.SUCCESS)
    assert other_value() == "other"
    working.backend.store_result(inner.id, "inner", states.SUCCESS)
    until(lambda: got, "the inner get() ended")
    working.backend.store_result(outer.id, "outer", states.SUCCESS)
    assert (value(), got) == ("outer", ["inner"])
