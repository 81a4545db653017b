"""`celery surrealdb check` and `cleanup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import options, terminal

if TYPE_CHECKING:
    from ..results import Results


@options.command("check", "check", "check --json")
@options.JSON
@options.results_command
def check(results: Results, as_json: bool) -> None:
    """Check connection, latency, clocks, schema, rights, LIVE notifications, settings and beat's lease.

    Each line that fails says what to do; the exit code is then 1. One marked `warn` says what would be better.
    """
    findings = results.check()
    if as_json:
        terminal.print_json([each.as_dict() for each in findings])
    else:
        width = max(len(each.subject) for each in findings)
        for each in findings:
            terminal.echo(f"{each.mark:4}  {each.subject.ljust(width)}  {each.text}")
            if each.advice:
                terminal.echo(f"{'':4}  {'':{width}}  -> {each.advice}")
    failed = sum(each.good is False for each in findings)
    if failed:
        raise click.ClickException(f"{failed} of {len(findings)} checks failed")


@options.command("cleanup", "cleanup --dry-run", "cleanup")
@options.DRY_RUN
@options.JSON
@options.results_command
def cleanup(results: Results, dry_run: bool, as_json: bool) -> None:
    """Delete what has expired, in bounded batches, as beat does once a day."""
    progress = terminal.Progress()

    def tell(report: Any) -> None:
        looked_at = f"looked at {report.looked_at:,} records, " if report.dry_run else ""
        progress.tell(f"{looked_at}{report.total:,} expired so far")

    try:
        report = results.cleanup(dry_run=dry_run, on_batch=tell)
    finally:
        progress.end()
    if as_json:
        terminal.print_json(
            {
                "dry_run": report.dry_run,
                "records": dict(report.records),
                "names": {name or "": number for name, number in report.names.items()},
                "spared": report.spared,
            }
        )
        return
    verb = "would delete" if dry_run else "deleted"
    click.echo(f"{verb} {report.total:,} expired records")
    rows = [(table, "", f"{number:,}") for table, number in report.records.items() if number]
    rows += [("task", name or "?", f"{number:,}") for name, number in report.names.most_common()]
    if rows:
        terminal.print_table(("TABLE", "NAME", "RECORDS"), rows)
    if report.spared:
        click.echo(f"{report.spared:,} records stayed, because what was to be done before failed", err=True)
