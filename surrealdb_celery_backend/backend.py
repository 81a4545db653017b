"""Celery's result backend interface, on SurrealDB."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from celery import states
from celery._state import task_join_will_block
from celery.app.task import Context
from celery.backends import base
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import BackendStoreError
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import result_from_tuple
from celery.utils.log import get_logger
from celery.utils.time import get_exponential_backoff_interval
from kombu.serialization import loads
from kombu.serialization import registry as serializers
from kombu.utils.encoding import bytes_to_str

from . import statements
from .chords import Chords, Part
from .connection import Connection
from .consumer import ResultConsumer
from .errors import NotPermitted
from .failures import SAFE_TO_RETRY
from .group_commit import GroupCommit
from .records import TaskRecords, identifier
from .settings import Settings
from .values import BEGINNING, RecordID
from .waiting import ParentCheck, PendingResults, parents_of

if TYPE_CHECKING:
    from celery import Celery
    from celery.result import GroupResult

logger = get_logger(__name__)

Result = TypeVar("Result")

#: How often an operation is repeated when ``result_backend_max_retries`` is not set. With Celery's back-off
#: that bridges about a minute. Celery's own default is for ever, and a get() that never ends is a hang.
MAX_RETRIES = 20
#: How many records one clean-up statement deletes: short enough that nobody waits for its transaction.
CLEANUP_BATCH = 1000

#: What Celery's meta of a result has where ``result_extended`` is off.
PLAIN_META = frozenset({"status", "result", "traceback", "children", "date_done", "group_id", "parent_id"})

#: Undoes ``result_compression`` (Celery 5.7 and newer).
_decompress: Callable[[Any], Any] | None = getattr(base, "decompress_payload", None)


class SurrealDBBackend(PendingResults, KeyValueStoreBackend):
    """A Celery result backend on SurrealDB.

    Use it as ``Celery(backend="surrealdb_celery_backend:SurrealDBBackend")``, configured by the
    ``surrealdb_*`` settings, or with one URL: ``surrealdb://user:password@host:8000/namespace/database``.

    :param app: the Celery app.
    :param url: the URL that ``result_backend`` held, if it held one.
    :raises SettingsError: a ``surrealdb_*`` setting is unknown or not usable.
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
        retry = conf.get("result_backend_always_retry") if conf.value_set_for("result_backend_always_retry") else None
        self.always_retry: bool = True if retry is None else bool(retry)
        retries = conf.get("result_backend_max_retries") if conf.value_set_for("result_backend_max_retries") else None
        self.max_retries: float = MAX_RETRIES if retries is None else retries
        #: One instance serves all threads (app/base.py asks for it after this), unless the app is set to one for each.
        self.thread_safe = not conf.value_set_for("result_backend_thread_safe") or bool(conf.result_backend_thread_safe)
        self.connection = Connection(self.settings)
        self.stores = GroupCommit(self.connection)
        # Celery gives dates in the app's time zone, before 5.5 in UTC: as its own meta has them.
        dated = base.Backend._get_result_meta(self, None, states.SUCCESS, None, None, format_date=False)
        self.tasks = TaskRecords(self, self.settings.table(statements.TASK), dated["date_done"].tzinfo)
        self.chords = Chords(self)
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )
        _backends.add(self)

    def _after_fork(self) -> None:
        """In the child: who waits does so in the parent. The connection looks after itself."""
        for pending in self._pending_results:
            pending.clear()
        self.stores._after_fork()
        self.result_consumer._after_fork()

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return super().__reduce__(args, {"url": self.url, "expires": self.expires, **(kwargs or {})})

    def as_uri(self, include_password: bool = False) -> str:
        """Where results go, as one URL; secrets are masked unless ``include_password``."""
        return self.settings.uri(include_password=include_password)

    def close(self) -> None:
        """End the connections; the backend cannot be used afterwards."""
        self.result_consumer.stop()
        self.connection.close()

    # -- encoding ---------------------------------------------------------------------------------

    def decode_as(self, payload: Any, content_type: str) -> Any:
        """Decode what :meth:`encode` made, by the content type stored beside it.

        :raises kombu.exceptions.ContentDisallowed: ``result_accept_content`` does not have that type.
        """
        if _decompress is not None:
            payload = _decompress(payload)
        return loads(
            payload,
            content_type=content_type,
            content_encoding=_content_encodings().get(content_type, "utf-8"),
            accept=self.accept,
        )

    def _lifetime(self, state: str = states.SUCCESS) -> float | None:
        seconds = self.failure_expires if state == states.FAILURE else self.expires
        return float(seconds) if seconds else None

    def expiry(self, seconds: float | None) -> datetime | None:
        """The time that many seconds from now, in UTC; None for never."""
        return datetime.now(timezone.utc) + timedelta(seconds=seconds) if seconds else None

    # -- retries ----------------------------------------------------------------------------------

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether Celery may repeat the operation: see :data:`~.failures.SAFE_TO_RETRY`."""
        return isinstance(exc, SAFE_TO_RETRY)

    def keep_trying(
        self,
        operation: Callable[..., Result],
        *args: Any,
        max_retries: int | None = None,
        what: str | None = None,
        **kwargs: Any,
    ) -> Result:
        """Run an operation under Celery's retry settings.

        :param what: what the log calls it, where the operation's name says too little.
        :param max_retries: in the place of ``result_backend_max_retries``.
        :raises SurrealDBBackendError: the retries ran out, or the failure is not one that passes.
        """
        limit = self.max_retries if max_retries is None else max_retries
        retries = 0
        while True:
            try:
                return operation(*args, **kwargs)
            except Exception as exc:
                if not self._is_retried(exc):
                    raise
                what = what or getattr(operation, "__name__", repr(operation))
                if retries >= limit:
                    if retries:
                        logger.error("%s failed for good after %d retries: %s", what, retries, exc)  # noqa: TRY400 - one line
                    raise
                retries += 1
                logger.warning("%s failed, retry %d of %s follows: %s", what, retries, limit, exc)
                self._tell_of_retry(exc)
                pause = get_exponential_backoff_interval(
                    self.base_sleep_between_retries_ms, retries, self.max_sleep_between_retries_ms, full_jitter=True
                )
                self._sleep(pause / 1000)

    def _is_retried(self, exc: Exception) -> bool:
        return self.always_retry and self.exception_safe_to_retry(exc)

    def _tell_of_retry(self, exc: Exception) -> None:
        """Call the hook that Celery has for subclasses since 5.7."""
        try:
            getattr(self, "on_backend_retryable_error", lambda _: None)(exc)
        except Exception:
            logger.exception("on_backend_retryable_error failed; trying again all the same")

    def _ensure_retryable(
        self,
        func: Callable[..., Result],
        *args: Any,
        fallback_exc: Callable[[str | None], Exception] | None = None,
        fallback_msg: str | None = None,
        max_retries: int | None = None,
        **kwargs: Any,
    ) -> Result:
        """Celery 5.7's own loop, with a line per retry where that has a traceback."""
        try:
            return self.keep_trying(func, *args, max_retries=max_retries, **kwargs)
        except Exception as exc:
            if fallback_exc is None or not self._is_retried(exc):
                raise
            raise fallback_exc(f"{fallback_msg}: {exc}") from exc

    # -- tasks ------------------------------------------------------------------------------------

    def store_result(
        self, task_id: Any, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a task's state and result.

        :raises celery.exceptions.BackendStoreError: the retries ran out.
        """
        result = self.encode_result(result, state)
        self._ensure_retryable(
            self._store_result,
            task_id,
            result,
            state,
            traceback,
            request=request,
            what=f"storing {state} of task {task_id}",
            fallback_exc=partial(BackendStoreError, state=state, task_id=task_id),
            fallback_msg=f"{state} of task {task_id} was not stored",
            **kwargs,
        )
        return result

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        part: Part | None = None,
        **_: Any,
    ) -> Any:
        ready = state in states.READY_STATES
        meta = self._meta_to_store(result, state, traceback, request)
        record = self.tasks.from_meta(
            task_id,
            meta,
            request=request,
            # Only what is done expires: clean-up must never take an unfinished task away.
            expires_at=self.expiry(self._lifetime(state)) if ready else None,
        )
        record_id = self.tasks.record_id(task_id)
        if part is not None:
            stored = self.chords.keep(part, record=record_id, task=record)
        else:
            stored = self.stores.store(record_id, record, ready=ready)
        if not stored and not self.task_result_exists(task_id):
            # Nothing was there that a store must not replace.
            raise NotPermitted(
                f"{self.as_uri()} takes no results: the user may not write to the table "
                f"{self.settings.table(statements.TASK)!r}; docs/reliability.md has the rights that are needed"
            )
        return result

    @cached_property
    def _plain_meta_is_known(self) -> bool:
        """Whether Celery's own code makes the meta, with the fields that ``_meta_to_store`` makes."""
        if type(self)._get_result_meta is not base.Backend._get_result_meta:
            return False
        request = Context(id="id", group="group", parent_id="parent")
        return set(self._get_result_meta(None, states.SUCCESS, None, request)) == PLAIN_META

    def _meta_to_store(self, result: Any, state: str, traceback: Any, request: Any) -> dict[str, Any]:
        """Celery's meta of a result, with a date that is a datetime.

        A shortcut where ``result_extended`` is off: what Celery computes there is computed alike, but for the
        time in the app's zone, which a record has in UTC, and a second look-up in the configuration. Those two
        take 8 of the 40 µs that a store takes in Python. Where Celery's own meta has fields that are not known
        here, it is taken.
        """
        if self.app.conf["result_extended"] or not self._plain_meta_is_known:
            complete: dict[str, Any] = self._get_result_meta(result, state, traceback, request, format_date=False)
            return complete
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": datetime.now(timezone.utc) if state in self.READY_STATES else None,
        }
        if request:
            if getattr(request, "group", None):
                meta["group_id"] = request.group
            if getattr(request, "parent_id", None):
                meta["parent_id"] = request.parent_id
        return meta

    def _get_task_meta_for(self, task_id: Any) -> dict[str, Any]:
        for _, meta in self.fetch([task_id]):
            return meta
        return {"status": states.PENDING, "result": None}

    def fetch(self, task_ids: Iterable[Any], *, only_ready: bool = False) -> list[tuple[Any, dict[str, Any]]]:
        """Fetch any number of results in one round trip.

        :param only_ready: leave out what is not finished.
        :return: id, as it was given, and meta of those that exist.
        """
        asked = {task_id: self.tasks.record_id(task_id) for task_id in task_ids}
        ids = list(asked.values())
        if not ids:
            return []
        found = self.connection.run(
            statements.FETCH_READY_TASKS if only_ready else statements.FETCH_TASKS,
            records=ids if len(ids) > 1 else ids[0],
        )
        metas = {fields["task_id"]: self.meta_from_decoded(self.tasks.to_meta(fields)) for fields in found or ()}
        return [(task_id, metas[record.id]) for task_id, record in asked.items() if record.id in metas]

    def task_result_exists(self, task_id: Any) -> bool:
        """Whether anything is stored for a task, be it PENDING."""
        return bool(self.connection.run(statements.EXISTS, record=self.tasks.record_id(task_id)))

    def _forget(self, task_id: Any) -> None:
        self.connection.run(statements.DELETE, records=self.tasks.record_id(task_id))

    def forget(self, task_id: Any) -> None:
        """Delete a result, and stop waiting for it."""
        super().forget(task_id)
        self.result_consumer.cancel_for(task_id)

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
        """Yield results as they become ready, one round trip for all that are waited for.

        :param timeout: seconds until :class:`celery.exceptions.TimeoutError`; 0 looks once.
        :param interval: seconds between two looks.
        """
        interval = 0.5 if interval is None else interval
        waited_for = {bytes_to_str(task_id) for task_id in task_ids}
        for task_id in list(waited_for):
            cached = self._cache[task_id] if self.is_cached(task_id) else None
            if cached and cached["status"] in READY_STATES:
                waited_for.discard(task_id)
                yield task_id, cached
        deadline = None if timeout is None else time.monotonic() + timeout
        iterations = 0
        only_ready = READY_STATES == states.READY_STATES
        while waited_for:
            for task_id, meta in self.keep_trying(self.fetch, waited_for, what="get_many", only_ready=only_ready):
                if meta["status"] not in READY_STATES:
                    continue
                waited_for.discard(task_id)
                self._cache[task_id] = meta
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            if not waited_for:
                return
            remaining = interval if deadline is None else deadline - time.monotonic()
            if remaining <= 0:
                raise ResultTimeout(f"Operation timed out ({timeout})")
            if on_interval:
                on_interval()
            time.sleep(min(interval, remaining))
            iterations += 1
            if max_iterations and iterations >= max_iterations:
                return

    def iter_native(self, result: Any, no_ack: bool = True, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Yield a group's results as they arrive.

        A task before the group that failed means that the group is never sent: its error is raised, as
        ``join()`` does, where Celery's own ``iter_native`` waits for ever (celery issue 6437).
        """
        if not result.results:
            return
        parents = parents_of([result, *result.results])
        if parents:
            kwargs["on_interval"] = ParentCheck(parents, kwargs.get("on_interval"))
        given = set()
        for task_id, meta in super().iter_native(result, no_ack=no_ack, **kwargs):
            given.add(task_id)
            yield task_id, meta
        # The last result completes the group before it is handed over: Celery may look too early.
        for node in result.results:
            if node.id not in given:
                yield node.id, node._cache if hasattr(node, "_cache") else node.children

    def _collect_into(self, result: Any, bucket: Any) -> None:
        """Hand a result over when it comes, also when it came just before it was asked for here."""
        super()._collect_into(result, bucket)
        if result._cache is not None and self.result_consumer.buckets.pop(result, None) is not None:
            bucket.append(result)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """A task is about to be sent: its result will come to this process."""
        if not task_join_will_block():
            self.result_consumer.expect(task_id)

    # -- groups -----------------------------------------------------------------------------------

    def _group_record(self, group_id: Any) -> RecordID:
        return RecordID(self.settings.table(statements.GROUP), identifier("group_id", group_id))

    def _save_group(self, group_id: Any, result: GroupResult) -> GroupResult:
        self.keep_group(group_id, result, self._lifetime())
        return result

    def keep_group(self, group_id: Any, result: GroupResult, lifetime: float | None) -> None:
        """Store the shape of a group.

        :param lifetime: for how many seconds; None for ever.
        """
        fields = {
            "group_id": identifier("group_id", group_id),
            "result": self.encode(result.as_tuple()),
            "encoding": self.content_type,
            "date_done": datetime.now(timezone.utc),
        }
        self._store_until_expiry(self._group_record(group_id), fields, lifetime)

    def _restore_group(self, group_id: Any) -> dict[str, Any] | None:
        found = self.connection.run(statements.FETCH_GROUPS, records=self._group_record(group_id))
        if not found:
            return None
        _, result, encoding = found[0]
        return {"result": result_from_tuple(self.decode_as(result, encoding), self.app)}

    def _delete_group(self, group_id: Any) -> None:
        self.connection.run(statements.DELETE, records=self._group_record(group_id))

    # -- chords (chords.py) -----------------------------------------------------------------------

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """How many header tasks a chord has; a chord applied again starts a new run."""
        self.keep_trying(self.chords.set_size, group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """One more header task, added by a running one."""
        self.keep_trying(self.chords.add, chord_id, result)

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """A chord's header is about to be sent. There is no ``chord_unlock`` task that polls."""
        self.ensure_chords_allowed()
        self.keep_trying(self.chords.apply, header_result_args)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A header task ended: keep what it returned, and publish the body if it was the last."""
        part = self.chords.part(request, state, result)
        if part is not None:
            self.chords.part_returned(part, request)

    def mark_as_done(
        self, task_id: Any, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """A task succeeded. A header task's result and its part of the chord are stored in one round trip."""
        part = None
        if store_result and state == states.SUCCESS and request and request.chord and not request.ignore_result:
            part = self.chords.part(request, state, result)
        if part is None:
            super().mark_as_done(task_id, result, request, store_result, state)
            return
        self.store_result(task_id, result, state, request=request, part=part)
        self.chords.part_returned(part, request)

    # -- clean-up ---------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Delete what has expired; beat runs this daily as ``celery.backend_cleanup``.

        Deleted are records past their own ``expires_at``, and finished tasks done longer ago than
        ``result_expires`` now says (nothing of that kind where it is None or 0). A task that has not
        finished is never touched.
        """
        table = self.settings.table
        deleted = 0
        for name in (statements.TASK, statements.GROUP, statements.CHORD, statements.KEY):
            deleted += self._delete_in_batches(statements.delete_expired(table(name)))
        if self.expires:
            spared = [states.FAILURE] if self.failure_expires != self.expires else []
            deleted += self._delete_in_batches(
                statements.delete_done_before(table(statements.TASK)),
                cutoff=datetime.now(timezone.utc) - timedelta(seconds=self.expires),
                spared=spared,
            )
        logger.info("clean-up deleted %d expired records from %s", deleted, self.as_uri())

    def _delete_in_batches(self, text: str, **variables: Any) -> int:
        deleted = 0
        start = BEGINNING
        batch: int
        while True:
            batch, latest = self.keep_trying(
                self.connection.run, text, what="clean-up", start=start, batch=CLEANUP_BATCH, **variables
            )
            deleted += batch
            if batch == CLEANUP_BATCH:
                start = latest
            elif start == BEGINNING:
                return deleted
            else:
                start = BEGINNING  # an index need not be read in its order: what was passed over

    # -- the key/value interface of the base class ---------------------------------------------------
    # Celery's own code does not come here: the methods above replace its callers. A task's or a group's
    # key leads to its record, any other to the table `key`.

    def _places_of(self, key: Any) -> list[tuple[str, RecordID]]:
        """Where a key's value may be: its task or group, and the table of plain keys."""
        text = bytes_to_str(key)
        places = []
        for kind, prefix in ((statements.TASK, self.task_keyprefix), (statements.GROUP, self.group_keyprefix)):
            rest = text.removeprefix(bytes_to_str(prefix))
            if rest and rest != text:
                places.append((kind, RecordID(self.settings.table(kind), identifier(f"{kind}_id", rest))))
        return [*places, (statements.KEY, RecordID(self.settings.table(statements.KEY), identifier("key", text)))]

    def get(self, key: Any) -> Any:
        """The value of a key; None where there is none."""
        return self.mget([key])[0]

    def mget(self, keys: Iterable[Any]) -> list[Any]:
        """The values of keys, in their order; None where there is none. One round trip a table."""
        places = [self._places_of(key) for key in keys]
        by_kind: dict[str, list[RecordID]] = {}
        for kind, record in (place for of_one_key in places for place in of_one_key):
            by_kind.setdefault(kind, []).append(record)
        readers: dict[str, tuple[str, Callable[[Any], tuple[str, Any]]]] = {
            statements.TASK: (
                statements.FETCH_TASKS,
                lambda fields: (fields["task_id"], self.encode(self.tasks.to_meta(fields))),
            ),
            statements.GROUP: (
                statements.FETCH_GROUPS,
                lambda values: (values[0], self.encode({"result": self.decode_as(values[1], values[2])})),
            ),
            statements.KEY: (statements.FETCH_KEYS, tuple),
        }
        found: dict[tuple[str, str], Any] = {}
        for kind, records in by_kind.items():
            text, read = readers[kind]
            for stored in self.connection.run(text, records=records) or ():
                name, value = read(stored)
                found[kind, name] = value
        return [
            next((found[kind, str(record.id)] for kind, record in of_one_key if (kind, str(record.id)) in found), None)
            for of_one_key in places
        ]

    def set(self, key: Any, value: Any) -> None:
        """Set the value of a key, whatever was there. An encoded task or group becomes its record."""
        *special, (_, plain) = self._places_of(key)
        decoded = self._decoded(value) if special else {}
        for kind, record in special:
            if kind == statements.TASK and "status" in decoded:
                done = decoded.get("date_done")
                meta = {"result": None, **decoded}
                meta["date_done"] = datetime.fromisoformat(done) if isinstance(done, str) else done
                expires_at = self.expiry(self._lifetime(meta["status"])) if meta["date_done"] else None
                fields = self.tasks.from_meta(record.id, meta, expires_at=expires_at)
                self.connection.run(statements.REPLACE_TASK, record=record, task=fields)
                return
            if kind == statements.GROUP and "result" in decoded:
                fields = {"group_id": record.id, "result": self.encode(decoded["result"])}
                self._store_until_expiry(record, fields | {"encoding": self.content_type}, self._lifetime())
                return
        self._store_until_expiry(plain, {"key": plain.id, "value": value}, self._lifetime())

    def _store_until_expiry(self, record: RecordID, fields: dict[str, Any], lifetime: float | None) -> None:
        expires_at = self.expiry(lifetime)
        if expires_at is not None:
            fields["expires_at"] = expires_at
        self.connection.run(statements.STORE, record=record, fields=fields)

    def _decoded(self, value: Any) -> dict[str, Any]:
        """What an encoded value holds; nothing where it is not one of ours."""
        try:
            decoded = self.decode(value)
        except Exception:  # a plain value: any text
            return {}
        return decoded if isinstance(decoded, dict) else {}

    def delete(self, key: Any) -> None:
        """Delete a key."""
        self.connection.run(statements.DELETE, records=[record for _, record in self._places_of(key)])

    def incr(self, key: Any) -> int:
        """Add one to a key's value and return it."""
        record = self._places_of(key)[-1][1]
        return int(self.connection.run_all(statements.INCREMENT, record=record, key=record.id, repeatable=False)[0][0])

    def expire(self, key: Any, value: float | None) -> None:
        """Let a key end that many seconds from now; None or 0 for never."""
        records = [record for _, record in self._places_of(key)]
        if value:
            self.connection.run(statements.EXPIRE, records=records, expires_at=self.expiry(float(value)))
        else:
            self.connection.run(statements.UNEXPIRE, records=records)


_backends: weakref.WeakSet[SurrealDBBackend] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for backend in list(_backends):
        backend._after_fork()


# Also for a plain os.fork (a web server that loads the application first), of which billiard hears nothing.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

_encodings_lock = threading.Lock()
_encodings: dict[str, str] = {}


def _content_encodings() -> dict[str, str]:
    """Content type to content encoding of the serializers that Kombu knows now."""
    encoders = serializers._encoders
    if len(_encodings) < len(encoders):
        with _encodings_lock:
            _encodings.update({content_type: encoding for content_type, encoding, _ in encoders.values()})
    return _encodings
