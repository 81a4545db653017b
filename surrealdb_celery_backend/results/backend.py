"""Celery's result backend interface, on SurrealDB."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from celery import states
from celery.backends.base import KeyValueStoreBackend
from celery.result import result_from_tuple
from celery.utils.log import get_logger
from kombu.utils.encoding import bytes_to_str

from .. import celery_compat
from ..client import embedded, forks
from ..client.connection import Connection
from ..settings import Settings
from . import statements
from .checks.starting import check_in_background
from .chording import ChordingMixin
from .chords import Chords, ChordStore, Upkeep
from .cleanup import BeforeDelete, CleanUp
from .cleanup_plan import Lifetimes, Report
from .cleanup_requests import Requests
from .consumer import ResultConsumer, WaitingMixin
from .feed import Feed
from .fetching import Fetcher
from .group_commit import GroupCommit
from .groups import GroupStore
from .key_value import KeyKind, KeyValueMixin, KeyValueStore
from .life import about_to_send
from .native import NATIVE, decoded, is_native
from .native_records import NativeTaskRecords
from .outbox import Outbox
from .reading import ReadingMixin
from .records import TaskRecords
from .redaction import Redaction
from .retention import Retention
from .retrying import MAX_RETRIES
from .schema import preparation
from .sent import SentTasks
from .signals import announce, results_expiring
from .storing import StoringMixin

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import GroupResult

logger = get_logger(__name__)

Result = TypeVar("Result")


class SurrealDBBackend(StoringMixin, ChordingMixin, ReadingMixin, KeyValueMixin, WaitingMixin, KeyValueStoreBackend):
    """A Celery result backend on SurrealDB.

    Use it as ``Celery(backend="surrealdb_celery_backend:SurrealDBBackend")``, configured by the
    ``surrealdb_*`` settings, or with one URL: ``surrealdb://user:password@host:8000/namespace/database``.

    Args:
        app: The Celery app.
        url: The URL that `result_backend` held, if it held one.
        **kwargs: Arguments of Celery's `KeyValueStoreBackend`.

    Raises:
        SettingsError: A `surrealdb_*` setting is unknown or not usable.
    """

    ResultConsumer = ResultConsumer

    key_t = bytes_to_str
    supports_native_join = True
    supports_failure_expires = True
    #: Payloads that are bytes are stored as bytes.
    supports_result_compression = True
    #: False although results are not given out once expired: beat schedules the clean-up only then.
    supports_autoexpire = False
    persistent = True

    def __init__(self, app: Celery, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app=app, url=url, **kwargs)
        conf = app.conf
        self.settings = Settings.from_app(app, url)
        failure_expires = conf.get("result_failure_expires")
        self.failure_expires = self.expires if failure_expires is None else self.prepare_expires(failure_expires)
        given = partial(celery_compat.is_set, conf)
        retry = conf.get("result_backend_always_retry") if given("result_backend_always_retry") else None
        self.always_retry: bool = True if retry is None else bool(retry)
        retries = conf.get("result_backend_max_retries") if given("result_backend_max_retries") else None
        self.max_retries: float = MAX_RETRIES if retries is None else retries
        #: One instance serves all threads (app/base.py asks for it after this), unless the app is set to one for each.
        self.thread_safe = not given("result_backend_thread_safe") or bool(conf.result_backend_thread_safe)
        self.retention = Retention(
            self,
            unfinished=self.settings.unfinished_expires,
            patterns=self.settings.retention,
            find_task=self._find_task,
        )
        self.redaction = Redaction(self.settings.redact, self.settings.redact_limit, self._find_task)
        self.connection = Connection(self.settings.options, prepare=preparation(self.settings))
        self.stores = GroupCommit(self.connection)
        #: Writes of a worker's main loop that wait for the database.
        self.outbox = Outbox(self.exception_safe_to_retry, partial(self.connection.run, statements.PING))
        # Celery gives dates in the app's time zone, before 5.5 in UTC: as its own meta has them.
        dated = celery_compat.default_result_meta(self, states.SUCCESS)
        table, zone = self.settings.table(statements.TASK), dated["date_done"].tzinfo
        self.tasks = TaskRecords(self, table, zone)
        if self.settings.result_format == NATIVE:
            self.tasks = NativeTaskRecords(self, table, zone, nulls=not self.settings.embedded)
        #: Stores tasks when they are sent, where `surrealdb_track_sent` asks for it.
        self.sent: SentTasks | None = None
        if self.settings.track_sent:
            self.sent = SentTasks(self.connection.run, self, table, self.settings.unfinished_expires)
        self.fetcher = Fetcher(self.connection.run, self.tasks.record_id, lambda: self.connection.options.timeout)
        self.groups = GroupStore(self.connection, self.settings.table(statements.GROUP), self)
        self.keys = KeyValueStore(self.connection, self._key_kinds(), self, self.tasks, self.retention)
        chord_store = ChordStore(
            self.connection,
            self.settings.table(statements.CHORD),
            unfinished=self.settings.unfinished_expires,
            finished=celery_compat.chord_expires(self),
        )
        self.chords = Chords(self, chord_store, self.settings.chord_lease)
        self._chord_upkeep = Upkeep(self.chords, chord_store)
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )
        forks.register(self._after_fork)
        _backends.add(self)

    def _key_kinds(self) -> list[KeyKind]:
        table = self.settings.table
        return [
            KeyKind(statements.TASK, table(statements.TASK), bytes_to_str(self.task_keyprefix)),
            KeyKind(statements.GROUP, table(statements.GROUP), bytes_to_str(self.group_keyprefix)),
            KeyKind(statements.KEY, table(statements.KEY)),
        ]

    def _find_task(self, name: str) -> Any:
        # Not bound in __init__: looking at the tasks finalizes the app.
        return self.app.tasks.get(name)

    @property
    def feed(self) -> Feed:
        """Changes of stored tasks as they happen: one LIVE query for all followers of this process."""
        feed: Feed = self.result_consumer.dispatcher.feed
        return feed

    def _after_fork(self) -> None:
        # Connection, stores and waits have registered themselves.
        self.outbox.detach_after_fork()
        if self.sent is not None:
            self.sent.detach_after_fork()

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return super().__reduce__(args, {"url": self.url, "expires": self.expires, **(kwargs or {})})

    def as_uri(self, include_password: bool = False) -> str:
        """Return the address of the results as one URL.

        Args:
            include_password: Whether secrets are shown; otherwise they are masked.
        """
        return self.settings.uri(include_password=include_password)

    def close(self) -> None:
        """End the connections; the backend cannot be used afterwards."""
        if self.sent is not None:
            self.sent.flush()
        self.result_consumer.stop()
        self.connection.close()

    # -- encoding ---------------------------------------------------------------------------------

    def encode(self, data: Any) -> Any:
        """Return a value serialised, and compressed where that is set.

        Args:
            data: The value.

        Raises:
            kombu.exceptions.EncodeError: The serializer has no form of it.
        """
        encoder = celery_compat.plain_encoder(self)
        if encoder is not None:
            try:
                return encoder(data)
            except Exception:  # noqa: S110 - Celery says it below
                pass
        return super().encode(data)

    def decode_as(self, payload: Any, content_type: str) -> Any:
        """Decode what :meth:`encode` made, by the content type stored beside it.

        Args:
            payload: The encoded value, compressed or not.
            content_type: Its content type, such as `application/json`.

        Returns:
            The value.

        Raises:
            kombu.exceptions.ContentDisallowed: `result_accept_content` does not have that type.
        """
        if is_native(content_type):
            return decoded(payload, content_type)
        return celery_compat.decode(payload, content_type, self.accept)

    def on_task_call(self, producer: Any, task_id: Any) -> None:
        """Prepare for a task that is about to be sent.

        Args:
            producer: The producer that will send it.
            task_id: The task's id.
        """
        about_to_send(task_id, None if self.sent is None else self.sent.add)
        super().on_task_call(producer, task_id)

    # -- groups -----------------------------------------------------------------------------------

    def save_group(self, group_id: Any, result: GroupResult) -> GroupResult:
        """Store the shape of a group.

        Args:
            group_id: The group's id.
            result: The group.

        Returns:
            The group.
        """
        return self._ensure_retryable(self._save_group, group_id, result, what=f"saving group {group_id}")

    def get_group_meta(self, group_id: Any, cache: bool = True) -> dict[str, Any] | None:
        """Read the meta of a group.

        Args:
            group_id: The group's id.
            cache: Whether what this process has read before will do.

        Returns:
            A mapping of `result` to the group; None where there is none.
        """
        self._ensure_not_eager()
        meta = self._cached(group_id) if cache else None
        if meta is None:
            with self.reading():
                meta = self._ensure_retryable(self._restore_group, group_id, what=f"reading group {group_id}")
            if cache and meta is not None:
                self._cache[group_id] = meta
        return meta

    def delete_group(self, group_id: Any) -> None:
        """Delete the shape of a group.

        Args:
            group_id: The group's id.
        """
        self._cache.pop(group_id, None)
        self._ensure_retryable(self._delete_group, group_id, what=f"deleting group {group_id}")

    def _save_group(self, group_id: Any, result: GroupResult) -> GroupResult:
        self.groups.save(group_id, result.as_tuple(), self.expires)
        return result

    def _restore_group(self, group_id: Any) -> dict[str, Any] | None:
        shape = self.groups.fetch(group_id)
        return None if shape is None else {"result": result_from_tuple(shape, self.app)}

    def _delete_group(self, group_id: Any) -> None:
        self.groups.delete(group_id)

    # -- clean-up ---------------------------------------------------------------------------------

    def cleanup(
        self,
        *,
        dry_run: bool = False,
        before_delete: BeforeDelete | None = None,
        on_batch: Callable[[Report], Any] | None = None,
    ) -> Report:
        """Delete what has expired; beat runs this daily as `celery.backend_cleanup`.

        Args:
            dry_run: Count only.
            before_delete: Called with tasks before they go; those stay with which it raises. Receivers of
                `signals.results_expiring` are, where it is None.
            on_batch: Called after each batch with what is done so far.

        Returns:
            The report of the deletions; of a dry run, the deletions it would make.

        Raises:
            PermissionDenied: The database user may not delete.
        """
        table, keep = self.settings.table, self.retention.keep
        if before_delete is None and results_expiring.receivers:
            before_delete = partial(announce, self)
        run = CleanUp(
            Requests(self.connection.run, partial(self.retry, what="clean-up")),
            table(statements.TASK),
            {table(name): name for name in (statements.TASK, statements.GROUP, statements.CHORD, statements.KEY)},
            Lifetimes(self.expires, self.failure_expires, self.settings.unfinished_expires),
            keep if self.retention.keeps(self.app.tasks) else None,
            before_delete,
            on_batch,
        )
        if dry_run:
            return run.count()
        self._chord_upkeep.run()
        report = run.clean()
        logger.info("clean-up deleted %d expired records from %s", report.total, self.as_uri())
        return report


_backends: weakref.WeakSet[SurrealDBBackend] = weakref.WeakSet()


def _refuse_memory_in_pool() -> None:
    if celery_compat.is_pool_process():
        embedded.refuse_in_memory(
            "is an engine in the memory of each process, and nobody "
            "would see the results of a process of the worker's pool; run the worker with --pool threads or solo, "
            "or serve the database with `python -m surrealdb_celery_backend.devserver` or `surreal start`"
        )


celery_compat.on_pool_process_start(_refuse_memory_in_pool)


@celery_compat.on_worker_ready
def _check_backend(app: Any, pool: str | None) -> None:
    backend = app.backend
    if isinstance(backend, SurrealDBBackend):
        check_in_background(backend, pool)


@celery_compat.on_worker_shutdown
def _close_outboxes() -> None:
    for backend in list(_backends):
        backend.outbox.close()
