"""Tasks: the list with its filters, its export, and one task with its workflow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice

from celery.states import READY_STATES
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import InvalidFilter, ResultNotFound
from ..results import TaskSummary, Workflow
from .data import Data
from .filters import View
from .graph import draw, rows_of
from .listing import MOST_SCANNED_ON, listed
from .matching import matcher
from .pages import back, data_of, link, pages_of, query_text, visitor_of
from .security import audit
from .views import summary_fields, timeline, visible

#: Records that a page looks at for tasks of a workflow that no other task names; and when asked to look on.
WORKFLOW_SCANNED, WORKFLOW_SCANNED_ON = 500, 100_000
#: Ids that are proposed for one that is unknown, and the characters that it must have.
PROPOSED, PROPOSED_FROM = 10, 4
#: Filters whose field `surrealdb_indexes` can index.
INDEXABLE = frozenset({"state", "name", "worker", "queue", "root", "group", "error"})
#: Tasks in an export.
MOST_EXPORTED = 100_000
#: The columns of an export as CSV.
COLUMNS = ("id", "state", "name", "worker", "queue", "retries", "sent_at", "started_at", "date_done", "runtime",
           "queue_time", "error")  # fmt: skip
STATES = ("PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY", "SUCCESS", "FAILURE", "REVOKED")
#: Several states at once, as they stand in the address.
STATE_GROUPS = (("ended", "SUCCESS,FAILURE,REVOKED"), ("not ended", "PENDING,RECEIVED,STARTED,PROGRESS,RETRY"))


async def listing(request: Request) -> Response:
    """`GET /tasks`."""
    data, view = data_of(request), View.of(request.query_params)
    page = await listed(data, view, on=bool(request.query_params.get("on")))
    older = {**view.shown, "after": page.after}
    return pages_of(request).render(
        request,
        "tasks.html",
        title="Tasks",
        view=view,
        page=page,
        states=STATES,
        groups=STATE_GROUPS,
        newest=link(request, "tasks", **view.shown),
        older=link(request, "tasks", **older) if page.after else None,
        look_on=link(request, "tasks", on="1", **older) if not page.complete else None,
        most_on=MOST_SCANNED_ON,
        index_helps=not INDEXABLE.isdisjoint(view.given),
        not_ended=link(request, "tasks", **{**view.shown, "state": STATE_GROUPS[1][1]}),
        exports={kind: link(request, "export", kind_=kind, **view.given) for kind in ("csv", "json")},
        most_exported=MOST_EXPORTED,
        live=link(request, "events", **view.given) if view.after is None and matcher(view.wanted) else None,
    )


async def export(request: Request) -> Response:
    """`GET /tasks/export.csv` and `.json`: what the list shows, all pages of it."""
    kind = request.path_params["kind"]
    if kind not in {"csv", "json"}:
        return Response("Export as csv or json.\n", status_code=404, media_type="text/plain")
    data, view = data_of(request), View.of(request.query_params)
    audit(visitor_of(request), "export", view.link())
    found = islice(data.results.find_all(**view.wanted), MOST_EXPORTED)
    lines = _csv(found) if kind == "csv" else _json(found)
    media = "text/csv; charset=utf-8" if kind == "csv" else "application/json"
    headers = {"Content-Disposition": f'attachment; filename="tasks.{kind}"'}
    return StreamingResponse(iterate_in_threadpool(lines), media_type=media, headers=headers)


def _csv(tasks: Iterator[TaskSummary]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for task in tasks:
        fields = summary_fields(task)
        fields["error"] = task.error or ""
        writer.writerow([cell(fields.get(column, "")) for column in COLUMNS])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def cell(value: object) -> str:
    """A cell of a CSV file: a spreadsheet takes text that begins like this for a formula, and runs it."""
    text = visible(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t"} and not isinstance(value, (int, float)) else text


def _json(tasks: Iterator[TaskSummary]) -> Iterator[str]:
    separator = "["
    for task in tasks:
        yield separator + json.dumps(summary_fields(task))
        separator = ",\n"
    yield "]\n" if separator != "[" else "[]\n"


async def task(request: Request) -> Response:
    """`GET /task?id=…`."""
    data = data_of(request)
    task_id = query_text(request.query_params, "id")
    try:
        found = await data.read(data.results.get, task_id)
    except ResultNotFound as error:
        proposed = await data.read(data.results.ids_starting_with, task_id, PROPOSED) if _is_begun(task_id) else []
        return pages_of(request).render(
            request, "task_unknown.html", title="Unknown task", task_id=task_id, error=error, proposed=proposed,
            live=link(request, "events"), status=404,
        )  # fmt: skip
    on = bool(request.query_params.get("on"))
    workflow = await data.read(data.results.tree, task_id, max_scanned=WORKFLOW_SCANNED_ON if on else WORKFLOW_SCANNED)
    return pages_of(request).render(
        request,
        "task.html",
        title=f"{found.name or 'Task'} {found.id}",
        task=found,
        timeline=timeline(found),
        workflow=workflow,
        drawing=draw(workflow) if len(workflow.root) > 1 else None,
        rows=list(islice(rows_of(workflow), 500)),
        look_on=link(request, "task", id=task_id, on="1") if not workflow.complete and not on else None,
        live=None if found.ready and workflow_ended(workflow) else link(request, "events"),
    )


def _is_begun(task_id: str) -> bool:
    return PROPOSED_FROM <= len(task_id) <= 200 and "\x00" not in task_id


def workflow_ended(workflow: Workflow) -> bool:
    """Whether all that is known of a workflow has ended."""
    return bool(READY_STATES.issuperset(workflow.states))


async def act(request: Request) -> Response:
    """`POST /task/retry`, `/task/revoke` and `/task/forget`."""
    data, action = data_of(request), request.path_params["action"]
    form = await request.form()
    task_id = str(form.get("id") or "")
    if not task_id:
        raise InvalidFilter("id is missing in the form")
    audit(visitor_of(request), action, task_id)
    if action == "retry":
        again = await data.change(retry, data, task_id)
        return back(request, "task", "retried", id=again)
    if action == "revoke":
        await data.change(data.results.revoke, [task_id], terminate=form.get("terminate") == "yes")
        return back(request, "task", "revoked", id=task_id)
    if action == "forget":
        await data.forget([task_id])
        return back(request, "tasks", "forgotten")
    return Response("There is no such action.\n", status_code=404, media_type="text/plain")


def retry(data: Data, task_id: str) -> str:
    """Send a task again with its arguments; the id of the new one.

    Raises:
        InvalidFilter: It cannot be sent again; the message says why.
    """
    (outcome,) = data.results.retry([task_id])
    if outcome.new_id is None:
        raise InvalidFilter(f"task {task_id!r} was not sent again: {outcome.refused}")
    return outcome.new_id
