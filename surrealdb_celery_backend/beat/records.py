"""An entry as a record of the database, and back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone, tzinfo
from typing import Any

from ..errors import InvalidSchedule
from .entry import ScheduleEntry
from .entry_fields import STATE_TIMES
from .values import is_in_code, loaded, shown, storable, stored

#: Fields of a record besides those of the entry: the database's own bookkeeping (see statements.py).
RECORD_FIELDS = ("id", "revision", "plan", "edited_by", "code", "last_task_id")

#: The field of a record that the database could not send whole: the reason.
UNREADABLE = "unreadable"

#: Fields that a record may hold as JSON text, or as a text that stands for a value that only code can hold.
ENCODED_FIELDS = ("args", "kwargs", "options")

#: Fields that a record has only where they say something.
OPTIONAL_FIELDS = (
    "timezone",
    "start_time",
    "expires_at",
    "max_runs",
    "jitter",
    "run_at_once",
    "no_overlap",
    "description",
    "last_run_at",
)

#: The name space of the task ids of firings.
FIRINGS = uuid.UUID("6c5e3c62-54a2-5ad0-9f0a-8b4a0f5d1e0b")


def entry_of(record: Mapping[str, Any], zone: tzinfo, in_code: ScheduleEntry | None = None) -> ScheduleEntry:
    """Return the entry that a record holds, with an offset to each of its times.

    Args:
        record: From the table `schedule`, also one made by hand.
        zone: The app's zone, for an entry that names none.
        in_code: The entry of the same name in code, for what only code can hold.

    Raises:
        InvalidSchedule: A field is wrong, missing or unknown.
    """
    if UNREADABLE in record:
        raise InvalidSchedule(f"the record holds a value that the database cannot send: {record[UNREADABLE]}")
    given = {name: value for name, value in record.items() if name not in RECORD_FIELDS and value is not None}
    given.setdefault("name", record_name(record))
    given["planned"] = record.get("plan")
    for name in STATE_TIMES:
        # Text would do for us, and not for the statements that compare it with times.
        if name in given and not isinstance(given[name], datetime):
            if name != "next_run_at":
                raise InvalidSchedule(f"{name} holds {shown(given[name])}: give a time such as time::now()")
            del given[name], given["planned"]  # planned anew
    for name in ENCODED_FIELDS:
        if not isinstance(given.get(name), str):
            continue
        if not is_in_code(given[name]):
            given[name] = loaded(name, given[name])
        elif in_code is None:
            raise InvalidSchedule(f"{name} is kept in code, and code has no such entry any more: give it as data")
        else:
            given[name] = getattr(in_code, name)
    schedule = given.get("schedule")
    if isinstance(schedule, Mapping) and set(schedule) == {"code"} and in_code is not None:
        given["schedule"] = in_code.schedule_in_code or in_code.schedule
    return ScheduleEntry.from_data(given).localized(zone)


def fields_of(entry: ScheduleEntry) -> dict[str, Any]:
    """Return an entry's definition, and how often and when it ran, as the fields of a record.

    Args:
        entry: The entry, with an offset to each of its times.

    Returns:
        The fields, without empty ones. A value that only code can hold is a text that says so.
    """
    fields: dict[str, Any] = {
        "name": entry.name,
        "task": entry.task,
        "schedule": dict(entry.schedule),
        "args": stored(list(entry.args)),
        "kwargs": stored(dict(entry.kwargs)),
        "options": stored(dict(entry.options)),
        "active": entry.active,
        "one_off": entry.one_off,
        "source": entry.source,
        "total_run_count": entry.total_run_count,
    }
    for name in OPTIONAL_FIELDS:
        value = getattr(entry, name)
        if isinstance(value, datetime):
            # An instant: the database has no wall times.
            assert value.tzinfo is not None, f"{name} of {entry.name} has no offset"
            value = value.astimezone(timezone.utc)
        if value:
            fields[name] = value
    return fields


def check_storable(entry: ScheduleEntry, zone: tzinfo, fields: tuple[str, ...] | None = None) -> None:
    """Check that an entry is the same when it is read back from the database.

    Args:
        entry: The entry.
        zone: The app's zone.
        fields: The fields that are to be written; all of them if left out.

    Raises:
        InvalidSchedule: A field holds what only code can hold; the message names it.
    """
    for name in ENCODED_FIELDS:
        if fields is None or name in fields:
            value = getattr(entry, name)
            storable(name, list(value) if name == "args" else value)
    if (fields is None or "schedule" in fields) and entry.schedule_in_code is not None:
        raise InvalidSchedule(
            f"schedule holds {shown(entry.schedule_in_code)}, which cannot be stored as data: give seconds, a "
            "timedelta, crontab fields or an rrule, or keep the entry in code (beat_schedule)"
        )
    if fields is None:
        entry_of(fields_of(entry), zone)


def record_name(record: Mapping[str, Any]) -> str:
    """Return the name of a record's entry: a record made by hand may have only its id.

    Args:
        record: The record's fields, by name.
    """
    name = record.get("name")
    return name if isinstance(name, str) and name else str(getattr(record.get("id"), "id", name))


def firing_id(table: str, name: str, due: datetime) -> str:
    """Return the task id of a firing.

    The same firing has the same id wherever it is made, so that sending it again
    overwrites its result and adds none.

    Args:
        table: The whole name of the table of entries, with namespace and database.
        name: The entry's name.
        due: When the firing is due.
    """
    due = due.astimezone(timezone.utc)
    return str(uuid.uuid5(FIRINGS, f"{table}\n{name}\n{due.isoformat(timespec='microseconds')}"))
