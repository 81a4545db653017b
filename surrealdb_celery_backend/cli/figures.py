"""`celery surrealdb stats` and `chords`: how many tasks, how many failed, how long they took; what chords wait for."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click

from . import options, terminal, times

if TYPE_CHECKING:
    from ..results import Distribution, Results, StatRow

#: The span that is counted where no time is given.
SPAN = timedelta(days=1)
#: How many missing parts of a chord a table shows.
SHOWN = 5


@options.command("stats", "stats", "stats --by hour --name shop.report", "stats --by worker --since 7d --json")
@click.option(
    "--by",
    type=click.Choice(["name", "hour", "worker", "queue"]),
    default="name",
    show_default=True,
    help="A row for each.",
)
@options.filter_options
@click.option("--all", "everything", is_flag=True, help="All that is stored, instead of the last 24 hours.")
@options.JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV; durations are seconds.")
@options.results_command
def stats(results: Results, by: str, everything: bool, as_json: bool, as_csv: bool, **given: Any) -> None:
    """Count tasks and show how many failed, how long they ran and how long they waited.

    Without --since, --until or --all: those of the last 24 hours, and those that have not ended.
    """
    if as_json and as_csv:
        raise click.UsageError("give --json or --csv, not both")
    wanted = options.filters(results.app, given)
    if everything and ({"since", "until"} & set(wanted)):
        raise click.UsageError("--all says that no time is to be given: leave out --since and --until")
    if not everything and not {"since", "until"} & set(wanted):
        wanted["since"] = datetime.now(timezone.utc) - SPAN
    progress = terminal.Progress()
    zone = options.zone_of(results)

    def tell(read: int, at: datetime | None) -> None:
        reached = times.shown(at, zone) if at is not None else ""
        progress.tell(f"read {read:,} records{' up to ' + reached if reached else ''}")

    try:
        found = results.stats(by, on_progress=tell, **wanted)
    finally:
        progress.end()
    if as_json:
        terminal.print_json(dataclasses.asdict(found))
        return
    rows = [*found.rows, dataclasses.replace(found.total, key="total")]
    if as_csv:
        click.echo(
            terminal.csv_line((by, "count", "failed", "failure_rate", *_headings("runtime"), *_headings("queue_time")))
        )
        for row in rows:
            cells = (*_numbers(row.runtime), *_numbers(row.queue_time))
            click.echo(terminal.csv_line((row.key, row.count, _failed(row), row.failure_rate, *cells)))
        return
    if not found.rows:
        click.echo("no tasks", err=True)
        return
    terminal.print_table(
        (by.upper(), "TASKS", "FAILED", "RATE", "RAN P50", "P95", "P99", "WAITED P50", "P95", "P99", "STATES"),
        [_row(row) for row in rows],
    )


def _row(row: StatRow) -> tuple[str, ...]:
    return (
        row.key or "?",
        f"{row.count:,}",
        f"{_failed(row):,}",
        "" if row.failure_rate is None else f"{row.failure_rate:.2%}",
        *(times.duration(value) for value in _quantiles(row.runtime)),
        *(times.duration(value) for value in _quantiles(row.queue_time)),
        ", ".join(f"{number:,} {state}" for state, number in row.states.items()),
    )


def _failed(row: StatRow) -> int:
    return row.states.get("FAILURE", 0)


def _quantiles(durations: Distribution | None) -> tuple[float | None, ...]:
    return (None, None, None) if durations is None else (durations.p50, durations.p95, durations.p99)


def _headings(what: str) -> tuple[str, ...]:
    return tuple(f"{what}_{each}" for each in ("count", "mean", "p50", "p95", "p99", "maximum"))


def _numbers(durations: Distribution | None) -> tuple[float | None, ...]:
    return (None,) * 6 if durations is None else dataclasses.astuple(durations)


@options.command("chords", "chords", "chords --json")
@options.JSON
@options.results_command
def chords(results: Results, as_json: bool) -> None:
    """List chords whose body has not been sent, with the parts that they miss and what state those tasks are in."""
    found = list(results.unfinished_chords())
    if as_json:
        terminal.print_json([dataclasses.asdict(chord) for chord in found])
        return
    if not found:
        click.echo("no unfinished chords", err=True)
        return
    terminal.print_table(
        ("CHORD", "PARTS", "AGE", "BODY", "MISSING"),
        [
            (
                chord.group_id,
                f"{chord.present:,} of {chord.size:,}",
                times.duration(chord.age),
                chord.body_name or "",
                ", ".join(f"{part.state} {part.task_id}" for part in chord.missing[:SHOWN])
                + (", …" if len(chord.missing) > SHOWN else ""),
            )
            for chord in found
        ],
    )
