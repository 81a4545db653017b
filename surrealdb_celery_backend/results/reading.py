"""How Celery reads results: one, whose state is asked for, or many that are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

from celery import states
from celery.exceptions import BackendGetMetaError
from celery.exceptions import TimeoutError as ResultTimeout
from celery.utils.log import get_logger
from kombu.utils.encoding import bytes_to_str

from .. import celery_compat
from ..client import deadlines
from ..client.connection import Connection
from ..errors import ResultsUnavailable, WaitTimedOut
from . import statements
from .chords import Chords
from .fetching import Fetcher
from .records import TaskRecords
from .retrying import RetryingMixin
from .sent import SentTasks
from .timeouts import seconds

logger = get_logger(__name__)

#: How many seconds a look has at least, however little is left of the time of the wait.
LOOK = 1.0


class ReadingMixin(RetryingMixin):
    """Celery's names for reading results."""

    app: Any
    connection: Connection
    tasks: TaskRecords
    fetcher: Fetcher
    chords: Chords
    sent: SentTasks | None
    _cache: Any
    meta_from_decoded: Callable[[dict[str, Any]], dict[str, Any]]

    def get_task_meta(self, task_id: Any, cache: bool = True) -> dict[str, Any]:
        """Read the meta of a task.

        Args:
            task_id: The task's id.
            cache: Whether a SUCCESS that this process has read before will do.

        Returns:
            The meta; PENDING of a task that nothing is known of. A worker's main loop gets that too where the
            database is away: Celery asks there only whether it may go on.

        Raises:
            ReadFailed: The retries or the time ran out.
        """
        self._ensure_not_eager()
        meta = self._cached(task_id) if cache else None
        if meta is not None:
            return meta
        try:
            with self.reading():
                meta = self._ensure_retryable(
                    self._get_task_meta_for,
                    task_id,
                    what=f"reading task {task_id}",
                    fallback_exc=partial(BackendGetMetaError, task_id=str(task_id)),
                    fallback_msg=f"the state of task {task_id} could not be read",
                )
        except Exception as exc:
            passes = isinstance(exc, ResultsUnavailable) or self.exception_safe_to_retry(exc)
            if not (passes and celery_compat.in_worker_main_loop()):
                raise
            return {"status": states.PENDING, "result": None}
        if cache and meta["status"] == states.SUCCESS:
            self._cache[task_id] = meta
        return meta

    def _ensure_not_eager(self) -> None:
        # Celery's own looks the setting up each time, in eighteen calls.
        if self._always_eager():
            super()._ensure_not_eager()  # type: ignore[misc]

    @cached_property
    def _always_eager(self) -> Callable[[], Any]:
        return celery_compat.setting_reader(self.app, "task_always_eager")

    def _cached(self, name: Any) -> dict[str, Any] | None:
        """Return the cached meta of a task or group; another thread may drop it at any moment."""
        try:
            meta: dict[str, Any] = self._cache[name]
        except KeyError:
            return None
        return meta

    def _get_task_meta_for(self, task_id: Any) -> dict[str, Any]:
        record = self.fetcher.record(task_id)
        if record is None:
            return {"status": states.PENDING, "result": None}
        meta = self.meta_of(record)
        group: Any = meta.get("group_id")
        # Celery asks before it acknowledges or skips a message: the task may have died with its chord's body not out.
        asked = group and meta["status"] == states.SUCCESS and celery_compat.in_worker_outside_task()
        if asked and not self.chords.settled(group, task_id):
            return {"status": states.STARTED, "result": None}
        return meta

    def task_result_exists(self, task_id: Any) -> bool:
        """Return whether anything is stored for a task, be it PENDING: what `AsyncResult.exists()` asks.

        With `surrealdb_track_sent` a task that waits exists, and one that nobody sent does not.

        Args:
            task_id: The task's id.

        Raises:
            ReadFailed: The retries or the time ran out.
        """
        if self.sent is not None and self.sent.holds(task_id):
            return True
        with self.reading():
            return bool(self._ensure_retryable(self._exists, task_id, what=f"looking for task {task_id}"))

    def _exists(self, task_id: Any) -> Any:
        return self.connection.run(statements.EXISTS, record=self.tasks.record_id(task_id))

    def fetch_records(
        self,
        task_ids: Iterable[Any],
        *,
        only_ready: bool = False,
        deadline: float | None = None,
        unsent: bool = False,
    ) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Fetch the records of any number of tasks, not decoded yet; see `Fetcher.records`.

        A record that cannot be decoded concerns its own reader only, so decoding is the caller's: see `meta_of`.

        Args:
            task_ids: Ids of tasks; duplicates are allowed.
            only_ready: Leave out tasks that have not finished.
            deadline: When each request has to end, by the monotonic clock.
            unsent: Give an `UnsentRecord` for a record that the server cannot send.

        Returns:
            An iterator of id, as it was given, and record of those that exist.
        """
        return self.fetcher.records(task_ids, only_ready=only_ready, deadline=deadline, unsent=unsent)

    def meta_of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Decode a task's record.

        Args:
            record: As `fetch_records` and LIVE queries give it.

        Returns:
            Celery's meta, a failure's result as an exception.
        """
        return self.meta_from_decoded(self.tasks.to_meta(record))

    def fetch(self, task_ids: Iterable[Any], *, only_ready: bool = False) -> list[tuple[Any, dict[str, Any]]]:
        """Fetch any number of results.

        Args:
            task_ids: Ids of tasks; duplicates are allowed.
            only_ready: Leave out tasks that have not finished.

        Returns:
            Id, as it was given, and meta of those that exist, in an order of the database's.
        """
        found = self.fetch_records(task_ids, only_ready=only_ready)
        return [(task_id, self.meta_of(record)) for task_id, record in found]

    def get_many(
        self,
        task_ids: Iterable[Any],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,  # noqa: N803 - Celery's signature
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield results as they become ready, each look being a request for up to 1,000 of them.

        Args:
            task_ids: Ids of tasks.
            timeout: Seconds until all must have come; 0 looks once, None waits for ever.
            interval: Seconds between two looks.
            no_ack: Celery's; without meaning here.
            on_message: Called with the meta of each.
            on_interval: Called between two looks.
            max_iterations: How many looks are made; None for any number.
            READY_STATES: The states that are waited for.

        Yields:
            Id and meta.

        Raises:
            celery.exceptions.TimeoutError: The time is over. `WaitTimedOut`, which is one too, where the database
                was away at the end.
            ResultsUnavailable: The database was away for as long as Celery's retries last, and there is no timeout.
            TypeError: The timeout is no number.
            ValueError: It is NaN.
        """
        timeout = seconds(timeout)
        waited_for = {bytes_to_str(task_id) for task_id in task_ids}
        for task_id in list(waited_for):
            cached = self._cached(task_id)
            if cached is not None and cached["status"] in READY_STATES:
                waited_for.discard(task_id)
                yield task_id, cached
        looks = _Looks(self, timeout, 0.5 if interval is None else interval)
        iterations = 0
        while waited_for:
            for task_id, record in looks.look(list(waited_for), only_ready=READY_STATES == states.READY_STATES):
                status = record.get("status")
                if not (isinstance(status, str) and status in READY_STATES):
                    continue
                waited_for.discard(task_id)
                meta = self._cache[task_id] = self.meta_of(record)
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            if not waited_for:
                return
            looks.check_time()
            if on_interval:
                on_interval()
            looks.pause()
            iterations += 1
            if max_iterations and iterations >= max_iterations:
                return


class _Looks:
    """The looks of one wait for many results, some of which may fail.

    Args:
        backend: The backend to ask.
        timeout: Seconds that the wait may take; None for any.
        interval: Seconds between two looks.
    """

    def __init__(self, backend: ReadingMixin, timeout: float | None, interval: float) -> None:
        self._backend = backend
        self._timeout = timeout
        self._interval = interval
        self._deadline = None if timeout is None else time.monotonic() + timeout
        #: How many looks failed in a row, and the failure of the last.
        self._failures = 0
        self._failure: Exception | None = None

    def look(self, task_ids: list[str], *, only_ready: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield what is there; where the database is away, what it gave before."""
        found = self._backend.fetch_records(task_ids, only_ready=only_ready)
        while True:
            limit = None if self._deadline is None or not self._timeout else max(LOOK, self._left)
            try:
                # Not around the yield: the caller's work there has its own time.
                with deadlines.time_limit(limit):
                    one = next(found, None)
            except Exception as exc:
                self._failed(exc)
                return
            self._failures, self._failure = 0, None
            if one is None:
                return
            yield one

    @property
    def _left(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _failed(self, exc: Exception) -> None:
        if not self._backend.is_retried(exc):
            raise exc
        self._failures, self._failure = self._failures + 1, exc
        if self._deadline is None and self._failures > self._backend.max_retries:
            raise ResultsUnavailable(f"waiting for results was given up: {exc}") from exc
        logger.warning("results cannot be fetched at the moment: %s", exc)

    def check_time(self) -> None:
        """Raise if the time is over."""
        if self._left > 0:
            return
        if self._failure is not None:
            raise WaitTimedOut(
                f"results did not come within {self._timeout:g} s; the last look failed: {self._failure}"
            ) from self._failure
        raise ResultTimeout(f"Operation timed out ({self._timeout:g})")

    def pause(self) -> None:
        """Wait until the next look is due, or the time is over."""
        pause = self._backend.pause_before_retry(self._failures) if self._failures else self._interval
        time.sleep(min(pause, self._left))
