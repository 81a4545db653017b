"""How Celery stores results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from typing import Any

from celery import states
from celery.exceptions import BackendStoreError

from .. import celery_compat
from ..client.connection import Connection
from . import statements
from .chords import Chords, HeaderTask
from .group_commit import GroupCommit
from .life import message_of, note_start
from .outbox import Outbox
from .records import TaskRecords
from .redaction import Redaction
from .replies import check_deleted
from .retention import Retention
from .retrying import RetryingMixin

#: States of a task that no worker has started.
WAITING_STATES = frozenset({states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED})


class StoringMixin(RetryingMixin):
    """Celery's names for storing results."""

    app: Any
    connection: Connection
    tasks: TaskRecords
    retention: Retention
    stores: GroupCommit
    outbox: Outbox
    chords: Chords
    result_consumer: Any
    redaction: Redaction
    _cache: Any
    encode_result: Callable[[Any, str], Any]
    get_state: Callable[[Any], str]
    current_task_children: Callable[[Any], Any]
    _get_result_meta: Callable[..., dict[str, Any]]

    def store_result(
        self, task_id: Any, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store a task's state and result.

        A worker's main loop does not wait for it where the database is away: it is stored later.

        Args:
            task_id: The task's id.
            result: The return value or exception.
            state: Its state.
            traceback: The traceback, as text.
            request: The task's request.
            **kwargs: Other arguments of `_store_result`.

        Returns:
            The result, as it is encoded.

        Raises:
            StoreFailed: The retries ran out.
        """
        message = message_of(result, state)
        if message is not None:
            kwargs["message"] = self.redaction.masked_error(message, request) if self.redaction.active else message
        result = self.encode_result(result, state)
        now = time.monotonic()
        if self.redaction.secrets_of_failing:
            kwargs["secrets"] = self.redaction.secrets_of_failing
        store = partial(self._store_result, task_id, result, state, traceback, request=request, at=now, **kwargs)
        what = f"storing {state} of task {task_id}"
        if celery_compat.in_worker_main_loop():
            note_start(request)
            self.outbox.write(what, store)
            return result
        self._ensure_retryable(
            store,
            what=what,
            fallback_exc=partial(BackendStoreError, state=state, task_id=task_id),
            fallback_msg=f"{state} of task {task_id} was not stored",
        )
        return result

    def mark_as_revoked(
        self,
        task_id: Any,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store that a task is revoked."""
        if request is None and store_result and self.outbox.outage is not None and celery_compat.in_worker_main_loop():
            # A revoke command. Celery looks first whether the task was started elsewhere: it could not.
            self.outbox.keep(f"storing {state} of task {task_id}", partial(self._revoke_waiting, task_id, reason))
            return
        super().mark_as_revoked(task_id, reason, request, store_result, state)  # type: ignore[misc]

    def _revoke_waiting(self, task_id: Any, reason: str) -> None:
        if self.get_state(task_id) in WAITING_STATES:
            super().mark_as_revoked(task_id, reason)  # type: ignore[misc]

    def mark_as_done(
        self, task_id: Any, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """A task succeeded. A header task's result and its part of the chord are stored in one round trip."""
        task = None
        if store_result and state == states.SUCCESS and request and request.chord and not request.ignore_result:
            task = self.chords.header_task(request)
        if task is None:
            super().mark_as_done(task_id, result, request, store_result, state)  # type: ignore[misc]
            return
        self.store_result(task_id, result, state, request=request, header_task=task)
        self.chords.returned(task, request, state, result)

    def mark_as_failure(
        self, task_id: Any, exc: Any, traceback: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """A task failed, and the rest of its chain with it."""
        if request:
            _name_first_task(request)
        with self.redaction.failing(request):
            super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)  # type: ignore[misc]

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        header_task: HeaderTask | None = None,
        at: float | None = None,
        **more: Any,
    ) -> Any:
        ready = state in states.READY_STATES
        ended = None
        if ready and at is not None:
            waited = time.monotonic() - at
            # Only where it waited: the usual nothing is not sent.
            ended = timedelta(seconds=waited) if waited > 0.001 else None
        meta = self._meta_to_store(result, state, traceback, request)
        redacted = False
        if self.redaction.active:
            meta, redacted = self.redaction.apply(meta, request, more.get("secrets", ()))
        record = self.tasks.from_meta(
            task_id,
            meta,
            request=request,
            kept=self.retention.lifetime(state, request),
            ended=ended,
            at=at,
            redacted=redacted,
            message=more.get("message"),
        )
        if request is None and state != states.SUCCESS:
            record.more["o"] = True
        if header_task is not None:
            stored = self.chords.store_with(header_task, record)
        else:
            stored = self.stores.store(record, ready=ready)
        if not stored:
            # The stored record stays, or the user may not write.
            self.stores.store_or_explain(record, ready=ready)
        return result

    @cached_property
    def _result_extended(self) -> Callable[[], Any]:
        return celery_compat.setting_reader(self.app, "result_extended")

    @cached_property
    def _plain_meta_is_known(self) -> bool:
        """Whether Celery's own code makes the meta, with the fields that `_meta_to_store` makes."""
        return celery_compat.has_plain_meta(self)

    def _meta_to_store(self, result: Any, state: str, traceback: Any, request: Any) -> dict[str, Any]:
        """Celery's meta of a result, with a date that is a datetime.

        A shortcut where `result_extended` is off: what Celery computes there is computed alike, but for the
        time in the app's zone, which a record has in UTC, and a second look-up in the configuration. Those two
        take 8 of the 40 µs that a store takes in Python. Where Celery's own meta has fields that are not known
        here, it is taken.
        """
        if self._result_extended() or not self._plain_meta_is_known:
            complete: dict[str, Any] = self._get_result_meta(result, state, traceback, request, format_date=False)
            return complete
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": datetime.now(timezone.utc) if state in states.READY_STATES else None,
        }
        if request:
            if getattr(request, "group", None):
                meta["group_id"] = request.group
            if getattr(request, "parent_id", None):
                meta["parent_id"] = request.parent_id
        return meta

    def _forget(self, task_id: Any) -> None:
        record = self.tasks.record_id(task_id)
        check_deleted(self.connection.run(statements.DELETE, records=record), record.table_name)

    def forget(self, task_id: Any) -> None:
        """Delete a result, and stop waiting for it.

        Args:
            task_id: The task's id.

        Raises:
            PermissionDenied: The user may not.
        """
        self._cache.pop(task_id, None)
        self._ensure_retryable(self._forget, task_id, what=f"forgetting task {task_id}")
        self.result_consumer.cancel_for(task_id)


def _name_first_task(request: Any) -> None:
    """Say in the rest of a chain that fails which task its workflow began with: Celery says it as it sends each.

    Args:
        request: The request of the task that fails.
    """
    chain = getattr(request, "chain", None)
    for member in chain if isinstance(chain, (list, tuple)) else ():
        each = member
        while isinstance(each, Mapping) and isinstance(each.get("options"), dict):
            if not each["options"].get("root_id"):
                each["options"]["root_id"] = request.root_id or request.id
            # A chord in a chain has the result of its body.
            each = (each.get("kwargs") or {}).get("body") if each.get("subtask_type") == "chord" else None
