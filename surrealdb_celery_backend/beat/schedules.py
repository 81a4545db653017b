"""The schedule entries for programs: look at them, add, change, pause, resume, run, remove."""

from __future__ import annotations

import copy
import getpass
import os
import socket
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celery import Celery

from ..client.values import RecordID
from ..errors import InvalidSchedule, RecordExists, ScheduleExists, ScheduleNotFound
from . import statements
from .checks import TIMING_FIELDS, EntryChecks
from .entry import ScheduleEntry
from .records import check_storable, entry_of, fields_of
from .store import Imported
from .stored import StoredSchedule, StoredSchedules
from .wording import nearest

if TYPE_CHECKING:
    from typing_extensions import Self

#: Fields that :meth:`Schedules.change` may set.
CHANGEABLE = (
    *(field for field in statements.SCHEDULE_FIELDS if field not in ("name", "source")),
    "total_run_count",
)

#: Fields that beat keeps of an entry that is replaced.
KEPT_WHEN_REPLACED = ("total_run_count", "last_run_at", "source")


class Schedules(StoredSchedules):
    """The schedule entries of an app, from anywhere, while beat runs or not.

    ::

        with Schedules(app) as schedules:
            schedules.add(ScheduleEntry("report", "shop.report", {"minute": "0", "hour": "9"}))
            schedules.pause("report")

    Everything is validated before anything is written. Changes take effect at once
    where the database has LIVE queries, else within `surrealdb_beat_sync_every`.

    Args:
        app: The Celery app; its `surrealdb_*` settings say where the entries are.
        by: Name of the person or program that makes changes, kept in the entries'
            `changed_by`; the user of this process and its host if left out.
    """

    def __init__(self, app: Celery, *, by: str | None = None) -> None:
        super().__init__(app)
        self.by = by or _user_and_host()
        self._checks = EntryChecks(app, self.zone, check_tasks=self._store.settings.beat_check_tasks)

    def signed(self, by: str) -> Self:
        """Return the same entries, to be changed in another name; both use one connection.

        Args:
            by: Name of the person or program that makes changes.
        """
        other = copy.copy(self)
        other.by = by
        return other

    def add(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Add an entry.

        Args:
            entry: The entry; what only code can hold is refused.

        Returns:
            The entry as it is stored.

        Raises:
            ScheduleExists: There is one of that name.
            InvalidSchedule: It cannot be stored, its task is unknown, or it would never be due.
            PermissionDenied: The database's user may not write.
        """
        fields = fields_of(self._checks.new(entry))
        self._store.define()
        if self._find([entry.name]):
            raise ScheduleExists(f"there is a schedule entry {entry.name!r} already: change it, or choose another name")
        try:
            created = self._entries.create(self._entries.record(entry.name), fields, by=self.by)
        except RecordExists:
            if self._find([entry.name]):
                raise ScheduleExists(f"there is a schedule entry {entry.name!r} already") from None
            # An entry that somebody renamed has the id.
            created = self._entries.create(self._entries.record(str(uuid.uuid4())), fields, by=self.by)
        return self._entry(self._stored(created))

    def change(self, name: str, **fields: Any) -> ScheduleEntry:
        """Change fields of an entry, also of one whose record is broken.

        Args:
            name: The entry's name.
            fields: New values by the names of the fields; `None` removes one.

        Returns:
            The entry as it is stored.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: The entry would be wrong.
            PermissionDenied: The database's user may not write.
        """
        for field in fields:
            if field not in CHANGEABLE:
                raise InvalidSchedule(f"{field!r} cannot be changed{nearest(field, CHANGEABLE)}")
        stored = self.find(name)
        # Beat's remarks about the replaced entry are void.
        void = {"broken", "finished"} if any(field in fields for field in TIMING_FIELDS) else {"broken"}
        record = {
            key: value for key, value in {**stored.record, **fields}.items() if key not in void and value is not None
        }
        entry = entry_of(record, self.zone, self._in_code().get(name))
        if "schedule" in fields and entry.timezone is not None and "timezone" not in fields:
            # A schedule object of Celery's may bring its time zone.
            fields["timezone"] = entry.timezone
        check_storable(entry, self.zone, tuple(fields))
        self._checks.changed(entry, fields)
        definition = fields_of(entry)
        values = {field: definition.get(field) for field in fields}
        if "finished" in void:
            values["finished"] = None
        return self._changed(name, self._entries.update(stored.record["id"], values, by=self.by))

    def pause(self, name: str) -> ScheduleEntry:
        """Have an entry not run until it is resumed.

        Args:
            name: The entry's name.

        Returns:
            The entry as it is now.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: Its record makes no entry; the message says why.
            PermissionDenied: The database's user may not write.
        """
        return self.change(name, active=False)

    def resume(self, name: str) -> ScheduleEntry:
        """Have an entry run again; missed runs are not caught up.

        Args:
            name: The entry's name.

        Returns:
            The entry as it is now.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: It has run as often as it may, or cannot run.
            PermissionDenied: The database's user may not write.
        """
        self.check_resume(name)
        return self.change(name, active=True)

    def check_resume(self, name: str) -> None:
        """Check that an entry can be resumed.

        Args:
            name: The entry's name.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: It has run as often as it may.
        """
        entry = self.get(name)
        if entry.is_finished:
            raise InvalidSchedule(
                f"{name!r} has run {entry.total_run_count} times and max_runs is {entry.max_runs}: raise max_runs"
            )

    def run(self, name: str) -> ScheduleEntry:
        """Ask the active beat to run an entry now, outside its schedule, even if it is paused.

        Args:
            name: The entry's name.

        Returns:
            The entry as it is now.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: Its record makes no entry.
            PermissionDenied: The database's user may not write.
        """
        stored = self.find(name)
        self._entry(stored)
        return self._changed(name, self._entries.request_run(stored.record["id"], by=self.by))

    def remove(self, name: str, *, also_of_code: bool = False) -> None:
        """Remove an entry.

        Args:
            name: The entry's name.
            also_of_code: Also if code put it there, and will again when a beat starts.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: Code put it there.
            PermissionDenied: The database's user may not remove it.
        """
        stored = self.check_remove(name, also_of_code=also_of_code)
        self._entries.remove([stored.record["id"]])

    def check_remove(self, name: str, *, also_of_code: bool = False) -> StoredSchedule:
        """Check that an entry can be removed, and return its record.

        Args:
            name: The entry's name.
            also_of_code: Also if code put it there.

        Returns:
            The entry's record.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: Code put it there.
        """
        stored = self.find(name)
        if stored.record.get("source") == "code" and not also_of_code:
            raise InvalidSchedule(
                f"{name!r} is in the code, which adds it again when a beat starts: pause it, or remove it from the code"
            )
        return stored

    def import_entries(self, entries: Iterable[ScheduleEntry], *, replace: bool = False) -> list[ScheduleEntry]:
        """Add entries. All are checked before the first is written.

        Up to 250 are written in one transaction, all or none; more in pieces of that size.

        Args:
            entries: The entries; any number.
            replace: Whether to change those that are there already, instead of refusing them. What beat
                keeps about their runs stays.

        Returns:
            The entries.

        Raises:
            ScheduleExists: There is one of a name already; nothing is written.
            InvalidSchedule: One is wrong; nothing is written.
            PermissionDenied: The database's user may not write.
            ImportIncomplete: Something came in between, and only some pieces are written; the message
                says how many. The same call with `replace` writes the rest.
        """
        checked = self._checks.all_new(entries)
        self._store.define()
        found = self._entries.find([entry.name for entry in checked])
        present = found.by_name
        if present and not replace:
            raise ScheduleExists(
                f"there is a schedule entry {next(iter(present))!r} already: replace it, or choose another name"
            )
        self._store.importer.run(
            [
                Imported(
                    entry.name,
                    # Not the id that an entry has which somebody renamed.
                    present[entry.name]["id"] if entry.name in present else self._free_record(entry.name, found.taken),
                    _replacing(entry) if entry.name in present else fields_of(entry),
                    is_new=entry.name not in present,
                )
                for entry in checked
            ],
            by=self.by,
        )
        return checked

    def check(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Check an entry as :meth:`add` does before it writes.

        Args:
            entry: The entry.

        Returns:
            The entry with an offset to each of its times.

        Raises:
            InvalidSchedule: It cannot be stored, its task is unknown, or it would never be due.
        """
        return self._checks.new(entry)

    # -- inside -----------------------------------------------------------------------------------

    def _free_record(self, name: str, taken: set[str]) -> RecordID:
        record = self._entries.record(name)
        return self._entries.record(str(uuid.uuid4())) if str(record) in taken else record

    def _changed(self, name: str, record: Mapping[str, Any] | None) -> ScheduleEntry:
        if record is None:
            raise ScheduleNotFound(f"there is no schedule entry {name!r} any more")
        return self._entry(self._stored(record))


def _replacing(entry: ScheduleEntry) -> dict[str, Any]:
    return {name: value for name, value in fields_of(entry).items() if name not in KEPT_WHEN_REPLACED}


def _user_and_host() -> str:
    """Return the user and host of this process, such as `anna@laptop`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"
