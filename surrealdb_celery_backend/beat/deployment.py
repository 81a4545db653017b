"""The code's entries and the table's, brought together when a beat becomes active."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery import Celery
from celery.utils.log import get_logger

from ..client.values import RecordID
from ..errors import InvalidSchedule
from . import statements
from .agenda import Agenda
from .clock import Clock
from .entry import ScheduleEntry
from .in_code import Code, app_name, checked_entries, code_entries, knows_task
from .records import fields_of, firing_id, record_name
from .said import SAID, is_of_another_app, said, said_of, taken
from .store import EntryStore
from .zones import app_zone

logger = get_logger("celery.beat")


@dataclass(frozen=True)
class Merge:
    """The changes to make to the table.

    Attributes:
        kept: The records that stay.
        removed: The records that code put there and does not have any more.
        added: The records of entries that are new in the code.
    """

    kept: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    added: list[dict[str, Any]]


def merge(
    records: list[dict[str, Any]],
    code: Code,
    new_record: Callable[[ScheduleEntry], dict[str, Any]],
    record_id: Callable[[str], RecordID],
    app_name: str | None = None,
) -> Merge:
    """Compare the table with the code: what is in both stays as the table has it.

    Args:
        records: The table.
        code: The entries of the code.
        new_record: Makes the record of an entry.
        record_id: Makes the id of the record of a name.
        app_name: The name of the app; what the code of another one put there stays.
    """
    removed = [record for record in records if _is_gone(record, code, app_name)]
    gone = {str(record["id"]) for record in removed}
    kept = [record for record in records if str(record["id"]) not in gone]
    stored = {record_name(record) for record in kept}
    taken = {str(record["id"]) for record in kept}
    added = [new_record(entry) for name, entry in code.entries.items() if name not in stored]
    for name, mistake in code.mistakes.items():
        if name not in stored:
            added.append({"id": record_id(name), "name": name, "source": "code", "broken": mistake})
    for record in added:
        if str(record["id"]) in taken:  # by an entry that somebody renamed
            record["id"] = record_id(str(uuid.uuid4()))
    return Merge(kept, removed, added)


def _is_gone(record: Mapping[str, Any], code: Code, app_name: str | None) -> bool:
    name = record_name(record)
    if record.get("source") != "code":
        return False
    if name in code.entries:
        # A stand-in of when code got it wrong.
        return record.get("task") is None and record.get("schedule") is None
    return name not in code.mistakes and not is_of_another_app(record, app_name)


def _is_edited(change: Mapping[str, Any], stored: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a change was not written because the record is another one by now."""
    record = stored.get(str(change["entry"]))
    return record is not None and record.get(SAID) != change["code"] and record.get("revision") != change["revision"]


class Deployment:
    """Brings the table in line with the code.

    Args:
        app: The Celery app.
        agenda: The agenda, which is told the code.
        store: The table.
        clock: The clock that beat goes by.
        code_wins: Whether code overrides changes in the database.
        defaults: Returns the entries that Celery itself adds to those of the code, as in `beat_schedule`.
    """

    def __init__(
        self,
        app: Celery,
        agenda: Agenda,
        store: EntryStore,
        clock: Clock,
        defaults: Callable[[Code], Mapping[str, Any]],
        *,
        code_wins: bool = False,
    ) -> None:
        self._app = app
        self._agenda = agenda
        self._store = store
        self._clock = clock
        self._defaults = defaults
        self._code_wins = code_wins
        self._app_name = app_name(app)

    def bring_in_line(self) -> list[dict[str, Any]]:
        """Add what is new in the code and remove what is gone from it.

        Returns:
            The records of the table afterwards.

        Raises:
            InvalidSchedule: `beat_schedule` is no dict.
        """
        records = self._store.load()
        code = code_entries(self._app)
        code.entries.update(checked_entries(self._defaults(code), app_zone(self._app)).entries)
        self._agenda.code = code
        merged = merge(records, code, self._new_record, self._store.record, self._app_name)
        self._report_foreign(merged, code)
        # First, because what is new may have the id of what goes.
        if merged.removed:
            self._store.remove([record["id"] for record in merged.removed])
        added = self._store.insert(merged.added)
        for record in merged.removed:
            if record_name(record) in code.entries:
                continue
            logger.info("beat: entry %r is removed: code has it no more", record_name(record))
            if self._app_name is not None and said_of(record) and said_of(record).get("app") is None:
                logger.error(
                    "beat: entry %r was put here by the code of an app without a name: if that is another project, "
                    "give each its name and a surrealdb_table_prefix or a surrealdb_database of its own",
                    record_name(record),
                )
        for record in added:
            logger.info("beat: entry %r of the code is added", record_name(record))
        return self._with_new_code(merged.kept, code) + added

    def _report_foreign(self, merged: Merge, code: Code) -> None:
        """Say that the entries of another project are here, too."""
        foreign = [record for record in merged.kept if is_of_another_app(record, self._app_name)]
        foreign = [record for record in foreign if record_name(record) not in code.entries]
        if foreign:
            apps = sorted({str(said_of(record)["app"]) for record in foreign})
            logger.error(
                "beat: %d entries, such as %r, were put here by the code of another app, %s, and are neither run nor "
                "removed by this one, %r: give each project a surrealdb_table_prefix or a surrealdb_database of its "
                "own; if the app was renamed, remove them by `schedule remove NAME --force`",
                len(foreign),
                record_name(foreign[0]),
                ", ".join(map(repr, apps)),
                self._app_name,
            )

    def _report_taken_over(self, record: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        """Say that the code of another project has an entry of the same name, and another one."""
        if is_of_another_app(record, self._app_name) and said_of(record).get("digest") != kept["digest"]:
            logger.error(
                "beat: entry %r was put here by the code of another app, %r, which has it otherwise, and is from now "
                "on that of this one, %r: give each project a surrealdb_table_prefix or a surrealdb_database of its own",
                record_name(record),
                said_of(record)["app"],
                self._app_name,
            )

    def _with_new_code(self, records: list[dict[str, Any]], code: Code) -> list[dict[str, Any]]:
        """Have records of the code take what is new in it, unless somebody edited them in the database."""
        changes = []
        for record in records:
            entry = code.entries.get(record_name(record))
            if entry is None or record.get("source") != "code":
                continue
            wanted = fields_of(entry)
            kept = said(wanted, self._app_name)
            self._report_taken_over(record, kept)
            fields = taken(record, wanted, code_wins=self._code_wins, knows=partial(knows_task, self._app))
            if fields:
                told = ", ".join(f"{name} {record.get(name)!r} -> {value!r}" for name, value in sorted(fields.items()))
                logger.info("beat: entry %r follows the code: %s", entry.name, told)
            elif said_of(record).get("digest") not in (None, kept["digest"]):
                logger.info("beat: entry %r was edited in the database, so new code does not change it", entry.name)
            if fields or said_of(record) != kept:
                whole = {name: {**record, **fields}.get(name) for name in statements.SCHEDULE_FIELDS}
                by = "code" if fields else None
                read = {"entry": record["id"], "revision": record.get("revision")}
                changes.append({**read, "fields": whole, "code": kept, "by": by})
        stored = {str(record["id"]): record for record in self._store.take_code(changes)}
        records = [stored.get(str(record["id"]), record) for record in records]
        # Somebody edited one of them between being read and being written: what the code has for it is seen to again.
        return self._with_new_code(records, code) if any(_is_edited(each, stored) for each in changes) else records

    def _new_record(self, entry: ScheduleEntry) -> dict[str, Any]:
        now = self._clock.now()
        fields = fields_of(entry)
        record = {
            **fields,
            SAID: said(fields, self._app_name),
            "id": self._store.record(entry.name),
            "changed_at": now,
            "edited_by": "code",
            "revision": firing_id(self._store.whole_name, entry.name, now),
        }
        try:
            due = self._agenda.first_due(entry, now)
        except InvalidSchedule:
            return record  # without a plan: it is marked as broken when it is taken in
        planned = {"next_run_at": due, "plan": entry.plan(app_zone(self._app))}
        return record | {name: value for name, value in planned.items() if value is not None}
