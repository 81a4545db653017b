"""The schedule entries for programs: list, add, change, pause, resume, run, remove."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any

from celery import Celery

from .. import statements
from ..connection import Connection
from ..errors import InvalidSchedule, RecordExists, ScheduleExists, ScheduleNotFound
from ..failures import Failure
from ..values import RecordID
from .entry import ScheduleEntry, record_name
from .in_code import check_task, code_entries, settings_of
from .recurrence import nearest
from .scheduler import PAGE, define_schedules, remove_records

if TYPE_CHECKING:
    from typing_extensions import Self

#: What :meth:`Schedules.change` may set.
CHANGEABLE = (
    *(field for field in statements.SCHEDULE_FIELDS if field not in ("name", "source")),
    "total_run_count",
)


@dataclass(frozen=True)
class StoredSchedule:
    """A record of the table, whether or not it makes an entry.

    :param name: the entry's name.
    :param record: the record as it is stored.
    :param entry: the entry, or ``None`` if the record is none.
    :param broken: why it does not run, or ``None``.
    """

    name: str
    record: Mapping[str, Any]
    entry: ScheduleEntry | None
    broken: str | None


class Schedules:
    """The schedule entries of an app, from anywhere, while beat runs or not.

    ::

        with Schedules(app) as schedules:
            schedules.add(ScheduleEntry("report", "shop.report", {"minute": "0", "hour": "9"}))
            schedules.pause("report")

    Everything is validated before anything is written. Changes take effect at once
    where the database has LIVE queries, else within ``surrealdb_beat_sync_every``.

    :param app: the Celery app; its ``surrealdb_*`` settings say where the entries are.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._connection = Connection(settings_of(app), define=False)
        self._table = self._connection.settings.table(statements.SCHEDULE)
        self._is_defined = False
        self._code: dict[str, ScheduleEntry] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # -- reading ----------------------------------------------------------------------------------

    def stored(self) -> list[StoredSchedule]:
        """Return every record, also those that make no entry, in the order of their names."""
        self._open()
        records = page = self._connection.run(statements.load_schedules(self._table), page=PAGE) or []
        while len(page) == PAGE:
            page = (
                self._connection.run(statements.load_more_schedules(self._table), page=PAGE, last=page[-1]["id"]) or []
            )
            records = records + page
        return sorted((self._stored(record) for record in records), key=lambda each: each.name)

    def entries(self) -> list[ScheduleEntry]:
        """Return the entries, in the order of their names; not the records that make none."""
        return [each.entry for each in self.stored() if each.entry is not None]

    def get(self, name: str) -> ScheduleEntry:
        """Return one entry.

        :raises ScheduleNotFound: if there is none of that name.
        :raises InvalidSchedule: if its record makes no entry; the message says why.
        """
        return self._entry(self.find(name))

    def find(self, name: str) -> StoredSchedule:
        """Return one record, also if it makes no entry.

        :raises ScheduleNotFound: if there is none of that name.
        """
        self._open()
        found = self._find([name])
        if name in found:
            return self._stored(found[name])
        stored = {each.name: each for each in self.stored()}
        if name in stored:  # made by hand, with an id that is no text
            return stored[name]
        raise ScheduleNotFound(f"there is no schedule entry {name!r}{nearest(name, tuple(stored))}")

    def next_runs(self, entry: ScheduleEntry, count: int = 5) -> list[datetime]:
        """Return when an entry is due next.

        :param count: how many due times at most.
        :returns: aware datetimes, in the entry's time zone.
        """
        zone = entry.zone(self.app.timezone)
        now = datetime.now(timezone.utc)
        return [due.astimezone(zone) for due in entry.next_runs(count, now, self.app.timezone)]

    # -- writing ----------------------------------------------------------------------------------

    def add(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Add an entry.

        :returns: the entry as it is stored.
        :raises ScheduleExists: if there is one of that name.
        :raises InvalidSchedule: if its task is unknown or it would never be due.
        """
        self.check(entry)
        self._open()
        if self._find([entry.name]):
            raise ScheduleExists(f"there is a schedule entry {entry.name!r} already: change it, or choose another name")
        outcome = self._write("CREATE", self._record(entry.name), entry.definition())
        if isinstance(outcome, Failure) and outcome.error is RecordExists:
            if self._find([entry.name]):
                raise ScheduleExists(f"there is a schedule entry {entry.name!r} already")
            # An entry that somebody renamed has the id.
            outcome = self._write("CREATE", self._record(str(uuid.uuid4())), entry.definition())
        if isinstance(outcome, Failure):
            raise outcome.exception()
        return self._entry(self._stored(outcome[0]))

    def change(self, name: str, **fields: Any) -> ScheduleEntry:
        """Change fields of an entry, also of one whose record is broken.

        :param fields: new values by the names of the fields; ``None`` removes one.
        :returns: the entry as it is stored.
        :raises ScheduleNotFound: if there is none of that name.
        :raises InvalidSchedule: if the entry would be wrong.
        """
        for field in fields:
            if field not in CHANGEABLE:
                raise InvalidSchedule(f"{field!r} cannot be changed{nearest(field, CHANGEABLE)}")
        stored = self.find(name)
        record = {
            key: value for key, value in {**stored.record, **fields}.items() if key != "broken" and value is not None
        }
        in_code = self._in_code().get(name)
        entry = ScheduleEntry.from_record(record, in_code)
        if "schedule" in fields and entry.timezone is not None and "timezone" not in fields:
            # A schedule object of Celery's may bring its time zone.
            fields["timezone"] = entry.timezone
        self.check(entry)
        definition = entry.definition()
        values = {field: definition.get(field) for field in fields}
        outcome = self._write("UPDATE", stored.record["id"], values)
        if isinstance(outcome, Failure):
            raise outcome.exception()
        return self._changed(name, outcome)

    def pause(self, name: str) -> ScheduleEntry:
        """Have an entry not run until it is resumed.

        :raises ScheduleNotFound: if there is none of that name.
        """
        return self.change(name, active=False)

    def resume(self, name: str) -> ScheduleEntry:
        """Have an entry run again; what it missed is not made up for.

        :raises ScheduleNotFound: if there is none of that name.
        :raises InvalidSchedule: if it has run as often as it may.
        """
        self.check_resume(name)
        return self.change(name, active=True)

    def check_resume(self, name: str) -> None:
        """Check that an entry can be resumed.

        :raises ScheduleNotFound: if there is none of that name.
        :raises InvalidSchedule: if it has run as often as it may.
        """
        entry = self.get(name)
        if entry.is_finished:
            raise InvalidSchedule(
                f"{name!r} has run {entry.total_run_count} times and max_runs is {entry.max_runs}: raise max_runs"
            )

    def run(self, name: str) -> ScheduleEntry:
        """Ask the active beat to run an entry now, outside its schedule, even if it is paused.

        :raises ScheduleNotFound: if there is none of that name.
        :raises InvalidSchedule: if its record makes no entry.
        """
        stored = self.find(name)
        self._entry(stored)
        changed = self._connection.run(statements.REQUEST_RUN, record=stored.record["id"])
        return self._changed(name, changed)

    def remove(self, name: str, *, also_of_code: bool = False) -> None:
        """Remove an entry.

        :param also_of_code: also if code put it there, and will again when a beat starts.
        :raises ScheduleNotFound: if there is none of that name.
        :raises InvalidSchedule: if code put it there.
        """
        stored = self.check_remove(name, also_of_code=also_of_code)
        remove_records(self._connection, [stored.record["id"]])

    def check_remove(self, name: str, *, also_of_code: bool = False) -> StoredSchedule:
        """Check that an entry can be removed, and return its record.

        :param also_of_code: also if code put it there.
        :raises ScheduleNotFound: if there is none of that name.
        :raises InvalidSchedule: if code put it there.
        """
        stored = self.find(name)
        if stored.record.get("source") == "code" and not also_of_code:
            raise InvalidSchedule(
                f"{name!r} is in the code, which adds it again when a beat starts: pause it, or remove it from the code"
            )
        return stored

    def import_entries(self, entries: Iterable[ScheduleEntry], *, replace: bool = False) -> list[ScheduleEntry]:
        """Add entries, all or none.

        :param replace: change those that are there already, instead of refusing them;
            what beat keeps about their runs stays.
        :returns: the entries.
        :raises ScheduleExists: if there is one of a name already; nothing is written then.
        :raises InvalidSchedule: if one is wrong; nothing is written then.
        """
        entries = list(entries)
        names = [entry.name for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise InvalidSchedule(f"name {twice[0]!r} is given twice")
        for entry in entries:
            try:
                self.check(entry)
            except InvalidSchedule as error:
                raise InvalidSchedule(f"{entry.name!r}: {error}") from error
        self._open()
        present, taken = self._look_up(names)
        if present and not replace:
            raise ScheduleExists(
                f"there is a schedule entry {next(iter(present))!r} already: replace it, or choose another name"
            )
        added = [
            {
                **entry.definition(),
                # Not the id that an entry has which somebody renamed.
                "id": self._record(str(uuid.uuid4()) if str(self._record(entry.name)) in taken else entry.name),
            }
            for entry in entries
            if entry.name not in present
        ]
        # One transaction: a file is imported whole or not at all.
        self._connection.run_all(
            statements.import_schedules(self._table),
            added=added,
            changed=[
                {"entry": present[entry.name]["id"], "fields": self._replacing(entry)}
                for entry in entries
                if entry.name in present
            ],
        )
        return entries

    def check(self, entry: ScheduleEntry) -> None:
        """Check what an entry alone cannot know: that its task exists and that it is ever due.

        :raises InvalidSchedule: if not.
        """
        if self._connection.settings.beat_check_tasks:
            check_task(self.app, entry.task)
        if not entry.active or entry.is_finished:
            return
        now = datetime.now(timezone.utc)
        is_planned = entry.next_run_at is not None and entry.planned == entry.plan(self.app.timezone)
        if not entry.next_runs(1, now, self.app.timezone) and not is_planned:
            raise InvalidSchedule("schedule is never due any more: its time has passed")

    # -- inside -----------------------------------------------------------------------------------

    def _open(self) -> None:
        if not self._is_defined:
            define_schedules(self._connection)
            self._is_defined = True

    def _in_code(self) -> dict[str, ScheduleEntry]:
        if self._code is None:
            self._code, _ = code_entries(self.app)
        return self._code

    def _record(self, name: str) -> RecordID:
        return RecordID(self._table, name)

    def _find(self, names: list[str]) -> dict[str, dict[str, Any]]:
        return self._look_up(names)[0]

    def _look_up(self, names: list[str]) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Return the records of names, and which of the ids that these would have are taken."""
        by_name, by_id = self._connection.run_all(
            statements.find_schedules(self._table),
            names=names,
            records=[self._record(name) for name in names],
        )
        found = {record_name(record): record for record in [*(by_id or []), *(by_name or [])]}
        return {name: found[name] for name in names if name in found}, {str(record["id"]) for record in by_id or []}

    def _stored(self, record: Mapping[str, Any]) -> StoredSchedule:
        name = record_name(record)
        try:
            entry = ScheduleEntry.from_record(record, self._in_code().get(name))
        except InvalidSchedule as error:
            return StoredSchedule(name, record, None, record.get("broken") or str(error))
        return StoredSchedule(name, record, entry, entry.broken)

    @staticmethod
    def _entry(stored: StoredSchedule) -> ScheduleEntry:
        if stored.entry is None:
            raise InvalidSchedule(f"{stored.name!r} is broken: {stored.broken}")
        return stored.entry

    def _changed(self, name: str, records: list[dict[str, Any]]) -> ScheduleEntry:
        if not records:
            raise ScheduleNotFound(f"there is no schedule entry {name!r} any more")
        return self._entry(self._stored(records[0]))

    def _write(self, verb: str, record: RecordID, fields: Mapping[str, Any]) -> Any:
        text = statements.write_schedule(verb, tuple(fields))
        return self._connection.attempt(text, record=record, **fields)[-1]

    @staticmethod
    def _replacing(entry: ScheduleEntry) -> dict[str, Any]:
        fields = entry.definition()
        for kept in ("total_run_count", "source"):
            del fields[kept]
        return fields
