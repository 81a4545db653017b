"""`celery surrealdb retry`, `revoke` and `forget`: what can be done about stored tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from . import options, terminal
from .tasks import resolved

if TYPE_CHECKING:
    from ..results import Results, Retry

#: How many tasks are named before a question.
NAMED = 10
IDS = click.argument("task_ids", nargs=-1, metavar="[ID]...")
LIMIT = click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many that match the filters."
)


@options.command(
    "retry",
    "retry 8888e4ce-2668-4e0f-8681-1eaa0b268bb9",
    "retry --state FAILURE --error OperationalError --since 1h --dry-run",
    "retry 8888e4ce --args '[1, 2]' --to-queue slow --yes",
)
@IDS
@options.filter_options
@LIMIT
@click.option("--args", "args_json", help="Other positional arguments, a JSON list.")
@click.option("--kwargs", "kwargs_json", help="Other keyword arguments, a JSON object.")
@click.option("--to-queue", help="Another queue.")
@click.option("--countdown", type=float, help="Seconds before which they do not run.")
@click.option("--running", is_flag=True, help="Also tasks that have not ended.")
@options.DRY_RUN
@options.YES
@options.JSON
@options.results_command
def retry(  # noqa: PLR0913, PLR0917 - click passes each option as an argument
    results: Results,
    task_ids: Sequence[str],
    limit: int,
    args_json: str | None,
    kwargs_json: str | None,
    to_queue: str | None,
    countdown: float | None,
    running: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Send tasks again, by id or all that match the filters, each as a new task that says what it is a retry of.

    A task whose name or arguments were not kept is not sent, and says why.
    """
    chosen = _chosen(results, task_ids, given)
    changes = {
        "args": _json("--args", args_json),
        "kwargs": _json("--kwargs", kwargs_json),
        "queue": to_queue,
        "countdown": countdown,
        "running": running,
    }
    planned = results.retry(**chosen, limit=limit, dry_run=True, **changes)
    possible = [each.task_id for each in planned if each.refused is None]
    if dry_run or not possible:
        _report(planned, as_json=as_json)
        _fail_if_refused(planned)
        return
    _ask(
        f"send {_tasks(possible)} again",
        (f"{each.name}  {each.task_id}" for each in planned if not each.refused),
        yes=yes,
    )
    sent = results.retry(possible, **changes)
    outcomes = sent + [each for each in planned if each.refused is not None]
    _report(outcomes, as_json=as_json)
    _fail_if_refused(outcomes)


def _report(outcomes: Sequence[Retry], *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(
            [
                {
                    "task_id": each.task_id,
                    "name": each.name,
                    "new_id": each.new_id,
                    "refused": each.refused,
                    "args": each.args,
                    "kwargs": each.kwargs,
                    "queue": each.queue,
                }
                for each in outcomes
            ]
        )
        return
    if not outcomes:
        click.echo("no tasks", err=True)
        return
    terminal.print_table(
        ("TASK", "NAME", "QUEUE", "SENT AS"),
        [
            (
                each.task_id,
                each.name or "",
                each.queue or "",
                f"not sent: {each.refused}" if each.refused else each.new_id or "(would be sent)",
            )
            for each in outcomes
        ],
    )


def _fail_if_refused(outcomes: Sequence[Retry]) -> None:
    refused = sum(each.refused is not None for each in outcomes)
    if refused:
        raise click.ClickException(f"{refused} of {len(outcomes)} tasks cannot be sent again")


@options.command(
    "revoke",
    "revoke 8888e4ce-2668-4e0f-8681-1eaa0b268bb9 --terminate",
    "revoke --name shop.report --state STARTED",
)
@IDS
@options.filter_options
@LIMIT
@click.option("--terminate", is_flag=True, help="End those that run, too.")
@click.option("--signal", default="SIGTERM", show_default=True, help="The signal for that.")
@options.DRY_RUN
@options.YES
@options.results_command
def revoke(
    results: Results,
    task_ids: Sequence[str],
    limit: int,
    terminate: bool,
    signal: str,
    dry_run: bool,
    yes: bool,
    **given: Any,
) -> None:
    """Ask all workers not to run tasks, by id or all that match the filters and have not ended.

    Workers that do not run at the moment do not hear of it.
    """
    chosen = _chosen(results, task_ids, given, resolve=False)
    ids = results.revoke(**chosen, limit=limit, signal=signal, dry_run=True)
    if not _go_on("revoke", ids, dry_run=dry_run, yes=yes):
        return
    results.revoke(ids, terminate=terminate, signal=signal)
    click.echo(f"asked the workers to revoke {_tasks(ids)}")


@options.command(
    "forget",
    "forget 8888e4ce-2668-4e0f-8681-1eaa0b268bb9",
    "forget --name 'test.*' --until 7d --limit 100000",
)
@IDS
@options.filter_options
@LIMIT
@options.DRY_RUN
@options.YES
@options.results_command
def forget(results: Results, task_ids: Sequence[str], limit: int, dry_run: bool, yes: bool, **given: Any) -> None:
    """Delete what is stored of tasks, by id or of all that match the filters and have ended."""
    chosen = _chosen(results, task_ids, given)
    ids = results.forget(**chosen, limit=limit, dry_run=True)
    if not _go_on("forget", ids, dry_run=dry_run, yes=yes):
        return
    click.echo(f"deleted what was stored of {_tasks(results.forget(ids))}")


# -- what they share ------------------------------------------------------------------------------------


def _chosen(
    results: Results, task_ids: Sequence[str], given: Mapping[str, Any], *, resolve: bool = True
) -> dict[str, Any]:
    wanted = options.filters(results.app, given)
    if task_ids and wanted:
        raise click.UsageError("give ids or filters, not both")
    if not task_ids and not wanted:
        raise click.UsageError("say which tasks: their ids, or filters such as --state FAILURE")
    if wanted:
        return {"where": wanted}
    return {"task_ids": [resolved(results, each) for each in task_ids] if resolve else list(task_ids)}


def _go_on(verb: str, ids: Sequence[str], *, dry_run: bool, yes: bool) -> bool:
    if not ids:
        click.echo("no tasks", err=True)
        return False
    if dry_run:
        for each in ids:
            terminal.echo(each)
        click.echo(f"would {verb} {_tasks(ids)}", err=True)
        return False
    _ask(f"{verb} {_tasks(ids)}", ids, yes=yes)
    return True


def _ask(what: str, tasks: Iterable[str], *, yes: bool) -> None:
    if yes:
        return
    for number, each in enumerate(tasks):
        if number == NAMED:
            click.echo("  …", err=True)
            break
        terminal.echo(f"  {each}", error=True)
    click.confirm(f"{what}?", abort=True, err=True)


def _tasks(ids: Sequence[str]) -> str:
    return "1 task" if len(ids) == 1 else f"{len(ids):,} tasks"


def _json(option: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{option} holds {text!r}, which is no JSON: {error}") from error
