"""Celery's ways of waiting for results, on waits of our own."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from celery import states
from celery.backends.asynchronous import AsyncBackendMixin, BaseResultConsumer
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger

from .. import celery_compat, errors
from .addresses import expect
from .collecting import Meta, is_settled, key_of, leaves_of, parents_of, single_parents_of
from .dispatcher import Dispatcher, dispatcher_of
from .members import Members, entry_of
from .thread_wait import Fulfilled, ThreadWait
from .timeouts import seconds
from .waiters import Event
from .waiting import PARENT_GRACE, Wait

logger = get_logger(__name__)

#: How long one drain_events waits without a timeout of its own, in seconds.
DRAIN = 1.0


def source_of(result: Any) -> ResultConsumer:
    """Return where a result's records come from.

    Args:
        result: A result object.

    Raises:
        TypeError: Its backend is another.
    """
    consumer = getattr(result.backend, "result_consumer", None)
    if not isinstance(consumer, ResultConsumer):
        raise TypeError(f"results of {result.backend.as_uri()} cannot be awaited here: it is not a SurrealDB backend")
    return consumer


class ResultConsumer(BaseResultConsumer):
    """A backend's side of waiting: Celery's interface, and the source of records.

    Celery's own consumer collects messages for all results of a backend. Here each wait has a mailbox of its own, so
    most of that interface has nothing to do.
    """

    dispatcher: Dispatcher
    backend: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dispatcher = dispatcher_of(self.backend.settings)
        self.dispatcher.join(self)
        self.dispatcher.promises.shared = celery_compat.drains_in_greenlet(self.drainer)

    # -- Celery's interface ----------------------------------------------------------------------------

    def start(self, initial_task_id: Any, **kwargs: Any) -> None:
        """Nothing to start: a wait does so."""

    def stop(self) -> None:
        """End all waits of this backend, because it is closed."""
        self.dispatcher.leave(self, errors.ConnectionClosed())

    def consume_from(self, task_id: Any) -> None:
        """Nothing to subscribe to: a wait does so.

        Args:
            task_id: The task's id.
        """

    def cancel_for(self, task_id: Any) -> None:
        """No result object of a task needs it any more. Never blocks: `AsyncResult.__del__` calls it.

        Args:
            task_id: The task's id.
        """
        self.dispatcher.sent.forget(key_of(task_id))

    def drain_events(self, timeout: float | None = None) -> None:
        """Fulfil results whose `then()` has a callback, if they come. Celery's greenlet calls it again and again.

        Args:
            timeout: Seconds to wait for one; None waits for one second.

        Raises:
            TimeoutError: None came.
        """
        timeout = seconds(timeout)
        deadline = time.monotonic() + (DRAIN if timeout is None else timeout)
        mailbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        wait = Wait((), source_of=source_of, mailbox=mailbox, others=self.dispatcher.promises.all())
        try:
            wait.open()
            wait.go_on(at_once=True)
            while True:
                try:
                    wait.handle(mailbox.get(timeout=max(0.0, deadline - time.monotonic())))
                except queue.Empty:
                    raise TimeoutError from None
                except Exception as exc:  # it would end Celery's greenlet for good
                    logger.warning("callbacks of results wait on: %s", exc)
        finally:
            wait.close()

    # -- the source of records ---------------------------------------------------------------------------

    def fetch_records(
        self, task_ids: Iterable[str], *, only_ready: bool = False, deadline: float | None = None
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield id and record of the tasks that exist.

        Args:
            task_ids: Ids of tasks.
            only_ready: Leave out tasks that have not finished.
            deadline: When it has to end, by the monotonic clock.
        """
        found: Iterator[tuple[str, Mapping[str, Any]]] = self.backend.fetch_records(
            task_ids, only_ready=only_ready, deadline=deadline, unsent=True
        )
        return found

    def passes(self, error: BaseException) -> bool:
        """Return whether a failure passes by itself.

        Args:
            error: The failure.
        """
        return bool(self.backend.exception_safe_to_retry(error))

    def prepare(self) -> None:
        """Create the tables where there are none yet."""
        _ = self.backend.connection.transport

    def decode(self, record: Any) -> Meta:
        """Make Celery's meta of a record.

        Args:
            record: A task's record.
        """
        meta: Meta = self.backend.meta_of(record)
        return meta

    def keep(self, task_id: str, meta: Meta) -> None:
        """Keep the meta of a task that succeeded, where `result_cache_max` says so.

        Args:
            task_id: The task's id.
            meta: Its meta.
        """
        celery_compat.result_cache(self.backend)[task_id] = meta

    def kept(self, task_id: str) -> Meta | None:
        """Return what was kept of a task that has ended; None where nothing was.

        Args:
            task_id: The task's id.
        """
        try:
            meta: Meta = celery_compat.result_cache(self.backend)[task_id]
        except KeyError:
            return None
        return meta if meta["status"] in states.READY_STATES else None

    def check_live(self) -> None:
        """Raise if LIVE queries are asked for where there are none.

        Raises:
            ImproperlyConfigured: `surrealdb_live` is `on`, and the URL's scheme has none.
        """
        settings = self.dispatcher.settings
        if settings.live == "on" and settings.scheme not in ("ws", "wss"):
            raise ImproperlyConfigured(
                f"surrealdb_live is 'on', and LIVE queries need a ws:// or wss:// surrealdb_url, not "
                f"{settings.endpoint!r}; use 'auto'"
            )


class WaitingMixin(AsyncBackendMixin):
    """Celery's calls on a backend that waits for results."""

    result_consumer: ResultConsumer

    def on_task_call(self, producer: Any, task_id: Any) -> None:
        """A task is about to be sent. Its result comes to this process, unless a task of a worker sends it.

        Args:
            producer: Sends it.
            task_id: The task's id.
        """
        if not celery_compat.join_would_block():
            consumer = self.result_consumer
            consumer.dispatcher.sent.add(key_of(task_id), consumer.app.thread_oid)
            expect(task_id)

    def add_pending_result(self, result: Any, weak: bool | None = None, start_drainer: bool = True) -> Any:
        """A result is going to be waited for, or gets a callback.

        Args:
            result: The result object.
            weak: None from `get()`, which waits then; whether `then()` keeps the object from being collected.
            start_drainer: Whether a greenlet may be started.

        Returns:
            The result object.
        """
        if weak is False:
            celery_compat.on_callback_added(result, lambda: self._promise(result))
        return result

    def _promise(self, result: Any) -> None:
        self.result_consumer.dispatcher.promises.add(result)
        self.result_consumer.drainer.start()

    def add_pending_results(self, results: Iterable[Any], weak: bool | None = None) -> list[Any]:
        """The same for several.

        Args:
            results: The result objects.
            weak: As above.

        Returns:
            The result objects.
        """
        return [self.add_pending_result(result, weak=weak) for result in results]

    def remove_pending_result(self, result: Any) -> Any:
        """A result object is fulfilled, forgotten or collected. Never blocks: `AsyncResult.__del__` calls it.

        Args:
            result: The result object.

        Returns:
            The result object.
        """
        self.result_consumer.dispatcher.promises.discard(result)
        self.result_consumer.cancel_for(result.id)
        return result

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        **_: Any,
    ) -> Iterator[None]:
        watches_parents, users_function = celery_compat.split_on_interval(on_interval)
        before = parents_of([result]) if watches_parents else []
        waits = self._waits(
            [each for each in leaves_of([result]) if not is_settled(each)],
            [each for each in leaves_of(before) if not is_settled(each)],
            timeout,
            on_interval=users_function,
            on_message=on_message,
            parent_grace=0.0,
        )
        for _fulfilled in waits:
            yield

    def iter_native(
        self,
        result: Any,
        no_ack: bool = True,
        timeout: float | None = None,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        **_: Any,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield id and meta of a group's results as they come; of a group in it, its results once all have come.

        A task before the group that failed means that the group is never sent: its error is raised, as `join()` does,
        where Celery's own `iter_native` waits for ever (celery issue 6437).

        Args:
            result: The group's result, or any `ResultSet`.
            no_ack: Celery's, for other backends.
            timeout: Seconds until all must have come; None waits on.
            on_interval: Called now and then.
            on_message: Called with the meta of each state.
        """
        timeout = seconds(timeout)
        members = Members(result.results)
        for node in members.complete():
            yield entry_of(node)
        parents = single_parents_of([result, *result.results])
        waits = self._waits(members.missing, parents, timeout, on_interval=on_interval, on_message=on_message)
        for fulfilled in waits:
            for node in members.complete_with(fulfilled):
                yield entry_of(node)

    def _waits(
        self,
        results: list[Any],
        parents: list[Any],
        timeout: float | None,
        *,
        on_interval: Callable[[], Any] | None,
        on_message: Callable[[Meta], Any] | None,
        parent_grace: float = PARENT_GRACE,
    ) -> Fulfilled:
        self._ensure_not_eager()
        mailbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        wait = Wait(
            results,
            source_of=source_of,
            mailbox=mailbox,
            on_message=on_message,
            others=self.result_consumer.dispatcher.promises.mine(),
            parents=parents,
        )
        return iter(ThreadWait(wait, mailbox, timeout, on_interval=on_interval, parent_grace=parent_grace))
