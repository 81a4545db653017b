"""Fetch the records of many tasks in requests whose replies have an upper size.

A server takes messages of 128 MiB, a line has a speed, and a reader has memory: so no request asks for all of 6,000
results. Records are asked for in slices. A record whose result is large says how large (`size`), and is left out of
a slice's reply; such records are fetched then, as many in one request as stay below a number of bytes. A single
result, however large, is one request: a record cannot be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from celery.utils.log import get_logger

from ..client import deadlines
from ..client.unreadable import readable
from ..client.values import RecordID
from ..errors import UnreadableRecord
from . import statements
from .gathering import ALONE, Gathering
from .records import UnsentRecord

logger = get_logger(__name__)

#: How many records one request asks for at most.
MAX_RECORDS = 1000
#: How many bytes the results in one reply have at most, unless there is but one. A line of half a megabyte a second
#: brings them within `surrealdb_timeout`.
MAX_BYTES = 4 * 2**20


class Fetcher:
    """Fetches records of tasks by id.

    Args:
        run: Runs a statement and returns its value, as `Connection.run` does.
        record_id: Returns the record id of a task's id.
        timeout: Returns how many seconds a request may take.

    Attributes:
        gathering: The fetches of one record that are under way.
    """

    def __init__(
        self, run: Callable[..., Any], record_id: Callable[[Any], RecordID], timeout: Callable[[], float] = lambda: 10.0
    ) -> None:
        self._run = run
        self._record_id = record_id
        self._timeout = timeout
        self.gathering = Gathering(self._alone, self._together)

    def records(
        self,
        task_ids: Iterable[Any],
        *,
        only_ready: bool = False,
        deadline: float | None = None,
        unsent: bool = False,
    ) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Fetch records, in an order of the database's.

        Args:
            task_ids: Ids of tasks; duplicates are allowed.
            only_ready: Leave out tasks that have not finished.
            deadline: When each request has to end, by the monotonic clock; None is `surrealdb_timeout` after it
                begins.
            unsent: Yield an `UnsentRecord` for a record that the server cannot send. Otherwise it is left out of
                several, and an error where it is the only one.

        Yields:
            Id, as it was given, and record of each task that exists.

        Raises:
            UnreadableRecord: The server cannot send the only record.
            SurrealDBBackendError: The database cannot be asked.
        """
        asked: dict[RecordID, list[Any]] = {}
        for task_id in dict.fromkeys(task_ids):
            asked.setdefault(self._record_id(task_id), []).append(task_id)
        given = {record.id: task_ids for record, task_ids in asked.items()}
        for record in self._slices(list(asked), only_ready=only_ready, deadline=deadline, unsent=unsent):
            # Not there where somebody wrote another value into it by hand; none at all where 0.3.0 wrote it.
            name = record.get("task_id", next(iter(given)) if len(given) == 1 else None)
            if name is None:
                logger.warning("a record has no task_id and is left out: celery surrealdb schema --apply migrates it")
            for task_id in given.get(name, ()) if isinstance(name, str) else ():
                yield task_id, record

    def record(self, task_id: Any) -> Mapping[str, Any] | None:
        """Fetch one record. Those that several threads fetch at one moment are asked for together.

        Args:
            task_id: The task's id.

        Returns:
            The record; None where there is none.

        Raises:
            SurrealDBBackendError: The database cannot be asked.
        """
        found: Mapping[str, Any] | None
        found = self.gathering.send(self._record_id(task_id), deadlines.deadline(self._timeout()))
        return found

    def _alone(self, record_id: RecordID, deadline: float) -> Mapping[str, Any] | None:
        for record in self._one(statements.FETCH_TASKS, record_id, deadline):
            # Not where somebody wrote another value into it by hand; none at all where 0.3.0 wrote it.
            if record.get("task_id", record_id.id) == record_id.id:
                found: Mapping[str, Any] = record
                return found
        return None

    def _together(self, record_ids: list[RecordID], deadline: float) -> list[Any]:
        records = list(dict.fromkeys(record_ids))
        small, large = self._run(statements.FETCH_SMALL_TASKS, deadline=deadline, records=records) or ((), ())
        found: dict[str, Any] = {
            record["task_id"]: record for record in small if isinstance(record.get("task_id"), str)
        }
        # A large one makes nobody else wait.
        found.update((task_id, ALONE) for task_id, _ in large if isinstance(task_id, str))
        # Of 0.3.0's records nobody knows from a common reply whose they are.
        others = None if len(found) == len(small) + len(large) else ALONE
        return [found.get(record_id.id, others) for record_id in record_ids]

    def _one(self, text: str, record_id: RecordID, deadline: float | None) -> Any:
        try:
            return self._run(text, deadline=deadline, records=record_id) or ()
        except UnreadableRecord as exc:
            raise _named(record_id, exc) from exc

    def _slices(
        self, asked: list[RecordID], *, only_ready: bool, deadline: float | None, unsent: bool
    ) -> Iterator[Mapping[str, Any]]:
        whole = statements.FETCH_READY_TASKS if only_ready else statements.FETCH_TASKS
        refused: list[UnsentRecord] = []

        def leave_out(record: RecordID, error: UnreadableRecord) -> None:
            if unsent:
                refused.append(UnsentRecord(record.id, _named(record, error)))
            else:
                logger.warning("the record of task %r is left out: %s", record.id, error)

        if len(asked) == 1:
            try:
                found = self._one(whole, asked[0], deadline)
            except UnreadableRecord as exc:
                if not unsent:
                    raise
                found = (UnsentRecord(asked[0].id, exc),)
            yield from found
            return
        small = statements.FETCH_SMALL_READY_TASKS if only_ready else statements.FETCH_SMALL_TASKS

        def ask(part: Sequence[RecordID]) -> Any:
            # None where there is no such table.
            return self._run(small, deadline=deadline, records=part) or ((), ())

        def ask_large(part: Sequence[RecordID]) -> Any:
            # A list of one is read one by one by 3.0.2, too.
            return self._run(whole, deadline=deadline, records=part) or ()

        for start in range(0, len(asked), MAX_RECORDS):
            for found, large in readable(ask, asked[start : start + MAX_RECORDS], leave_out):
                yield from found or ()
                for task_ids in by_size(large or ()):
                    for records in readable(ask_large, [self._record_id(each) for each in task_ids], leave_out):
                        yield from records
        yield from refused


def _named(record: RecordID, error: UnreadableRecord) -> UnreadableRecord:
    named = UnreadableRecord(f"the record of task {record.id!r} cannot be read: {error}")
    named.__cause__ = error
    return named


def by_size(sizes: Iterable[tuple[Any, Any]]) -> Iterator[list[str]]:
    """Divide what is to be fetched into requests.

    Args:
        sizes: Names, each with its number of bytes. Somebody may have written any value into either: what is no name
            is left out, and what is no number counts as much.

    Yields:
        Names that have no more than `MAX_BYTES` and `MAX_RECORDS` together, or one that alone has more.
    """
    names: list[str] = []
    total = 0
    for name, given in sizes:
        if not isinstance(name, str):
            continue
        size = given if isinstance(given, int) and given > 0 else MAX_BYTES
        if names and (total + size > MAX_BYTES or len(names) >= MAX_RECORDS):
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield names
