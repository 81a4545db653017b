"""The requests of clean-up, each of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from ..client.values import FIRST_ID, records_behind
from ..errors import RequestTimedOut, UnreadableRecord
from . import cleanup_statements as statements
from .cleanup_plan import BatchSize, Surveyed

Value = TypeVar("Value")

#: How many records are looked at in one request that deletes nothing.
SURVEY = 1_000
#: How many records one request reads in the order of their ids.
PAGE_OF_IDS = 5_000


class Run(Protocol):
    """Runs statements: a connection's `run`."""

    def __call__(self, text: str, /, **variables: Any) -> Any:
        """Return the value of the last statement."""


def _tell_nobody(_: int) -> None:
    """Nobody follows."""


@dataclass
class Requests:
    """Makes the requests of one run of clean-up.

    Attributes:
        run: Runs statements.
        retry: Calls a function, again where it failed in a way that passes.
        looked_at: Called with the number of records after each request that reads some and deletes none.
    """

    run: Run
    retry: Callable[[Callable[[], Any]], Any]
    looked_at: Callable[[int], Any] = _tell_nobody
    _size: BatchSize = field(default_factory=BatchSize)

    def one(self, text: str, **variables: Any) -> Any:
        """Run a statement.

        Args:
            text: The statement.
            **variables: Its parameters.

        Returns:
            Its value.
        """
        return self.retry(lambda: self.run(text, **variables))

    def batch(self, text: str, **variables: Any) -> dict[str, Any]:
        """Run a statement on as many records as the database deals with in a moment.

        Args:
            text: A statement whose parameter `batch` is a number of records.
            **variables: Its other parameters.

        Returns:
            Its value; `full` in it says whether it found as many as it was to.
        """

        def once() -> dict[str, Any]:
            batch = self._size.records
            try:
                done: dict[str, Any] = self.run(text, batch=batch, **variables)
            except RequestTimedOut:
                self._size.timed_out()
                raise
            self._size.took(done["found"], done["millis"])
            return {**done, "full": done["found"] >= batch}

        found: dict[str, Any] = self.retry(once)
        return found

    def survey(self, table: str, start: datetime, until: datetime) -> Iterator[Surveyed]:
        """Read records that end in a time, in the order of the index.

        That is the order of time, but for ends on a whole second, which the database's clock does not give: one that
        a person wrote may be left out.

        Args:
            table: The full name of a table.
            start: The first moment.
            until: The moment after the last.

        Yields:
            Each record once.
        """
        batch = SURVEY
        seen: set[str] = set()
        while True:
            found = self._survey(partial(statements.survey, table), start=start, until=until, batch=batch)
            records = [Surveyed.read(values) for values in found]
            self.looked_at(len(records))
            yield from (record for record in records if str(record.id) not in seen)
            if len(found) < batch:
                return
            last = records[-1].expires_at
            assert last is not None
            if last == start:
                batch *= 2  # all end at one moment: to come past it more have to be read
            start = last
            seen = {str(record.id) for record in records if record.expires_at == last}

    def survey_without_end(self, table: str) -> Iterator[Surveyed]:
        """Read records that have no end.

        Args:
            table: The full name of a table.

        Yields:
            The records, in no order.
        """
        found = self._survey(partial(statements.survey_without_end, table), batch=SURVEY)
        self.looked_at(len(found))
        if len(found) < SURVEY:
            yield from (Surveyed.read(values) for values in found)
            return
        after: Any = FIRST_ID
        while True:
            found = self._survey(statements.survey_ids, range=records_behind(table, after), batch=PAGE_OF_IDS)
            page = [Surveyed.read(values) for values in found]
            self.looked_at(len(page))
            yield from (record for record in page if record.expires_at is None)
            if len(page) < PAGE_OF_IDS:
                return
            after = page[-1].id.id

    def _survey(self, text: Callable[..., str], **variables: Any) -> list[Any]:
        """Run a survey, and again with checks of each field where the server cannot send what somebody wrote into one."""
        try:
            found = self.one(text(), **variables)
        except UnreadableRecord:
            found = self.one(text(checked=True), **variables)
        return found or []


def batches(values: Iterable[Value], size: int = SURVEY) -> Iterator[list[Value]]:
    """Yield values in lists of a size.

    Args:
        values: The values.
        size: The number in each list but the last.
    """
    remaining = iter(values)
    while batch := list(islice(remaining, size)):
        yield batch
