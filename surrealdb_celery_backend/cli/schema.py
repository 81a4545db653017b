"""`celery surrealdb schema`: tables and indexes, and records of the published version 0.3.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .. import __version__
from . import options, terminal

if TYPE_CHECKING:
    from ..results import Results


@options.command("schema", "schema", "schema --apply --dry-run", "schema --apply")
@click.option("--apply", is_flag=True, help="Create what is missing, and migrate records of 0.3.0.")
@options.DRY_RUN
@options.results_command
def schema(results: Results, apply: bool, dry_run: bool) -> None:
    """Print the statements that create tables and indexes, beat's too, and what the database lacks of results' ones.

    Records that version 0.3.0 of this package wrote are found, and with --apply written as this version keeps them. Any
    number of processes may do that at once, while workers run. The printed statements are for a new database: of what is
    stored while one of them reads a table, SurrealDB 3 leaves some out of the index. --apply builds it whole.
    """
    from ..beat.statements import define_schedules

    found = results.schema.state()
    click.echo(f"-- surrealdb-celery-backend {__version__}: results")
    click.echo("-- for a new database; where workers store already, only --apply builds whole indexes")
    for text in found.definitions:
        click.echo(f"{text};")
    click.echo("-- schedules, created by the first beat (celery beat -S surrealdb)")
    for text in define_schedules(results.schema.prefix).split(";"):
        click.echo(f"{text};")
    for name in found.missing:
        terminal.echo(f"missing: index {name}", error=True)
    old = found.old
    if old:
        click.echo(
            f"written by 0.3.0: {found.old_tasks:,} tasks, {found.old_groups:,} groups, "
            f"{found.old_counters:,} counters of chords",
            err=True,
        )
    if not apply or dry_run:
        if not found.missing and not old:
            click.echo("the database is up to date", err=True)
        elif dry_run:
            click.echo(f"would create {len(found.missing)} indexes and migrate {old:,} records", err=True)
        return
    results.schema.apply(lambda name: click.echo(f"creating index {name}: a large table takes minutes", err=True))
    progress = terminal.Progress()
    try:
        migrated = results.schema.migrate(on_progress=lambda number: progress.tell(f"migrated {number:,} records"))
    finally:
        progress.end()
    click.echo(f"migrated {migrated.tasks:,} tasks and {migrated.groups:,} groups", err=True)
    if migrated.counters:
        click.echo(f"deleted {migrated.counters:,} counters of chords, which nothing needs", err=True)
    if migrated.unreadable:
        raise click.ClickException(f"{migrated.unreadable:,} records cannot be read and stayed as they are")
