"""How schedule entries look in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone, tzinfo
from typing import TYPE_CHECKING, Any

import click

from .terminal import print_pairs, print_table, safe, safe_json

if TYPE_CHECKING:
    from ..beat import ScheduleEntry, Schedules, StoredSchedule

#: Fields of a record that belong to the bookkeeping, not to the entry; they are not shown.
BOOKKEEPING = ("id", "revision", "plan", "edited_by")


def state_of(stored: StoredSchedule) -> str:
    """Return `active`, `paused`, `finished` or `broken`."""
    if stored.broken:
        return "broken"
    if stored.entry is None or not stored.entry.active:
        return "paused"
    return "finished" if stored.entry.finished else "active"


def print_entries(schedules: Schedules, rows: Sequence[StoredSchedule], count: int) -> None:
    """Print a table of entries.

    Args:
        schedules: Where they are from.
        rows: The entries.
        count: How many of the next runs to show.
    """
    if not rows:
        echo("no schedule entries")
        return
    columns = ("NAME", "TASK", "SCHEDULE", "STATE", "RUNS", "LAST RUN", "NEXT RUNS" if count > 1 else "NEXT RUN")
    table = []
    for each in rows:
        entry = each.entry
        if entry is None:
            table.append((each.name, str(each.record.get("task", "")), "", "broken", "", "", str(each.broken)))
            continue
        zone = entry.zone(schedules.zone)
        runs = ", ".join(written_time(due, zone) for due in _next_runs(schedules, each, count))
        table.append(
            (
                each.name,
                entry.task,
                _described(schedules, entry),
                state_of(each),
                str(entry.total_run_count),
                written_time(entry.last_run_at, zone),
                each.broken or runs or "-",
            )
        )
    print_table(columns, table)


def print_entry(schedules: Schedules, stored: StoredSchedule, count: int) -> None:
    """Print all about one entry, times in its zone, else in the app's.

    Args:
        schedules: Where it is from.
        stored: The entry.
        count: How many of the next runs to show.
    """
    from ..beat.zones import wall_time

    entry = stored.entry
    pairs = [("state", state_of(stored))]
    if entry is not None:
        pairs.append(("runs", _described(schedules, entry)))
    for name, value in _as_data(schedules, stored, 0).items():
        known = getattr(entry, name, None)
        if isinstance(known, datetime) and entry is not None:
            pairs.append((name, wall_time(known, entry.zone(schedules.zone)).isoformat()))
        elif value is not None and value not in ("", (), []) and value != {}:
            pairs.append((name, value if isinstance(value, str) else json_text(value, indent=None)))
    for position, due in enumerate(_next_runs(schedules, stored, count)):
        pairs.append(("next runs" if position == 0 else "", due.isoformat()))
    print_pairs(pairs)


def print_entries_as_json(schedules: Schedules, rows: Sequence[StoredSchedule], count: int) -> None:
    """Print entries as a JSON list, with their next runs.

    Args:
        schedules: Where they are from.
        rows: The entries.
        count: How many of the next runs to show.
    """
    print_json([_as_data(schedules, each, count) for each in rows])


def print_entry_as_json(schedules: Schedules, stored: StoredSchedule, count: int) -> None:
    """Print one entry as JSON, with its next runs.

    Args:
        schedules: Where it is from.
        stored: The entry.
        count: How many of the next runs to show.
    """
    print_json(_as_data(schedules, stored, count))


def report(schedules: Schedules, done: str, entries: Sequence[ScheduleEntry], *, as_json: bool) -> None:
    """Print what a command did.

    Args:
        schedules: Where the entries are from.
        done: The action, in words.
        entries: The entries as they are now.
        as_json: Whether to print these as JSON instead.
    """
    if as_json:
        print_json([entry.as_data() for entry in entries])
        return
    echo(done)
    for entry in entries:
        runs = schedules.next_runs(entry, 1) if entry.active else []
        if len(entries) == 1 and runs:
            echo(f"next run: {written_time(runs[0])}")


def _next_runs(schedules: Schedules, stored: StoredSchedule, count: int) -> list[datetime]:
    if stored.entry is None or state_of(stored) != "active":
        return []
    return schedules.next_runs(stored.entry, count)


def _described(schedules: Schedules, entry: ScheduleEntry) -> str:
    described = entry.recurrence(schedules.zone).describe()
    return f"{described} {entry.timezone}" if entry.timezone else described


def _as_data(schedules: Schedules, stored: StoredSchedule, count: int) -> dict[str, Any]:
    if stored.entry is None:
        record: Mapping[str, Any] = {
            name: value for name, value in stored.record.items() if name not in BOOKKEEPING and value is not None
        }
        return {**record, "name": stored.name, "broken": stored.broken, "next_runs": []}
    data = stored.entry.as_data()
    data["next_runs"] = [due.isoformat() for due in _next_runs(schedules, stored, count)]
    return data


def echo(text: str, *, error: bool = False) -> None:
    """Print one line.

    Args:
        text: The line; it may quote stored text.
        error: Whether it goes to standard error.
    """
    click.echo(safe(text), err=error)


def print_json(data: Any) -> None:
    """Print data as JSON."""
    click.echo(json_text(data))


def json_text(data: Any, indent: int | None = 2) -> str:
    """Return data as Celery's JSON, which knows dates, UUIDs and what else arguments may hold, and reads them again.

    Args:
        data: Anything; what even this JSON has no form for is replaced by its description.
        indent: Spaces to a level, or `None` for one line.
    """
    from kombu.utils import json

    return safe_json(str(json.dumps(_plain(data), indent=indent, ensure_ascii=False)))


def _plain(value: Any) -> Any:
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


def written_time(moment: datetime | None, zone: tzinfo | None = None) -> str:
    """Return a time for a table.

    Args:
        moment: An aware datetime, or `None` for never.
        zone: The zone to tell it in; its own if left out.
    """
    from ..beat.zones import wall_time

    if moment is None:
        return "-"
    local = moment if zone is None else wall_time(moment, zone)
    if local.tzinfo is timezone.utc or str(local.tzinfo) in ("UTC", "Etc/UTC"):
        return local.strftime("%Y-%m-%d %H:%M:%S UTC")
    return local.isoformat(sep=" ", timespec="seconds")
