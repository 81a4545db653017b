"""One wait: what it is registered for, and what its events lead to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from celery.exceptions import TimeoutError as ResultTimeout

from .. import errors
from .collecting import Collector, Meta
from .dispatcher import Dispatcher
from .waiters import Arrival, Event, Looked, Mailbox, Source, Trouble, Waiter

#: How often a thread that waits calls `on_interval`, in seconds.
INTERVAL = 0.5
#: How long after a parent failed the task's own result may still be marked as failed, which says more, in seconds.
PARENT_GRACE = 2.0
#: How long the database may be away, in seconds, before a wait without timeout ends: as long as a worker's retries
#: last by default.
OUTAGE = 60.0
#: The first look has at least so long, in seconds: a request given up early would cost others the connection.
FIRST_LOOK = 1.0


class ResultSource(Source, Protocol):
    """The part of a backend that a wait uses."""

    dispatcher: Dispatcher

    def decode(self, record: Any) -> Meta:
        """Make Celery's meta of a record.

        Args:
            record: The record's fields, by name.
        """
        ...  # pragma: no cover

    def keep(self, task_id: str, meta: Meta) -> None:
        """Keep the meta of a task that succeeded, where results are cached."""
        ...  # pragma: no cover

    def kept(self, task_id: str) -> Meta | None:
        """Return the meta of a task that succeeded, if it was kept.

        Args:
            task_id: The task's id.
        """
        ...  # pragma: no cover

    def check_live(self) -> None:
        """Raise if the settings ask for LIVE queries where there are none."""
        ...  # pragma: no cover


class Wait:
    """The results that one caller waits for. After :meth:`close` nothing of it stays.

    Args:
        results: Results of single tasks.
        source_of: Gives the source of a result.
        mailbox: Where its events go.
        on_message: Called with the meta of each state.
        others: Results that are fulfilled as well, if they come meanwhile.
        parents: Results of tasks without whose success those waited for never come.
        wants_looks: Whether the mailbox is told when a look is over.
    """

    def __init__(
        self,
        results: Iterable[Any],
        *,
        source_of: Callable[[Any], ResultSource],
        mailbox: Mailbox,
        on_message: Callable[[Meta], Any] | None = None,
        others: Iterable[Any] = (),
        parents: Iterable[Any] = (),
        wants_looks: bool = False,
    ) -> None:
        self._began = time.monotonic()
        #: The current failure of looks.
        self._trouble: Trouble | None = None
        self._parent_failed_at: float | None = None
        grouped: dict[Dispatcher, _Results] = {}
        for result in results:
            source = source_of(result)
            grouped.setdefault(source.dispatcher, _Results(source)).waited_for.append(result)
        # Results of other backends may be among these, for which nobody waits here.
        for result in parents:
            with contextlib.suppress(TypeError, KeyError):
                grouped[source_of(result).dispatcher].parents.append(result)
        for result in others:
            source = source_of(result)
            grouped.setdefault(source.dispatcher, _Results(source)).others.append(result)
        self._parts = [each.part(mailbox, on_message, wants_looks=wants_looks) for each in grouped.values()]

    @property
    def missing(self) -> int:
        """How many tasks are still waited for."""
        return sum(collector.missing for _, _, collector in self._parts)

    @property
    def failed(self) -> bool:
        """Whether one of the tasks waited for failed."""
        return any(collector.failed for _, _, collector in self._parts)

    @property
    def failed_parent(self) -> Any:
        """A parent that failed; None where none has."""
        return next((each.failed_parent for _, _, each in self._parts if each.failed_parent), None)

    def open(self) -> None:
        """Begin: records pushed from now on arrive in the mailbox."""
        for source, waiter, collector in self._parts:
            source.check_live()
            source.dispatcher.open(waiter, collector.ids)

    def go_on(self, *, at_once: bool = False) -> None:
        """Let the dispatcher look for what is missing.

        Args:
            at_once: Whether nobody has looked for it yet.
        """
        for source, waiter, _ in self._parts:
            source.dispatcher.look_for(waiter, at_once=at_once)

    def close(self) -> None:
        """End."""
        for source, waiter, _ in self._parts:
            source.dispatcher.close(waiter)

    def take_kept(self) -> list[Any]:
        """Take what this process has read before (`result_cache_max`)."""
        fulfilled = []
        for source, _, collector in self._parts:
            for task_id in collector.ids:
                meta = source.kept(task_id)
                if meta is not None:
                    fulfilled += collector.take(task_id, meta)
        return fulfilled

    def look(self, deadline: float | None) -> Iterator[None]:
        """Look for what is there already, in the caller's thread: most waits then need no other.

        Args:
            deadline: When the caller's time is over, by the monotonic clock.

        Yields:
            Nothing, after each record that was put into a mailbox.

        Raises:
            SurrealDBBackendError: The database cannot be asked, and that does not pass by itself.
        """
        return self._look(deadline, lambda waiter, _: list(waiter.ids))

    def look_for_parents(self, deadline: float | None) -> Iterator[None]:
        """Look for parents, whose failure says more than the failure of the results waited for.

        Args:
            deadline: When the caller's time is over, by the monotonic clock.

        Yields:
            Nothing, after each record that was put into a mailbox.
        """
        return self._look(deadline, lambda _, collector: collector.missing_parents)

    def _look(self, deadline: float | None, ids_of: Callable[[Waiter, Collector], list[str]]) -> Iterator[None]:
        began = time.monotonic()
        for source, waiter, collector in self._parts:
            limit = began + source.dispatcher.settings.timeout
            if deadline is not None:
                limit = min(limit, max(deadline, began + FIRST_LOOK))
            ids, only_ready = ids_of(waiter, collector), not waiter.wants_states
            try:
                for task_id, record in source.fetch_records(ids, only_ready=only_ready, deadline=limit):
                    source.dispatcher.deliver(Arrival(task_id, record, began))
                    yield
            except errors.SurrealDBBackendError as exc:
                if not source.passes(exc):
                    raise
                self.handle(Trouble(exc, began))

    def sweep(self) -> list[Any]:
        """Return results that somebody else has fulfilled meanwhile."""
        return [result for _, _, collector in self._parts for result in collector.sweep()]

    def handle(self, event: Event) -> list[Any]:
        """Take what came into the mailbox.

        Args:
            event: The event.

        Returns:
            Results that are fulfilled.

        Raises:
            ResultsUnavailable: The database cannot be asked, and that does not pass or has lasted too long.
            Exception: A result cannot be decoded, or a callback raised.
        """
        if isinstance(event, Arrival):
            return [result for _, _, collector in self._parts for result in collector.accept(event)]
        if isinstance(event, Looked):
            self._trouble = None
        elif not event.passes:
            if isinstance(event.error, errors.SurrealDBBackendError):
                raise errors.ResultsUnavailable(f"results cannot be fetched: {event.error}") from event.error
            raise event.error
        else:
            self._trouble = event
        return []

    def check(self, *, bounded: bool) -> None:
        """See whether waiting on makes sense.

        Args:
            bounded: Whether the wait ends by its own timeout. Then it goes on however long the database is away.

        Raises:
            ResultsUnavailable: The database has been away for too long.
        """
        trouble = self._trouble
        if trouble is not None and not bounded:
            away = time.monotonic() - max(trouble.since, self._began)
            if away >= OUTAGE:
                raise errors.ResultsUnavailable(
                    f"waiting for results was given up, they could not be fetched for {away:.0f} s: {trouble.error}"
                ) from trouble.error

    def check_parents(self, grace: float) -> None:
        """Raise what a failed parent raised.

        Args:
            grace: How long the results themselves may take to be marked as failed, in seconds, which says more.
        """
        parent = self.failed_parent
        if parent is not None:
            now = time.monotonic()
            self._parent_failed_at = self._parent_failed_at or now
            if now - self._parent_failed_at >= grace:
                parent.maybe_throw()

    def timed_out(self) -> Exception:
        """Return the exception for a wait whose time is over; it carries what went wrong, if anything did."""
        cause, what = self._what_went_wrong()
        failed: Exception = ResultTimeout("The operation timed out.")
        if cause is not None:
            failed = errors.WaitTimedOut(f"The operation timed out; {what}")
            failed.__cause__ = cause
        return failed

    def _what_went_wrong(self) -> tuple[Exception | None, str]:
        trouble = self._trouble
        if trouble is not None:
            away = time.monotonic() - trouble.since
            return trouble.error, f"results could not be fetched for the last {away:.1f} s: {trouble.error}"
        for source, _, _ in self._parts:
            silent = source.dispatcher.unanswered
            if silent >= FIRST_LOOK / 2:
                message = f"{source.dispatcher.settings.uri()} has not answered for {silent:.1f} s"
                return errors.RequestTimedOut(message), message
        return None, ""


@dataclass
class _Results:
    """The results of one database that a wait is about."""

    source: ResultSource
    waited_for: list[Any] = field(default_factory=list)
    parents: list[Any] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)

    def part(
        self, mailbox: Mailbox, on_message: Callable[[Meta], Any] | None, *, wants_looks: bool
    ) -> tuple[ResultSource, Waiter, Collector]:
        source = self.source
        waiter = Waiter(mailbox, source, wants_states=on_message is not None, wants_looks=wants_looks)
        collector = Collector(
            self.waited_for,
            decode=source.decode,
            keep=source.keep,
            others=self.others,
            parents=self.parents,
            on_message=on_message,
        )
        return source, waiter, collector
