"""Awaiting results from asyncio: on each engine, with LIVE queries where it has them and without."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import states
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import EagerResult, GroupResult
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import aio
from tests.support.waits import NEVER, Side, come_true, finds_nothing, live_queries, names, our_threads, until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


@pytest.fixture(params=["auto", "off"])
def side(request: pytest.FixtureRequest, fresh_database: Any) -> Iterator[Side]:
    """Who awaits. Nothing of a wait stays."""
    others = our_threads()
    side = Side(fresh_database.settings | {"surrealdb_live": request.param})
    yield side
    assert len(side.dispatcher) == 0
    assert side.dispatcher.planned == 0
    side.backend.close()
    until(lambda: not our_threads() - others, "the threads ended")


async def store(side: Side, task_id: Any, value: Any, state: str = states.SUCCESS) -> None:
    """What a worker does, without blocking the loop."""
    await asyncio.to_thread(side.backend.store_result, task_id, value, state)


async def test_get_returns_what_the_task_returned(side: Side) -> None:
    """Await aio.get(result) gives the result that is stored while the event loop goes on."""
    result = side.app.AsyncResult(uuid())
    waiting = asyncio.create_task(aio.get(result, timeout=60))
    await come_true(lambda: result.id in side.dispatcher, "waiting")
    await store(side, result.id, {"a": 1})
    assert await waiting == {"a": 1}
    assert await aio.state(result) == states.SUCCESS
    await aio.forget(result)
    assert await aio.state(side.app.AsyncResult(result.id)) == states.PENDING


async def test_get_raises_what_the_task_raised(side: Side) -> None:
    """A failure is raised as the task's own exception, or returned with propagate=False."""
    result = side.app.AsyncResult(uuid())
    await store(side, result.id, ValueError("no"), states.FAILURE)
    with pytest.raises(ValueError, match="no"):
        await aio.get(result, timeout=60)
    assert isinstance(await aio.get(side.app.AsyncResult(result.id), timeout=60, propagate=False), ValueError)


async def test_get_times_out(side: Side) -> None:
    """A result that does not come is Celery's TimeoutError, and nobody goes on waiting for it."""
    with pytest.raises(ResultTimeout):
        await aio.get(side.app.AsyncResult(uuid()), timeout=0.05)
    assert len(side.dispatcher) == 0


@pytest.mark.parametrize(
    "wait",
    [
        aio.get,
        lambda result, timeout: aio.join([result], timeout),
        lambda result, timeout: _last(aio.as_completed([result], timeout)),
        lambda result, timeout: _last(aio.watch(result, timeout)),
    ],
    ids=["get", "join", "as_completed", "watch"],
)
async def test_a_timeout_that_is_no_number(side: Side, wait: Any) -> None:
    """NaN, with which a wait would never end, and text are refused by name, whether the result is known or not."""
    result = side.app.AsyncResult(uuid())
    await store(side, result.id, 1)
    known = side.app.AsyncResult(result.id)
    assert await aio.get(known, timeout=60) == 1
    for each in (result, known):
        with pytest.raises(ValueError, match=r"^timeout must be a number of seconds, .* not nan"):
            await wait(each, float("nan"))
        with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, .* not '5'"):
            await wait(each, "5")
    assert await wait(result, float("inf"))
    for timeout in (-1, float("-inf")):
        with pytest.raises(ResultTimeout):
            await wait(side.app.AsyncResult(uuid()), timeout)


async def _last(results: Any) -> Any:
    return [each async for each in results][-1]


async def test_a_thousand_coroutines(side: Side, fresh_database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 awaited results: no thread for each, and one LIVE query, which brings all of them without any look."""
    others = our_threads()
    results = [side.app.AsyncResult(uuid()) for _ in range(1000)]
    waiting = [asyncio.create_task(aio.get(result, timeout=NEVER)) for result in results]
    await come_true(lambda: len(side.dispatcher) == 1000, "all wait")
    assert len(our_threads() - others) <= 2
    if fresh_database.engine.live and side.backend.settings.live == "auto":
        ids = [result.id for result in results]
        await come_true(lambda: names(side, *ids) and live_queries(side) == 1, "one LIVE query names all")
        finds_nothing(monkeypatch, side)

    def work() -> None:
        for number, result in enumerate(results):
            side.backend.store_result(result.id, number, states.SUCCESS)

    await asyncio.to_thread(work)
    assert await asyncio.gather(*waiting) == list(range(1000))


async def test_join_keeps_order_and_nesting(side: Side) -> None:
    """Await aio.join(group) gives the values in the group's order, nested groups as lists."""
    inner = GroupResult(uuid(), [side.app.AsyncResult(uuid()) for _ in range(2)], app=side.app)
    outer = GroupResult(uuid(), [side.app.AsyncResult(uuid()), inner, side.app.AsyncResult(uuid())], app=side.app)
    await store(side, outer.results[2].id, "c")
    await store(side, inner.results[1].id, "b2")
    await store(side, inner.results[0].id, "b1")
    await store(side, outer.results[0].id, "a")
    assert await aio.join(outer, timeout=60) == ["a", ["b1", "b2"], "c"]


async def test_as_completed_gives_results_as_they_come(side: Side) -> None:
    """Async for result in aio.as_completed(…) yields each once, in the order of arrival."""
    results = [side.app.AsyncResult(uuid()) for _ in range(3)]
    seen = []
    await store(side, results[2].id, 2)
    async for result in aio.as_completed(results, timeout=60):
        seen.append(result.result)
        if len(seen) == 1:
            await store(side, results[0].id, 0)
        elif len(seen) == 2:
            await store(side, results[1].id, 1)
    assert seen == [2, 0, 1]
    assert [one.result async for one in aio.as_completed(results)] == [0, 1, 2]


async def test_watch_yields_each_state(side: Side) -> None:
    """Async for meta in aio.watch(result): the states and progress on the way, each once, and the end last."""
    result = side.app.AsyncResult(uuid())
    steps = [("STARTED", {"pid": 1}), *(("PROGRESS", {"current": n, "total": 3}) for n in range(3)), ("RETRY", None)]
    seen: list[Any] = []
    await store(side, result.id, steps[0][1], steps[0][0])
    async for meta in aio.watch(result, timeout=60):
        assert meta["task_id"] == result.id
        seen.append((meta["status"], meta["result"]))
        if meta["status"] in states.READY_STATES:
            break
        if len(seen) < len(steps):
            state, value = steps[len(seen)]
            await store(side, result.id, ValueError("again") if state == "RETRY" else value, state)
        else:
            await store(side, result.id, "done")
    assert seen[:4] == steps[:4]
    assert [state for state, _ in seen[4:]] == ["RETRY", "SUCCESS"]
    assert isinstance(seen[4][1], ValueError)
    assert seen[5][1] == "done"
    assert [meta["status"] async for meta in aio.watch(result)] == ["SUCCESS"]


async def test_watch_ends_with_a_failure_and_a_timeout(side: Side) -> None:
    """What a task raised is in its last meta, not raised; the timeout is Celery's."""
    result = side.app.AsyncResult(uuid())
    await store(side, result.id, KeyError("gone"), states.FAILURE)
    metas = [meta async for meta in aio.watch(result, timeout=60)]
    assert [(meta["status"], type(meta["result"])) for meta in metas] == [("FAILURE", KeyError)]
    with pytest.raises(ResultTimeout):
        async for _ in aio.watch(side.app.AsyncResult(uuid()), timeout=0.05):
            pass


@pytest.mark.parametrize("how", ["get", "join", "as_completed", "watch"])
async def test_cancellation_leaves_nothing_behind(side: Side, how: str) -> None:
    """A hundred coroutines are cancelled while they wait: nothing is waited for, looked for or referred to."""

    async def wait(result: Any) -> Any:
        if how == "get":
            return await aio.get(result)
        if how == "join":
            return await aio.join([result, side.app.AsyncResult(uuid())])
        async for one in aio.as_completed([result]) if how == "as_completed" else aio.watch(result):
            return one
        return None

    result = side.app.AsyncResult(uuid())
    waiting = [asyncio.create_task(wait(result)) for _ in range(100)]
    await come_true(lambda: side.dispatcher.waits_for(result.id) == 100, "all wait")
    survivor = asyncio.create_task(aio.get(result, timeout=60))
    for task in waiting:
        task.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await come_true(lambda: side.dispatcher.waits_for(result.id) == 1, "one waits on")
    await store(side, result.id, "for the one that stayed")
    assert await survivor == "for the one that stayed"
    del waiting, outcomes, task
    gc.collect()
    assert len(side.dispatcher) == 0


async def test_a_watch_that_is_broken_off_ends_its_wait(side: Side) -> None:
    """Leaving the loop early is enough, without closing the generator."""
    result = side.app.AsyncResult(uuid())
    await store(side, result.id, None, "STARTED")
    async for meta in aio.watch(result):
        assert meta["status"] == "STARTED"
        break
    gc.collect()
    await come_true(lambda: len(side.dispatcher) == 0, "nobody waits")


async def test_who_gives_up_takes_nobody_along(side: Side) -> None:
    """One coroutine and one thread go on waiting for a result object that another coroutine has given up."""
    result = side.app.AsyncResult(uuid())
    patient = asyncio.create_task(aio.get(result, timeout=60))
    blocking = asyncio.create_task(asyncio.to_thread(result.get, timeout=60))
    await come_true(lambda: side.dispatcher.waits_for(result.id) == 2, "both wait")
    with pytest.raises(ResultTimeout):
        await aio.get(result, timeout=0.05)
    assert side.dispatcher.waits_for(result.id) == 2
    await store(side, result.id, 1)
    assert await patient == 1
    assert await blocking == 1


async def test_one_result_is_waited_for_alone_and_with_others(side: Side) -> None:
    """A result that two coroutines wait for is told to each once, so that neither returns too early or never."""
    first, second = side.app.AsyncResult(uuid()), side.app.AsyncResult(uuid())
    both = asyncio.create_task(aio.join([first, second], timeout=60))
    single = asyncio.create_task(aio.get(first, timeout=60))
    await come_true(lambda: side.dispatcher.waits_for(first.id) == 2, "both wait")
    await store(side, first.id, 1)
    assert await single == 1
    assert not both.done()
    await store(side, second.id, 2)
    assert await both == [1, 2]


async def test_timeout_zero_looks_once(side: Side) -> None:
    """With timeout=0 a result that is there is returned, and one that is not is Celery's TimeoutError."""
    result = side.app.AsyncResult(uuid())
    with pytest.raises(ResultTimeout):
        await aio.get(result, timeout=0)
    await store(side, result.id, 1)
    assert await aio.get(result, timeout=0) == 1


async def test_what_get_gives_at_once(side: Side) -> None:
    """A group is joined, a task whose results are ignored gives None, and an eager one what it returned."""
    group = GroupResult(uuid(), [side.app.AsyncResult(uuid4()) for _ in range(2)], app=side.app)
    for number, result in enumerate(group.results):
        await store(side, result.id, number)
    assert await aio.get(group, timeout=60) == [0, 1]
    ignored = side.app.AsyncResult(uuid())
    ignored.ignored = True
    assert await aio.get(ignored) is None
    assert await aio.join([ignored, group]) == [None, [0, 1]]
    assert await aio.get(EagerResult(uuid(), "at once", states.SUCCESS)) == "at once"


async def test_a_task_before_it_failed(side: Side) -> None:
    """What follows a failed task in a chain is never sent: its error is raised, as result.get() does."""
    before = side.app.AsyncResult(uuid())
    result = side.app.AsyncResult(uuid(), parent=before)
    group = GroupResult(uuid(), [side.app.AsyncResult(uuid())], parent=before, app=side.app)
    waiting = [asyncio.create_task(aio.get(one)) for one in (result, group)]
    await store(side, before.id, KeyError("gone"), states.FAILURE)
    for one in waiting:
        with pytest.raises(KeyError, match="gone"):
            await one
    with pytest.raises(ResultTimeout):
        await aio.get(result, timeout=0.05, propagate=False)


async def test_what_goes_wrong_concerns_its_own_coroutine(side: Side) -> None:
    """A callback that raises, and a result that cannot be decoded: raised where they are awaited, nowhere else."""
    raising, bad, good = (side.app.AsyncResult(uuid()) for _ in range(3))
    raising.on_ready.then(lambda _: 1 / 0)
    waiting = [asyncio.create_task(aio.get(one, timeout=60)) for one in (raising, bad, good)]
    await come_true(lambda: len(side.dispatcher) == 3, "all wait")
    await store(side, raising.id, 1)
    await store(side, bad.id, {"reason": "not an exception"}, states.FAILURE)
    with pytest.raises(ZeroDivisionError):
        await waiting[0]
    with pytest.raises(ValueError, match="xception"):
        await waiting[1]
    await store(side, good.id, 2)
    assert await waiting[2] == 2


async def test_callbacks_run_in_the_loop_s_thread(side: Side) -> None:
    """A then() callback of an awaited result."""
    result, called = side.app.AsyncResult(uuid()), []
    result.then(lambda _: called.append(threading.get_ident()))
    waiting = asyncio.create_task(aio.get(result, timeout=60))
    await come_true(lambda: result.id in side.dispatcher, "waiting")
    await store(side, result.id, 1)
    assert await waiting == 1
    assert called == [threading.get_ident()]


async def test_several_event_loops(side: Side) -> None:
    """Loops in other threads wait at the same time; one that was closed in the middle harms nobody."""
    mine, others = side.app.AsyncResult(uuid()), [side.app.AsyncResult(uuid()) for _ in range(3)]

    def in_a_loop(result: Any) -> Any:
        return asyncio.run(aio.get(result, timeout=60))

    def closed_in_the_middle() -> None:
        loop: Any = asyncio.new_event_loop()
        task = loop.create_task(aio.get(mine))
        loop.run_until_complete(asyncio.sleep(0.05))
        assert mine.id in side.dispatcher
        loop.close()
        loop.call_exception_handler = lambda _: None  # "Task was destroyed but it is pending"
        del task
        gc.collect()

    await asyncio.to_thread(closed_in_the_middle)
    waiting = [asyncio.create_task(asyncio.to_thread(in_a_loop, one)) for one in others]
    here = asyncio.create_task(aio.get(mine, timeout=60))
    await come_true(lambda: all(one.id in side.dispatcher for one in [mine, *others]), "all wait")
    for number, one in enumerate([mine, *others]):
        await store(side, one.id, number)
    assert await asyncio.gather(here, *waiting) == [0, 1, 2, 3]
    gc.collect()


async def test_results_of_another_backend(side: Side) -> None:
    """Results that are kept elsewhere cannot be awaited here: an error says so, and nobody goes on waiting."""
    from celery import Celery

    elsewhere = Celery("elsewhere", backend="cache+memory://", broker="memory://", set_as_current=False)
    with pytest.raises(TypeError, match="not a SurrealDB backend"):
        await aio.join([side.app.AsyncResult(uuid()), elsewhere.AsyncResult(uuid())])


async def test_results_of_several_databases(side: Side, engine: Any) -> None:
    """Two apps with databases of their own, joined."""
    other = Side(engine.database().settings)
    results = [side.app.AsyncResult(uuid()), other.app.AsyncResult(uuid())]
    waiting = asyncio.create_task(aio.join(results, timeout=60))
    await come_true(lambda: len(side.dispatcher) == len(other.dispatcher) == 1, "both are waited for")
    await store(other, results[1].id, "there")
    await store(side, results[0].id, "here")
    assert await waiting == ["here", "there"]
    other.backend.close()
