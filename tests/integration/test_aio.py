"""Awaiting results from asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import EagerResult, GroupResult
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import aio
from surrealdb_celery_backend.waiting import waiting_on

pytestmark = pytest.mark.integration


@pytest.fixture
def app(fresh_database: Any) -> Iterator[Celery]:
    """An app whose results go to each engine in turn."""
    app = Celery("aio", backend="surrealdb_celery_backend:SurrealDBBackend", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings)
    others = set(threading.enumerate())
    yield app
    # What no coroutine waits for any more, the thread lets go of a moment later.
    for thread in waiters(others):
        thread.join(60)
    app.backend.close()


def waiters(others: set[threading.Thread]) -> list[threading.Thread]:
    """The threads that wait for coroutines, but for those that were there before."""
    return [thread for thread in threading.enumerate() if thread.name == "surrealdb-await" and thread not in others]


async def come_true(condition: Callable[[], Any], what: str) -> None:
    """Wait for a state while the loop goes on."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)


async def store(app: Celery, task_id: str, value: Any, state: str = states.SUCCESS) -> None:
    """What a worker does, without blocking the loop."""
    await asyncio.to_thread(app.backend.store_result, task_id, value, state)


def test_get_returns_what_the_task_returned(app: Celery) -> None:
    """Await aio.get(result) gives the result that is stored while the event loop goes on."""

    async def main() -> None:
        result = app.AsyncResult(uuid())
        waiting = asyncio.create_task(aio.get(result, timeout=60))
        await store(app, result.id, {"a": 1})
        assert await waiting == {"a": 1}
        assert await aio.state(result) == states.SUCCESS
        await aio.forget(result)
        assert await aio.state(app.AsyncResult(result.id)) == states.PENDING

    asyncio.run(main())


def test_get_raises_what_the_task_raised(app: Celery) -> None:
    """A failure is raised as the task's own exception, or returned with propagate=False."""

    async def main() -> None:
        result = app.AsyncResult(uuid())
        await store(app, result.id, ValueError("no"), states.FAILURE)
        with pytest.raises(ValueError, match="no"):
            await aio.get(result, timeout=60)
        assert isinstance(await aio.get(app.AsyncResult(result.id), timeout=60, propagate=False), ValueError)

    asyncio.run(main())


def test_get_times_out(app: Celery) -> None:
    """A result that does not come is Celery's TimeoutError, and nobody goes on waiting for it."""
    others = set(threading.enumerate())

    async def main() -> None:
        with pytest.raises(ResultTimeout):
            await aio.get(app.AsyncResult(uuid()), timeout=0.05)

    asyncio.run(main())
    for thread in waiters(others):
        thread.join(60)
    assert not app.backend.result_consumer._waited_for
    assert not any(app.backend._pending_results)


def test_a_thousand_coroutines_wait_in_one_thread(app: Celery) -> None:
    """1,000 awaited results use one thread more, and all arrive."""
    others = set(threading.enumerate())

    async def main() -> None:
        results = [app.AsyncResult(uuid()) for _ in range(1000)]
        waiting = [asyncio.create_task(aio.get(result, timeout=100)) for result in results]
        await asyncio.sleep(0)
        assert len(waiters(others)) == 1

        def work() -> None:
            for number, result in enumerate(results):
                app.backend.store_result(result.id, number, states.SUCCESS)

        await asyncio.to_thread(work)
        assert await asyncio.gather(*waiting) == list(range(1000))

    asyncio.run(main())


def test_join_keeps_order_and_nesting(app: Celery) -> None:
    """Await aio.join(group) gives the values in the group's order, nested groups as lists."""

    async def main() -> None:
        inner = GroupResult(uuid(), [app.AsyncResult(uuid()) for _ in range(2)], app=app)
        outer = GroupResult(uuid(), [app.AsyncResult(uuid()), inner, app.AsyncResult(uuid())], app=app)
        await store(app, outer.results[2].id, "c")
        await store(app, inner.results[1].id, "b2")
        await store(app, inner.results[0].id, "b1")
        await store(app, outer.results[0].id, "a")
        assert await aio.join(outer, timeout=60) == ["a", ["b1", "b2"], "c"]

    asyncio.run(main())


def test_as_completed_gives_results_as_they_come(app: Celery) -> None:
    """Async for result in aio.as_completed(…) yields each once, in the order of arrival."""

    async def main() -> None:
        results = [app.AsyncResult(uuid()) for _ in range(3)]
        seen = []
        await store(app, results[2].id, 2)
        async for result in aio.as_completed(results, timeout=60):
            seen.append(result.result)
            if len(seen) == 1:
                await store(app, results[0].id, 0)
            elif len(seen) == 2:
                await store(app, results[1].id, 1)
        assert seen == [2, 0, 1]

    asyncio.run(main())


def test_who_gives_up_takes_nobody_along(app: Celery) -> None:
    """One coroutine and one thread go on waiting for a result object that another coroutine has given up."""
    pending = app.backend._pending_results

    async def main() -> None:
        result = app.AsyncResult(uuid())
        patient = asyncio.create_task(aio.get(result, timeout=60))
        blocking = asyncio.create_task(asyncio.to_thread(result.get, timeout=60))
        await come_true(lambda: len(waiting_on(pending, result.id)) == 2, "both wait")
        with pytest.raises(ResultTimeout):
            await aio.get(result, timeout=0.05)
        # The thread that waits for coroutines has let go of the one that gave up.
        await come_true(lambda: len(waiting_on(pending, result.id)) == 2, "the third does not wait any more")
        await store(app, result.id, 1)
        assert await patient == 1
        assert await blocking == 1

    asyncio.run(main())


def test_one_result_is_waited_for_alone_and_with_others(app: Celery) -> None:
    """A result that two coroutines wait for is told to each once, so that neither returns too early or never."""
    pending = app.backend._pending_results

    async def main() -> None:
        first, second = app.AsyncResult(uuid()), app.AsyncResult(uuid())
        both = asyncio.create_task(aio.join([first, second], timeout=60))
        single = asyncio.create_task(aio.get(first, timeout=60))
        await come_true(lambda: len(waiting_on(pending, first.id)) == 2, "both wait")
        await store(app, first.id, 1)
        assert await single == 1
        assert not both.done()
        await store(app, second.id, 2)
        assert await both == [1, 2]

    asyncio.run(main())


def test_timeout_zero_looks_once(app: Celery) -> None:
    """With timeout=0 a result that is there is returned, and one that is not is Celery's TimeoutError."""

    async def main() -> None:
        result = app.AsyncResult(uuid())
        with pytest.raises(ResultTimeout):
            await aio.get(result, timeout=0)
        await store(app, result.id, 1)
        assert await aio.get(result, timeout=0) == 1

    asyncio.run(main())


def test_what_get_gives_at_once(app: Celery) -> None:
    """A group is joined, a task whose results are ignored gives None, and an eager one what it returned."""

    async def main() -> None:
        group = GroupResult(uuid(), [app.AsyncResult(uuid()) for _ in range(2)], app=app)
        for number, result in enumerate(group.results):
            await store(app, result.id, number)
        assert await aio.get(group, timeout=60) == [0, 1]
        ignored = app.AsyncResult(uuid())
        ignored.ignored = True
        assert await aio.get(ignored) is None
        assert await aio.join([ignored, group]) == [None, [0, 1]]
        assert await aio.get(EagerResult(uuid(), "at once", states.SUCCESS)) == "at once"

    asyncio.run(main())


def test_a_task_before_it_failed(app: Celery) -> None:
    """What follows a failed task in a chain is never sent: its error is raised, as result.get() does."""

    async def main() -> None:
        before = app.AsyncResult(uuid())
        result = app.AsyncResult(uuid(), parent=before)
        group = GroupResult(uuid(), [app.AsyncResult(uuid())], parent=before, app=app)
        waiting = [asyncio.create_task(aio.get(one)) for one in (result, group)]
        await store(app, before.id, KeyError("gone"), states.FAILURE)
        for one in waiting:
            with pytest.raises(KeyError, match="gone"):
                await one
        with pytest.raises(ResultTimeout):
            await aio.get(result, timeout=0.05, propagate=False)

    asyncio.run(main())


def test_a_callback_that_raises_concerns_its_own_coroutine(app: Celery) -> None:
    """What a callback of a result raises is raised where that result is awaited, and nowhere else."""

    async def main() -> None:
        first, second = app.AsyncResult(uuid()), app.AsyncResult(uuid())
        first.on_ready.then(lambda _: 1 / 0)
        waiting = [asyncio.create_task(aio.get(one, timeout=60)) for one in (first, second)]
        await store(app, first.id, 1)
        with pytest.raises(ZeroDivisionError):
            await waiting[0]
        await store(app, second.id, 2)
        assert await waiting[1] == 2

    asyncio.run(main())


def test_results_of_another_backend(app: Celery) -> None:
    """Results that are kept elsewhere cannot be awaited here: an error says so, and nobody goes on waiting."""
    elsewhere = Celery("elsewhere", backend="cache+memory://", broker="memory://", set_as_current=False)

    async def main() -> None:
        with pytest.raises(TypeError, match="not a SurrealDB backend"):
            await aio.join([app.AsyncResult(uuid()), elsewhere.AsyncResult(uuid())])

    asyncio.run(main())
