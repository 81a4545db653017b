"""Clean-up: what has expired is deleted, in batches that nobody has to wait for.

What a run does, in this order:

1. tasks without an end get one: they were stored by an older version, or while results were kept for ever;
2. tasks that end later than the app's settings now say get an earlier end;
3. of a task of which a number of results is kept only, the older ones end now;
4. what has expired is deleted, in every table.

Only the last deletes. Each request deals with a bounded number of records. A run that was interrupted has done what
it has done, and the next goes on; any number of runs may go on at one time, in any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from celery.utils.log import get_logger

from ..client import surrealql
from ..client.unreadable import readable
from ..client.values import EPOCH, RecordID
from ..errors import PermissionDenied, UnreadableRecord
from . import cleanup_statements as statements
from .cleanup_plan import NEVER, Lifetimes, Newest, Report, Surveyed
from .cleanup_requests import Requests, batches

logger = get_logger(__name__)

#: How many records with all they hold are read at one time, where somebody wants to see them before they go.
WHOLE_RECORDS = 20

#: Takes records that are about to be deleted, as they are stored.
BeforeDelete = Callable[[Sequence[Mapping[str, Any]]], Any]


@dataclass
class CleanUp:
    """One run.

    Attributes:
        requests: Makes the requests.
        tasks: The full name of the table of tasks.
        tables: The full names of all tables, with what reports call them.
        lifetimes: The lifetimes of the app's settings.
        keep: Returns how many results of a task's name are kept, None for all; None where all of every name are.
        before_delete: Called with tasks before they go; those stay with which it raises.
        on_batch: Called after each batch that deleted something, and in a dry run after each that was read, with
            what is done so far.
        report: The work done so far.
    """

    requests: Requests
    tasks: str
    tables: Mapping[str, str]
    lifetimes: Lifetimes
    keep: Callable[[str], int | None] | None = None
    before_delete: BeforeDelete | None = None
    on_batch: Callable[[Report], Any] | None = None
    report: Report = field(default_factory=Report)

    def clean(self) -> Report:
        """Delete what has expired.

        Returns:
            The report of the deletions.

        Raises:
            PermissionDenied: The database user may not delete.
        """
        if self.lifetimes.any_ends:
            self._give_ends()
            self._shorten()
        if self.keep is not None:
            self._end_surplus(self.keep)
        for table in self.tables:
            self._delete(table)
        return self.report

    def count(self) -> Report:
        """Count what `clean` would delete; nothing is changed.

        Returns:
            The numbers, by table and by name. Other clients may change them meanwhile.
        """
        report = self.report = Report(dry_run=True)
        self.requests.looked_at = self._looked_at
        now: datetime = self.requests.one(surrealql.NOW)
        for table, name in self.tables.items():
            for record in self.requests.survey(table, EPOCH, now):
                report.records[name] += 1
                if table == self.tasks:
                    report.names[record.name] += 1
        for record in self._over(now):
            report.records[self.tables[self.tasks]] += 1
            report.names[record.name] += 1
        return report

    def _looked_at(self, number: int) -> None:
        self.report.looked_at += number
        if self.on_batch is not None:
            self.on_batch(self.report)

    # -- ends -----------------------------------------------------------------------------------------

    def _over(self, now: datetime) -> Iterator[Surveyed]:
        """Tasks whose end is not past, but would be moved there."""
        lifetimes, keep = self.lifetimes, self.keep
        newest = Newest(keep or (lambda _: None))
        if lifetimes.any_ends:
            for task in self.requests.survey_without_end(self.tasks):
                if task.is_over(now, lifetimes):
                    yield task
                else:
                    yield from newest.surplus([task])
        if keep is None and not lifetimes.any_ends:
            return
        start = now + lifetimes.shortest if keep is None else now
        for task in self.requests.survey(self.tasks, start, NEVER):
            if task.ends_too_late(lifetimes) and task.is_over(now, lifetimes):
                yield task
            else:
                yield from newest.surplus([task])

    def _give_ends(self) -> None:
        """Give an end to tasks without one, so that later runs need not look at them."""
        given = 0
        while True:
            done = self.requests.batch(statements.give_ends(self.tasks), **self.lifetimes.parameters)
            given += done["changed"]
            if not done["changed"] or not done["full"]:
                break
        if given:
            logger.info("clean-up: %d tasks without an end have got one", given)

    def _shorten(self) -> None:
        """Let tasks end earlier that end later than the settings now say.

        What was stored under these settings ends before the shorter of the two lifetimes has passed from now on:
        only what comes later has to be looked at.
        """
        start = self.requests.one(surrealql.NOW) + self.lifetimes.shortest
        found = self.requests.survey(self.tasks, start, NEVER)
        for tasks in batches(task for task in found if task.ends_too_late(self.lifetimes)):
            ids = [task.id for task in tasks]
            changed = self.requests.one(statements.SHORTEN, ids=ids, **self.lifetimes.parameters)
            logger.info("clean-up: %d results end earlier, as the settings now say", changed)

    def _end_surplus(self, keep: Callable[[str], int | None]) -> None:
        """Let results end of which enough newer ones are kept."""
        start = self.requests.one(surrealql.NOW)
        for tasks in batches(Newest(keep).surplus(self.requests.survey(self.tasks, start, NEVER))):
            # The database's times are finer than Python's.
            done_by = max(task.date_done for task in tasks if task.date_done) + timedelta(microseconds=1)
            self.requests.one(statements.END_NOW, ids=[task.id for task in tasks], done_by=done_by)

    # -- deleting -------------------------------------------------------------------------------------

    def _delete(self, table: str) -> None:
        """Delete what has expired in a table, in as many passes along its index as it takes.

        An index need not be read in its order: after a pass another looks for what was passed over.
        """
        while True:
            deleted, left, requests = self._pass(table)
            if left and not deleted:
                raise PermissionDenied(
                    f"the table {table!r} still has {left} records that have expired: the database user may not delete "
                    "them; docs/reliability.md has the rights that are needed"
                )
            if not deleted or requests == 1:
                return

    def _pass(self, table: str) -> tuple[int, int, int]:
        """Delete along the index once.

        Returns:
            How many records were deleted, how many could not be, and how many requests it took.
        """
        delete = self._delete_batch if self.before_delete is None or table != self.tasks else self._delete_shown
        deleted = left = requests = 0
        start = EPOCH
        while True:
            done = delete(table, start)
            requests += 1
            deleted += done["deleted"]
            left += done["left"]
            if done["deleted"]:
                self.report.records[self.tables[table]] += done["deleted"]
                if self.on_batch is not None:
                    self.on_batch(self.report)
            elif done["latest"] == start:
                return deleted, left, requests  # all that end at one moment have to stay
            if not done["full"]:
                return deleted, left, requests
            start = done["latest"]

    def _delete_batch(self, table: str, start: datetime) -> dict[str, Any]:
        return self.requests.batch(statements.delete_expired(table), start=start)

    def _delete_shown(self, table: str, start: datetime) -> dict[str, Any]:
        """Delete a batch that somebody wants to see before."""
        found = self._find_expired(table, start)
        done = {"deleted": 0, "left": 0, "latest": found["latest"], "full": found["found"] >= WHOLE_RECORDS}
        if not found["records"]:
            return done
        assert self.before_delete is not None
        try:
            self.before_delete(found["records"])
        except Exception:
            self.report.spared += len(found["records"])
            logger.exception("clean-up: %d results stay: before_delete failed", len(found["records"]))
            return done
        return {**done, **self.requests.one(statements.DELETE_FOUND, ids=found["ids"])}

    def _find_expired(self, table: str, start: datetime) -> dict[str, Any]:
        """Read a batch of what has expired, without what the server cannot send: nobody saw it, so it stays."""
        one, batch = self.requests.one, {"start": start, "batch": WHOLE_RECORDS}
        found: dict[str, Any]
        try:
            found = one(statements.find_expired(table), **batch)
        except UnreadableRecord:
            found = one(statements.find_expired(table, whole=False), **batch)
            spared: list[RecordID] = []

            def spare(record: RecordID, error: UnreadableRecord) -> None:
                spared.append(record)
                self.report.spared += 1
                logger.warning(
                    "clean-up: the record of task %r stays, before_delete cannot be shown it: forget the result, or set "
                    "the field again: %s",
                    record.id,
                    error,
                )

            replies = readable(lambda ids: one(statements.WHOLE_EXPIRED, ids=ids), found["ids"], spare)
            found["records"] = [record for reply in replies for record in reply or ()]
            found["ids"] = [record for record in found["ids"] if record not in spared]
        return found
