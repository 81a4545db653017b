"""The table of the entries."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from ...client.connection import Connection
from ...client.failures import Failure
from ...client.unreadable import readable
from ...client.values import RecordID
from ...errors import UnreadableRecord
from ...settings import Settings
from .. import statements
from ..plan import Plan
from ..records import UNREADABLE, record_name
from .parts import parts
from .rights import denied

#: Entries read in one request.
PAGE = 5000

#: Entries looked up by name in one request.
LOOKED_UP_AT_ONCE = 1000

#: Entries written in one request.
WRITES_AT_ONCE = 500


@dataclass(frozen=True)
class Found:
    """The outcome of a search by name.

    Attributes:
        by_name: The records, by the names that were asked for.
        taken: The ids, as text, that are in use of those which these names would have.
    """

    by_name: dict[str, dict[str, Any]]
    taken: set[str]


@dataclass(frozen=True)
class Changes:
    """The changes of the table since a moment.

    Attributes:
        entries: The records that were added or changed.
        removed: The ids of removed records.
        now: The database's time when it answered.
        asked_at: This process's monotonic clock when it asked, in seconds.
        answered_at: The same when the answer came.
    """

    entries: list[dict[str, Any]]
    removed: list[RecordID]
    now: datetime
    asked_at: float
    answered_at: float


class EntryStore:
    """The table of the entries.

    Args:
        connection: The session to use.
        settings: The names of the tables, and of the user.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._table = self._settings.table(statements.SCHEDULE)
        self._removed = self._settings.table(statements.SCHEDULE_REMOVED)

    @property
    def whole_name(self) -> str:
        """The name of the table with namespace and database, unique on the server."""
        return f"{self._settings.namespace}/{self._settings.database}/{self._table}"

    def record(self, identifier: str) -> RecordID:
        """Return the id of the record of an entry.

        Args:
            identifier: The entry's name, or another text where that id is taken.
        """
        return RecordID(self._table, identifier)

    # -- reading ----------------------------------------------------------------------------------

    def load(self) -> list[dict[str, Any]]:
        """Return every record, in the order of their ids. One that cannot be read is there as `fetch` says."""
        records: list[dict[str, Any]] = []
        page = self._page(statements.load_schedules)
        records += page
        while len(page) == PAGE:
            page = self._page(statements.load_more_schedules, last=page[-1]["id"])
            records += page
        return records

    def _page(self, statement: Callable[..., str], **parameters: Any) -> list[dict[str, Any]]:
        try:
            return list(self._connection.run(statement(self._table), page=PAGE, **parameters) or [])
        except UnreadableRecord:
            text = statement(self._table, only_ids=True)
            return self.fetch(self._connection.run(text, page=PAGE, **parameters) or [])

    def find(self, names: Sequence[str]) -> Found:
        """Find records by name, also those made by hand whose name is only in their id.

        Args:
            names: The names; any number.

        Returns:
            The records that exist, and the ids that are taken.
        """
        found: dict[str, dict[str, Any]] = {}
        taken: set[str] = set()
        for part in parts(names, LOOKED_UP_AT_ONCE):
            by_name, by_id = self._find(list(part))
            found |= {record_name(record): record for record in [*by_id, *by_name]}
            taken |= {str(record["id"]) for record in by_id}
        return Found({name: found[name] for name in names if name in found}, taken)

    def _find(self, names: list[str]) -> list[list[dict[str, Any]]]:
        parameters: dict[str, Any] = {"names": names, "records": [self.record(name) for name in names]}
        try:
            found = self._connection.run_all(statements.find_schedules(self._table), **parameters)
            return [list(each or []) for each in found]
        except UnreadableRecord:
            text = statements.find_schedules(self._table, only_ids=True)
            return [self.fetch(each or []) for each in self._connection.run_all(text, **parameters)]

    def fetch(self, records: Sequence[RecordID]) -> list[dict[str, Any]]:
        """Return records by their ids. One with a value that cannot be sent does not spoil the reply of all.

        The server refuses a reply with a regex or a closure, which only a person writes into a record.

        Args:
            records: Ids of records.

        Returns:
            The records that exist. One that cannot be sent has only id, name and revision, and `UNREADABLE`: why.
        """
        found: list[dict[str, Any]] = []
        replies = readable(
            lambda part: self._connection.run(statements.FETCH_SCHEDULES, records=list(part)) or [],
            records,
            lambda record, error: found.extend(self._named(record, str(error))),
        )
        for reply in replies:
            found += reply
        return found

    def _named(self, record: RecordID, reason: str) -> list[dict[str, Any]]:
        """What can be read of a record that cannot be sent whole."""
        try:
            found = self._connection.run(statements.FETCH_NAMES, records=[record]) or []
        except UnreadableRecord:
            found = [[record]]
        return [{**dict(zip(statements.NAMING_FIELDS, each, strict=False)), UNREADABLE: reason} for each in found]

    def changed(self, since: datetime) -> Changes:
        """Return the changes since a moment, at the cost of what changed.

        Args:
            since: A time of the database's clock.
        """
        asked_at = time.monotonic()
        text = partial(statements.changed_schedules, self._table, self._removed)
        try:
            entries, removed, now = self._connection.run_all(text(), since=since)
        except UnreadableRecord:
            ids, removed, now = self._connection.run_all(text(only_ids=True), since=since)
            entries = self.fetch(ids or [])
        return Changes(list(entries or []), list(removed or []), now, asked_at, time.monotonic())

    # -- writing ----------------------------------------------------------------------------------

    def insert(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add records; those whose id or name is in use stay as they are.

        Args:
            records: The records, with their ids; any number.

        Returns:
            The records that were added, as they are stored.

        Raises:
            PermissionDenied: The user may not create records.
        """
        added: list[dict[str, Any]] = []
        for part in parts(records, WRITES_AT_ONCE):
            stored = self._connection.run(statements.insert_schedules(self._table), entries=list(part)) or []
            if len(stored) < len(part):
                self._check_ignored(part, {str(record["id"]) for record in stored})
            added += stored
        return added

    def _check_ignored(self, records: Sequence[Mapping[str, Any]], stored: set[str]) -> None:
        """Check that records which were not added are there already."""
        missing = [record for record in records if str(record["id"]) not in stored]
        found = self.find([record["name"] for record in missing])
        if any(record["name"] not in found.by_name and str(record["id"]) not in found.taken for record in missing):
            raise denied(self._settings, "create", self._table)

    def create(self, record: RecordID, fields: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Add one record.

        Args:
            record: Its id.
            fields: Its fields.
            by: The name of the person or program that adds it.

        Returns:
            The record as it is stored.

        Raises:
            RecordExists: The id is in use.
            PermissionDenied: The user may not create records.
        """
        text = statements.write_schedule("CREATE", tuple(fields))
        outcome = self._connection.attempt(text, record=record, by=by, **fields)[-1]
        if isinstance(outcome, Failure):
            raise outcome.exception()
        if not outcome:
            raise denied(self._settings, "create", self._table)
        created: dict[str, Any] = outcome[0]
        return created

    def update(self, record: RecordID, fields: Mapping[str, Any], *, by: str) -> dict[str, Any] | None:
        """Set fields of a record; one that is None is removed.

        Args:
            record: Its id.
            fields: The fields to set.
            by: The name of the person or program that changes it.

        Returns:
            The record as it is stored, or None if there is none of that id.

        Raises:
            PermissionDenied: The user may not update records.
        """
        text = statements.write_schedule("UPDATE", tuple(fields))
        return self._updated(record, self._connection.run(text, record=record, by=by, **fields))

    def request_run(self, record: RecordID, *, by: str) -> dict[str, Any] | None:
        """Ask beat for a run of an entry.

        Args:
            record: The entry's record.
            by: The name of the person or program that asks.

        Returns:
            The record as it is stored, or None if there is none of that id.

        Raises:
            PermissionDenied: The user may not update records.
        """
        return self._updated(record, self._connection.run(statements.REQUEST_RUN, record=record, by=by))

    def _updated(self, record: RecordID, stored: list[dict[str, Any]] | None) -> dict[str, Any] | None:
        if stored:
            return stored[0]
        if self.fetch([record]):
            raise denied(self._settings, "update", self._table)
        return None

    def remove(self, records: Sequence[RecordID]) -> None:
        """Remove records, and leave a mark of each for beat.

        Args:
            records: The ids; any number.

        Raises:
            PermissionDenied: The user may not delete records, or not leave a mark.
        """
        for part in parts(records, WRITES_AT_ONCE):
            *_, marks, left = self._connection.run_all(statements.remove_schedules(self._removed), records=list(part))
            if left:
                raise denied(self._settings, "delete", self._table)
            if not marks:
                raise denied(self._settings, "create", self._removed)

    def take_code(self, taken: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Write what code says to records that code put there, unless they were edited since they were read.

        Args:
            taken: For each record its id, as ``entry``, the ``revision`` that was read, all its ``fields``, what is
                kept of the ``code``, and who it is changed ``by``, or None where only the latter changes.

        Returns:
            The records as they are stored.

        Raises:
            PermissionDenied: The user may not update records.
        """
        stored: list[dict[str, Any]] = []
        for part in parts(taken, WRITES_AT_ONCE):
            records = [each["entry"] for each in part]
            *_, found = self._connection.run_all(statements.TAKE_CODE, taken=list(part), entries=records)
            given = {str(each["entry"]): each for each in part}
            there = [(record, given[str(record["id"])]) for record in found or []]
            is_taken = any(record.get("code") == each["code"] for record, each in there)
            if not is_taken and any(record.get("revision") == each["revision"] for record, each in there):
                raise denied(self._settings, "update", self._table)
            stored += found or []
        return stored

    def forget_removals(self, before: datetime) -> bool:
        """Remove some of the old marks of removed entries.

        Args:
            before: Marks of entries that were removed before this go.

        Returns:
            Whether there may be more.

        Raises:
            PermissionDenied: The user may not delete marks.
        """
        *_, gone, left = self._connection.run_all(
            statements.forget_removals(self._removed), before=before, batch=WRITES_AT_ONCE
        )
        if left:
            raise denied(self._settings, "delete", self._removed)
        return bool(gone == WRITES_AT_ONCE)

    def write_plans(self, plans: Sequence[Plan]) -> None:
        """Write down the decisions of beat; those about a definition that changed since are void.

        Args:
            plans: The plans; any number.

        Raises:
            PermissionDenied: The user may not update records.
        """
        for part in parts(plans, WRITES_AT_ONCE):
            *_, stored = self._connection.run_all(
                statements.PLAN_SCHEDULES,
                plans=[plan.fields() for plan in part],
                entries=[plan.record for plan in part],
            )
            state = {str(record): (revision, digest, broken) for record, revision, digest, broken in stored or []}
            valid = [plan for plan in part if state.get(str(plan.record), (None,))[0] == plan.revision is not None]
            if valid and all(state[str(plan.record)][1:] != (plan.digest, plan.broken) for plan in valid):
                raise denied(self._settings, "update", self._table)
