"""The fields of a schedule entry, validated when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..client.values import INTEGERS
from ..errors import InvalidSchedule
from . import recurrence as rules
from . import statements
from .options import checked_options, with_offsets
from .times import length_of, moment_of, read_moment, seconds_of, written_duration
from .values import is_in_code, is_text, shown, stored
from .wording import nearest
from .zones import exact_zone, instant_of, time_zone, zone_name

if TYPE_CHECKING:
    from typing import TypeAlias

    from celery.schedules import BaseSchedule
    from dateutil.rrule import rrule
    from typing_extensions import Self

    #: What an entry's `schedule` may be made of.
    Given: TypeAlias = Mapping[str, Any] | float | timedelta | BaseSchedule | rrule

    class _Schedule:
        """To type checkers: any kind of schedule is taken, and data is what an entry has."""

        def __get__(self, entry: object, kind: type[object] | None = None) -> Mapping[str, Any]: ...

        def __set__(self, entry: object, value: Given) -> None: ...


#: Fields that a person or a program decides, in the order in which they are shown.
DEFINITION_FIELDS = statements.SCHEDULE_FIELDS

#: Fields that beat and the database keep.
STATE_FIELDS = (
    "last_run_at",
    "next_run_at",
    "total_run_count",
    "finished",
    "broken",
    "run_requested_at",
    "changed_at",
    "changed_by",
)

#: Those of them that are times.
STATE_TIMES = ("last_run_at", "next_run_at", "run_requested_at", "changed_at")

#: Names under which Celery keeps signatures of several tasks, and which no worker runs.
CANVAS = ("celery.chain", "celery.group")

#: The longest jitter: what is spread over more than a day is better a schedule of its own.
MAX_JITTER = timedelta(days=1)


@dataclass(frozen=True)
class EntryFields:
    """The fields of a schedule entry, and beat's knowledge of its runs.

    Making one validates it. `schedule` may be what Celery takes (seconds, a timedelta,
    `crontab(...)`, `solar(...)`), an `rrule` of dateutil, or data; it is kept as data.
    Times without an offset are wall times of the entry's zone, else of the app's.

    Args:
        name: Its name; unique.
        task: The name of the task that is sent.
        schedule: When it runs (see :func:`~surrealdb_celery_backend.beat.recurrence.recurrence`).
        args: Positional arguments of the task.
        kwargs: Keyword arguments of the task.
        options: Other arguments of `apply_async` (queue, priority, expires, headers, …).
        timezone: The zone of its wall times, an IANA name or an offset; `None`: the app's.
        active: Whether it runs.
        one_off: Whether it ends after its next run.
        start_time: Before this it does not run; an interval runs first at this time.
        expires_at: At this time and later it does not run.
        max_runs: After so many runs it ends.
        jitter: Each run is up to so many seconds later than it is due, at random.
        run_at_once: Whether its first run is due when it is added, before its schedule says so.
        no_overlap: Whether a run is left out while the one before still runs.
        description: For people.
        source: The origin of the entry: `code` or `database`.
        last_run_at: When beat last sent it; kept by beat, as are all that follow.
        next_run_at: When it is due next.
        total_run_count: How often it was sent.
        finished: Whether beat has nothing left to run of it; void after a change of what its
            due times follow from.
        broken: Why it cannot run, or `None`.
        run_requested_at: When somebody asked for a run outside its schedule.
        changed_at: When its definition was changed last.
        changed_by: The author of that change.

    Raises:
        InvalidSchedule: A field is wrong; the message names it.
    """

    name: str
    task: str
    if TYPE_CHECKING:
        schedule: _Schedule = _Schedule()
    else:
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
    jitter: float | None = None
    run_at_once: bool = False
    no_overlap: bool = False
    description: str = ""
    source: str = "database"
    last_run_at: datetime | None = None
    next_run_at: datetime | None = None
    total_run_count: int = 0
    finished: bool = False
    broken: str | None = None
    run_requested_at: datetime | None = None
    changed_at: datetime | None = None
    changed_by: str | None = None
    #: The digest (`ScheduleEntry.plan`) of what `next_run_at` follows from.
    planned: str | None = field(default=None, repr=False, compare=False)
    #: The schedule object that `{"code": …}` stands for.
    schedule_in_code: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if callable(getattr(self.task, "apply_async", None)) or self.task in CANVAS:
            raise InvalidSchedule(
                f"task holds {shown(self.task)}: an entry sends one task by its name; for a chain, a group or a chord, "
                "write a task that calls its apply_async, and give the name of that"
            )
        for name in ("name", "task"):
            value = getattr(self, name)
            if not is_text(value) or not value.strip():
                raise InvalidSchedule(f"{name} holds {shown(value)}: give text that is not empty")
        self._check_schedule()
        if isinstance(self.args, (str, bytes)) or not isinstance(self.args, Sequence):
            raise InvalidSchedule(f"args holds {shown(self.args)}: give a list")
        if not isinstance(self.kwargs, Mapping) or not all(isinstance(key, str) for key in self.kwargs):
            raise InvalidSchedule(f"kwargs holds {shown(self.kwargs)}: give an object of named values")
        self._keep("options", checked_options(self.options))
        for name in ("active", "one_off", "run_at_once", "no_overlap"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidSchedule(f"{name} holds {shown(getattr(self, name))}: give true or false")
        if self.jitter is not None:
            self._keep("jitter", _jitter(self.jitter))
        self._check_numbers()
        self._check_times()
        if not is_text(self.description):
            raise InvalidSchedule(f"description holds {shown(self.description)}: give text")
        if self.changed_by is not None:
            self._keep("changed_by", str(self.changed_by))
        # Kept by beat: an edit by hand is no reason not to run.
        self._keep("finished", self.finished is True)
        if self.source not in ("code", "database"):
            raise InvalidSchedule(f"source holds {shown(self.source)}: it is 'code' or 'database'")

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_schedule(self) -> None:
        if self.timezone is not None:
            self._keep_zone(self.timezone)
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
        if zone is not None and self.timezone is None:
            self._keep_zone(zone)
        rule = rules.recurrence(data, self.zone(timezone.utc))
        data = rules.normal_data(data, rule, zone_is_known=self.timezone is not None)
        if isinstance(rule, (rules.Crontab, rules.RRule)):
            now = datetime.now(timezone.utc)
            if rule.due_after(now, now) is None and not getattr(rule, "until", None):
                raise InvalidSchedule(f"schedule holds {data!r}, which never happens")
        self._keep("schedule", MappingProxyType(data))

    def _keep_zone(self, given: object) -> None:
        zone = time_zone(given)
        name = zone_name(zone)
        if name is None:
            raise InvalidSchedule(f"timezone holds {given!r}, a time zone without a name")
        self._keep("timezone", given if isinstance(given, str) else name)

    def _check_numbers(self) -> None:
        runs = self.max_runs
        if runs is not None and (
            isinstance(runs, bool) or not isinstance(runs, int) or runs < 1 or runs not in INTEGERS
        ):
            raise InvalidSchedule(f"max_runs holds {shown(runs)}: give a whole number above 0")
        runs = self.total_run_count
        if isinstance(runs, bool) or not isinstance(runs, int) or runs < 0 or runs not in INTEGERS:
            raise InvalidSchedule(f"total_run_count holds {shown(runs)}: give a whole number, 0 or above")

    def _check_times(self) -> None:
        for name in ("start_time", "expires_at", *STATE_TIMES):
            if getattr(self, name) is not None:
                self._keep(name, read_moment(name, getattr(self, name)))
        if self.timezone is not None:
            self._keep_offsets(self.zone(timezone.utc))
        for name in STATE_TIMES:  # beat's and the database's, which have one
            if getattr(self, name) is not None:
                self._keep(name, instant_of(getattr(self, name), timezone.utc))
        start, end = self.start_time, self.expires_at
        if start and end and (start.tzinfo is None) == (end.tzinfo is None) and start >= end:
            raise InvalidSchedule(f"expires_at holds {end.isoformat()}, which is not after start_time")

    def _keep_offsets(self, zone: tzinfo) -> None:
        for name in ("start_time", "expires_at"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                self._keep(name, moment_of(name, moment, zone))
        self._keep("options", with_offsets(self.options, zone))

    def localized(self, default_zone: tzinfo) -> Self:
        """Return the entry with an offset to each of its times.

        Args:
            default_zone: The app's zone, for an entry that names none.

        Raises:
            InvalidSchedule: The times do not fit each other in this zone.
        """
        if self.timezone is not None:
            return self
        zone = exact_zone(default_zone)
        changes: dict[str, Any] = {"options": with_offsets(self.options, zone)}
        for name in ("start_time", "expires_at"):
            moment = getattr(self, name)
            if moment is not None:
                changes[name] = moment_of(name, moment, zone)
        if "clocked" in self.schedule:
            at = moment_of("schedule.clocked", self.schedule["clocked"], zone)
            changes["schedule"] = {"clocked": at.isoformat()}
        return self if all(getattr(self, name) == value for name, value in changes.items()) else self.changed(**changes)

    def zone(self, default: tzinfo) -> tzinfo:
        """Return the zone of the entry's wall times.

        Args:
            default: The app's zone, for an entry that names none.
        """
        return exact_zone(default) if self.timezone is None else time_zone(self.timezone)

    @property
    def is_in_code(self) -> bool:
        """Whether it has what only code can hold."""
        values = (list(self.args), self.kwargs, self.options)
        return self.schedule_in_code is not None or any(is_in_code(stored(value)) for value in values)

    def as_data(self, *, with_state: bool = True) -> dict[str, Any]:
        """Return the entry as JSON data, as `--json` and `export` show it.

        Args:
            with_state: Also what beat keeps about its runs.
        """
        names = DEFINITION_FIELDS + (STATE_FIELDS if with_state else ())
        data: dict[str, Any] = {}
        for name in names:
            value = getattr(self, name)
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, Mapping):
                value = dict(value)
            elif name == "args":
                value = list(value)
            data[name] = value
        return data

    @classmethod
    def from_data(cls, fields: Mapping[str, Any]) -> Self:
        """Return the entry that fields by name describe.

        Args:
            fields: As in `beat_schedule`, an exported file or a record.

        Raises:
            InvalidSchedule: A field is wrong, missing or unknown.
        """
        known = (*DEFINITION_FIELDS, *STATE_FIELDS)
        given = dict(fields)
        planned = given.pop("planned", None)
        if given.pop("relative", False):
            data, _ = rules.schedule_data(given.get("schedule"))
            given["schedule"] = {**data, "relative": True}
        for name in given:
            if name not in known:
                raise InvalidSchedule(f"unknown field {name!r}{nearest(str(name), known)}")
        for name in ("name", "task", "schedule"):
            if given.get(name) is None:
                raise InvalidSchedule(f"{name} is missing")
        values = {name: value for name, value in given.items() if value is not None}
        return cls(**values, planned=planned)

    def changed(self, **fields: Any) -> Self:
        """Return a copy with other values, validated again.

        Args:
            fields: New values by the names of the fields.

        Raises:
            InvalidSchedule: A field is wrong or unknown.
        """
        known = tuple(each.name for each in dataclasses.fields(self))
        for name in fields:
            if name not in known:
                raise InvalidSchedule(f"unknown field {name!r}{nearest(name, known)}")
        if "schedule" in fields:
            fields.setdefault("schedule_in_code", None)
        return dataclasses.replace(self, **fields)


def _jitter(given: object) -> int | float:
    length = length_of("jitter", given)
    if length > MAX_JITTER:
        raise InvalidSchedule(f"jitter holds {shown(given)}: give {written_duration(MAX_JITTER)} at most")
    return seconds_of(length)
