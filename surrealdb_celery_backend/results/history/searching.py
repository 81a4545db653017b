"""Pages of tasks, newest first: the requests of a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ...client.surrealql import NOW
from ...client.values import EPOCH, RecordID
from ...errors import InvalidFilter, PermissionDenied
from ..indexing import is_complete
from . import statements
from .filters import Filter
from .model import Page, TaskSummary
from .paging import BEYOND, FAR, Cursor, Pace, Seen, Walk, Window
from .reading import summary
from .scanning import Runner, Scan

#: The most tasks of one page.
LONGEST_PAGE = 1000
#: How many records a window may hold, at least; four times the page if that is more.
WINDOW_LEAST = 100
#: How many records one window, and one look at tasks that have not ended, reads at most: some 100 ms.
READ_MOST = 5000
#: How many tasks that have not ended are sorted by time. Where there are more, they come in parts of so many.
UNREADY_SORTED = 2000
#: For how many seconds what indexes there are is not asked for again.
INDEXES_REMEMBERED = 60.0
#: Fields with an index that may be used, the most telling first.
INDEXED = ("root_id", "group_id", "error.type", "name", "worker", "queue", "status")


#: Called while a search goes on, with how many records were looked at and the time that it has come to.
OnProgress = Callable[[int, datetime | None], Any]


@dataclass(frozen=True)
class TableFacts:
    """Facts about the task table.

    Attributes:
        indexes: The names of indexes, by their fields; none where the user may not ask. That of `date_done`, which
            every table has, is used all the same.
        offset: The database's clock is this much ahead of ours.
        read_at: When that was asked, by the monotonic clock.
    """

    indexes: Mapping[tuple[str, ...], str]
    offset: timedelta
    read_at: float

    @classmethod
    def read(cls, runner: Runner, table: str) -> TableFacts:
        """Ask the database. A record user may not look at definitions: for it the search uses no index but one."""
        began = datetime.now(timezone.utc)
        try:
            info, now = runner.run_all(statements.describe_table(table))
        except PermissionDenied:
            info, now = None, runner.run(NOW)
        indexes: dict[tuple[str, ...], str] = {}
        for name, definition in ((info or {}).get("indexes") or {}).items():
            fields = statements.fields_of_index(str(definition))
            if fields is not None and is_complete(definition):
                indexes[fields] = name
        return cls(indexes, now - began, time.monotonic())


class Search:
    """Looks for tasks in one table.

    Args:
        runner: The connection that runs statements.
        table: The task table.
    """

    def __init__(self, runner: Runner, table: str) -> None:
        self._runner = runner
        self._table = table
        self._facts: TableFacts | None = None
        #: Kept, because it learns how the server makes a range.
        self._whole = Scan(runner, table)

    @property
    def facts(self) -> TableFacts:
        """The table's indexes and the database's time, asked for once a minute."""
        facts = self._facts
        if facts is None or time.monotonic() - facts.read_at > INDEXES_REMEMBERED:
            facts = self._facts = TableFacts.read(self._runner, self._table)
        return facts

    @property
    def now(self) -> datetime:
        """The database's time."""
        return datetime.now(timezone.utc) + self.facts.offset

    @property
    def scan(self) -> Scan | None:
        """What reads the whole table; None where an index on `date_done` alone orders it by time."""
        return None if ("date_done",) in self.facts.indexes else self._whole

    def rows(self, text: str, variables: Mapping[str, Any], most: int) -> list[Any]:
        """Read rows of tasks that have not ended, at most so many.

        Args:
            text: The statement, one with a limit.
            variables: Its parameters.
            most: The limit.
        """
        scan = self.scan
        if scan is None:
            return self._runner.run(text, **variables, limit=most) or []
        found: list[Any] = []
        for _, rows in scan.pages(text, variables):
            found += rows or ()
            if len(found) >= most:
                break
        return found[:most]

    def unready_rows(self, text: str, variables: Mapping[str, Any], page: int) -> Iterator[list[Any]]:
        """Yield rows of tasks that have not ended.

        Args:
            text: The statement, one with a limit.
            variables: Its parameters.
            page: How many rows one request reads.
        """
        scan = self.scan
        if scan is not None:
            for _, rows in scan.pages(text, variables):
                yield rows or []
            return
        skip = 0
        while True:
            rows = self._runner.run(text, **variables, limit=page, skip=skip) or []
            yield rows
            skip += len(rows)
            if len(rows) < page:
                return

    def page(
        self,
        wanted: Filter,
        limit: int,
        after: str | None = None,
        *,
        max_scanned: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Page:
        """Find one page.

        Args:
            wanted: The filter.
            limit: How many tasks, at most :data:`LONGEST_PAGE`.
            after: The `after` of the page before.
            max_scanned: Stop when so many records were looked at; None looks until the page is full.
            on_progress: Called after each request.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LONGEST_PAGE:
            raise InvalidFilter(f"limit must be a number from 1 to {LONGEST_PAGE}, not {limit!r}")
        cursor = None if after is None else Cursor.read(after)
        looking = _Looking(self._runner, self._table, wanted, limit, max_scanned, on_progress)
        index = self._index(wanted)
        scan = self.scan if index is None or wanted.unready else None
        if wanted.unready and (cursor is None or not cursor.ready):
            if scan is None:
                looking.unready(cursor)
            else:
                looking.scan(scan, statements.find_unready(self._table, wanted.terms), cursor)
            cursor = None
        if wanted.ready and not looking.done:
            if scan is None or index is not None:
                looking.ready(cursor, self._walk(wanted, cursor, limit, max_scanned), index)
            else:
                looking.scan(scan, statements.find_in_crowd(self._table, wanted.terms), cursor)
        return looking.page()

    def _walk(self, wanted: Filter, cursor: Cursor | None, limit: int, max_scanned: int | None) -> Walk:
        newest = wanted.until
        # One request reads no more than the search may look at.
        most = READ_MOST if max_scanned is None else min(READ_MOST, max(WINDOW_LEAST, max_scanned))
        if cursor is not None and cursor.at is not None:
            at = cursor.at + timedelta(microseconds=1)
            newest = at if newest is None else min(newest, at)
        limit = min(most, max(WINDOW_LEAST, 4 * limit))
        pace = Pace(0.0, limit)
        if cursor is not None and cursor.pace is not None:
            pace = Pace(cursor.pace.density, min(most, max(WINDOW_LEAST, cursor.pace.limit)))
        return Walk(self.now, newest, wanted.since, pace=pace, most=most)

    def _index(self, wanted: Filter) -> tuple[str, str] | None:
        """The field and the name of the index that leads to the fewest records; None for that of `date_done`."""
        for field in INDEXED:
            name = self.facts.indexes.get((field, "date_done")) if field in wanted.equal else None
            if name is not None:
                return field, name
        return None


def unready_by_id(
    runner: Runner, table: str, task_ids: Sequence[str], terms: tuple[str, ...], variables: Mapping[str, Any]
) -> dict[str, TaskSummary]:
    """Read tasks that had not ended a moment ago. One that has ended meanwhile stands among those that have.

    Args:
        runner: The connection that runs statements.
        table: The table's name, prefix included.
        task_ids: Their ids.
        terms: The terms of the condition: keys of `statements.TERMS`.
        variables: The parameters of the terms.

    Returns:
        Those that still match and have not ended, by their ids.
    """
    records = [RecordID(table, task_id) for task_id in task_ids]
    found = map(summary, runner.run(statements.matching(terms), **variables, records=records) or ())
    return {task.id: task for task in found if task.date_done is None}


class _Looking:
    """One page that is being looked for."""

    def __init__(
        self,
        runner: Runner,
        table: str,
        wanted: Filter,
        limit: int,
        max_scanned: int | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._runner, self._table, self._filter, self._limit = runner, table, wanted, limit
        self._max_scanned = float("inf") if max_scanned is None else max_scanned
        self._on_progress = on_progress
        self._tasks: list[TaskSummary] = []
        self._scanned = 0
        self._pace: Pace | None = None
        self._skip = 0
        #: Where the search stopped before its end, if it did.
        self._stopped: Cursor | None = None

    @property
    def done(self) -> bool:
        """Whether there is one task more than the page has, or the search was stopped."""
        return len(self._tasks) > self._limit or self._stopped is not None

    @property
    def _missing(self) -> int:
        return self._limit + 1 - len(self._tasks)

    def page(self) -> Page:
        tasks = tuple(self._tasks[: self._limit])
        after = None
        if len(self._tasks) > self._limit:
            last = tasks[-1]
            after = str(Cursor(_listed_at(last), last.id, last.date_done is not None, self._pace, self._skip))
        elif self._stopped is not None:
            after = str(self._stopped)
        return Page(tasks, after, len(self._tasks) > self._limit or self._stopped is None, self._scanned)

    def _progress(self, read: int, at: datetime | None) -> None:
        self._scanned += read
        if self._on_progress is not None:
            self._on_progress(self._scanned, at)

    def _variables(self, cursor: Cursor | None) -> dict[str, Any]:
        return {
            **self._filter.variables,
            "wanted": self._missing,
            "cursor_at": None if cursor is None else cursor.at or EPOCH,
            "cursor_id": None if cursor is None else cursor.task_id,
        }

    # -- tasks that have not ended ---------------------------------------------------------------------

    def unready(self, cursor: Cursor | None) -> None:
        """Find tasks that have not ended; where there are very many, part by part."""
        self._skip = 0 if cursor is None else cursor.skip
        text = statements.unready_places(self._table, self._filter.terms)
        while True:
            rows = self._runner.run(
                text,
                **self._filter.variables,
                limit=UNREADY_SORTED,
                skip=self._skip * UNREADY_SORTED,
                begin=EPOCH,
            )
            read = len(rows or ())
            self._read_newest([(at, task_id) for at, task_id, hit in rows or () if hit], cursor)
            self._progress(read, None)
            if self.done or read < UNREADY_SORTED:
                return
            self._skip += 1
            cursor = None
            if self._scanned >= self._max_scanned:
                self._stopped = Cursor(FAR, "", ready=False, skip=self._skip)
                return

    def _read_newest(self, places: list[tuple[datetime, str]], cursor: Cursor | None) -> None:
        """Read the newest of some tasks that have not ended, as many as are missing."""
        since, until = self._filter.since, self._filter.until
        if since is not None:
            places = [each for each in places if each[0] == EPOCH or each[0] >= since]
        if until is not None:
            places = [each for each in places if EPOCH < each[0] < until]
        if cursor is not None:
            places = [each for each in places if each < (cursor.at or EPOCH, cursor.task_id)]
        places.sort()
        while places and self._missing > 0:
            newest = places[-self._missing :]
            del places[-len(newest) :]
            ids = [task_id for _, task_id in newest]
            tasks = unready_by_id(self._runner, self._table, ids, self._filter.terms, self._filter.variables)
            self._tasks += [tasks[task_id] for _, task_id in reversed(newest) if task_id in tasks]

    # -- without an index ------------------------------------------------------------------------------

    def scan(self, scan: Scan, text: str, cursor: Cursor | None) -> None:
        """Find tasks in the whole table: all of it is read for each page, and the newest are kept.

        Args:
            scan: Reads the table.
            text: The statement for each of its pages.
            cursor: Where the page of tasks before ended.
        """
        since, until = self._filter.since, self._filter.until
        start, end = since or EPOCH, until or FAR
        variables = self._variables(cursor) | {
            "begin": EPOCH,
            "since": since,
            "until": until,
            "start": start,
            "end": end,
            "index_start": max(EPOCH, start - BEYOND),
            "index_end": end,
        }
        best: list[TaskSummary] = []
        for read, found in scan.pages(text, variables):
            best += [summary(fields) for fields in found[1] or ()]
            best.sort(key=lambda task: (_listed_at(task), task.id), reverse=True)
            del best[self._missing :]
            self._progress(read, None)
        self._tasks += best

    # -- tasks that have ended -------------------------------------------------------------------------

    def ready(self, cursor: Cursor | None, walk: Walk, index: tuple[str, str] | None) -> None:
        """Find tasks that have ended, window by window.

        Args:
            cursor: Where the page of tasks before ended.
            walk: Chooses the windows.
            index: A field whose value is known, and the index of it and `date_done`; None for the index of that alone.
        """
        field, name = index or (None, None)
        while not walk.over and not self.done:
            windows = walk.windows()
            text = statements.find_in_windows(self._table, self._filter.terms, len(windows), field, name)
            variables = self._variables(cursor) | {"limit": walk.pace.limit}
            if field is not None:
                variables["equal"] = self._filter.equal[field]
            for number, window in enumerate(windows):
                start, end = self._exact(window)
                variables |= {
                    f"start{number}": start,
                    f"end{number}": end,
                    f"index_start{number}": window.index_start,
                    f"index_end{number}": window.index_end,
                }
            reply: Any = self._runner.run(text, **variables) or ([[0, None, []]] * len(windows), [])
            answers, rows = reply
            tasks = {task.id: task for task in map(summary, rows or ())}
            seen = [Seen(read, last, len(found)) for read, last, found in answers]
            whole, crowded = walk.advance(windows, seen, self._missing)
            self._pace = walk.pace
            for _, _, found in answers[:whole]:
                # One that was deleted a moment ago has no summary any more.
                self._tasks += [tasks[task_id] for task_id in map(str, found) if task_id in tasks]
            self._progress(sum(each.read for each in seen), windows[max(0, whole - 1)].start)
            if crowded is not None and not self.done:
                self._tasks += self._crowd(cursor, crowded)
            if not self.done and self._scanned >= self._max_scanned and not walk.over:
                self._stopped = Cursor(walk.end, "", ready=True, pace=walk.pace)

    def _exact(self, window: Window) -> tuple[datetime, datetime]:
        """A window as it is compared, with the filter's own bounds."""
        since, until = self._filter.since, self._filter.until
        start = window.start if since is None else max(window.start, since)
        return start, window.end if until is None else min(window.end, until)

    def _crowd(self, cursor: Cursor | None, window: Window) -> list[TaskSummary]:
        """All of a window that holds more than a request may read: request by request, the newest are kept."""
        text = statements.find_in_crowd(self._table, self._filter.terms)
        start, end = self._exact(window)
        best: list[TaskSummary] = []
        skip = 0
        while True:
            read, found = self._runner.run(
                text,
                **self._variables(cursor),
                limit=READ_MOST,
                skip=skip,
                start=start,
                end=end,
                index_start=window.index_start,
                index_end=window.index_end,
            ) or (0, [])
            best += [summary(fields) for fields in found or ()]
            best.sort(key=lambda task: (_listed_at(task), task.id), reverse=True)
            del best[self._missing :]
            skip += read
            self._progress(read, window.start)
            if read < READ_MOST:
                return best


def _listed_at(task: TaskSummary) -> datetime:
    return task.at or EPOCH
