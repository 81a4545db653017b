"""The same questions as JSON, and their description for programs (OpenAPI 3.1)."""

from __future__ import annotations

from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .. import __version__
from ..errors import InvalidFilter
from ..results import Page, Results, TaskDetail
from .answers import Chords, Counting, Figures, WorkflowTasks, described, schedule_fields
from .data import SPANS
from .filters import TEXTS, View
from .listing import MOST_SCANNED
from .overview import span_of
from .pages import data_of, pages_of, query_text
from .schedules import rows_of as schedule_rows
from .views import asdict_shallow, detail_fields, plain, summary_fields


async def tasks(request: Request) -> Response:
    """`GET /api/tasks`: for a rare filter a part of a page; `after` goes on where it ended."""
    data, view = data_of(request), View.of(request.query_params)
    page = await data.read(
        data.results.find, limit=view.limit, after=view.after, max_scanned=MOST_SCANNED, **view.wanted
    )
    return JSONResponse(
        {
            "tasks": [summary_fields(task) for task in page.tasks],
            "after": page.after,
            "complete": page.complete,
            "scanned": page.scanned,
        }
    )


async def task(request: Request) -> Response:
    """`GET /api/task?id=…`."""
    data = data_of(request)
    found = await data.read(data.results.get, query_text(request.query_params, "id"))
    return JSONResponse(detail_fields(found, pages_of(request).options.longest_text))


async def workflow(request: Request) -> Response:
    """`GET /api/workflow?id=…`."""
    data = data_of(request)
    found = await data.read(data.results.tree, query_text(request.query_params, "id"))
    return JSONResponse(plain(WorkflowTasks.of(found)))


async def stats(request: Request) -> Response:
    """`GET /api/stats?by=name&span=24h`: 202 while the figures are counted for the first time."""
    by = request.query_params.get("by", "name")
    if by not in {"name", "hour", "worker", "queue"}:
        raise InvalidFilter(f"by is {by!r}: choose name, hour, worker or queue")
    counted = await data_of(request).stats(by, span_of(request))
    if counted.value is None:
        return JSONResponse(plain(Counting(counting=True)), status_code=202)
    fields = asdict_shallow(counted.value)
    return JSONResponse(plain(Figures(**fields, counting=counted.computing, at=counted.at)))


async def chords(request: Request) -> Response:
    """`GET /api/chords`: chords that have not called their body."""
    data = data_of(request)
    return JSONResponse(plain(await data.read(_chords, data.results)))


def _chords(results: Results) -> Chords:
    return Chords(tuple(islice(results.unfinished_chords(), 200)))


async def schedules(request: Request) -> Response:
    """`GET /api/schedules`."""
    data = data_of(request)
    rows = await data.read(schedule_rows, data.schedules)
    return JSONResponse({"schedules": [schedule_fields(row) for row in rows]})


async def description(request: Request) -> Response:
    """`GET /api/openapi.json`."""
    return JSONResponse(openapi(request.scope.get("root_path", "")))


#: Path, function, what it answers, parameters, the dataclass of the answer.
QUESTIONS: tuple[tuple[str, Any, str, tuple[str, ...], Any], ...] = (
    ("/api/tasks", tasks, "Tasks, newest first, a page at a time", (*TEXTS, "since", "until", "min_runtime", "limit", "after"), Page),
    ("/api/task", task, "All that is stored of one task", ("id",), TaskDetail),
    ("/api/workflow", workflow, "The tasks of a workflow with their states, parents first", ("id",), WorkflowTasks),
    ("/api/stats", stats, "Counts, failure rates and durations", ("by", "span"), Figures),
    ("/api/chords", chords, "Chords that have not called their body, with the parts that they miss", (), Chords),
    ("/api/schedules", schedules, "Schedule entries with their next runs", (), None),
)  # fmt: skip
#: Parameters that are not any text.
PARAMETERS: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1},
    "min_runtime": {"type": "number"},
    "by": {"enum": ["name", "hour", "worker", "queue"]},
    "span": {"enum": list(SPANS)},
}
#: What a status means that is not 200.
MEANINGS = {
    202: "The figures are being counted: ask again",
    400: "A parameter makes no sense",
    404: "There is no such task",
    502: "The database refused what was asked of it",
    503: "The database does not answer",
}


def openapi(server: str) -> dict[str, Any]:
    """The description of the questions above.

    Args:
        server: The path under which the console is mounted.
    """
    answers, schemas = described({path: kind for path, _, _, _, kind in QUESTIONS})
    paths = {
        path: {
            "get": {
                "summary": summary,
                "parameters": [
                    {
                        "name": name,
                        "in": "query",
                        "required": name == "id",
                        "schema": PARAMETERS.get(name, {"type": "string"}),
                    }
                    for name in parameters
                ],
                "responses": {
                    str(status): {
                        "description": MEANINGS.get(status, summary),
                        "content": {"application/json": {"schema": schema}},
                    }
                    for status, schema in sorted(answers[path].items())
                },
            }
        }
        for path, _, summary, parameters, _ in QUESTIONS
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Celery results", "version": __version__},
        "servers": [{"url": server or "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"basic": []}, {"bearer": []}],
    }


def routes() -> list[Route]:
    """The routes of the questions and of their description."""
    return [
        *(Route(path, function, name=path.strip("/").replace("/", "_"), methods=["GET"]) for path, function, *_ in QUESTIONS),
        Route("/api/openapi.json", description, name="openapi", methods=["GET"]),
    ]  # fmt: skip
