"""`celery -A proj surrealdb schedule …`: the schedule entries for people, and with `--json` for programs.

Loaded at every start of the `celery` command, so what a command needs is imported when it runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand, handle_preload_options

from .options import JSON
from .schedule_input import LEFT_OUT_BY_EXPORT, definition_options, entries_of_file, fields_of_options
from .schedule_output import (
    echo,
    json_text,
    print_entries,
    print_entries_as_json,
    print_entry,
    print_entry_as_json,
    print_json,
    report,
    state_of,
)
from .terminal import safe

if TYPE_CHECKING:
    from ..beat import Schedules

#: The fields that `set --unset` removes.
REMOVABLE = ("timezone", "start_time", "expires_at", "max_runs", "jitter", "description", "args", "kwargs", "options")

BY = click.option("--by", help="Who makes the change, for changed_by; the user and host of this process if left out.")


@click.group()
def schedule() -> None:
    """List, add, change, pause, resume, run and remove schedule entries."""


def entries_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the entries of the app, and turn our errors into clear messages."""

    @handle_preload_options
    @functools.wraps(function)
    def command(context: click.Context, /, *args: Any, by: str | None = None, **kwargs: Any) -> Any:
        with _schedules(context, by) as schedules:
            return function(schedules, *args, **kwargs)

    return click.pass_context(command)


@contextmanager
def _schedules(context: click.Context, by: str | None) -> Iterator[Schedules]:
    from ..beat import Schedules
    from ..errors import SurrealDBBackendError

    app = context.obj.app
    # As beat does: which tasks and which entries there are is said in the project's modules.
    app.loader.import_default_modules()
    app.finalize()
    try:
        with Schedules(app, by=by) as schedules:
            yield schedules
    except SurrealDBBackendError as error:
        raise click.ClickException(safe(str(error))) from error


@schedule.command("list", cls=CeleryCommand)
@click.option("--active", "only", flag_value="active", help="Only those that run.")
@click.option("--paused", "only", flag_value="paused", help="Only those that do not.")
@click.option("--finished", "only", flag_value="finished", help="Only those that have nothing left to run.")
@click.option("--broken", "only", flag_value="broken", help="Only those that cannot.")
@click.option("--next", "count", type=click.IntRange(0), default=1, help="How many due times to show.")
@JSON
@entries_command
def list_entries(schedules: Schedules, only: str | None, count: int, as_json: bool) -> None:
    """List the schedule entries, with when they are due next."""
    rows = [each for each in schedules.stored() if only is None or state_of(each) == only]
    (print_entries_as_json if as_json else print_entries)(schedules, rows, count)


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@click.option("--next", "count", type=click.IntRange(0), default=5, help="How many due times to show.")
@JSON
@entries_command
def show(schedules: Schedules, name: str, count: int, as_json: bool) -> None:
    """Show all about one schedule entry."""
    (print_entry_as_json if as_json else print_entry)(schedules, schedules.find(name), count)


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@definition_options
@click.option("--paused", is_flag=True, help="Add it paused.")
@BY
@JSON
@entries_command
def add(schedules: Schedules, name: str, paused: bool, as_json: bool, **given: Any) -> None:
    """Add a schedule entry."""
    from ..beat import ScheduleEntry

    fields = fields_of_options(given)
    if "task" not in fields:
        raise click.UsageError("say what runs: --task")
    if "schedule" not in fields:
        raise click.UsageError("say when it runs: --every, --crontab, --rrule, --solar, --at or --schedule")
    entry = schedules.add(ScheduleEntry(name=name, **fields, active=not paused))
    report(schedules, f"added {name}", [entry], as_json=as_json)


@schedule.command("set", cls=CeleryCommand)
@click.argument("name")
@definition_options
@click.option(
    "--unset", multiple=True, type=click.Choice(REMOVABLE), help="Remove a field; may be given more than once."
)
@click.option("--reset-count", is_flag=True, help="Count its runs from 0 again.")
@BY
@JSON
@entries_command
def set_entry(
    schedules: Schedules, name: str, unset: Sequence[str], reset_count: bool, as_json: bool, **given: Any
) -> None:
    """Change a schedule entry."""
    fields = fields_of_options(given, schedules.find(name))
    fields.update(dict.fromkeys(unset))
    if reset_count:
        fields["total_run_count"] = 0
    if not fields:
        raise click.UsageError("say what to change: see --help")
    report(schedules, f"changed {name}", [schedules.change(name, **fields)], as_json=as_json)


@schedule.command(cls=CeleryCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@BY
@JSON
@entries_command
def pause(schedules: Schedules, names: Sequence[str], as_json: bool) -> None:
    """Have schedule entries not run until they are resumed."""
    for name in names:  # before anything is written
        schedules.get(name)
    report(schedules, f"paused {', '.join(names)}", [schedules.pause(name) for name in names], as_json=as_json)


@schedule.command(cls=CeleryCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@BY
@JSON
@entries_command
def resume(schedules: Schedules, names: Sequence[str], as_json: bool) -> None:
    """Have paused schedule entries run again; missed runs are not caught up."""
    for name in names:  # before anything is written
        schedules.check_resume(name)
    report(schedules, f"resumed {', '.join(names)}", [schedules.resume(name) for name in names], as_json=as_json)


@schedule.command(cls=CeleryCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@BY
@JSON
@entries_command
def run(schedules: Schedules, names: Sequence[str], as_json: bool) -> None:
    """Have beat run schedule entries now, outside their schedules."""
    for name in names:  # before anything is written
        schedules.get(name)
    entries = [schedules.run(name) for name in names]
    report(schedules, f"asked beat to run {', '.join(names)}", entries, as_json=as_json)
    if schedules.active_beat() is None:
        echo("no beat is active: they run when one starts (celery beat -S surrealdb)", error=True)


@schedule.command(cls=CeleryCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--force", is_flag=True, help="Also those of the code, which come back when a beat starts.")
@JSON
@entries_command
def remove(schedules: Schedules, names: Sequence[str], force: bool, as_json: bool) -> None:
    """Remove schedule entries."""
    names = tuple(dict.fromkeys(names))
    for name in names:
        schedules.check_remove(name, also_of_code=force)
    for name in names:
        schedules.remove(name, also_of_code=force)
    if as_json:
        print_json(list(names))
    else:
        echo(f"removed {', '.join(names)}")


@schedule.command("import", cls=CeleryCommand)
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--replace", is_flag=True, help="Change entries that are there already.")
@BY
@JSON
@entries_command
def import_file(schedules: Schedules, file: IO[str], replace: bool, as_json: bool) -> None:
    """Add the schedule entries of a JSON FILE (- reads standard input), all or none.

    The file holds what `export` writes: a list of entries, or an object of entries by name.
    """
    entries = schedules.import_entries(entries_of_file(file), replace=replace)
    report(schedules, f"imported {len(entries)} schedule entries", entries, as_json=as_json)


@schedule.command(cls=CeleryCommand)
@click.argument("file", type=click.File("w", encoding="utf-8"), default="-")
@click.option("--all", "everything", is_flag=True, help="Also those that code puts there.")
@entries_command
def export(schedules: Schedules, file: IO[str], everything: bool) -> None:
    """Write the schedule entries as JSON to FILE, or to standard output."""
    exported: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    of_code = 0
    for each in schedules.stored():
        if each.entry is None:
            left_out[each.name] = "it is broken"
        elif each.entry.source == "code" and not everything:
            of_code += 1
        elif each.entry.is_in_code:
            left_out[each.name] = "only code can hold it"
        else:
            data = each.entry.as_data(with_state=False)
            exported.append({name: data[name] for name in data if name not in LEFT_OUT_BY_EXPORT})
    file.write(json_text(exported) + "\n")
    for name, reason in left_out.items():
        echo(f"left out {name}: {reason}", error=True)
    if of_code:
        echo(f"left out {of_code} that code puts there: --all exports these too", error=True)
