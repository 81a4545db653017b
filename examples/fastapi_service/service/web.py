"""The web service: it sends tasks, tells what became of them, awaits them, and streams their progress."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from celery.exceptions import TimeoutError as NotReady
from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field

from surrealdb_celery_backend import aio, console
from surrealdb_celery_backend.errors import ResultNotFound

from .app import celery_app
from .settings import settings
from .tasks import build_report, count_words, top_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from celery.result import AsyncResult

app = FastAPI(title="Reports")
results = aio.Results(celery_app)
Seconds = Annotated[float, Query(ge=0, le=60)]


class Report(BaseModel):
    """What is wanted."""

    pages: int
    seconds_a_page: float = Field(0.5, ge=0, le=10)


class Text(BaseModel):
    """A text whose words are counted."""

    text: str


class Sent(BaseModel):
    """A task that was sent."""

    id: str
    url: str
    events: str


class Told(BaseModel):
    """What is known of a task."""

    state: str
    result: Any = None
    error: str | None = None
    progress: dict[str, Any] | None = None


# Sending waits for the broker: these two are no coroutines, so that FastAPI calls them in a thread.


@app.post("/reports", status_code=202)
def send_report(wanted: Report) -> Sent:
    """Have a report written."""
    return _sent(build_report.delay(wanted.pages, wanted.seconds_a_page))


@app.post("/words", status_code=202)
def send_words(given: Text) -> Sent:
    """Have words counted."""
    return _sent(count_words.delay(given.text))


@app.get("/words/top")
async def words(number: Annotated[int, Query(ge=1, le=100)] = 10, wait: Seconds = 30) -> list[tuple[str, int]]:
    """The words that were counted most, as a task says: awaited, while other requests go on."""
    result = await asyncio.to_thread(top_words.delay, number)
    try:
        return [tuple(each) for each in await aio.get(result, wait)]
    except NotReady:
        raise HTTPException(504, f"the task {result.id} has not ended after {wait} s") from None


@app.get("/tasks/{task_id}")
async def task(task_id: str, wait: Seconds = 0) -> Told:
    """A task's state, its result or its error; with `wait` as soon as it has ended, or the time is over."""
    if wait:
        with contextlib.suppress(NotReady):
            await aio.get(celery_app.AsyncResult(task_id), wait, propagate=False)
    try:
        found = await results.get(task_id)
    except ResultNotFound:
        raise HTTPException(404, "nothing is known of this task") from None
    progress = None if found.progress is None or found.ready else vars(found.progress)
    error = None if found.error is None else str(found.error)
    return Told(state=found.state, result=None if found.failed else found.result, error=error, progress=progress)


@app.get("/tasks/{task_id}/events")
async def events(task_id: str) -> StreamingResponse:
    """Each state of a task as a server-sent event; the last one is its end. A client that leaves ends the wait."""

    async def stream() -> AsyncIterator[str]:
        async for meta in aio.watch(celery_app.AsyncResult(task_id)):
            value = meta["result"]
            data = str(value) if isinstance(value, BaseException) else value
            yield f"event: {meta['status']}\ndata: {json.dumps(data, default=str)}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@app.get("/", include_in_schema=False)
def page() -> FileResponse:
    """A page that uses all of this."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.get("/flower", include_in_schema=False)
def flower() -> RedirectResponse:
    """Flower is a program of its own."""
    return RedirectResponse(settings().flower_url)


def _sent(result: AsyncResult) -> Sent:
    return Sent(id=result.id, url=f"/tasks/{result.id}", events=f"/tasks/{result.id}/events")


def _console() -> Any:
    password = settings().console_password
    if password is None:
        return console.app(celery_app, title="service")
    credentials = console.Credentials(settings().console_user, password.get_secret_value())
    return console.app(celery_app, title="service", credentials=credentials, allow_actions=True)


app.mount("/console", _console())
