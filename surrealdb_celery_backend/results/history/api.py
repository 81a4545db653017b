"""`Results`: what is stored of tasks, for programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ...client import surrealql
from ...client.values import EPOCH
from ...errors import InvalidFilter, ResultNotFound, SettingsError, UnreadableRecord
from .. import statements as backend_statements
from ..checks import Finding, check_everything
from ..checks.beat import beat_lease
from ..cleanup_plan import Report as CleanupReport
from ..records import identifier
from ..timeouts import seconds
from . import figure_statements, statements
from .actions import Actions, Edit, Retry, check_edit, check_signal
from .backups import Backup, back_up
from .filters import Filter
from .following import LOOK_EVERY, Follower
from .forward import PAGE, Forward
from .model import Page, Stats, TaskDetail, TaskSummary, Workflow
from .paging import FAR
from .readable import ReadableRunner
from .reading import detail
from .recent import Recent
from .schema import Schema
from .searching import LONGEST_PAGE, OnProgress, Search
from .statistics import BY, Tally
from .transfer import TABLES, Exported, IdPages, Imported, OnTransfer, Transfer
from .unfinished import UnfinishedChord, UnfinishedChords
from .workflows import Workflows

if TYPE_CHECKING:
    from celery import Celery
    from typing_extensions import Self

    from ..backend import SurrealDBBackend
    from .metrics import ResultsCollector

#: How long one step of :meth:`Results.follow` waits, in seconds: so long its closing may take.
FOLLOW_WAIT = 1.0


class Results:
    """What is stored of an app's tasks, from anywhere, while workers run or not.

    ::

        with Results(app) as results:
            for task in results.find(state="FAILURE", name="shop.*", limit=20).tasks:
                print(task.date_done, task.name, task.error)

    Nothing here is on the way of a task: these are reads of what workers stored, each of a bounded size.

    Args:
        app: The Celery app. Its result backend is used if that is SurrealDB; else the `surrealdb_*` settings say
            where the results are.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._backend, self._is_ours = _backend_of(app)
        self._connection = ReadableRunner(self._backend.connection)
        self._table = self._backend.settings.table(backend_statements.TASK)
        self._search = Search(self._connection, self._table)
        self._actions = Actions(app, self._connection, self._backend.tasks.record_id, self._backend)
        self._transfer = Transfer(self._connection, self._backend.settings.prefix)
        self._pages = IdPages(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, unless it is the app's own."""
        if self._is_ours:
            self._backend.close()

    def ping(self) -> None:
        """Ask the database for nothing but an answer.

        Raises:
            SurrealDBBackendError: It gives none.
        """
        self._connection.run(surrealql.NOW)

    # -- reading -------------------------------------------------------------------------------------------

    def find(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        max_scanned: int | None = None,
        on_progress: OnProgress | None = None,
        **wanted: Any,
    ) -> Page:
        """Find tasks, newest first: those that have not ended, then the others by when they ended.

        A page costs what its length costs, however many records there are, unless a filter leaves out most of
        them and has no index (`surrealdb_indexes`): then records are looked at until the page is full.

        Args:
            limit: How many tasks, at most 1000.
            after: The `after` of the page before.
            max_scanned: Stop when so many records were looked at: the page is then not complete, and its `after`
                leads on.
            on_progress: Called after each request with how many records were looked at and the time reached.
            **wanted: Filters; all given must match.

                - `state`: a state or several.
                - `name`, `worker`, `queue`: one or several, `*` stands for any text.
                - `since`, `until`: datetimes with a zone; the task's time is not before the one and before the other.
                - `error`: the class of the exception, with or without its module; `*` stands for any text.
                - `text`: in the exception or the traceback, whatever the case.
                - `tags`: one or several that it has all.
                - `argument`: text within the arguments as they are stored; quotes do not count where they are native.
                - `root`, `group`, `parent`: ids of its workflow's first task, its group, the task that sent it.
                - `periodic`: the beat entry that sent it. `retry_of`: the task that it is a retry of.
                - `min_runtime`: seconds that it ran at least.

        Returns:
            The tasks of the page, and where the next page begins.

        Raises:
            InvalidFilter: A filter, `limit` or `after` makes no sense.
            SurrealDBBackendError: The database cannot be asked.
        """
        return self._search.page(_filter(wanted), limit, after, max_scanned=max_scanned, on_progress=on_progress)

    def find_all(self, *, on_progress: OnProgress | None = None, **wanted: Any) -> Iterator[TaskSummary]:
        """Yield all tasks that match, newest first, page by page.

        Args:
            on_progress: Called after each request with how many records were looked at and the time reached.
            **wanted: Filters, as of :meth:`find`.
        """
        checked, after, before = _filter(wanted), None, 0
        while True:
            page = self._search.page(
                checked, LONGEST_PAGE, after, on_progress=on_progress and _from(before, on_progress)
            )
            yield from page.tasks
            after, before = page.after, before + page.scanned
            if after is None:
                return

    def get(self, task_id: str) -> TaskDetail:
        """Read all that is stored of one task.

        Args:
            task_id: The task's whole id.

        Returns:
            The task with its arguments, result, traceback and times.

        Raises:
            ResultNotFound: Nothing is, or it expired.
            UnreadableRecord: A person wrote a value into the record that the server cannot send.
        """
        record = self._backend.tasks.record_id(_identifier(task_id))
        try:
            found = self._connection.run(statements.DETAIL, record=record)
        except UnreadableRecord as exc:
            raise UnreadableRecord(f"the record of task {task_id!r} cannot be read: {exc}") from exc
        if not found:
            raise ResultNotFound(f"nothing is stored of task {task_id!r}: it is unknown, not yet run, or expired")
        return detail(found[0], self._backend)

    def exists(self, task_id: str) -> bool:
        """Return whether anything is stored of a task, as `AsyncResult.exists()` does since Celery 5.7.

        Its state PENDING does not tell: that is also the state of an id that nobody knows. With `surrealdb_track_sent`
        a task exists from when it is sent, so PENDING and existing is waiting.

        Args:
            task_id: The task's whole id.

        Raises:
            SurrealDBBackendError: The database cannot be asked.
        """
        return self._backend.task_result_exists(_identifier(task_id))

    def tree(self, task_id: str, *, max_scanned: int | None = None) -> Workflow:
        """Read the whole workflow that a task is part of, from any of its tasks.

        A chain in a group that no task sent leads to the others of the group once its last task has a record, when it
        was started (or sent, with `surrealdb_track_sent`) or the chain has failed. Before, no record says that it will
        be in a group: the chain is a workflow of its own.

        One request with an index on `root_id` (`surrealdb_indexes`), else one for each level and some more.

        Args:
            task_id: The whole id of any of its tasks.
            max_scanned: Without that index, how many records are looked at for those that no other names (the body
                of a chord); None is 20,000. Where there are more, the workflow is not complete.

        Returns:
            The tasks of the workflow, as a tree from its first task on.

        Raises:
            ResultNotFound: Nothing is stored of the task.
        """
        workflows = Workflows(self._connection, self._table, self._search, self._backend)
        found = workflows.of(_identifier(task_id), max_scanned)
        if found is None:
            raise ResultNotFound(f"nothing is stored of task {task_id!r}: it is unknown, not yet run, or expired")
        return found

    def stats(self, by: str = "name", *, on_progress: OnProgress | None = None, **wanted: Any) -> Stats:
        """Count tasks and take the quantiles of how long they ran and waited.

        Every record in the span is read, some 50,000 a second, in requests of 5,000.

        Args:
            by: A row for each `name`, `hour`, `worker` or `queue`.
            on_progress: Called after each request with how many records were read and the time reached.
            **wanted: Filters, as of :meth:`find`.

        Returns:
            The rows, their total, and the span that was counted.

        Raises:
            InvalidFilter: A filter or `by` makes no sense.
        """
        if by not in BY:
            raise InvalidFilter(f"by must be one of {', '.join(BY)}, not {by!r}")
        checked = _filter(wanted)
        tally = Tally(by)
        read = 0
        if checked.unready:
            for row in self._unready_figures(checked):
                tally.add(row[0], row[2:])
                read += 1
        if checked.ready:
            text = figure_statements.figures(self._table, checked.terms)
            since, until = checked.since or EPOCH, checked.until or FAR
            forward = Forward(self._connection, text, checked.variables, since, until, scan=self._search.scan)
            for rows in forward:
                for row in rows:
                    if row[1]:
                        tally.add(row[0], row[2:])
                if on_progress is not None:
                    on_progress(read + forward.read, forward.at)
        return Stats(by, tally.rows(), tally.total(), checked.since, checked.until)

    def recent(self) -> Recent:
        """Return figures of the last hours and days that are kept up to date, for programs that ask for them often."""
        return Recent(self._connection, self._table, self._search)

    def unfinished_chords(self, group: str | None = None, *, skip: int = 0) -> Iterator[UnfinishedChord]:
        """Yield chords whose body has not been sent, oldest first, with the parts that they miss.

        One request for all and up to three for each; at most 1,000 chords.

        Args:
            group: Only the chord with this id.
            skip: Leave out so many of the oldest, at no request.
        """
        table = self._backend.settings.table("chord")
        return UnfinishedChords(self._connection, table, self._table, self._search).find(group, skip)

    def cleanup(self, *, dry_run: bool = False, on_batch: Callable[[Any], Any] | None = None) -> CleanupReport:
        """Delete what has expired, as `celery.backend_cleanup` does, in bounded batches.

        Args:
            dry_run: Count only.
            on_batch: Called after each batch with what is done so far.

        Returns:
            How many records went, by table and by name.
        """
        return self._backend.cleanup(dry_run=dry_run, on_batch=on_batch)

    def check(self) -> list[Finding]:
        """Look whether all is as it should be: connection, version, rights, schema, LIVE, clocks, settings, beat.

        Returns:
            A finding for each; those that are not good say what to do.
        """
        return check_everything(self.app, self._backend)

    @property
    def schema(self) -> Schema:
        """The schema of the tables, and the migration of what 0.3.0 wrote."""
        return Schema(self._backend)

    def metrics(self, *, lookback: float = 3600.0) -> ResultsCollector:
        """A collector of Prometheus metrics, for a registry of `prometheus_client`; needs the extra `[metrics]`.

        Args:
            lookback: From how long ago on tasks are counted at first, in seconds.

        Returns:
            The collector.

        Raises:
            SettingsError: `prometheus_client` is not installed.
        """
        try:
            from .metrics import ResultsCollector
        except ImportError as exc:
            raise SettingsError(
                "metrics need prometheus-client: pip install 'surrealdb-celery-backend[metrics]'"
            ) from exc

        def lease() -> float | None:
            found = beat_lease(self._backend)
            return None if found is None else found.left

        return ResultsCollector(
            self._connection,
            self._table,
            self._search,
            lambda: (chord.age for chord in self.unfinished_chords()),
            lease,
            lookback=lookback,
        )

    # -- following ------------------------------------------------------------------------------------------

    def follow(
        self, *, look_every: float = LOOK_EVERY, timeout: float | None = None, **wanted: Any
    ) -> Iterator[TaskSummary]:
        """Yield tasks as they change, each as it is then, from now on: sent, started, progressed, retried, ended.

        A LIVE query tells of changes where there is one. They are looked for in any case: every `look_every` seconds
        where there is none, and more rarely where there is. States that pass between two looks may be left out; the
        last one never is.

        Args:
            look_every: Seconds between two looks where changes are not notified.
            timeout: Seconds after which it ends; None follows until the generator is closed.
            **wanted: Filters, as of :meth:`find`, without `since` and `until`.

        Raises:
            TypeError: The timeout is no number.
            ValueError: It is NaN.
        """
        timeout = seconds(timeout)
        # Now, not when the first is asked for: what changes in between is told, too.
        return _changes(self.follower(look_every=look_every, **wanted), timeout)

    def follower(self, *, look_every: float = LOOK_EVERY, **wanted: Any) -> Follower:
        """Make the object behind :meth:`follow`, for programs with a loop of their own; to be closed.

        Args:
            look_every: Seconds between two looks where changes are not notified.
            **wanted: Filters, as of :meth:`find`, without `since` and `until`.

        Returns:
            The follower.

        Raises:
            InvalidFilter: A filter makes no sense.
        """
        checked = _filter(wanted)
        if checked.since is not None or checked.until is not None:
            raise InvalidFilter("since and until mean nothing to who follows: changes are told from now on")
        return Follower(self._connection, self._table, self._search, checked, self._backend.feed, look_every=look_every)

    # -- acting ----------------------------------------------------------------------------------------------

    def retry(  # noqa: PLR0913 - the edits of a retry are keywords, as those of apply_async are
        self,
        task_ids: str | Iterable[str] = (),
        *,
        where: Mapping[str, Any] | None = None,
        limit: int = 1000,
        dry_run: bool = False,
        running: bool = False,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        countdown: float | None = None,
    ) -> list[Retry]:
        """Send tasks again, each as a new task with a new id that says what it is a retry of (`retry_of`).

        Args:
            task_ids: One id or several.
            where: Filters, as of :meth:`find`, instead of ids.
            limit: At most so many that match `where`.
            dry_run: Only say what would be done.
            running: Also tasks that have not ended.
            args: Positional arguments instead of those that are stored.
            kwargs: Keyword arguments instead of those that are stored.
            queue: A queue instead of the one that is stored.
            countdown: Seconds before which they do not run.

        Returns:
            The outcome for each task. One whose name or arguments were not kept is not sent, and says why.

        Raises:
            InvalidFilter: Both or neither of ids and `where` are given, or a value makes no sense.
        """
        edit = Edit(args, kwargs, queue, countdown)
        check_edit(edit)
        ids = self._chosen(task_ids, where, limit)
        return self._actions.retry(ids, edit, dry_run=dry_run, running=running)

    def revoke(
        self,
        task_ids: str | Iterable[str] = (),
        *,
        where: Mapping[str, Any] | None = None,
        limit: int = 1000,
        terminate: bool = False,
        signal: str = "SIGTERM",
        dry_run: bool = False,
    ) -> list[str]:
        """Ask all workers not to run tasks, and with `terminate` to end those that run.

        Args:
            task_ids: One id or several, whether or not anything is stored of them.
            where: Filters, as of :meth:`find`, instead of ids; tasks that have ended are left out.
            limit: At most so many that match `where`.
            terminate: End those that run.
            signal: The signal for that.
            dry_run: Only say which.

        Returns:
            The ids.

        Raises:
            InvalidFilter: A filter makes no sense, or there is no such signal.
        """
        check_signal(signal)
        ids = self._chosen(task_ids, where, limit, unready_only=True)
        return ids if dry_run else self._actions.revoke(ids, terminate=terminate, signal=signal)

    def forget(
        self,
        task_ids: str | Iterable[str] = (),
        *,
        where: Mapping[str, Any] | None = None,
        limit: int = 1000,
        dry_run: bool = False,
    ) -> list[str]:
        """Delete what is stored of tasks. A task that has not ended is not touched by `where`.

        Args:
            task_ids: One id or several.
            where: Filters, as of :meth:`find`, instead of ids.
            limit: At most so many that match `where`.
            dry_run: Only say which.

        Returns:
            The ids of those of which something was stored.
        """
        ids = self._chosen(task_ids, where, limit, ready_only=True)
        return self._actions.stored(ids) if dry_run else self._actions.forget(ids)

    def _chosen(
        self,
        task_ids: str | Iterable[str],
        where: Mapping[str, Any] | None,
        limit: int,
        *,
        ready_only: bool = False,
        unready_only: bool = False,
    ) -> list[str]:
        ids = [task_ids] if isinstance(task_ids, str) else list(task_ids)
        if bool(ids) == (where is not None):
            raise InvalidFilter("give either ids of tasks or filters (where), not both and not neither")
        if where is None:
            return [_identifier(each) for each in ids]
        if not where:
            raise InvalidFilter("where has no filter: all tasks are too many at once")
        found: list[str] = []
        for task in self.find_all(**where):
            if (ready_only and task.date_done is None) or (unready_only and task.date_done is not None):
                continue
            found.append(task.id)
            if len(found) >= limit:
                break
        return found

    # -- export and import -----------------------------------------------------------------------------------

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        tables: Sequence[str] | None = None,
        resume: bool = False,
        on_progress: OnTransfer | None = None,
        **wanted: Any,
    ) -> Exported:
        """Write records to a compressed file with checksums.

        Args:
            path: The file. It must not be there, unless `resume`.
            tables: The tables; None is all of `task`, `group`, `chord`, `key` and `schedule`, and with filters `task`.
            resume: Go on with the file of an export that was interrupted.
            on_progress: Called after each chunk with the table, the records looked at and those written.
            **wanted: Filters of tasks, as of :meth:`find`.

        Returns:
            How many records of each table the file has, and its size.

        Raises:
            InvalidArchive: There is a file that this cannot go on with.
            InvalidFilter: A filter makes no sense, or `path` is empty.
        """
        checked, file = _filter(wanted), _path("path", path)
        given = {name: value for name, value in wanted.items() if value is not None}
        chosen = tuple(tables) if tables is not None else (("task",) if given else TABLES)
        for table in chosen:
            if table not in TABLES:
                raise InvalidFilter(f"there is no table {table!r}: choose among {', '.join(TABLES)}")
        return self._transfer.export(file, checked, given, chosen, resume=resume, on_progress=on_progress)

    def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        replace: bool = False,
        expires: float | None = None,
        dry_run: bool = False,
        on_progress: OnTransfer | None = None,
    ) -> Imported:
        """Write the records of an export. What is there already stays, so an interrupted import is simply repeated.

        Args:
            path: The file.
            replace: Write over records that are there already.
            expires: Let records live at least so many seconds from now; None leaves their ends as they are.
            dry_run: Only check the file.
            on_progress: Called after each chunk with the table, the records read and those written.

        Returns:
            How many records of each table the file has, and how many were written.

        Raises:
            InvalidArchive: The file is no export, or damaged; nothing of a damaged chunk is written.
            InvalidFilter: `path` is empty.
        """
        return self._transfer.read(
            _path("path", path), replace=replace, expires=expires, dry_run=dry_run, on_progress=on_progress
        )

    def backup(
        self, folder: str | os.PathLike[str], *, keep: float = 7 * 86_400, on_progress: OnTransfer | None = None
    ) -> Backup:
        """Export all records to a new file in a folder, and delete backups there that are too old.

        Args:
            folder: The folder; it is made if it is not there.
            keep: For how long backups are kept, in seconds.
            on_progress: Called after each chunk with the table, the records looked at and those written.

        Returns:
            The records written, and the older backups that were deleted.

        Raises:
            InvalidFilter: `folder` is empty.
        """
        return back_up(_path("folder", folder), keep, lambda path: self.export(path, on_progress=on_progress))

    def ids_starting_with(self, prefix: str, limit: int = 10) -> list[str]:
        """The ids of stored tasks that begin with a text, in their order.

        Args:
            prefix: The text, not empty.
            limit: At most so many.

        Returns:
            The ids.
        """
        return self._pages.starting_with(self._table, _identifier(prefix), limit)

    def _unready_figures(self, checked: Filter) -> Iterator[list[Any]]:
        text = figure_statements.figures_of_unready(self._table, checked.terms)
        for rows in self._search.unready_rows(text, {**checked.variables, "begin": EPOCH}, PAGE):
            for row in rows:
                known = row[0] > EPOCH
                late = checked.until is not None and not (known and row[0] < checked.until)
                early = checked.since is not None and known and row[0] < checked.since
                if row[1] and not late and not early:
                    yield row


def _changes(follower: Follower, timeout: float | None) -> Iterator[TaskSummary]:
    end = None if timeout is None else time.monotonic() + timeout
    try:
        while True:
            left = FOLLOW_WAIT if end is None else end - time.monotonic()
            if left <= 0:
                return
            yield from follower.changes(min(left, FOLLOW_WAIT))
    finally:
        follower.close()


def _identifier(task_id: Any) -> str:
    if not task_id:
        raise InvalidFilter(f"a task's id must be a text that is not empty, not {task_id!r}")
    return identifier("task_id", task_id)


def _path(name: str, given: str | os.PathLike[str]) -> Path:
    # To pathlib an empty text is the current directory.
    if not os.fspath(given):
        raise InvalidFilter(f"{name} must be a path that is not empty, not {given!r}")
    return Path(given)


def _filter(wanted: dict[str, Any]) -> Filter:
    try:
        return Filter.of(**wanted)
    except TypeError:
        known = Filter.of.__kwdefaults__ or {}
        unknown = [each for each in wanted if each not in known]
        if not unknown:
            raise
        raise InvalidFilter(f"there is no filter {unknown[0]!r}: choose among {', '.join(known)}") from None


def _from(before: int, tell: OnProgress) -> Callable[[int, datetime | None], Any]:
    return lambda scanned, at: tell(before + scanned, at)


def _backend_of(app: Celery) -> tuple[SurrealDBBackend, bool]:
    """The backend that an app's results are in, and whether it was made for this."""
    from celery.app import backends

    from ..backend import SurrealDBBackend

    setting = app.conf.result_backend
    url = None
    if isinstance(setting, str) and "://" in setting and "surrealdb" in setting.split("://")[0].lower():
        backend = app.backend
        if isinstance(backend, SurrealDBBackend):
            return backend, False
        url = backends.by_url(setting, app.loader)[1]
    elif isinstance(app.backend, SurrealDBBackend):
        return app.backend, False
    return SurrealDBBackend(app=app, url=url), True


__all__ = ["Results"]
