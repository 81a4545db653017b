"""`celery surrealdb export`, `import` and `backup`: records in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import options, terminal, times

if TYPE_CHECKING:
    from ..results import Results


@options.command(
    "export",
    "export results.gz",
    "export failures.gz --state FAILURE --since 7d",
    "export results.gz --resume",
)
@click.argument("file", type=click.Path(dir_okay=False))
@options.filter_options
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice(["task", "group", "chord", "key", "schedule"]),
    help="Only this table; may be given more than once. Without it: all, and with filters task.",
)
@click.option("--resume", is_flag=True, help="Go on with a file whose export was interrupted.")
@options.results_command
def export(results: Results, file: str, tables: tuple[str, ...], resume: bool, **given: Any) -> None:
    """Write records to FILE, compressed and with checksums: one JSON value a line for any gzip program."""
    wanted = options.filters(results.app, given)
    progress = terminal.Progress()
    try:
        exported = results.export(
            file,
            tables=tables or None,
            resume=resume,
            on_progress=lambda table, read, written: progress.tell(
                f"{table}: read {read:,} records, wrote {written:,}"
            ),
            **wanted,
        )
    finally:
        progress.end()
    counts = ", ".join(f"{number:,} of {table}" for table, number in exported.records.items()) or "no records"
    resumed = f", {exported.resumed:,} of them before" if exported.resumed else ""
    terminal.echo(f"wrote {counts}{resumed} to {file} ({exported.size:,} bytes)")


@options.command("import", "import results.gz --dry-run", "import results.gz --expires 7d")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Write over records that are there already.")
@click.option("--expires", help="Let records live at least so long from now: 7d, 12h.")
@options.DRY_RUN
@options.results_command
def import_file(results: Results, file: str, replace: bool, expires: str | None, dry_run: bool) -> None:
    """Write the records of an export back.

    What is there already stays, so an import that was interrupted is simply repeated. Each chunk of the file is
    checked before anything of it is written.
    """
    seconds = None
    if expires is not None:
        with options.usage():
            seconds = times.seconds(expires)
    progress = terminal.Progress()
    try:
        imported = results.import_file(
            file,
            replace=replace,
            expires=seconds,
            dry_run=dry_run,
            on_progress=lambda table, read, written: progress.tell(
                f"{table}: read {read:,} records, wrote {written:,}"
            ),
        )
    finally:
        progress.end()
    for table, number in imported.records.items():
        new = "checked" if dry_run else f"{imported.written.get(table, 0):,} written"
        terminal.echo(f"{table}: {number:,} records, {new}")
    if not imported.records:
        click.echo("the file has no records")
    if imported.expired:
        click.echo(
            f"{imported.expired:,} of them have expired, so nobody sees them: give --replace --expires 7d", err=True
        )
    if not imported.complete:
        raise click.ClickException(f"{file} is not complete: its export was interrupted")


@options.command("backup", "backup /var/backups/celery --keep 14d")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--keep", default="7d", show_default=True, help="Delete backups that are older.")
@options.results_command
def backup(results: Results, folder: str, keep: str) -> None:
    """Export all records to a new file in FOLDER, and delete backups there that are too old.

    For beat there is a task that does the same, surrealdb_celery_backend.backup, in apps that import
    surrealdb_celery_backend.contrib.backup: docs/history.md.
    """
    with options.usage():
        seconds = times.seconds(keep)
    progress = terminal.Progress()
    try:
        made = results.backup(
            folder,
            keep=seconds,
            on_progress=lambda table, read, written: progress.tell(
                f"{table}: read {read:,} records, wrote {written:,}"
            ),
        )
    finally:
        progress.end()
    counts = ", ".join(f"{number:,} of {table}" for table, number in made.exported.records.items()) or "no records"
    terminal.echo(f"wrote {counts} to {made.exported.path} ({made.exported.size:,} bytes)")
    for path in made.deleted:
        terminal.echo(f"deleted {path}")
