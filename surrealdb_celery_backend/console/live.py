"""What programs ask: live events, health, metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..errors import InvalidFilter, SurrealDBBackendError
from .events import Hub
from .filters import View
from .matching import UNDECIDED, matcher
from .pages import data_of


async def events(request: Request) -> Response:
    """`GET /events`: the changes of the tasks that match the filters, as server-sent events."""
    hub: Hub = request.app.state.hub
    wanted = View.of(request.query_params).wanted
    match = matcher(wanted)
    if match is None:
        raise InvalidFilter(f"changes cannot be filtered by {' and '.join(sorted(UNDECIDED & set(wanted)))}")
    return StreamingResponse(
        hub.follow(match if wanted else None), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def health(request: Request) -> Response:
    """`GET /health`: whether the database answers; nothing else, as it needs no credentials."""
    data = data_of(request)
    try:
        await data.read(data.results.ping)
    except SurrealDBBackendError:
        return JSONResponse({"status": "the database does not answer"}, status_code=503)
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """`GET /metrics`: for Prometheus, where the extra `[metrics]` is installed."""
    data = data_of(request)
    try:
        text, media = await data.read(data.metrics)
    except ImportError:
        missing = "Metrics need prometheus-client: pip install 'surrealdb-celery-backend[metrics]'\n"
        return Response(missing, status_code=501, media_type="text/plain")
    return Response(text, headers={"Content-Type": media})
