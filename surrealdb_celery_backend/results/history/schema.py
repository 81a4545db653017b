"""The schema, and records that the published version 0.3.0 of the package of this name wrote.

0.3.0 kept Celery's whole meta as one JSON text, its time as text, and no lifetime. Its records are found along the
index on `date_done`, where text stands apart from datetimes. Each is written anew only while it is still as it was
read, so any number of processes may migrate at once.

A chord of 0.3.0 is a counter of the parts that have come. It decides nothing: its body is sent by the task
`celery.chord_unlock`, which waits in the broker and asks for the header's results. Counters have no end that clean-up
knows, so they are deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger

from ...client.values import FIRST_ID, RecordID, records_between
from ...errors import PermissionDenied, ResultsUnavailable
from .. import statements as backend_statements
from ..indexing import build, is_complete, is_of_line_2
from ..replies import check_deleted
from . import schema_statements, statements

if TYPE_CHECKING:
    from ..backend import SurrealDBBackend

logger = get_logger(__name__)

#: How long creating an index may take, in seconds.
LONGEST = 3600.0
#: How many records one request reads and writes.
BATCH = 200


@dataclass(frozen=True)
class SchemaState:
    """The definitions in the database.

    Attributes:
        definitions: The statements that create tables and indexes.
        missing: Names of indexes that are not there.
        old_tasks: How many tasks are records of 0.3.0.
        old_groups: How many groups are.
        old_counters: How many counters of chords are.
    """

    definitions: tuple[str, ...]
    missing: tuple[str, ...]
    old_tasks: int
    old_groups: int
    old_counters: int

    @property
    def old(self) -> int:
        """How many records of 0.3.0 there are."""
        return self.old_tasks + self.old_groups + self.old_counters


@dataclass(frozen=True)
class Migrated:
    """The result of a migration.

    Attributes:
        tasks: How many tasks were written anew.
        groups: How many groups were.
        counters: How many counters of chords were deleted.
        unreadable: How many records stayed because they cannot be read.
    """

    tasks: int
    groups: int
    counters: int
    unreadable: int


class Schema:
    """Looks at the schema and brings it up to date.

    Args:
        backend: Whose tables are meant.
    """

    def __init__(self, backend: SurrealDBBackend) -> None:
        self._backend = backend
        #: The prefix of the tables' names.
        self.prefix = backend.settings.prefix
        self._task = backend.settings.table(backend_statements.TASK)
        self._group = backend.settings.table(backend_statements.GROUP)
        self._chord = backend.settings.table(backend_statements.CHORD)

    @cached_property
    def definitions(self) -> tuple[str, ...]:
        """The statements that create tables and indexes, as this server has them."""
        analyzer = (backend_statements.DEFINE_ANALYZER,) if self._has_texts else ()
        indexes = (index.text for index in self._indexes)
        return (*backend_statements.define_tables(self.prefix), *analyzer, *indexes)

    @cached_property
    def _is_of_line_2(self) -> bool:
        return is_of_line_2(self._backend.connection.run_all)

    def state(self) -> SchemaState:
        """The definitions in the database."""
        run = self._backend.connection.run_all
        missing = []
        for name in backend_statements.TABLES:
            info, _ = run(statements.describe_table(self._backend.settings.table(name)))
            there = (info or {}).get("indexes") or {}
            wanted = (index.name for index in self._indexes if index.table == name)
            missing += [index for index in wanted if not is_complete(there.get(index))]
        tasks = run(schema_statements.count_old(self._task, indexed=True))[-1] or 0
        groups = run(schema_statements.count_old(self._group, indexed=False))[-1] or 0
        counters = run(schema_statements.COUNT_OLD_COUNTERS, range=self._counters)[-1] or 0
        return SchemaState(self.definitions, tuple(missing), int(tasks), int(groups), int(counters))

    def apply(self, on_index: Callable[[str], Any] | None = None) -> None:
        """Create what is missing, while workers store results. Safe to be done by several at once.

        An index of a large table takes minutes. One whose building was interrupted is built anew.

        Args:
            on_index: Called before each index that is missing, with its name.

        Raises:
            PermissionDenied: The user may not define tables and indexes.
            ResultsUnavailable: An index took more than an hour.
            StatementFailed: The server cannot build one.
        """
        missing = set(self.state().missing)
        self._define(";".join(backend_statements.define_tables(self.prefix)))
        if missing & set(backend_statements.TEXT_INDEXES):
            self._define(backend_statements.DEFINE_ANALYZER)
        for index in self._indexes:
            if index.name in missing:
                if on_index is not None:
                    on_index(index.name)
                self._build(index)

    @cached_property
    def _has_texts(self) -> bool:
        return "text" in self._backend.settings.indexes.split(",")

    @cached_property
    def _indexes(self) -> tuple[backend_statements.Index, ...]:
        indexes = backend_statements.define_indexes(self.prefix, self._backend.settings.indexes)
        if not self._has_texts:
            return indexes
        return indexes + backend_statements.define_text_indexes(self.prefix, line_2=self._is_of_line_2)

    def _build(self, index: backend_statements.Index) -> None:
        if self._is_of_line_2:
            self._define(index.text)
            return
        deadline = time.monotonic() + LONGEST
        if not build(self._define, index, self._backend.settings.table(index.table), deadline):
            raise ResultsUnavailable(
                f"the index {index.name} was not built within {LONGEST:g} s; the server goes on with it: look again with "
                "`celery surrealdb schema`"
            )

    def _define(self, text: str) -> list[Any]:
        try:
            return self._backend.connection.run_all(text, deadline=time.monotonic() + LONGEST)
        except PermissionDenied as exc:
            raise PermissionDenied(
                f"the database user may not define tables and indexes ({exc}): run this as a user with the role "
                "EDITOR or OWNER, or let one run the statements that `celery surrealdb schema` prints"
            ) from exc

    def migrate(self, on_progress: Callable[[int], Any] | None = None) -> Migrated:
        """Write records of 0.3.0 anew. Interrupted, it is simply repeated.

        Args:
            on_progress: Called after each batch with how many were written.
        """
        tasks, bad_tasks = self._migrate(self._task, self._task_fields, True, on_progress)
        groups, bad_groups = self._migrate(self._group, self._group_fields, False, on_progress)
        return Migrated(tasks, groups, self._delete_counters(), bad_tasks + bad_groups)

    @property
    def _counters(self) -> RecordID:
        """Where counters of chords are: today's records have ids that are arrays, which come behind all texts."""
        return records_between(self._chord, FIRST_ID, [])

    def _delete_counters(self) -> int:
        deleted = 0
        run = self._backend.connection.run
        while found := run(schema_statements.OLD_COUNTERS, range=self._counters, limit=BATCH):
            check_deleted(run(backend_statements.DELETE, records=found), self._chord)
            deleted += len(found)
        return deleted

    def _migrate(
        self,
        table: str,
        make: Callable[[Any, Any, datetime], dict[str, Any]],
        indexed: bool,
        on_progress: Callable[[int], Any] | None,
    ) -> tuple[int, int]:
        written = unreadable = 0
        while True:
            rows = self._backend.connection.run(
                schema_statements.old_records(table, indexed=indexed), limit=BATCH, skip=unreadable
            )
            if not rows:
                return written, unreadable
            new = []
            for record, text, date in rows:
                try:
                    new.append({"id": record, "old": date, "fields": make(record, text, self._moment(date))})
                except Exception as exc:  # a record may hold anything: it stays as it is
                    logger.warning("a record of 0.3.0 cannot be read and stays: %s: %s", record, exc)
                    unreadable += 1
            if new:
                self._backend.connection.run_all(schema_statements.REPLACE_OLD, rows=new)
            written += len(new)
            if on_progress is not None:
                on_progress(written)

    def _moment(self, text: str) -> datetime:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=self._backend.app.timezone)).astimezone(timezone.utc)

    def _decoded(self, text: Any) -> dict[str, Any]:
        if isinstance(text, str):
            # 0.3.0 stored what is text only: JSON, or YAML.
            kind = "application/json" if text.lstrip()[:1] in ("{", "[") else "application/x-yaml"
            text = self._backend.decode_as(text, kind)
        if not isinstance(text, dict):
            raise TypeError(f"it holds {type(text).__name__}, not a result")
        return text

    def _until(self, at: datetime, *, failed: bool = False) -> dict[str, Any]:
        seconds = self._backend.failure_expires if failed else self._backend.expires
        return {"expires_at": at + timedelta(seconds=float(seconds))} if seconds else {}

    def _task_fields(self, record: Any, text: Any, at: datetime) -> dict[str, Any]:
        meta, backend = self._decoded(text), self._backend
        ready = meta["status"] in backend.READY_STATES
        fields = {
            "task_id": str(record.id),
            "status": meta["status"],
            "result": backend.encode(meta.get("result")),
            "encoding": backend.content_type,
        }
        if meta.get("traceback") is not None:
            fields["traceback"] = str(meta["traceback"])
        if ready:
            fields |= {"date_done": at, **self._until(at, failed=meta["status"] == "FAILURE")}
        return fields

    def _group_fields(self, record: Any, text: Any, at: datetime) -> dict[str, Any]:
        encoded = self._backend.encode(self._decoded(text)["result"])
        known = {"group_id": str(record.id), "result": encoded, "encoding": self._backend.content_type}
        return {**known, "date_done": at, **self._until(at)}
