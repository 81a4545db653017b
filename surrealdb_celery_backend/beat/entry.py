"""One schedule entry: validated when made, and its record."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any

from kombu.utils import json

from .. import statements
from ..errors import InvalidSchedule
from . import recurrence as rules

#: What a person or a program decides about an entry, in the order it is shown.
DEFINITION_FIELDS = statements.SCHEDULE_FIELDS

#: What beat keeps about an entry.
STATE_FIELDS = (
    "last_run_at",
    "next_run_at",
    "total_run_count",
    "broken",
    "run_requested_at",
    "changed_at",
)

#: Those of them that are times.
STATE_TIMES = ("last_run_at", "next_run_at", "run_requested_at", "changed_at")

#: What a record has besides: the database's own bookkeeping (see statements.py).
RECORD_FIELDS = ("id", "revision", "plan")

#: What ``apply_async`` and the message it sends know; others are for tasks that
#: override ``apply_async``, and accepted unless they look like one of these misspelt.
KNOWN_OPTIONS = (
    "add_to_parent",
    "compression",
    "connection",
    "countdown",
    "delivery_mode",
    "eta",
    "exchange",
    "expires",
    "headers",
    "ignore_result",
    "immediate",
    "link",
    "link_error",
    "mandatory",
    "priority",
    "producer",
    "properties",
    "queue",
    "replaced_task_nesting",
    "reply_to",
    "retry",
    "retry_policy",
    "router",
    "routing_key",
    "serializer",
    "shadow",
    "soft_time_limit",
    "stamped_headers",
    "time_limit",
    "timeout",
)

#: Options that beat or the entry's own fields decide.
REFUSED_OPTIONS = {
    "task_id": "beat makes it of the entry's name and the due time",
    "args": "set the entry's args",
    "kwargs": "set the entry's kwargs",
}

#: Begins the text that stands in a record for a value only code can hold.
CODE_MARK = "code: "

#: The name space of the task ids of firings.
FIRINGS = uuid.UUID("6c5e3c62-54a2-5ad0-9f0a-8b4a0f5d1e0b")

#: SurrealDB's integers have 64 bits.
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class ScheduleEntry:
    """A periodic task: what runs, when, and what beat knows about its runs.

    Making one validates it. ``schedule`` may be what Celery takes (seconds, a
    timedelta, ``crontab(...)``, ``solar(...)``) or data; it is kept as data.

    :param name: what it is called; unique.
    :param task: the name of the task that is sent.
    :param schedule: when (see :func:`~surrealdb_celery_backend.beat.recurrence.recurrence`).
    :param args: positional arguments of the task.
    :param kwargs: keyword arguments of the task.
    :param options: what ``apply_async`` takes besides (queue, priority, expires, headers, …).
    :param timezone: IANA name of the zone of its wall times; ``None``: the app's.
    :param active: whether it runs.
    :param one_off: whether it is made inactive after its first run.
    :param start_time: before this it does not run; an interval runs first at this time.
    :param expires_at: at this time and later it does not run.
    :param max_runs: after so many runs it is made inactive.
    :param description: for people.
    :param source: ``code`` or ``database``: who put it there.
    :param last_run_at: when beat last sent it; kept by beat, as are all that follow.
    :param next_run_at: when it is due next.
    :param total_run_count: how often it was sent.
    :param broken: why it cannot run, or ``None``.
    :param run_requested_at: when somebody asked for a run outside its schedule.
    :param changed_at: when its definition was changed last.
    :raises InvalidSchedule: if a field is wrong; the message names it.
    """

    name: str
    task: str
    schedule: Mapping[str, Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    timezone: str | None = None
    active: bool = True
    one_off: bool = False
    start_time: datetime | None = None
    expires_at: datetime | None = None
    max_runs: int | None = None
    description: str = ""
    source: str = "database"
    last_run_at: datetime | None = None
    next_run_at: datetime | None = None
    total_run_count: int = 0
    broken: str | None = None
    run_requested_at: datetime | None = None
    changed_at: datetime | None = None
    #: The :meth:`plan` that ``next_run_at`` follows from.
    planned: str | None = field(default=None, repr=False, compare=False)
    #: The schedule object that ``{"code": …}`` stands for.
    schedule_in_code: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _text("name", self.name)
        _text("task", self.task)
        self._check_schedule()
        self._check_arguments()
        self._check_options()
        for name in ("active", "one_off"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidSchedule(f"{name} holds {getattr(self, name)!r}: give true or false")
        for name in ("start_time", "expires_at"):
            if getattr(self, name) is not None:
                zone = self.zone(timezone.utc)
                moment = rules.moment_of(name, getattr(self, name), zone)
                self._keep(name, moment.astimezone(timezone.utc))
        if self.start_time and self.expires_at and self.start_time >= self.expires_at:
            raise InvalidSchedule(f"expires_at holds {self.expires_at.isoformat()}, which is not after start_time")
        self._check_max_runs()
        self._check_state()
        if not isinstance(self.description, str):
            raise InvalidSchedule(f"description holds {self.description!r}: give text")
        if self.source not in ("code", "database"):
            raise InvalidSchedule(f"source holds {self.source!r}: it is 'code' or 'database'")

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_schedule(self) -> None:
        if self.timezone is not None:
            rules.time_zone(self.timezone)
        given = self.schedule
        data, zone = rules.schedule_data(given)
        if set(data) == {"code"}:
            if self.schedule_in_code is None:
                if isinstance(given, Mapping):
                    raise InvalidSchedule(
                        "schedule is kept in code, and code has no such entry any more: give it as data"
                    )
                self._keep("schedule_in_code", given)
            self._keep("schedule", data)
            return
        if "crontab" in data and set(data) == {"crontab"}:
            data = rules.crontab_fields(data["crontab"])
        if zone is not None and self.timezone is None:
            self._keep("timezone", zone)
        rule = rules.recurrence(data, self.zone(timezone.utc))
        if isinstance(rule, rules.Interval):
            data["timedelta"] = rules.seconds_of(rule.every)
        elif isinstance(rule, rules.Clocked):
            data["clocked"] = rule.at.isoformat()
        elif isinstance(rule, rules.Crontab):
            data = dict(rule.fields)
            if rule.due_after(datetime.now(timezone.utc), datetime.now(timezone.utc)) is None:
                raise InvalidSchedule(f"schedule holds {data!r}, which never happens")
        self._keep("schedule", MappingProxyType(data))

    def _check_arguments(self) -> None:
        if isinstance(self.args, (str, bytes)) or not isinstance(self.args, Sequence):
            raise InvalidSchedule(f"args holds {self.args!r}: give a list")
        if not isinstance(self.kwargs, Mapping) or not all(isinstance(k, str) for k in self.kwargs):
            raise InvalidSchedule(f"kwargs holds {self.kwargs!r}: give an object of named values")

    def _check_options(self) -> None:
        options = self.options
        if not isinstance(options, Mapping):
            raise InvalidSchedule(f"options holds {options!r}: give an object of named values")
        for name, value in options.items():
            if name in REFUSED_OPTIONS:
                raise InvalidSchedule(f"options.{name} cannot be set: {REFUSED_OPTIONS[name]}")
            if name not in KNOWN_OPTIONS and rules.nearest(str(name), KNOWN_OPTIONS):
                raise InvalidSchedule(f"options has the unknown field {name!r}{rules.nearest(name, KNOWN_OPTIONS)}")
            wanted = {"queue": str, "priority": int, "headers": Mapping, "routing_key": str}.get(name)
            if wanted is not None and value is not None and not isinstance(value, wanted):
                kind = {str: "text", int: "a whole number", Mapping: "an object"}[wanted]
                # A queue may also be a kombu Queue, which only code can hold.
                if not (name == "queue" and hasattr(value, "name")):
                    raise InvalidSchedule(f"options.{name} holds {value!r}: give {kind}")
        expires = options.get("expires")
        if isinstance(expires, str):
            rules.moment_of("options.expires", expires, timezone.utc)
        elif isinstance(expires, (int, float)) and (isinstance(expires, bool) or expires <= 0):
            raise InvalidSchedule(f"options.expires holds {expires!r}: give seconds above 0")

    def _check_max_runs(self) -> None:
        runs = self.max_runs
        if runs is not None and (isinstance(runs, bool) or not isinstance(runs, int) or runs < 1):
            raise InvalidSchedule(f"max_runs holds {runs!r}: give a whole number above 0")

    def _check_state(self) -> None:
        for name in STATE_TIMES:
            if getattr(self, name) is not None:
                self._keep(name, rules.moment_of(name, getattr(self, name), timezone.utc).astimezone(timezone.utc))
        runs = self.total_run_count
        if isinstance(runs, bool) or not isinstance(runs, int) or runs < 0:
            raise InvalidSchedule(f"total_run_count holds {runs!r}: give a whole number, 0 or above")

    def zone(self, default: tzinfo) -> tzinfo:
        """Return the zone of the entry's wall times.

        :param default: the app's zone, for an entry that names none.
        """
        return default if self.timezone is None else rules.time_zone(self.timezone)

    def recurrence(self, default_zone: tzinfo, now: datetime | None = None) -> rules.Recurrence:
        """Return the rule that says when the entry is due.

        :param default_zone: the app's zone, for an entry that names none.
        :param now: the time, for a schedule that is kept in code; this host's if left out.
        """
        if self.schedule_in_code is not None:
            return rules.InCode(self.schedule_in_code, default_zone, now)
        return rules.recurrence(self.schedule, self.zone(default_zone))

    def first_due(self, since: datetime, default_zone: tzinfo, now: datetime | None = None) -> datetime | None:
        """Return when the entry is due first.

        :param since: when it was added, changed or resumed; what was due before is past.
        :param default_zone: the app's zone.
        :param now: the time (see :meth:`recurrence`).
        :returns: an instant in UTC, or ``None`` if it is never due again.
        """
        if not self.active or self.is_finished:
            return None
        anchor = self.start_time or self.last_run_at or self.changed_at or since
        if self.start_time is not None:
            since = max(since, self.start_time - timedelta(microseconds=1))
        return self._unless_expired(self.recurrence(default_zone, now).due_after(since, anchor))

    def due_after(
        self, due: datetime, since: datetime, default_zone: tzinfo, now: datetime | None = None
    ) -> datetime | None:
        """Return when the entry is due after a due time.

        :param due: the due time that was served; an interval counts from it.
        :param since: due times up to this moment are passed over.
        :param default_zone: the app's zone.
        :param now: the time (see :meth:`recurrence`).
        :returns: an instant in UTC, or ``None`` if it is never due again.
        """
        following = self.recurrence(default_zone, now).due_after(max(due, since), due)
        return self._unless_expired(following)

    def _unless_expired(self, due: datetime | None) -> datetime | None:
        if due is None or (self.expires_at is not None and due >= self.expires_at):
            return None
        return due

    @property
    def is_in_code(self) -> bool:
        """Whether it has what only code can hold."""
        texts = (self.definition()[name] for name in ("args", "kwargs", "options"))
        return set(self.schedule) == {"code"} or any(str(text).startswith(CODE_MARK) for text in texts)

    @property
    def is_finished(self) -> bool:
        """Whether it has run as often as it may."""
        return self.max_runs is not None and self.total_run_count >= self.max_runs

    def next_runs(self, count: int, after: datetime, default_zone: tzinfo) -> list[datetime]:
        """Return the next due times.

        :param count: how many at most.
        :param after: an aware datetime; they are later.
        :param default_zone: the app's zone.
        """
        return list(self._next_runs(count, after, default_zone))

    def _next_runs(self, count: int, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        if self.one_off:
            count = min(count, 1)
        if self.max_runs is not None:
            count = min(count, self.max_runs - self.total_run_count)
        due = self.next_run_at if self.active and self.planned == self.plan(zone) else None
        if due is None or due <= after:
            due = self.first_due(after, zone)
        while due is not None and count > 0:
            yield due
            count -= 1
            due = self.due_after(due, due, zone)

    def plan(self, default_zone: tzinfo) -> str:
        """Return a digest of what its due times follow from.

        A stored ``next_run_at`` holds for as long as this is the same.

        :param default_zone: the app's zone.
        """
        parts = [
            sorted(self.schedule.items()),
            str(self.zone(default_zone)),
            str(self.start_time),
            str(self.expires_at),
            self.max_runs,
            self.active,
        ]
        return hashlib.blake2s(repr(parts).encode(), digest_size=8).hexdigest()

    def definition(self) -> dict[str, Any]:
        """Return the definition as the fields of a record, without those that are empty."""
        fields: dict[str, Any] = {
            "name": self.name,
            "task": self.task,
            "schedule": dict(self.schedule),
            "args": stored(list(self.args)),
            "kwargs": stored(dict(self.kwargs)),
            "options": stored(dict(self.options)),
            "active": self.active,
            "one_off": self.one_off,
            "source": self.source,
            "total_run_count": self.total_run_count,
        }
        for name in ("timezone", "start_time", "expires_at", "max_runs", "description"):
            if getattr(self, name):
                fields[name] = getattr(self, name)
        return fields

    def as_data(self, *, with_state: bool = True) -> dict[str, Any]:
        """Return the entry as JSON data, as ``--json`` and ``export`` show it.

        :param with_state: also what beat keeps about its runs.
        """
        names = DEFINITION_FIELDS + (STATE_FIELDS if with_state else ())
        data: dict[str, Any] = {}
        for name in names:
            value = getattr(self, name)
            if isinstance(value, datetime):
                value = value.astimezone(timezone.utc).isoformat()
            elif isinstance(value, Mapping):
                value = dict(value)
            elif name == "args":
                value = list(value)
            data[name] = value
        return data

    @classmethod
    def from_data(cls, fields: Mapping[str, Any]) -> ScheduleEntry:
        """Return the entry that fields by name describe.

        :param fields: as in ``beat_schedule``, an exported file or a record.
        :raises InvalidSchedule: if a field is wrong, missing or unknown.
        """
        known = (*DEFINITION_FIELDS, *STATE_FIELDS)
        given = dict(fields)
        planned = given.pop("planned", None)
        if given.pop("relative", False):
            data, _ = rules.schedule_data(given.get("schedule"))
            given["schedule"] = {**data, "relative": True}
        for name in given:
            if name not in known:
                raise InvalidSchedule(f"unknown field {name!r}{rules.nearest(str(name), known)}")
        for name in ("name", "task", "schedule"):
            if given.get(name) is None:
                raise InvalidSchedule(f"{name} is missing")
        values = {name: value for name, value in given.items() if value is not None}
        return cls(**values, planned=planned)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], in_code: ScheduleEntry | None = None) -> ScheduleEntry:
        """Return the entry that a record holds.

        :param record: from the table ``schedule``, also one made by hand.
        :param in_code: the entry of the same name in code, for what only code can hold.
        :raises InvalidSchedule: if a field is wrong, missing or unknown.
        """
        given = {name: value for name, value in record.items() if name not in RECORD_FIELDS and value is not None}
        given.setdefault("name", record_name(record))
        given["planned"] = record.get("plan")
        for name in STATE_TIMES:
            # Text would do for us, and not for the statements that compare it with times.
            if name in given and not isinstance(given[name], datetime):
                if name != "next_run_at":
                    raise InvalidSchedule(f"{name} holds {given[name]!r}: give a time such as time::now()")
                del given[name], given["planned"]  # planned anew
        for name in ("args", "kwargs", "options"):
            if isinstance(given.get(name), str):
                given[name] = _loaded(name, given[name], in_code)
        schedule = given.get("schedule")
        if isinstance(schedule, Mapping) and set(schedule) == {"code"} and in_code is not None:
            given["schedule"] = in_code.schedule_in_code or in_code.schedule
        return cls.from_data(given)

    def changed(self, **fields: Any) -> ScheduleEntry:
        """Return a copy with other values, validated again.

        :param fields: new values by the names of the fields.
        :raises InvalidSchedule: if a field is wrong or unknown.
        """
        known = tuple(each.name for each in dataclasses.fields(self))
        for name in fields:
            if name not in known:
                raise InvalidSchedule(f"unknown field {name!r}{rules.nearest(name, known)}")
        if "schedule" in fields:
            fields.setdefault("schedule_in_code", None)
        return dataclasses.replace(self, **fields)


def record_name(record: Mapping[str, Any]) -> str:
    """Return the name of a record's entry: a record made by hand may have only its id."""
    name = record.get("name")
    return name if isinstance(name, str) and name else str(getattr(record.get("id"), "id", name))


def firing_id(table: str, name: str, due: datetime) -> str:
    """Return the task id of a firing.

    The same firing has the same id wherever it is made, so that sending it again
    overwrites its result and adds none.

    :param table: the whole name of the table of entries, with namespace and database.
    :param name: the entry's name.
    :param due: when the firing is due.
    """
    due = due.astimezone(timezone.utc)
    return str(uuid.uuid5(FIRINGS, f"{table}\n{name}\n{due.isoformat(timespec='microseconds')}"))


def stored(value: Any) -> Any:
    """Return a value as a record holds it, without loss.

    Plain data is stored as it is, so that it can be read and edited in the database.
    What SurrealDB would change (it drops ``None`` in objects, refuses integers beyond
    64 bits, and 2.x cannot read NUL again) or has no type for is stored as JSON text;
    what JSON cannot hold either stays in code, and the record says so.
    """
    if _is_plain(value):
        return value
    try:
        text = json.dumps(value)
        json.loads(text)
    except Exception:
        return f"{CODE_MARK}{value!r}"
    return text


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(part) for key, part in value.items())
    if type(value) is list:
        return all(_is_plain(part) for part in value)
    if type(value) is str:
        return "\0" not in value
    if type(value) is int:
        return INT_MIN <= value <= INT_MAX
    if type(value) is float:
        return value - value == 0  # neither infinite nor NaN
    return type(value) is bool


def _loaded(name: str, text: str, in_code: ScheduleEntry | None) -> Any:
    if text.startswith(CODE_MARK):
        if in_code is None:
            raise InvalidSchedule(f"{name} is kept in code, and code has no such entry any more: give it as data")
        return getattr(in_code, name)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidSchedule(f"{name} holds text that is no JSON: {error}") from error


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InvalidSchedule(f"{name} holds {value!r}: give text that is not empty")
