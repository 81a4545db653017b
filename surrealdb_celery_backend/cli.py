"""``celery -A proj surrealdb …``: the schedule entries for people, and with ``--json`` for programs.

Loaded at every start of the ``celery`` command, so what it needs is imported when a command runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand, handle_preload_options

if TYPE_CHECKING:
    from .beat import ScheduleEntry, Schedules, StoredSchedule

#: The columns of a table are this far apart.
COLUMN_GAP = "  "

#: Longer values are cut in a table, though not in ``show`` and ``--json``.
CELL_WIDTH = 48

#: What ``export`` leaves out: it says what is to run, not what has run.
LEFT_OUT_BY_EXPORT = ("source",)


@click.group()
def surrealdb() -> None:
    """What is kept in SurrealDB."""


@surrealdb.group()
def schedule() -> None:
    """List, add, change, pause, resume, run and remove schedule entries."""


# -- options shared by the commands ----------------------------------------------------------------

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_DEFINITION: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--task",), {"help": "The name of the task."}),
    (("--every",), {"help": "An interval: seconds, or with units such as 90s, 1h30m."}),
    (("--crontab",), {"help": "Five fields: minute hour day_of_month month_of_year day_of_week."}),
    (("--solar",), {"nargs": 3, "help": "Event, latitude and longitude, such as sunset 52.5 13.4."}),
    (("--at",), {"help": "A single time, such as 2026-12-24T18:00:00+01:00."}),
    (("--schedule", "schedule_json"), {"help": "The schedule as JSON data."}),
    (("--timezone",), {"help": "An IANA zone such as Europe/Berlin; the app's if left out."}),
    (("--args", "args_json"), {"help": "Positional arguments, a JSON list."}),
    (("--kwargs", "kwargs_json"), {"help": "Keyword arguments, a JSON object."}),
    (("--options", "options_json"), {"help": "What apply_async takes besides, a JSON object."}),
    (("--queue",), {"help": "The queue it is sent to."}),
    (("--priority",), {"type": int, "help": "The priority it is sent with."}),
    (("--expires",), {"type": float, "help": "Seconds after which it is not worth running."}),
    (("--one-off/--repeat", "one_off"), {"default": None, "help": "Pause it after its next run."}),
    (("--start-time",), {"help": "It does not run before this time."}),
    (("--expires-at",), {"help": "It does not run at this time and later."}),
    (("--max-runs",), {"type": int, "help": "Pause it after so many runs."}),
    (("--description",), {"help": "What it is for."}),
)


def definition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that define an entry."""
    for names, settings in reversed(_DEFINITION):
        command = click.option(*names, **settings)(command)
    return command


def entries_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the entries of the app, and turn our errors into clear messages."""

    @handle_preload_options
    @functools.wraps(function)
    def command(context: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        with _schedules(context) as schedules:
            return function(schedules, *args, **kwargs)

    return click.pass_context(command)


@contextmanager
def _schedules(context: click.Context) -> Iterator[Schedules]:
    from .beat import Schedules
    from .errors import SurrealDBBackendError

    app = context.obj.app
    # As beat does: which tasks and which entries there are is said in the project's modules.
    app.loader.import_default_modules()
    app.finalize()
    try:
        with Schedules(app) as schedules:
            yield schedules
    except SurrealDBBackendError as error:
        raise click.ClickException(str(error)) from error


# -- commands --------------------------------------------------------------------------------------


@schedule.command("list", cls=CeleryCommand)
@click.option("--active", "only", flag_value="active", help="Only those that run.")
@click.option("--paused", "only", flag_value="paused", help="Only those that do not.")
@click.option("--broken", "only", flag_value="broken", help="Only those that cannot.")
@click.option("--next", "count", type=click.IntRange(0), default=1, help="How many due times to show.")
@JSON
@entries_command
def list_entries(schedules: Schedules, only: str | None, count: int, as_json: bool) -> None:
    """List the schedule entries, with when they are due next."""
    rows = [each for each in schedules.stored() if only is None or _state(each) == only]
    if as_json:
        _print_json([_as_data(schedules, each, count) for each in rows])
        return
    if not rows:
        click.echo("no schedule entries")
        return
    table = [("NAME", "TASK", "SCHEDULE", "STATE", "RUNS", "LAST RUN", "NEXT RUNS" if count > 1 else "NEXT RUN")]
    for each in rows:
        entry = each.entry
        if entry is None:
            table.append((each.name, str(each.record.get("task", "")), "", "broken", "", "", each.broken or ""))
            continue
        runs = [_time(due) for due in _next_runs(schedules, each, count)]
        table.append(
            (
                each.name,
                entry.task,
                _described(schedules, entry),
                _state(each),
                str(entry.total_run_count),
                _time(entry.last_run_at),
                each.broken or ", ".join(runs) or "-",
            )
        )
    _print_table(table)


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@click.option("--next", "count", type=click.IntRange(0), default=5, help="How many due times to show.")
@JSON
@entries_command
def show(schedules: Schedules, name: str, count: int, as_json: bool) -> None:
    """Show all about one schedule entry."""
    stored = schedules.find(name)
    if as_json:
        _print_json(_as_data(schedules, stored, count))
    else:
        _print_entry(schedules, stored, count)


@schedule.command(cls=CeleryCommand)
@click.argument("name")
@definition_options
@click.option("--paused", is_flag=True, help="Add it paused.")
@JSON
@entries_command
def add(schedules: Schedules, name: str, paused: bool, as_json: bool, **given: Any) -> None:
    """Add a schedule entry."""
    from .beat import ScheduleEntry

    fields = _fields(schedules, given)
    for field, options in (("task", "--task"), ("schedule", "--every, --crontab, --solar, --at or --schedule")):
        if field not in fields:
            raise click.UsageError(f"say {'what runs' if field == 'task' else 'when it runs'}: {options}")
    entry = schedules.add(ScheduleEntry(name=name, **fields, active=not paused))
    _report(schedules, f"added {name}", [entry], as_json=as_json)


@schedule.command("set", cls=CeleryCommand)
@click.argument("name")
@definition_options
@click.option(
    "--unset",
    multiple=True,
    type=click.Choice(["timezone", "start_time", "expires_at", "max_runs", "description", "args", "kwargs", "options"]),
    help="Remove a field; may be given more than once.",
)
@click.option("--reset-count", is_flag=True, help="Count its runs from 0 again.")
@JSON
@entries_command
def set_entry(
    schedules: Schedules, name: str, unset: Sequence[str], reset_count: bool, as_json: bool, **given: Any
) -> None:
    """Change a schedule entry."""
    stored = schedules.find(name)
    fields = _fields(schedules, given, stored)
    fields.update(dict.fromkeys(unset))
    if reset_count:
        fields["total_run_count"] = 0
    if not fields:
        raise click.UsageError("say what to change: see --help")
    entry = schedules.change(name, **fields)
    _report(schedules, f"changed {name}", [entry], as_json=as_json)


def _named(verb: str, done: str, help_text: str) -> None:
    """Make a command that does one thing to each entry that is named."""

    @schedule.command(verb, cls=CeleryCommand, help=help_text)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @JSON
    @entries_command
    def command(schedules: Schedules, names: Sequence[str], as_json: bool) -> None:
        for name in names:  # before anything is written
            if verb == "resume":
                schedules.check_resume(name)
            else:
                schedules.get(name)
        entries = [getattr(schedules, verb)(name) for name in names]
        _report(schedules, f"{done} {', '.join(names)}", entries, as_json=as_json)


_named("pause", "paused", "Have schedule entries not run until they are resumed.")
_named("resume", "resumed", "Have paused schedule entries run again; what they missed is not made up for.")
_named("run", "asked beat to run", "Have beat run schedule entries now, outside their schedules.")


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
        _print_json(list(names))
    else:
        click.echo(f"removed {', '.join(names)}")


@schedule.command("import", cls=CeleryCommand)
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--replace", is_flag=True, help="Change entries that are there already.")
@JSON
@entries_command
def import_file(schedules: Schedules, file: IO[str], replace: bool, as_json: bool) -> None:
    """Add the schedule entries of a JSON FILE (- reads standard input), all or none.

    The file holds what `export` writes: a list of entries, or an object of entries by name.
    """
    from kombu.utils import json

    from .beat import ScheduleEntry
    from .errors import InvalidSchedule

    try:
        data = json.loads(file.read())
    except ValueError as error:
        raise click.ClickException(f"{file.name} holds no JSON: {error}") from error
    if isinstance(data, Mapping):
        data = [{"name": name, **fields} if isinstance(fields, Mapping) else fields for name, fields in data.items()]
    if not isinstance(data, list) or not all(isinstance(fields, Mapping) for fields in data):
        raise click.ClickException(f"{file.name} holds no list of entries and no object of entries by name")
    entries = []
    for position, fields in enumerate(data, 1):
        own = {name: value for name, value in fields.items() if name not in LEFT_OUT_BY_EXPORT}
        try:
            entries.append(ScheduleEntry.from_data(own))
        except InvalidSchedule as error:
            raise click.ClickException(f"entry {fields.get('name', position)!r} of {file.name}: {error}") from error
    schedules.import_entries(entries, replace=replace)
    _report(schedules, f"imported {len(entries)} schedule entries", entries, as_json=as_json)


@schedule.command(cls=CeleryCommand)
@click.argument("file", type=click.File("w", encoding="utf-8"), default="-")
@click.option("--all", "everything", is_flag=True, help="Also those that code puts there.")
@entries_command
def export(schedules: Schedules, file: IO[str], everything: bool) -> None:
    """Write the schedule entries as JSON to FILE, or to standard output."""
    exported, skipped = [], {}
    for each in schedules.stored():
        if each.entry is None:
            skipped[each.name] = "it is broken"
        elif each.entry.is_in_code:
            if everything:
                skipped[each.name] = "only code can hold it"
        elif everything or each.entry.source == "database":
            data = each.entry.as_data(with_state=False)
            exported.append({name: data[name] for name in data if name not in LEFT_OUT_BY_EXPORT})
    file.write(_json_text(exported) + "\n")
    for name, reason in skipped.items():
        click.echo(f"left out {name}: {reason}", err=True)


# -- reading what was given ------------------------------------------------------------------------


def _fields(schedules: Schedules, given: Mapping[str, Any], stored: StoredSchedule | None = None) -> dict[str, Any]:
    """Return the fields of an entry that the options name.

    :param stored: the entry that is changed; options such as ``--queue`` go into its options.
    """
    from .beat import recurrence as rules

    present = stored.entry if stored else None
    fields: dict[str, Any] = {
        name: given[name]
        for name in ("task", "timezone", "one_off", "max_runs", "description")
        if given[name] is not None
    }
    zone_name = given["timezone"] or (present.timezone if present else None)
    zone = rules.time_zone(zone_name) if zone_name else schedules.app.timezone
    for name in ("start_time", "expires_at"):
        if given[name] is not None:
            fields[name] = rules.moment_of(name, given[name], zone)
    for name in ("args", "kwargs", "options"):
        if given[f"{name}_json"] is not None:
            fields[name] = _json_value(f"--{name}", given[f"{name}_json"])
    schedule_data = _schedule_data(given, zone)
    if schedule_data is not None:
        fields["schedule"] = schedule_data
    sending = {name: given[name] for name in ("queue", "priority", "expires") if given[name] is not None}
    if sending:
        # Of a broken entry too: what is mended may be something else.
        before = present.options if present else (stored.record.get("options") or {} if stored else {})
        base = fields.get("options", before)
        fields["options"] = {**base, **sending} if isinstance(base, Mapping) else base
    return fields


def _schedule_data(given: Mapping[str, Any], zone: Any) -> Any:
    from .beat import recurrence as rules

    ways = [name for name in ("every", "crontab", "solar", "at", "schedule_json") if given[name]]
    if not ways:
        return None
    if len(ways) > 1:
        raise click.UsageError("say once when it runs: --every, --crontab, --solar, --at or --schedule")
    value = given[ways[0]]
    if ways[0] == "every":
        return {"timedelta": rules.seconds_of(rules.duration(value))}
    if ways[0] == "crontab":
        return rules.crontab_fields(value)
    if ways[0] == "at":
        return {"clocked": rules.moment_of("--at", value, zone).isoformat()}
    if ways[0] == "solar":
        try:
            return {"solar": value[0], "latitude": float(value[1]), "longitude": float(value[2])}
        except ValueError:
            raise click.UsageError(f"--solar holds {' '.join(value)!r}: give event, latitude, longitude") from None
    return _json_value("--schedule", value)


def _json_value(option: str, text: str) -> Any:
    from kombu.utils import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{option} holds {text!r}, which is no JSON: {error}") from error


# -- printing --------------------------------------------------------------------------------------


def _state(stored: StoredSchedule) -> str:
    if stored.broken:
        return "broken"
    return "active" if stored.entry is not None and stored.entry.active else "paused"


def _next_runs(schedules: Schedules, stored: StoredSchedule, count: int) -> list[datetime]:
    if stored.entry is None or _state(stored) != "active":
        return []
    return schedules.next_runs(stored.entry, count)


def _described(schedules: Schedules, entry: ScheduleEntry) -> str:
    described = entry.recurrence(schedules.app.timezone).describe()
    return f"{described} {entry.timezone}" if entry.timezone else described


def _as_data(schedules: Schedules, stored: StoredSchedule, count: int) -> dict[str, Any]:
    if stored.entry is None:
        record = {name: value for name, value in stored.record.items() if name not in ("id", "revision", "plan")}
        return {**record, "name": stored.name, "broken": stored.broken, "next_runs": []}
    data = stored.entry.as_data()
    data["next_runs"] = [due.isoformat() for due in _next_runs(schedules, stored, count)]
    return data


def _time(moment: datetime | None) -> str:
    if moment is None:
        return "-"
    if moment.tzinfo is None or moment.utcoffset() == timezone.utc.utcoffset(None):
        return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return moment.isoformat(sep=" ", timespec="seconds")


def _report(schedules: Schedules, done: str, entries: Sequence[ScheduleEntry], *, as_json: bool) -> None:
    if as_json:
        _print_json([entry.as_data() for entry in entries])
        return
    click.echo(done)
    for entry in entries:
        runs = schedules.next_runs(entry, 1) if entry.active else []
        if len(entries) == 1 and runs:
            click.echo(f"next run: {_time(runs[0])}")


def _print_entry(schedules: Schedules, stored: StoredSchedule, count: int) -> None:
    data = _as_data(schedules, stored, count)
    runs = data.pop("next_runs")
    rows = [("state", _state(stored))]
    for name, value in data.items():
        if value is None or value in ("", (), []) or value == {}:
            continue
        rows.append((name, value if isinstance(value, str) else _json_text(value, indent=None)))
    if stored.entry is not None:
        rows.insert(1, ("runs", _described(schedules, stored.entry)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"{name.ljust(width)}{COLUMN_GAP}{text}")
    for position, due in enumerate(runs):
        label = "next runs" if position == 0 else ""
        click.echo(f"{label.ljust(width)}{COLUMN_GAP}{due}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    last = len(rows[0]) - 1
    cut = [
        [
            cell if column == last or len(cell) <= CELL_WIDTH else cell[: CELL_WIDTH - 1] + "…"
            for column, cell in enumerate(row)
        ]
        for row in rows
    ]
    widths = [max(len(row[column]) for row in cut) for column in range(len(rows[0]))]
    for row in cut:
        click.echo(COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _json_text(data: Any, indent: int | None = 2) -> str:
    # Celery's JSON: it knows dates, UUIDs and what else arguments may hold, and reads them again.
    from kombu.utils import json

    return str(json.dumps(_plain(data), indent=indent, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Replace what even Celery's JSON has no form for by its description."""
    from kombu.utils import json

    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    try:
        json.dumps(value)
    except Exception:
        return repr(value)
    return value


def _print_json(data: Any) -> None:
    click.echo(_json_text(data))
