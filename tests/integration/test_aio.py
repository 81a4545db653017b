"""Awaiting results from asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import GroupResult
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import aio

pytestmark = pytest.mark.integration


@pytest.fixture
def app(fresh_database: Any) -> Iterator[Celery]:
    """An app whose results go to each engine in turn."""
    app = Celery("aio", backend="surrealdb_celery_backend:SurrealDBBackend", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings)
    yield app
    app.backend.close()


async def store(app: Celery, task_id: str, value: Any, state: str = states.SUCCESS) -> None:
    """What a worker does, without blocking the loop."""
    await asyncio.to_thread(app.backend.store_result, task_id, value, state)


def test_get_returns_what_the_task_returned(app: Celery) -> None:
    """Await aio.get(result) gives the result that is stored while the event loop goes on."""

    async def main() -> None:
        result = app.AsyncResult(uuid())
        waiting = asyncio.create_task(aio.get(result, timeout=20))
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
            await aio.get(result, timeout=20)
        assert isinstance(await aio.get(app.AsyncResult(result.id), timeout=20, propagate=False), ValueError)

    asyncio.run(main())


def test_get_times_out(app: Celery) -> None:
    """A result that does not come is Celery's TimeoutError, and nobody goes on waiting for it."""

    async def main() -> None:
        with pytest.raises(ResultTimeout):
            await aio.get(app.AsyncResult(uuid()), timeout=0.05)

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name == "surrealdb-await":
            thread.join(10)
    assert not app.backend.result_consumer._waited_for
    assert not any(app.backend._pending_results)


def test_a_thousand_coroutines_wait_in_one_thread(app: Celery) -> None:
    """1,000 awaited results use one thread more, and all arrive."""

    async def main() -> None:
        results = [app.AsyncResult(uuid()) for _ in range(1000)]
        waiting = [asyncio.create_task(aio.get(result, timeout=60)) for result in results]
        await asyncio.sleep(0)
        threads = [thread for thread in threading.enumerate() if thread.name == "surrealdb-await"]
        assert len(threads) == 1

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
        assert await aio.join(outer, timeout=20) == ["a", ["b1", "b2"], "c"]

    asyncio.run(main())


def test_as_completed_gives_results_as_they_come(app: Celery) -> None:
    """Async for result in aio.as_completed(…) yields each once, in the order of arrival."""

    async def main() -> None:
        results = [app.AsyncResult(uuid()) for _ in range(3)]
        seen = []
        await store(app, results[2].id, 2)
        async for result in aio.as_completed(results, timeout=20):
            seen.append(result.result)
            if len(seen) == 1:
                await store(app, results[0].id, 0)
            elif len(seen) == 2:
                await store(app, results[1].id, 1)
        assert seen == [2, 0, 1]

    asyncio.run(main())
