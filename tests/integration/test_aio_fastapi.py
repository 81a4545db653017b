"""A FastAPI application that awaits results, and streams progress as server-sent events; a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import fastapi
import httpx2 as httpx
import pytest
import uvicorn
from celery import states
from celery.exceptions import TimeoutError as ResultTimeout
from fastapi.responses import StreamingResponse
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import aio
from tests.support.waits import Side, come_true

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk, pytest.mark.asyncio]

#: How long a request may take before the test fails, in seconds.
HANG = 60.0


def application(side: Side) -> fastapi.FastAPI:
    """A web process that knows tasks by their ids only."""
    api = fastapi.FastAPI()

    @api.get("/tasks/{task_id}")
    async def value(task_id: str, timeout: float = HANG) -> dict[str, Any]:
        try:
            return {"result": await aio.get(side.app.AsyncResult(task_id), timeout)}
        except ResultTimeout:
            raise fastapi.HTTPException(504, "not ready yet") from None

    @api.get("/tasks/{task_id}/events")
    async def events(task_id: str) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            async for meta in aio.watch(side.app.AsyncResult(task_id)):
                yield f"event: {meta['status']}\ndata: {json.dumps(meta['result'])}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    return api


@contextlib.asynccontextmanager
async def served(side: Side) -> AsyncIterator[httpx.AsyncClient]:
    """The application behind a port, and a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application(side), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=HANG) as client:
            yield client
        server.should_exit = True
        await serving


async def told(stream: AsyncIterator[str]) -> tuple[str, Any]:
    """The next server-sent event of a response: its name and its data."""
    name = ""
    async for line in stream:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            return name, json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")


@pytest.fixture(params=["auto", "off"])
def side(request: pytest.FixtureRequest, fresh_database: Any) -> Any:
    """The web process's view of the database."""
    side = Side(fresh_database.settings | {"surrealdb_live": request.param})
    yield side
    assert len(side.dispatcher) == 0
    side.backend.close()


async def test_progress_is_streamed(side: Side, fresh_database: Any) -> None:
    """Each state of a task, stored by another process, is an event; a client that goes away is waited for no more."""
    working = Side(fresh_database.settings)
    task_id = uuid()
    async with served(side) as client:
        async with (
            client.stream("GET", f"/tasks/{task_id}/events") as response,
            client.stream("GET", f"/tasks/{task_id}/events") as leaving,
        ):
            assert response.headers["content-type"].startswith("text/event-stream")
            lines, other_lines = response.aiter_lines(), leaving.aiter_lines()
            for step in range(3):
                progress = {"current": step, "total": 3, "message": "…"}
                await asyncio.to_thread(working.backend.store_result, task_id, progress, "PROGRESS")
                assert await told(lines) == ("PROGRESS", progress)
            assert (await told(other_lines))[0] == "PROGRESS"
            await leaving.aclose()
            await asyncio.to_thread(working.backend.store_result, task_id, "done", states.SUCCESS)
            assert await told(lines) == ("SUCCESS", "done")
            with pytest.raises(AssertionError, match="the stream ended"):
                await told(lines)
        await come_true(lambda: len(side.dispatcher) == 0, "nobody waits")
    working.backend.close()


async def test_many_requests_wait_at_once(side: Side, fresh_database: Any) -> None:
    """A hundred requests wait in one process; one that gives up is told so, the others get their result."""
    working = Side(fresh_database.settings)
    ids = [uuid() for _ in range(100)]
    async with served(side) as client:
        asked = [asyncio.create_task(client.get(f"/tasks/{task_id}")) for task_id in ids]
        assert (await client.get(f"/tasks/{uuid()}", params={"timeout": 0.1})).status_code == 504
        await come_true(lambda: len(side.dispatcher) == len(ids), "all wait")

        def work() -> None:
            for number, task_id in enumerate(ids):
                working.backend.store_result(task_id, number, states.SUCCESS)

        await asyncio.to_thread(work)
        assert [one.json() for one in await asyncio.gather(*asked)] == [{"result": number} for number in range(100)]
    working.backend.close()
