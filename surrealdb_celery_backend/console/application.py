"""The ASGI application: its routes, and what stands around every page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import SurrealDBBackendError
from . import api, groups, live, schedules, tasks
from .data import Data
from .events import Hub
from .options import ConsoleOptions
from .overview import chart, overview
from .pages import Pages, failed
from .security import Guard

if TYPE_CHECKING:
    from celery import Celery

HERE = Path(__file__).parent


def make(celery_app: Celery, options: ConsoleOptions) -> Starlette:
    """Make the console of an app.

    Args:
        celery_app: The app whose results and schedules are shown.
        options: The console's options.
    """
    data = Data(celery_app)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        data.close()

    application = Starlette(
        routes=_routes(),
        middleware=[Middleware(Guard, options=options)],
        exception_handlers={SurrealDBBackendError: failed},
        lifespan=lifespan,
    )
    application.state.options = options
    application.state.data = data
    application.state.hub = Hub(data, options.refresh)
    application.state.pages = Pages(options)
    return application


def _routes() -> list[Route | Mount]:
    page, form = partial(Route, methods=["GET"]), partial(Route, methods=["POST"])
    return [
        page("/", overview, name="overview"),
        page("/chart/{what}.svg", chart, name="chart"),
        page("/tasks", tasks.listing, name="tasks"),
        page("/tasks/export.{kind}", tasks.export, name="export"),
        page("/task", tasks.task, name="task"),
        form("/task/{action}", tasks.act, name="task_action"),
        page("/groups", groups.listing, name="groups"),
        page("/group", groups.group, name="group"),
        page("/schedules", schedules.listing, name="schedules"),
        page("/schedules/new", schedules.new, name="schedule_new"),
        page("/schedules/edit", schedules.edit, name="schedule_edit"),
        form("/schedules/save", schedules.save, name="schedule_save"),
        form("/schedules/{action}", schedules.act, name="schedule_action"),
        page("/events", live.events, name="events"),
        page("/health", live.health, name="health"),
        page("/metrics", live.metrics, name="metrics"),
        *api.routes(),
        Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
        page("/{rest:path}", _nothing_here, name="nothing"),
    ]


async def _nothing_here(request: object) -> Response:
    return Response("There is no such page.\n", status_code=404, media_type="text/plain")
