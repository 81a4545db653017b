"""The database goes away, or does not answer, while somebody waits for a result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import states
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import GroupResult

from surrealdb_celery_backend import aio, errors
from surrealdb_celery_backend.results import waiting
from tests.engines import Database
from tests.support.faults.proxy import Proxy
from tests.support.states import MAX_WAIT, until
from tests.support.waits import Side, in_background, names

#: How each kind of wait is made: it takes a side, the id of a task, and a timeout.
WAITS: dict[str, Callable[[Side, str, float | None], Any]] = {
    "get": lambda side, task_id, timeout: side.app.AsyncResult(task_id).get(timeout=timeout),
    "get of a group": lambda side, task_id, timeout: GroupResult(
        "group", [side.app.AsyncResult(task_id)], app=side.app
    ).get(timeout=timeout)[0],
    "aio.get": lambda side, task_id, timeout: asyncio.run(aio.get(side.app.AsyncResult(task_id), timeout)),
}


@pytest.fixture(params=["auto", "off"])
def side(request: pytest.FixtureRequest, proxy: Proxy, fresh_database: Database) -> Iterator[Side]:
    """Who waits, through a proxy."""
    settings = {"surrealdb_url": proxy.url, "surrealdb_live": request.param, "surrealdb_timeout": 2 * MAX_WAIT}
    side = Side(fresh_database.settings | settings)
    yield side
    assert len(side.dispatcher) == 0
    side.backend.close()


def first_look_of(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Give the first look of a wait so many seconds. One that is given up is taken for a silent server."""
    for module in (waiting, aio):
        monkeypatch.setattr(module, "FIRST_LOOK", seconds)


@pytest.mark.parametrize("kind", WAITS)
def test_a_timeout_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch, dead_port: int, kind: str) -> None:
    """Nobody is there: the wait ends in its time with a TimeoutError that carries the outage."""
    first_look_of(monkeypatch, MAX_WAIT)
    side = Side({"surrealdb_url": f"ws://127.0.0.1:{dead_port}"})
    with pytest.raises(ResultTimeout) as raised:
        WAITS[kind](side, "never", 0.5)
    assert isinstance(raised.value, errors.ResultsUnavailable)
    assert isinstance(raised.value.__cause__, errors.ServerUnavailable)
    assert "cannot be reached" in str(raised.value)
    side.backend.close()


@pytest.mark.parametrize("kind", WAITS)
def test_without_a_timeout_one_error_ends_the_wait(monkeypatch: pytest.MonkeyPatch, dead_port: int, kind: str) -> None:
    """Nobody is there for as long as a worker would try: one clear error of the same family instead of a hang."""
    monkeypatch.setattr(waiting, "OUTAGE", 0.2)
    side = Side({"surrealdb_url": f"ws://127.0.0.1:{dead_port}"})
    began = time.monotonic()
    with pytest.raises(errors.ResultsUnavailable, match="waiting for results was given up") as raised:
        WAITS[kind](side, "never", None)
    assert isinstance(raised.value.__cause__, errors.ServerUnavailable)
    assert time.monotonic() - began >= 0.2
    side.backend.close()


@pytest.mark.parametrize("kind", WAITS)
def test_a_server_that_is_silent_does_not_hold_up_a_timeout(
    side: Side, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A request takes up to surrealdb_timeout; a wait of half a second does not."""
    # The look has to have begun, perhaps in another thread, half of this before the wait ends.
    first_look_of(monkeypatch, 3.0)
    side.backend.connection.run("RETURN 1")
    proxy.losing_replies = True
    began = time.monotonic()
    with pytest.raises(errors.WaitTimedOut) as raised:
        WAITS[kind](side, "never", 0.5)
    assert isinstance(raised.value.__cause__, errors.RequestTimedOut)
    assert time.monotonic() - began < side.backend.settings.timeout / 2
    proxy.losing_replies = False


@pytest.mark.parametrize("kind", WAITS)
def test_an_outage_during_a_wait(
    side: Side, proxy: Proxy, fresh_database: Database, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The line is away and comes back: the wait goes on, and a timeout afterwards carries nothing."""
    working = Side(fresh_database.settings)
    value = in_background(lambda: WAITS[kind](side, "late", 100.0))
    until(lambda: "late" in side.dispatcher, "waiting")
    proxy.refusing = True
    proxy.break_lines()
    until(lambda: side.dispatcher.is_in_trouble, "looks fail")
    working.backend.store_result("late", "there", states.SUCCESS)
    proxy.refusing = False
    assert value() == "there"
    first_look_of(monkeypatch, MAX_WAIT)
    with pytest.raises(ResultTimeout) as raised:
        WAITS[kind](side, "never", 0.3)
    assert raised.value.__cause__ is None
    working.backend.close()


def test_a_lost_live_query_is_replaced(
    live_engine: Any, proxy: Proxy, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection breaks while somebody waits: the result comes, and LIVE is asked for again."""
    side, working = Side(fresh_database.settings | {"surrealdb_url": proxy.url}), Side(fresh_database.settings)
    value = in_background(lambda: side.app.AsyncResult("first").get(timeout=100))
    other_value = in_background(lambda: side.app.AsyncResult("second").get(timeout=100))
    until(lambda: names(side, "first", "second"), "the LIVE query names both")
    before = len(proxy.requests("query", "LIVE"))
    proxy.break_lines()
    working.backend.store_result("first", 1, states.SUCCESS)
    assert value() == 1
    until(lambda: len(proxy.requests("query", "LIVE")) > before, "asked again")
    until(lambda: names(side, "second"), "the new LIVE query stands")
    working.backend.store_result("second", 2, states.SUCCESS)
    assert other_value() == 2
    side.backend.close()
    working.backend.close()


def test_what_does_not_pass_ends_the_wait(fresh_database: Database) -> None:
    """A wrong password: one clear error, at once, from a get() with a long timeout and from one without."""
    for timeout in (100.0, None):
        side = Side(fresh_database.settings | {"surrealdb_password": "wrong"})
        with pytest.raises(errors.AuthenticationFailed):
            side.app.AsyncResult("never").get(timeout=timeout)
        assert len(side.dispatcher) == 0
        side.backend.close()
