"""Schedules: the entries, their next and last runs, and changes to them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery.states import READY_STATES
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from ..beat import ScheduleEntry, Schedules, StoredSchedule
from ..errors import InvalidSchedule, ScheduleExists
from .data import Data
from .listing import MOST_SCANNED
from .pages import back, data_of, pages_of, query_text, visitor_of
from .security import audit

#: Runs of an entry that its page shows.
RUNS = 10
#: The fields of the form, by name: all are text, those of JSON are parsed.
JSON_FIELDS = ("args", "kwargs", "options")
TEXT_FIELDS = ("task", "timezone", "description", "start_time", "expires_at", "max_runs")


#: The fields of a crontab as it is written on one line, and the units of an interval.
CRONTAB = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_INTERVAL = re.compile(r"(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """An entry in the list.

    Attributes:
        stored: The record.
        state: `active`, `paused`, `finished` or `broken`.
        described: When it runs, in words; empty for a broken one.
        coming: When it is due next, in the entry's zone.
    """

    stored: StoredSchedule
    state: str
    described: str
    coming: tuple[datetime, ...]


async def listing(request: Request) -> Response:
    """`GET /schedules`."""
    data = data_of(request)
    rows, beat = await data.read(lambda: (rows_of(data.schedules), data.schedules.active_beat()))
    return pages_of(request).render(request, "schedules.html", title="Schedules", rows=rows, beat=beat)


def rows_of(schedules: Schedules) -> list[Row]:
    """Every record, with its next runs."""
    return [row_of(schedules, stored, 3) for stored in schedules.stored()]


def row_of(schedules: Schedules, stored: StoredSchedule, runs: int) -> Row:
    """An entry with its next runs.

    Args:
        schedules: The typed API over the schedules.
        stored: The record.
        runs: How many of the next runs.
    """
    entry = stored.entry
    if entry is None or stored.broken:
        return Row(stored, "broken", "", ())
    state = "paused" if not entry.active else "finished" if entry.is_finished else "active"
    described = entry.recurrence(schedules.zone).describe()
    if entry.timezone:
        described += f" {entry.timezone}"
    return Row(stored, state, described, tuple(schedules.next_runs(entry, runs)) if state == "active" else ())


async def new(request: Request) -> Response:
    """`GET /schedules/new`: the form for an entry."""
    return _form(request, {"schedule": "5m", "args": "[]", "kwargs": "{}", "active": "on"}, None)


async def edit(request: Request) -> Response:
    """`GET /schedules/edit?name=…`: the entry's form, and its last runs."""
    data = data_of(request)
    name = query_text(request.query_params, "name")
    stored = await data.read(data.schedules.find, name)
    row = await data.read(lambda: row_of(data.schedules, stored, RUNS // 2))
    runs = await data.read(data.results.find, periodic=name, limit=RUNS, state=READY_STATES, max_scanned=MOST_SCANNED)
    return _form(request, form_of(stored), name, runs=runs, row=row)


def _form(
    request: Request, values: Mapping[str, str], name: str | None, *, status: int = 200, **context: Any
) -> Response:
    return pages_of(request).render(
        request,
        "schedule.html",
        title=f"Schedule {name}" if name else "New schedule",
        values=values,
        name=name,
        status=status,
        **{"runs": None, "row": None, "error": None, **context},
    )


def form_of(stored: StoredSchedule) -> dict[str, str]:
    """The fields of an entry's form, as text."""
    record = stored.record
    names = ("schedule", *JSON_FIELDS)
    values = {field: json.dumps(record[field], default=str) for field in names if record.get(field) is not None}
    for field in TEXT_FIELDS:
        value = record.get(field)
        if value is not None:
            values[field] = value.isoformat() if isinstance(value, datetime) else str(value)
    for field in ("active", "one_off"):
        values[field] = "on" if record.get(field, field == "active") else ""
    return values


async def save(request: Request) -> Response:
    """`POST /schedules/save`: add an entry, or change one."""
    data, form = data_of(request), await request.form()
    name = str(form.get("original") or "") or None
    try:
        saved = await data.change(_save, data, form, name)
    except (InvalidSchedule, ScheduleExists) as error:
        values = {key: str(value) for key, value in form.items()}
        return _form(request, values, name, error=error, status=400)
    audit(visitor_of(request), "change schedule" if name else "add schedule", saved)
    return back(request, "schedules", "saved")


def _save(data: Data, form: FormData, name: str | None) -> str:
    fields = fields_of(form)
    if name is not None:
        data.schedules.change(name, **fields)
        return name
    given = str(form.get("name") or "").strip()
    if not given:
        raise InvalidSchedule("name is empty: give the entry one")
    given_fields = {key: value for key, value in fields.items() if value is not None}
    task, schedule = given_fields.pop("task", ""), given_fields.pop("schedule", None)
    data.schedules.add(ScheduleEntry(given, task, schedule, **given_fields))
    return given


def fields_of(form: FormData) -> dict[str, Any]:
    """The fields of an entry from its form; empty ones are None.

    Raises:
        InvalidSchedule: A field of JSON is none, or a number no number.
    """
    fields: dict[str, Any] = {"schedule": schedule_of(str(form.get("schedule") or "").strip())}
    for name in JSON_FIELDS:
        text = str(form.get(name) or "").strip()
        fields[name] = _json(name, text) if text else None
    for name in TEXT_FIELDS:
        fields[name] = str(form.get(name) or "").strip() or None
    for name in ("start_time", "expires_at"):
        fields[name] = _moment(name, fields[name])
    if fields["max_runs"] is not None:
        if not fields["max_runs"].isdigit():
            raise InvalidSchedule(f"max_runs is {fields['max_runs']!r}: give a whole number, or nothing")
        fields["max_runs"] = int(fields["max_runs"])
    for name in ("active", "one_off"):
        fields[name] = form.get(name) == "on"
    return fields


def schedule_of(text: str) -> Any:
    """A schedule as it is written in the form: `90s`, `1h30m`, a crontab, a rule of RFC 5545, or JSON.

    Args:
        text: What stands in the field.

    Raises:
        InvalidSchedule: It is none of these.
    """
    if not text:
        return None
    if text.isdecimal():
        return {"timedelta": int(text)}
    if _INTERVAL.fullmatch(text):
        return {
            "timedelta": sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+)([dhms])", text.lower()))
        }
    if text.upper().startswith(("FREQ=", "DTSTART", "RRULE:")):
        return {"rrule": text}
    if text.startswith("{"):
        return _json("schedule", text)
    if len(text.split()) == len(CRONTAB):
        return dict(zip(CRONTAB, text.split(), strict=True))
    raise InvalidSchedule(
        f"schedule is {text!r}: give an interval such as 90s or 1h30m, a crontab such as 0 9 * * 1-5, a rule such as "
        "FREQ=DAILY;BYHOUR=9, or a JSON object"
    )


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSchedule(f"{name} is no JSON: {error}") from None


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidSchedule(f"{name} is {text!r}: give a time such as 2026-11-26T09:00+01:00") from None


async def act(request: Request) -> Response:
    """`POST /schedules/pause`, `resume`, `run` and `remove`."""
    data, action = data_of(request), request.path_params["action"]
    form = await request.form()
    name = str(form.get("name") or "")
    calls: dict[str, tuple[Callable[[str], object], str]] = {
        "pause": (data.schedules.pause, "paused"),
        "resume": (data.schedules.resume, "resumed"),
        "run": (data.schedules.run, "asked"),
        "remove": (data.schedules.remove, "removed"),
    }
    if action not in calls:
        return Response("There is no such action.\n", status_code=404, media_type="text/plain")
    call, done = calls[action]
    audit(visitor_of(request), f"{action} schedule", name)
    await data.change(call, name)
    return back(request, "schedules", done)
