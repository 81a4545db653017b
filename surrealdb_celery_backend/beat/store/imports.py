"""Imports of any number of entries, in pieces whose outcome is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import errors
from ...client.connection import Connection
from ...client.values import RecordID
from ...settings import Settings
from .. import statements
from .entries import EntryStore
from .parts import parts
from .rights import denied

#: Entries imported in one request, whole or not at all.
IMPORT_AT_ONCE = 250

#: How often one piece is sent whose outcome is not known.
ATTEMPTS = 3

#: The fields that an import leaves as they are in a record that is there already.
LEFT_ALONE = ("name", "source")


@dataclass(frozen=True)
class Imported:
    """An entry to be imported.

    Attributes:
        name: Its name.
        record: The id of its record.
        fields: Its definition.
        is_new: Whether the record is added, not changed.
    """

    name: str
    record: RecordID
    fields: Mapping[str, Any] = field(repr=False)
    is_new: bool = True

    def is_stored(self, record: Mapping[str, Any] | None) -> bool:
        """Return whether a record has the fields of this entry.

        Args:
            record: The record as it is stored, or None.
        """
        compared = [name for name in statements.SCHEDULE_FIELDS if self.is_new or name not in LEFT_ALONE]
        return record is not None and all(record.get(name) == self.fields.get(name) for name in compared)


class Importer:
    """Writes entries in pieces, each in one transaction.

    Args:
        connection: The session to use.
        entries: The table of the entries.
        settings: The names of the tables, and of the user.
    """

    def __init__(self, connection: Connection, entries: EntryStore, settings: Settings) -> None:
        self._connection = connection
        self._entries = entries
        self._settings = settings
        self._table = settings.table(statements.SCHEDULE)

    def run(self, wanted: Sequence[Imported], *, by: str) -> None:
        """Import entries.

        Args:
            wanted: The entries; any number. Up to 250 are written whole or not at all.
            by: The name of the person or program that imports them.

        Raises:
            ImportIncomplete: Some pieces are written and the rest is not. The message says how many.
            SurrealDBBackendError: Nothing is written.
        """
        done = 0
        for part in parts(wanted, IMPORT_AT_ONCE):
            try:
                self._import(part, by)
            except errors.SurrealDBBackendError as error:
                if done == 0:
                    raise
                raise errors.ImportIncomplete(
                    f"{done} of {len(wanted)} entries are imported, up to {wanted[done - 1].name!r}; the others are "
                    f"not ({error}): import the file again, with replace"
                ) from error
            done += len(part)

    def _import(self, part: Sequence[Imported], by: str) -> None:
        failure: errors.SurrealDBBackendError | None = None
        for _ in range(ATTEMPTS):
            try:
                self._write(part, by)
                failure = None
            except (errors.TransientError, errors.RecordExists, errors.StatementFailed) as error:
                # It may have been written all the same, and be there already when it was sent again.
                failure = error
            stored = {str(record["id"]): record for record in self._entries.fetch([each.record for each in part])}
            are_stored = [each.is_stored(stored.get(str(each.record))) for each in part]
            # Without a failure a single one tells: others may have been edited meanwhile.
            if all(are_stored) or (failure is None and any(are_stored)):
                return
            if failure is None:
                is_create = any(each.is_new and str(each.record) not in stored for each in part)
                raise denied(self._settings, "create" if is_create else "update", self._table)
            if not isinstance(failure, errors.TransientError):
                break
        assert failure is not None
        raise failure

    def _write(self, part: Sequence[Imported], by: str) -> None:
        self._connection.run_all(
            statements.import_schedules(self._table),
            added=[{**each.fields, "id": each.record} for each in part if each.is_new],
            changed=[{"entry": each.record, "fields": each.fields} for each in part if not each.is_new],
            by=by,
        )
