"""`celery surrealdb tasks` and `show`: what is stored of tasks."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
from celery import states

from . import options, terminal, times

if TYPE_CHECKING:
    from datetime import tzinfo

    from ..results import Results, TaskDetail, TaskNode, TaskSummary

#: Colors of states, on a terminal.
STYLES = {"SUCCESS": "green", "FAILURE": "red", "REVOKED": "yellow", "RETRY": "yellow", "STARTED": "cyan"}
COLUMNS = ("TIME", "STATE", "NAME", "RUNTIME", "WAITED", "WORKER", "ID", "ERROR OR RESULT")
#: How many ids are named where the beginning of one is that of several.
NAMED = 5
#: How many characters of an id are enough to look for it.
SHORTEST_PREFIX = 4


@options.command(
    "tasks",
    "tasks --state FAILURE --since 1h",
    "tasks --name 'shop.*' --error KeyError --limit 20",
    "tasks --text 'connection lost' --json",
    "tasks --queue slow --follow",
)
@options.filter_options
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many tasks at most.")
@click.option("--after", help="Go on behind the last task of the page before.")
@options.JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--follow", is_flag=True, help="Then print tasks as they change, until Ctrl+C.")
@options.results_command
def tasks(
    results: Results,
    limit: int,
    after: str | None,
    as_json: bool,
    as_csv: bool,
    follow: bool,
    **given: Any,
) -> None:
    """List stored tasks, newest first: those that have not ended, then the others by when they ended."""
    if as_json and as_csv:
        raise click.UsageError("give --json or --csv, not both")
    if follow and after:
        raise click.UsageError("--after goes on with older tasks, --follow with newer ones: give one of them")
    wanted = options.filters(results.app, given)
    moving = {name: value for name, value in wanted.items() if name not in ("since", "until")}
    # Before the page is read: a change meanwhile is told twice rather than not at all.
    follower = results.follow(**moving) if follow else None
    found, cursor = _pages(results, limit, after, wanted)
    # A terminal that follows is read downwards: the newest last.
    listed = found[::-1] if follow else found
    if as_json and follow:
        for task in listed:
            terminal.print_json(_as_data(task), indent=None)
    elif as_json:
        terminal.print_json([_as_data(task) for task in listed])
    elif as_csv:
        click.echo(terminal.csv_line(_fields()))
        for task in listed:
            click.echo(terminal.csv_line(_as_data(task).values()))
    else:
        _print_tasks(listed, options.zone_of(results), wanted)
    if cursor is not None and not follow:
        click.echo(f"more: --after {cursor}", err=True)
    if follower is not None:
        _follow(follower, options.zone_of(results), as_json=as_json, as_csv=as_csv)


def _pages(
    results: Results, limit: int, after: str | None, wanted: Mapping[str, Any]
) -> tuple[list[TaskSummary], str | None]:
    found: list[TaskSummary] = []
    progress = terminal.Progress()
    before = 0

    def tell(scanned: int, at: Any) -> None:
        back = f" back to {times.shown(at, options.zone_of(results))}" if at is not None else ""
        progress.tell(f"looked at {before + scanned:,} records{back}, found {len(found):,}")

    try:
        while True:
            page = results.find(limit=min(1000, limit - len(found)), after=after, on_progress=tell, **wanted)
            found += page.tasks
            before += page.scanned
            after = page.after
            if after is None or len(found) >= limit:
                return found, after
    finally:
        progress.end()


def _print_tasks(tasks: Iterable[TaskSummary], zone: tzinfo, wanted: Mapping[str, Any]) -> None:
    rows = [_row(task, zone) for task in tasks]
    if rows:
        terminal.print_table(COLUMNS, rows, styles=STYLES)
    else:
        click.echo(f"no tasks{_doubt(wanted)}", err=True)


def _doubt(wanted: Mapping[str, Any]) -> str:
    """States that only a task of its own can have, or a slip of the pen."""
    own = [each for each in wanted.get("state", ()) if each.upper() not in states.ALL_STATES]
    return f" ({', '.join(own)} is none of Celery's states)" if own else ""


def _row(task: TaskSummary, zone: tzinfo) -> tuple[str, ...]:
    return (
        times.shown(task.at, zone),
        task.state,
        task.name or "",
        times.duration(task.runtime),
        times.duration(task.queue_time),
        task.worker or "",
        task.id,
        _outcome(task),
    )


def _outcome(task: TaskSummary) -> str:
    if task.error is not None:
        return str(task.error)[: terminal.CELL_WIDTH * 2]
    if task.progress is not None and not task.ready:
        part = task.progress.fraction
        shown = f"{part:.0%} " if part is not None else f"{task.progress.current:g} " if task.progress.current else ""
        return f"{shown}{task.progress.message or ''}".strip()
    return (task.result_text or "")[: terminal.CELL_WIDTH] if task.ready else ""


def _follow(follower: Iterator[TaskSummary], zone: tzinfo, *, as_json: bool, as_csv: bool) -> None:
    try:
        for task in follower:
            if as_json:
                terminal.print_json(_as_data(task), indent=None)
            elif as_csv:
                click.echo(terminal.csv_line(_as_data(task).values()))
            else:
                click.echo(terminal.safe("  ".join(cell for cell in _row(task, zone) if cell)))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


# -- one task -------------------------------------------------------------------------------------------


@options.command("show", "show 8888e4ce-2668-4e0f-8681-1eaa0b268bb9", "show 8888e4 --json")
@click.argument("task_id", metavar="ID")
@options.JSON
@click.option("--tree/--no-tree", default=True, help="The workflow that it is part of.  [default: tree]")
@options.results_command
def show(results: Results, task_id: str, as_json: bool, tree: bool) -> None:
    """Show all that is stored of one task: arguments, result, error, attempts, and its workflow with states.

    The beginning of an id is enough where no other id begins with it.
    """
    task = results.get(resolved(results, task_id))
    workflow = results.tree(task.id) if tree else None
    if as_json:
        data = _as_data(task)
        if workflow is not None:
            data["workflow"] = {
                "complete": workflow.complete,
                "states": workflow.states,
                "root": _node_data(workflow.root),
            }
        terminal.print_json(data)
        return
    _print_task(task, options.zone_of(results))
    if workflow is not None and len(workflow) > 1:
        counts = ", ".join(f"{number} {state}" for state, number in workflow.states.items())
        click.echo(f"\nworkflow: {terminal.safe(counts)}{'' if workflow.complete else ' (there may be more)'}")
        for line in _tree_lines(workflow.root, task.id):
            click.echo(line)


def resolved(results: Results, given: str) -> str:
    """The id of a stored task, of which the beginning may have been given.

    Raises:
        click.ClickException: Several ids begin so.
        ResultNotFound: None does.
    """
    from ..errors import ResultNotFound

    try:
        return results.get(given).id
    except ResultNotFound:
        if len(given) < SHORTEST_PREFIX:
            raise
        ids = results.ids_starting_with(given, NAMED + 1)
        if not ids:
            raise
    if len(ids) > 1:
        named = ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
        raise click.ClickException(terminal.safe(f"several ids begin with {given!r}: {named}; give more of it"))
    return ids[0]


def _print_task(task: TaskDetail, zone: tzinfo) -> None:
    def at(moment: Any) -> str | None:
        return times.shown(moment, zone) or None

    pairs: list[tuple[str, Any]] = [
        ("id", task.id),
        ("name", task.name),
        ("state", task.state),
        ("sent", at(task.sent_at)),
        ("eta", at(task.eta)),
        ("started", at(task.started_at)),
        ("done", at(task.date_done)),
        ("waited", times.duration(task.queue_time) or None),
        ("clock skew", times.duration(task.clock_skew) or None),
        ("ran", times.duration(task.runtime) or None),
        ("expires", at(task.expires_at)),
        ("worker", task.worker),
        ("queue", task.queue),
        ("priority", task.priority),
        ("retries", task.retries),
        ("periodic task", task.periodic_task_name),
        ("retry of", task.retry_of),
        ("tags", ", ".join(task.tags) or None),
        ("root", task.root_id),
        ("parent", task.parent_id),
        ("group", task.group_id),
        ("children", ", ".join(task.children) or None),
        ("args", None if task.args is None else terminal.json_text(task.args, indent=None)),
        ("kwargs", None if task.kwargs is None else terminal.json_text(task.kwargs, indent=None)),
        ("arguments", None if task.args_kept else "masked or cut" if task.args_redacted else "not kept as they were"),
        ("progress", _outcome(task) if task.progress is not None and not task.ready else None),
        ("meta", None if task.meta is None else terminal.json_text(task.meta, indent=None)),
        ("result", terminal.json_text(task.result, indent=None) if task.state == "SUCCESS" else None),
        ("error", task.error),
        ("traceback", task.traceback),
    ]
    pairs += [(f"stamp {name}", terminal.json_text(value, indent=None)) for name, value in task.stamps.items()]
    pairs += [(f"{field}: unreadable", reason) for field, reason in task.unreadable.items()]
    terminal.print_pairs(pairs)
    if task.attempts:
        click.echo("\nattempts before:")
        terminal.print_table(
            ("TIME", "WORKER", "ERROR"),
            [(times.shown(each.at, zone), each.worker or "", each.error or "") for each in task.attempts],
        )


def _tree_lines(root: TaskNode, mine: str) -> Iterator[str]:
    """A tree as lines. Without recursion: a chain may be longer than Python's stack."""
    waiting: list[tuple[TaskNode, str, bool | None]] = [(root, "", None)]
    while waiting:
        node, indent, last = waiting.pop()
        branch = "" if last is None else ("└─ " if last else "├─ ")
        name = (node.task.name if node.task is not None else None) or "?"
        mark = "  ← this" if node.id == mine else ""
        took = f"  {times.duration(node.task.runtime)}" if node.task is not None and node.task.runtime else ""
        yield indent + branch + terminal.safe(f"{node.state}  {name}  {node.id}{took}{mark}")
        below = indent + ("" if last is None else ("   " if last else "│  "))
        for place, child in reversed(list(enumerate(node.children))):
            waiting.append((child, below, place == len(node.children) - 1))


def _node_data(node: TaskNode) -> dict[str, Any]:
    top: dict[str, Any] = {}
    waiting: list[tuple[TaskNode, dict[str, Any]]] = [(node, top)]
    while waiting:
        each, data = waiting.pop()
        data |= {"id": each.id, "state": each.state, "name": each.task.name if each.task is not None else None}
        children: list[dict[str, Any]] = [{} for _ in each.children]
        data["children"] = children
        waiting += list(zip(each.children, children, strict=True))
    return top


def _as_data(task: TaskSummary) -> dict[str, Any]:
    return {field.name: _plain(getattr(task, field.name)) for field in dataclasses.fields(task)}


def _plain(value: Any) -> Any:
    """A value with its dataclasses as dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _fields() -> tuple[str, ...]:
    from ..results import TaskSummary

    return tuple(field.name for field in dataclasses.fields(TaskSummary))
