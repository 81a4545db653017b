"""What every page has: the template around it, its links, and the page that says what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ..errors import (
    InvalidFilter,
    InvalidSchedule,
    PermissionDenied,
    ResultNotFound,
    ScheduleExists,
    ScheduleNotFound,
    ServerUnavailable,
    SurrealDBBackendError,
)
from . import views
from .data import Data
from .options import ConsoleOptions
from .security import CSRF_FIELD, Visitor

#: What an action's page says when it comes back, by the word in the URL.
DONE = {
    "retried": "The task was sent again.",
    "revoked": "The task was revoked.",
    "forgotten": "The result was deleted.",
    "saved": "The entry was saved.",
    "paused": "The entry is paused.",
    "resumed": "The entry runs again.",
    "asked": "The active beat was asked to run the entry now.",
    "removed": "The entry was removed.",
}
#: HTTP statuses of our errors; all others are 502: the database's.
STATUS: tuple[tuple[type[SurrealDBBackendError], int], ...] = (
    (InvalidFilter, 400),
    (InvalidSchedule, 400),
    (ResultNotFound, 404),
    (ScheduleNotFound, 404),
    (ScheduleExists, 409),
    (PermissionDenied, 403),
    (ServerUnavailable, 503),
)


class Pages:
    """Renders templates.

    Args:
        options: The console's options.
    """

    def __init__(self, options: ConsoleOptions) -> None:
        self.options = options
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.filters.update(
            seconds=views.seconds,
            shown=lambda value: views.shown(value, options.longest_text),
            visible=views.visible,
            arguments=views.arguments,
            count=views.count,
            time=_time,
        )
        self._templates.globals.update(CSRF_FIELD=CSRF_FIELD)

    def render(self, request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
        """Answer with a page.

        Args:
            request: The request.
            template: The file of the template.
            status: The HTTP status.
            **context: What the template shows.
        """
        text = self._templates.get_template(template).render(
            request=request,
            options=self.options,
            visitor=visitor_of(request),
            link=partial(link, request),
            done=DONE.get(request.query_params.get("done", "")),
            now=datetime.now(timezone.utc),
            **context,
        )
        return HTMLResponse(text, status_code=status)


def pages_of(request: Request) -> Pages:
    """The pages of the application that a request came to."""
    pages: Pages = request.app.state.pages
    return pages


def data_of(request: Request) -> Data:
    """The data of the application that a request came to."""
    data: Data = request.app.state.data
    return data


def visitor_of(request: Request) -> Visitor:
    """Return the visitor that sent a request."""
    visitor: Visitor = request.state.visitor
    return visitor


def link(request: Request, name: str, /, **query: Any) -> str:
    """The path of a page, wherever the console is mounted, with a query.

    Args:
        request: The request.
        name: The page, by the name of its route.
        **query: The query, without what is None; a name that ends in `_` is a part of the path.
    """
    path = {key[:-1]: value for key, value in query.items() if key.endswith("_")}
    url = request.url_for(name, **path)
    given = {key: value for key, value in query.items() if not key.endswith("_") and value is not None}
    if given:
        url = url.include_query_params(**given)
    return f"{url.path}?{url.query}" if url.query else url.path


def back(request: Request, name: str, done: str, /, **query: Any) -> Response:
    """Answer an action: the page shows what was done.

    Args:
        request: The request.
        name: The page to go to, by the name of its route.
        done: What was done: a key of :data:`DONE`.
        **query: As of :func:`link`.
    """
    return RedirectResponse(link(request, name, done=done, **query), status_code=303)


async def failed(request: Request, error: Exception) -> Response:
    """Say what went wrong, in the form that was asked for."""
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 502)
    if "/api/" in request.url.path:
        from starlette.responses import JSONResponse

        return JSONResponse({"error": type(error).__name__, "message": str(error)}, status_code=status)
    return pages_of(request).render(request, "failed.html", status=status, error=error, title="That did not work")


def _time(moment: datetime | None) -> Markup:
    """A time that the browser shows in its own zone; without JavaScript it stands there in UTC."""
    if moment is None:
        return Markup("")
    utc = moment.astimezone(timezone.utc)
    text = utc.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}" title="{} UTC">{} UTC</time>').format(utc.isoformat(), text, text)


def query_text(query: Mapping[str, str], name: str) -> str:
    """A field of a query that has to be there.

    Raises:
        InvalidFilter: It is missing or empty.
    """
    value = query.get(name, "")
    if not value:
        raise InvalidFilter(f"{name} is missing in the address")
    return value


__all__ = ["Pages", "back", "data_of", "failed", "link", "pages_of", "query_text", "visitor_of"]
