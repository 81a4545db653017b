"""`aio.Results`: the typed API for asyncio, on real engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from celery import Celery

from surrealdb_celery_backend import aio
from surrealdb_celery_backend.errors import ResultNotFound
from tests.support import history_data as data
from tests.support.apps.contract_apps import request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]


async def test_the_same_for_asyncio(app_with: Callable[..., Celery]) -> None:
    """Pages, one task, figures and changes are awaited; the event loop goes on meanwhile."""
    app = app_with(surrealdb_timeout=60)
    data.write(app, data.many(60))
    async with aio.Results(app) as results:
        page = await results.find(limit=10)
        assert len(page.tasks) == 10
        everything = [task.id async for task in results.find_all()]
        assert len(set(everything)) == 60
        assert (await results.get(everything[0])).id == everything[0]
        assert (await results.stats()).total.count == 60
        assert (await results.tree(everything[0])).root is not None
        with pytest.raises(ResultNotFound):
            await results.get("unknown")
        follow = results.follow(look_every=0.05)
        first = asyncio.ensure_future(follow.__anext__())
        for number in range(600):
            # From when on it follows is not told: a new task each time, until one is.
            await asyncio.to_thread(
                app.backend.store_result, f"new{number}", 1, "SUCCESS", request=request(f"new{number}")
            )
            done, _ = await asyncio.wait([first], timeout=0.1)
            if done:
                break
        assert (await first).id.startswith("new")
        await follow.aclose()
