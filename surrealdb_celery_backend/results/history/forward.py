"""Reading records in the order in which their tasks ended, page by page along the index on `date_done`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from .paging import FAR, Window, second_after, whole_second
from .scanning import Runner, Scan

#: How many records one request reads.
PAGE = 5000


class Forward:
    """Rows of records, oldest first, in lists of at most :data:`PAGE`; each row's first value is its time.

    Within a second an index has an order of its own (`paging.py`), so a page goes on where the last whole second of
    the page before began, and what that second had is read again.

    Args:
        runner: The connection that runs statements.
        text: The statement. Its parameters are index_start, index_end, limit and skip, besides the variables.
        variables: Its other parameters.
        since: Only what is not before this time.
        until: Only what is before this time.
        scan: Reads the whole table, in no order, where there is no index; None along the index.
    """

    def __init__(
        self,
        runner: Runner,
        text: str,
        variables: Mapping[str, Any],
        since: datetime,
        until: datetime,
        *,
        page: int | None = None,
        scan: Scan | None = None,
    ) -> None:
        self._scan = scan
        self._runner, self._text, self._variables, self._page = runner, text, variables, page or PAGE
        self._since, self._until = since, until
        #: How many rows were read so far.
        self.read = 0
        #: The time of the latest row that was read.
        self.at = since

    def __iter__(self) -> Iterator[list[Any]]:
        start, end = whole_second(self._since), second_after(self._until)
        if self._scan is not None:
            window = Window(start, end)
            bounds = {"index_start": window.index_start, "index_end": window.index_end}
            for _, rows in self._scan.pages(self._text, {**self._variables, **bounds}):
                yield self._taken(sorted(rows or (), key=lambda row: row[0]))
            return
        while start < end:
            rows = self._rows(Window(start, end), 0)
            full = len(rows) >= self._page
            last = whole_second(max(row[0] for row in rows)) if full else end
            if full and last <= start:
                # More than a page in one second.
                yield from self._crowd(start)
                start = second_after_that(start)
            else:
                yield self._taken([row for row in rows if start <= row[0] < last])
                start = last

    def _crowd(self, second: datetime) -> Iterator[list[Any]]:
        window = Window(second, second_after_that(second))
        skip = 0
        while True:
            rows = self._rows(window, skip)
            yield self._taken([row for row in rows if window.start <= row[0] < window.end])
            skip += len(rows)
            if len(rows) < self._page:
                return

    def _taken(self, rows: list[Any]) -> list[Any]:
        taken = [row for row in rows if self._since <= row[0] < self._until]
        self.read += len(taken)
        self.at = max((row[0] for row in taken), default=self.at)
        return taken

    def _rows(self, window: Window, skip: int) -> list[Any]:
        found: list[Any] | None = self._runner.run(
            self._text,
            **self._variables,
            index_start=window.index_start,
            index_end=window.index_end,
            limit=self._page,
            skip=skip,
        )
        return found or []


def second_after_that(second: datetime) -> datetime:
    """The whole second after one."""
    return FAR if second >= FAR else second_after(second.replace(microsecond=1))
