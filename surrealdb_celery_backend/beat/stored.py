"""The schedule entries as they are stored, for programs that look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any

from celery import Celery

from ..client.connection import Connection
from ..errors import InvalidSchedule, ScheduleNotFound
from .entry import ScheduleEntry
from .in_code import code_entries, settings_of
from .records import entry_of, record_name
from .store import Firing, Store
from .wording import nearest
from .zones import app_zone, wall_time

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class StoredSchedule:
    """A record of the table, whether or not it makes an entry.

    Args:
        name: The entry's name.
        record: The record as it is stored.
        entry: The entry, or `None` if the record is none.
        broken: Why it does not run, or `None`.
    """

    name: str
    record: Mapping[str, Any]
    entry: ScheduleEntry | None
    broken: str | None


@dataclass(frozen=True)
class ActiveBeat:
    """The beat that runs the entries.

    Args:
        host: The name of its host.
        process: Its process id.
    """

    host: str
    process: int


class StoredSchedules:
    """The reading half of :class:`~surrealdb_celery_backend.beat.Schedules`.

    Args:
        app: The Celery app; its `surrealdb_*` settings say where the entries are.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        #: The zone of entries that name none.
        self.zone = app_zone(app)
        settings = settings_of(app)
        self._store = Store(Connection(settings.options), settings)
        self._entries = self._store.entries
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

    @property
    def request_count(self) -> int:
        """Round trips made so far."""
        return self._store.request_count

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def stored(self) -> list[StoredSchedule]:
        """Return every record, also those that make no entry, in the order of their names."""
        self._store.define()
        return sorted((self._stored(record) for record in self._entries.load()), key=lambda each: each.name)

    def entries(self) -> list[ScheduleEntry]:
        """Return the entries, in the order of their names; not the records that make none."""
        return [each.entry for each in self.stored() if each.entry is not None]

    def get(self, name: str) -> ScheduleEntry:
        """Return one entry.

        Args:
            name: The entry's name.

        Raises:
            ScheduleNotFound: There is none of that name.
            InvalidSchedule: Its record makes no entry; the message says why.
        """
        return self._entry(self.find(name))

    def find(self, name: str) -> StoredSchedule:
        """Return one record, also if it makes no entry.

        Args:
            name: The entry's name.

        Raises:
            ScheduleNotFound: There is none of that name.
        """
        self._store.define()
        found = self._find([name])
        if name in found:
            return self._stored(found[name])
        stored = {each.name: each for each in self.stored()}
        if name in stored:  # made by hand, with an id that is no text
            return stored[name]
        raise ScheduleNotFound(f"there is no schedule entry {name!r}{nearest(name, tuple(stored))}")

    def next_runs(self, entry: ScheduleEntry, count: int = 5) -> list[datetime]:
        """Return when the next runs of an entry are sent.

        Args:
            entry: The entry.
            count: How many runs at most.

        Returns:
            Aware datetimes, in the entry's time zone, else the app's.
        """
        zone = entry.zone(self.zone)
        now = datetime.now(timezone.utc)
        return [wall_time(due, zone) for due in entry.next_runs(count, now, self.zone)]

    def firings(self, name: str | None = None, *, limit: int = 50) -> list[Firing]:
        """Return the last runs of an entry, or of all, the latest due first.

        Beat keeps them for an hour. Tasks keep the name of the entry that sent them for as long as their results live:
        `Results.find(periodic=name)`.

        Args:
            name: The entry's name, also of one that was removed; `None` for all entries.
            limit: How many at most.
        """
        self._store.define()
        return self._store.claims.firings(name, self._store.now(), limit)

    def active_beat(self) -> ActiveBeat | None:
        """Return the beat that runs the entries, or `None` if none does."""
        self._store.define()
        row = self._store.leases.read().row
        return ActiveBeat(row.host, row.process) if row is not None and row.left > 0 else None

    # -- inside -----------------------------------------------------------------------------------

    def _in_code(self) -> dict[str, ScheduleEntry]:
        if self._code is None:
            self._code = code_entries(self.app).entries
        return self._code

    def _find(self, names: list[str]) -> dict[str, dict[str, Any]]:
        return self._entries.find(names).by_name

    def _stored(self, record: Mapping[str, Any]) -> StoredSchedule:
        name = record_name(record)
        try:
            entry = entry_of(record, self.zone, self._in_code().get(name))
        except InvalidSchedule as error:
            return StoredSchedule(name, record, None, record.get("broken") or str(error))
        if entry.finished and entry.planned != entry.plan(self.zone):
            entry = entry.changed(finished=False)  # somebody changed it since, and beat has yet to look
        return StoredSchedule(name, record, entry, entry.broken)

    @staticmethod
    def _entry(stored: StoredSchedule) -> ScheduleEntry:
        if stored.entry is None:
            raise InvalidSchedule(f"{stored.name!r} is broken: {stored.broken}")
        return stored.entry
