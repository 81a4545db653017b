"""Turns the options of the schedule commands into the fields of an entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

import click

from .options import not_empty
from .terminal import safe

if TYPE_CHECKING:
    from ..beat import ScheduleEntry, StoredSchedule

#: Fields that `export` leaves out: an export has what is to run, not what has run.
LEFT_OUT_BY_EXPORT = ("source",)

#: Options of the command line that are fields of an entry, as they are.
FIELDS = (
    "task",
    "timezone",
    "one_off",
    "max_runs",
    "jitter",
    "run_at_once",
    "no_overlap",
    "start_time",
    "expires_at",
    "description",
)

#: As a text, how a file in UTF-8 may begin.
BYTE_ORDER_MARK = "\ufeff"

#: Options of the command line that say when an entry runs.
WAYS = ("every", "crontab", "rrule", "solar", "at", "schedule_json")

_DEFINITION: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--task",), {"help": "The name of the task."}),
    (("--every",), {"help": "An interval: seconds, or with units such as 90s, 1h30m."}),
    (("--crontab",), {"help": "Five fields: minute hour day_of_month month_of_year day_of_week."}),
    (("--rrule",), {"help": "A rule of RFC 5545, such as FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9."}),
    (("--solar",), {"nargs": 3, "help": "Event, latitude and longitude, such as sunset 52.5 13.4."}),
    (("--at",), {"help": "A single time, such as 2026-12-24T18:00:00+01:00."}),
    (("--schedule", "schedule_json"), {"help": "The schedule as JSON data."}),
    (("--timezone",), {"help": "An IANA zone such as Europe/Berlin; the app's if left out."}),
    (("--args", "args_json"), {"help": "Positional arguments, a JSON list."}),
    (("--kwargs", "kwargs_json"), {"help": "Keyword arguments, a JSON object."}),
    (("--options", "options_json"), {"help": "What apply_async takes besides, a JSON object."}),
    (("--queue",), {"help": "The queue it is sent to.", "callback": not_empty}),
    (("--priority",), {"type": int, "help": "The priority it is sent with."}),
    (("--expires",), {"help": "When a run is not worth starting any more: seconds after it is sent, or such as 5m."}),
    (("--one-off/--repeat", "one_off"), {"default": None, "help": "End it after its next run."}),
    (("--start-time",), {"help": "It does not run before this time."}),
    (("--expires-at",), {"help": "It does not run at this time and later."}),
    (("--max-runs",), {"type": int, "help": "End it after so many runs."}),
    (("--jitter",), {"help": "Send each run up to so much later at random: seconds, or with units such as 5m."}),
    (
        ("--run-at-once/--run-as-scheduled", "run_at_once"),
        {"default": None, "help": "Its first run is due when it is added."},
    ),
    (("--no-overlap/--overlap", "no_overlap"), {"default": None, "help": "Leave out a run while one still runs."}),
    (("--description",), {"help": "What it is for."}),
)


def definition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that define an entry."""
    for names, settings in reversed(_DEFINITION):
        command = click.option(*names, **settings)(command)
    return command


def fields_of_options(given: Mapping[str, Any], stored: StoredSchedule | None = None) -> dict[str, Any]:
    """Return the fields of an entry that the options name.

    Args:
        given: The options of the command line, by name.
        stored: The entry that is changed; options such as `--queue` go into its options.
    """
    fields: dict[str, Any] = {name: given[name] for name in FIELDS if given[name] is not None}
    for name in ("args", "kwargs", "options"):
        if given[f"{name}_json"] is not None:
            fields[name] = json_value(f"--{name}", given[f"{name}_json"])
    schedule = _schedule(given)
    if schedule is not None:
        fields["schedule"] = schedule
    sending = {name: given[name] for name in ("queue", "priority") if given[name] is not None}
    if given["expires"] is not None:
        sending["expires"] = _seconds("--expires", given["expires"])
    if sending:
        base = fields.get("options", _options_before(stored))
        if not isinstance(base, Mapping):
            raise click.UsageError("--options is no JSON object, so nothing can be added to it")
        fields["options"] = {**base, **sending}
    return fields


def _options_before(stored: StoredSchedule | None) -> Any:
    from ..beat.values import is_in_code, loaded

    if stored is None:
        return {}
    if stored.entry is not None:
        return stored.entry.options
    # Of a broken entry too: the change may mend something else.
    options = stored.record.get("options") or {}
    if is_in_code(options):
        raise click.UsageError("its options are kept in code: give all of them with --options")
    return loaded("options", options) if isinstance(options, str) else options


def _schedule(given: Mapping[str, Any]) -> Any:
    from ..beat.recurrence import expression_fields

    ways = [name for name in WAYS if given[name] is not None]
    if not ways:
        return None
    if len(ways) > 1:
        raise click.UsageError("say once when it runs: --every, --crontab, --rrule, --solar, --at or --schedule")
    value = given[ways[0]]
    if ways[0] == "every":
        return {"timedelta": _seconds("--every", value)}
    if ways[0] == "crontab":
        return expression_fields(value)
    if ways[0] == "rrule":
        return {"rrule": value}
    if ways[0] == "at":
        return {"clocked": value}
    if ways[0] == "solar":
        try:
            return {"solar": value[0], "latitude": float(value[1]), "longitude": float(value[2])}
        except ValueError:
            raise click.UsageError(f"--solar holds {' '.join(value)!r}: give event, latitude, longitude") from None
    return json_value("--schedule", value)


def _seconds(option: str, written: str) -> int | float:
    from ..beat.times import length_of, seconds_of

    return seconds_of(length_of(option, written))


def json_value(option: str, text: str) -> Any:
    """Return what an option holds as JSON.

    Args:
        option: The option's name, for the message.
        text: The JSON.
    """
    from kombu.utils import json

    from ..beat.values import shown

    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"{option} holds {shown(text)}, which is no JSON: {safe(str(error))}") from error
    except RecursionError as error:
        raise click.UsageError(f"{option} holds {shown(text)}, which is nested too deeply") from error


def entries_of_file(file: IO[str]) -> list[ScheduleEntry]:
    """Return the entries of a file that `export` wrote, or of one like it.

    Args:
        file: A list of entries as JSON, or an object of entries by name.
    """
    from kombu.utils import json

    from ..beat import ScheduleEntry
    from ..errors import InvalidSchedule

    try:
        # Editors and PowerShell may begin a file with a mark of its encoding.
        data = json.loads(file.read().removeprefix(BYTE_ORDER_MARK))
    except RecursionError as error:
        raise click.ClickException(f"{file.name} holds JSON that is nested too deeply") from error
    except (ValueError, TypeError) as error:
        raise click.ClickException(f"{file.name} holds no JSON: {safe(str(error))}") from error
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
            name = fields.get("name", position)
            raise click.ClickException(safe(f"entry {name!r} of {file.name}: {error}")) from error
    return entries
