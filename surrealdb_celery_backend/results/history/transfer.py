"""Export and import: all records of the tables, or the tasks that match, to a file and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from celery.utils.log import get_logger

from ...client import surrealql
from ...client.unreadable import readable
from ...client.values import FIRST_ID, RecordID, records_behind, records_between
from ...errors import InvalidArchive, StatementFailed, UnreadableRecord
from ..native import again
from ..replies import check_stored
from . import transfer_statements as statements
from .archive import Chunk, Head, Reader, Totals, chunk_bytes, end_bytes, head_bytes
from .filters import Filter
from .scanning import Runner

logger = get_logger(__name__)

#: The tables that are exported, those of tasks first.
TABLES = ("task", "group", "chord", "key", "schedule")
#: How many ids one request reads.
IDS = 5000
#: How much of encoded fields one request fetches or writes, in bytes, and how many records.
BYTES, RECORDS = 2_000_000, 500
#: Tables whose records may have values of the user's as native fields, and those fields.
NATIVE_IN, NATIVE_FIELDS = ("task", "chord"), ("result", "args", "kwargs", "children", "stamps", "meta")


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        path: The file.
        records: How many records of each table the file has.
        size: The file's size, in bytes.
        resumed: How many records an interrupted export had written before.
    """

    path: Path
    records: Mapping[str, int]
    size: int
    resumed: int


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        records: How many records of each table the file has.
        written: How many of each were written.
        expired: How many of those written had expired by the database's clock, so that nobody sees them.
        complete: Whether the file is: False where its export was interrupted.
    """

    records: Mapping[str, int]
    written: Mapping[str, int]
    expired: int
    complete: bool


#: Called with the table, how many records were looked at, and how many written.
OnTransfer = Callable[[str, int, int], Any]


class Transfer:
    """Writes and reads files of records.

    Args:
        runner: The connection that runs statements.
        prefix: The beginning of every table's name.
    """

    def __init__(self, runner: Runner, prefix: str) -> None:
        self._runner, self._prefix = runner, prefix
        self._pages = IdPages(runner)

    # -- export --------------------------------------------------------------------------------------------

    def export(
        self,
        path: Path,
        wanted: Filter,
        given: Mapping[str, Any],
        tables: Sequence[str],
        *,
        resume: bool,
        on_progress: OnTransfer | None,
    ) -> Exported:
        """Write a file.

        Args:
            path: The file.
            wanted: The tasks of interest; other tables are exported whole.
            given: The same as it was given.
            tables: Names of tables, of :data:`TABLES`.
            resume: Go on with a file whose export was interrupted; else a file that is there is an error.
            on_progress: Called after each chunk.

        Raises:
            InvalidArchive: There is a file that this cannot go on with.
        """
        head = Head(
            tuple(tables),
            {name: _shown(value) for name, value in given.items() if value is not None},
            _now().isoformat(),
        )
        totals, place, size = self._begun(path, head, resume=resume)
        before = sum(totals.counts.values())
        with path.open("r+b" if size else "xb") as file:
            file.seek(size)
            if not size:
                file.write(head_bytes(head))
            for chunk, looked_at in self._chunks(wanted, tables, place):
                file.write(chunk_bytes(chunk, totals))
                file.flush()
                if on_progress is not None:
                    on_progress(chunk.table, looked_at, totals.counts.get(chunk.table, 0))
            file.write(end_bytes(totals))
            file.flush()
            os.fsync(file.fileno())
            file.truncate()
        return Exported(path, dict(totals.counts), path.stat().st_size, before)

    def _begun(self, path: Path, head: Head, *, resume: bool) -> tuple[Totals, tuple[str, Any] | None, int]:
        """The contents of a file so far: its totals, the place behind its last chunk, and where that ends.

        Args:
            path: The file.
            head: What the export is of; a file of something else is refused.
            resume: Whether the file may be there.
        """
        if not path.exists() or path.stat().st_size == 0:
            path.unlink(missing_ok=True)
            return Totals(), None, 0
        if not resume:
            raise InvalidArchive(
                f"{path} is there already; name another file, or resume an export that was interrupted"
            )
        with path.open("rb") as file:
            reader = Reader(file, str(path))
            if (reader.head.tables, reader.head.wanted) != (head.tables, head.wanted):
                raise InvalidArchive(f"{path} is an export of something else; name another file")
            place, end = None, reader.start
            for chunk in reader:
                place, end = (chunk.table, chunk.after), chunk.end
            if reader.complete:
                raise InvalidArchive(f"{path} is complete; name another file")
            return reader.totals, place, end

    def _chunks(
        self, wanted: Filter, tables: Sequence[str], place: tuple[str, Any] | None
    ) -> Iterator[tuple[Chunk, int]]:
        started = place is None
        for table in tables:
            after: Any = FIRST_ID
            if not started:
                if place is None or table != place[0]:
                    continue
                started, after = True, place[1]
            looked_at = 0
            for rows, last in self._pages.of(self._prefix + table, wanted if table == "task" else None, after):
                looked_at += len(rows)
                batches = list(_batches([(row[0], row[2]) for row in rows if row[1]]))
                for number, batch in enumerate(batches):
                    records = [each for found in readable(self._whole, batch, _leave_out) for each in found or ()]
                    behind = last if number == len(batches) - 1 else batch[-1].id
                    yield Chunk(table, behind, [_without_table(record) for record in records]), looked_at
                if not batches and len(rows) == IDS:
                    # The place is kept even where nothing matched: a resumed export need not look again.
                    yield Chunk(table, last, []), looked_at

    def _whole(self, records: Sequence[RecordID]) -> Any:
        return self._runner.run(statements.WHOLE, records=records)

    # -- import --------------------------------------------------------------------------------------------

    def read(
        self,
        path: Path,
        *,
        replace: bool,
        expires: float | None,
        dry_run: bool,
        on_progress: OnTransfer | None,
    ) -> Imported:
        """Write the records of a file. Records that exist stay, so that an interrupted import is repeated.

        Args:
            path: The file.
            replace: Write records that are there already, too.
            expires: Let records live at least so many seconds from now; None leaves their ends as they are.
            dry_run: Only check the file.
            on_progress: Called after each chunk.

        Raises:
            InvalidArchive: The file is damaged; nothing of a damaged chunk is written.
            PermissionDenied: The user may not write.
        """
        records: dict[str, int] = {}
        written: dict[str, int] = {}
        expired = 0
        end = None
        if expires is not None and not dry_run:
            end = self._runner.run(surrealql.NOW) + timedelta(seconds=expires)
        with path.open("rb") as file:
            reader = Reader(file, str(path))
            for chunk in reader:
                if chunk.table not in TABLES:
                    raise InvalidArchive(f"{path} has records of an unknown table {chunk.table!r}")
                records[chunk.table] = records.get(chunk.table, 0) + len(chunk.records)
                if not dry_run and chunk.records:
                    new, gone = self._write(chunk, replace=replace, end=end)
                    written[chunk.table] = written.get(chunk.table, 0) + new
                    expired += gone
                if on_progress is not None:
                    on_progress(chunk.table, records[chunk.table], written.get(chunk.table, 0))
            return Imported(records, written, expired, reader.complete)

    def _write(self, chunk: Chunk, *, replace: bool, end: datetime | None) -> tuple[int, int]:
        table = self._prefix + chunk.table
        rows = []
        for record in chunk.records:
            identifier = record.get("id")
            if not isinstance(identifier, list) or len(identifier) != 1:
                raise InvalidArchive("a record has no id")
            row = {**record, "id": RecordID(table, identifier[0])}
            if chunk.table in NATIVE_IN:
                row |= {field: again(row[field]) for field in NATIVE_FIELDS if field in row}
            expires_at = row.get("expires_at")
            if end is not None and isinstance(expires_at, datetime) and expires_at < end:
                row["expires_at"] = end
            rows.append(row)
        new = gone = 0
        for place in range(0, len(rows), RECORDS):
            batch = rows[place : place + RECORDS]
            if replace:
                counts = self._replaced(batch, table)
            else:
                counts = self._runner.run(statements.insert_records(table), rows=batch)
                if not counts[0]:
                    self._check_there(batch, table)
            new, gone = new + counts[0], gone + counts[1]
        return new, gone

    def _replaced(self, rows: list[dict[str, Any]], table: str) -> Any:
        try:
            return self._runner.run(statements.REPLACE_RECORDS, rows=rows)
        except StatementFailed as exc:
            if statements.NOT_WRITTEN not in str(exc):
                raise
            check_stored((), table)

    def _check_there(self, rows: list[dict[str, Any]], table: str) -> None:
        """Nothing was written: all of it was there, or the user may not write."""
        ids = [row["id"] for row in rows]
        if not any(each is not None for each in self._runner.run(statements.THERE, records=ids) or ()):
            check_stored((), table)


class IdPages:
    """The records of a table in the order of their ids, page by page, each behind the last."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def of(self, table: str, wanted: Filter | None, after: Any) -> Iterator[tuple[list[Any], Any]]:
        """Yield pages: rows of id, whether it matches and how large its encoded fields are; and the last id.

        Args:
            table: The table's name, prefix included.
            wanted: The tasks of interest; None for all records.
            after: The id to begin behind.
        """
        text = statements.id_page(None if wanted is None else wanted.terms)
        variables: dict[str, Any] = {"limit": IDS}
        if wanted is not None:
            variables |= {**wanted.variables, "since": wanted.since, "until": wanted.until}
        while True:
            rows: list[Any] = self._runner.run(text, range=records_behind(table, after), **variables) or []
            if rows:
                after = rows[-1][0].id
                yield rows, after
            if len(rows) < IDS:
                return

    def starting_with(self, table: str, prefix: str, limit: int) -> list[str]:
        """The first ids that are text and begin with a text.

        Args:
            table: The table's name, prefix included.
            prefix: The text.
            limit: The most ids.
        """
        texts = records_between(table, prefix, prefix + "\U0010ffff")
        rows: list[Any] = self._runner.run(statements.FIND_IDS, range=texts, limit=limit) or []
        return [record.id for record in rows if isinstance(record.id, str)]


def _batches(rows: Sequence[tuple[RecordID, Any]]) -> Iterator[list[RecordID]]:
    batch: list[RecordID] = []
    size = 0
    for record, known in rows:
        # Somebody may have written anything into it.
        length = known if isinstance(known, int) and known > 0 else 0
        if batch and (size + length > BYTES or len(batch) == RECORDS):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def _leave_out(record: RecordID, error: UnreadableRecord) -> None:
    logger.warning("%s is left out of the export: %s", record, error)


def _without_table(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose id says nothing of the table, which may have another prefix where it is imported."""
    return {**record, "id": [record["id"].id]}


def _shown(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _now() -> datetime:
    return datetime.now(timezone.utc)
