"""Checks that an entry alone cannot make: whether the app knows its task, and whether it is ever due."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timezone, tzinfo

from celery import Celery

from ..errors import InvalidSchedule
from .entry import ScheduleEntry
from .in_code import check_task
from .records import check_storable

#: The fields from which due times follow: a change of one has an entry run again that had ended.
TIMING_FIELDS = (
    "schedule",
    "timezone",
    "active",
    "one_off",
    "start_time",
    "expires_at",
    "max_runs",
    "run_at_once",
    "total_run_count",
)


class EntryChecks:
    """Checks entries before they are written.

    Args:
        app: The Celery app.
        zone: The app's zone.
        check_tasks: Whether the app has to know an entry's task.
    """

    def __init__(self, app: Celery, zone: tzinfo, *, check_tasks: bool) -> None:
        self._app = app
        self._zone = zone
        self._check_tasks = check_tasks

    def new(self, entry: ScheduleEntry) -> ScheduleEntry:
        """Check an entry that is to be added.

        Args:
            entry: The entry.

        Returns:
            The entry with an offset to each of its times.

        Raises:
            InvalidSchedule: It cannot be stored, its task is unknown, or it would never be due.
        """
        entry = entry.localized(self._zone)
        check_storable(entry, self._zone)
        self.changed(entry, (*TIMING_FIELDS, "task"))
        return entry

    def all_new(self, entries: Iterable[ScheduleEntry]) -> list[ScheduleEntry]:
        """Check entries that are to be added together.

        Args:
            entries: Any number of them.

        Returns:
            The entries with an offset to each of their times.

        Raises:
            InvalidSchedule: One is wrong, or two have one name; the message names it.
        """
        checked: dict[str, ScheduleEntry] = {}
        for entry in entries:
            if entry.name in checked:
                raise InvalidSchedule(f"name {entry.name!r} is given twice")
            try:
                checked[entry.name] = self.new(entry)
            except InvalidSchedule as error:
                raise InvalidSchedule(f"{entry.name!r}: {error}") from error
        return list(checked.values())

    def changed(self, entry: ScheduleEntry, fields: Collection[str]) -> None:
        """Check an entry that was changed, as far as the change goes.

        Args:
            entry: The entry as it will be.
            fields: The names of the fields that are changed.

        Raises:
            InvalidSchedule: A change is wrong.
        """
        if self._check_tasks and ("task" in fields or ("active" in fields and entry.active)):
            check_task(self._app, entry.task)
        if not entry.active or entry.is_finished or entry.finished or not any(name in fields for name in TIMING_FIELDS):
            return
        is_planned = entry.next_run_at is not None and entry.planned == entry.plan(self._zone)
        if not is_planned and not entry.next_runs(1, datetime.now(timezone.utc), self._zone):
            raise InvalidSchedule("schedule is never due any more: its time has passed")
