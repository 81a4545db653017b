"""Chords: every header task keeps what it returned; whoever completes the header publishes the body.

No counter is kept (DESIGN 4.14: stores lose increments). Each part is a record of its own, so writers
never meet, a part delivered twice is one part, and completeness is a count of what is there.

A part costs one round trip, whatever the header's size: parts live in buckets of :data:`BUCKET`, and only
a part that finds its bucket full counts the whole header. The body is published under a claim with a
lease: if its holder dies between claiming and publishing, the redelivered part (``task_acks_late``)
takes over once the lease has run out. The body has the id it was given when the chord was made, so that
should two publish after all, one result overwrites the other.

Celery's semantics here are those of its Redis backend: the body runs when all parts are in, and then
either with all results in header order, or fails with the :class:`ChordError` of the first failed part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import states
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils.functional import _regen
from celery.utils.log import get_logger

from . import statements
from .failures import Failure
from .records import identifier
from .values import RecordID

if TYPE_CHECKING:
    from .backend import SurrealDBBackend

logger = get_logger(__name__)

#: Parts per bucket: what one part's request counts at most.
BUCKET = 64
#: The place of a part without index: behind all that have one, as in Celery's Redis backend.
NO_INDEX = 2**53
#: How often a worker looks whether another's claim is done or has run out, in seconds.
CLAIM_INTERVAL = 0.2


@dataclass
class Part:
    """What a header task returned, on its way into the database.

    :param fields: its record.
    :param kept: once it is there: the header's size where that is known, whether all parts are there, and
        whether this one had been there before.
    """

    group: str
    task_id: str
    index: int
    bucket: int
    fields: dict[str, Any]
    kept: tuple[int | None, bool, bool] | None = None


class Chords:
    """The chords of one backend.

    :param backend: whose connection, serializer and settings are used.
    """

    def __init__(self, backend: SurrealDBBackend) -> None:
        self._backend = backend
        self._table = backend.settings.table(statements.CHORD)

    def _record(self, *path: Any) -> RecordID:
        return RecordID(self._table, list(path))

    @property
    def _lifetime(self) -> float | None:
        seconds = getattr(self._backend, "chord_expires", self._backend.expires)  # Celery 5.7
        return float(seconds) if seconds else None

    def _expires_at(self) -> datetime | None:
        return self._backend.expiry(self._lifetime)

    def _fields(self, group: str, **fields: Any) -> dict[str, Any]:
        fields["group_id"] = group
        expires_at = self._expires_at()
        if expires_at is not None:
            fields["expires_at"] = expires_at
        return fields

    # -- the sending side ---------------------------------------------------------------------------

    def set_size(self, group_id: str, size: int) -> None:
        """How many parts to wait for. Early parts may be there already: they stay."""
        group = identifier("group_id", group_id)
        self._backend.connection.run_all(
            statements.SET_CHORD_SIZE,
            size=self._record(group, "size"),
            claim=self._record(group, "claim"),
            fields=self._fields(group, size=int(size)),
        )

    def add(self, group_id: str, result: Any) -> None:
        """One part more to wait for."""
        group = identifier("group_id", group_id)
        task_id = identifier("task_id", getattr(result, "id", result))
        self._backend.connection.run_all(
            statements.STORE,
            record=self._record(group, "added", task_id),
            fields=self._fields(group, task_id=task_id),
        )

    def apply(self, header_result_args: tuple[Any, ...]) -> None:
        """Keep the shape of a nested header: the body gets its results in that shape."""
        results = header_result_args[1]
        if isinstance(results, _regen):
            return  # a generator's header: it is a list too, and looking at it would send nothing until it ends
        backend = self._backend
        header = backend.app.GroupResult(*header_result_args)
        if any(isinstance(result, GroupResult) for result in header.results):
            # Users read it too: never less than results live.
            lifetime = max(self._lifetime, float(backend.expires)) if self._lifetime and backend.expires else None
            backend.keep_group(header.id, header, lifetime)

    # -- the worker's side --------------------------------------------------------------------------

    def part(self, request: Any, state: str, result: Any) -> Part | None:
        """A header task's part of its chord; None where the task is in no group."""
        if not request or not request.group or not request.id:
            return None
        backend = self._backend
        group, task_id = identifier("group_id", request.group), identifier("task_id", request.id)
        index = request.group_index if isinstance(request.group_index, int) else NO_INDEX
        bucket = -1 if index == NO_INDEX else index // BUCKET
        fields = self._fields(
            group,
            id=self._record(group, "part", bucket, index, task_id),
            task_id=task_id,
            status=state,
            result=backend.encode(backend.encode_result(result, state)),
            encoding=backend.content_type,
            group_index=index,
        )
        return Part(group, task_id, index, bucket, fields)

    def part_returned(self, part: Part, request: Any) -> None:
        """Keep a part, unless it was kept with its task's result, and publish the body if the header is complete."""
        backend = self._backend
        if part.kept is None:
            backend.keep_trying(self.keep, part)
        size, complete, redelivered = part.kept or (None, False, False)
        group = part.group
        if not complete:
            return
        callback = maybe_signature(request.chord, app=backend.app)
        try:
            # One name for all tries: a claim whose reply was lost is found to be ours.
            claimant = backend.keep_trying(self._claim, group, uuid4().hex, wait=redelivered)
            if claimant is None:
                return
            logger.debug("chord %s is complete with %s parts: publishing its body", group, size)
        except Exception:
            logger.exception("Chord %r is complete but could not be claimed", group)
            raise
        try:
            results = self._results(group, request)
        except ChordError as exc:
            logger.exception("Chord %r raised an error", group)
            self._fail(group, callback, exc)
        except Exception as exc:
            logger.exception("Chord %r raised an error", group)
            self._fail(group, callback, _chord_error(f"Join error: {exc!r}", exc))
        else:
            self._publish(group, callback, results)

    def keep(self, part: Part, **store: Any) -> Any:
        """Store a part, and see whether the header is complete.

        :param store: the parameters of ``STORE_READY_TASK``, to store the task's result in the same transaction.
        :return: what that statement returned.
        """
        group = part.group
        text = statements.store_ready_task_and_add_chord_part if store else statements.add_chord_part
        added, known, indexes = self._backend.connection.run_all(
            text(self._table),
            part=part.fields,
            group=group,
            bucket=part.bucket,
            size=self._record(group, "size"),
            claim=self._record(group, "claim"),
            uneven=self._record(group, "uneven"),
            **store,
        )
        stored, added = added if store else (None, added)
        part.kept = self._state_of_header(part, known, indexes, redelivered=not added)
        return stored

    def _state_of_header(
        self, part: Part, known: Any, indexes: Any, *, redelivered: bool
    ) -> tuple[int | None, bool, bool]:
        """See :attr:`Part.kept`."""
        backend, group = self._backend, part.group
        size = uneven = done = None
        for a_size, is_uneven, is_done in known or ():
            size, uneven, done = a_size or size, is_uneven or uneven, is_done or done
        if done or not size:
            return size, False, redelivered
        if part.index != NO_INDEX and not uneven and indexes.count(part.index) > 1:
            # Two header tasks with one index (the body of a chord in the header is a group): a bucket that
            # holds as many parts as it should no longer says that it holds all.
            backend.connection.run_all(
                statements.STORE, record=self._record(group, "uneven"), fields=self._fields(group, uneven=True)
            )
            uneven = True
        expected = min(BUCKET, size - part.bucket * BUCKET)
        if not uneven and part.bucket >= 0 and expected > 0 and len(indexes) < expected:
            return size, False, redelivered
        parts, more, sizes = backend.connection.run_all(
            statements.count_chord(self._table), group=group, size=self._record(group, "size")
        )
        total = (sizes[0] if sizes else size) + (more or 0)
        return total, (parts or 0) >= total, redelivered

    def _claim(self, group: str, me: str, *, wait: bool) -> str | None:
        """Claim the publishing of the body.

        :param me: who claims.
        :param wait: whether to stay until another's claim is done or has run out. For a redelivered part,
            whose first run may have claimed and died; nobody else would come after it.
        :return: our claim, or None where the body is in other hands.
        """
        backend = self._backend
        claim = self._record(group, "claim")
        lease = backend.settings.chord_lease * 1000
        outcome = backend.connection.attempt(
            statements.CLAIM_CHORD, claim=claim, claimant=me, expires_at=self._expires_at()
        )
        created, found = outcome
        if isinstance(created, Failure) and "already exists" not in created.message:
            raise created.exception(f"claiming chord {group}")
        while True:
            if isinstance(found, Failure):
                raise found.exception(f"claiming chord {group}")
            if not found:
                return None  # applied again meanwhile: its own parts will see to it
            holder, done, age = found[0]
            if holder == me:
                return me
            if done:
                return None
            if age >= lease:
                logger.warning("chord %s: the worker that was to publish its body is gone, taking over", group)
                _, found = backend.connection.run_all(
                    statements.TAKE_OVER_CHORD, claim=claim, claimant=me, stale=holder
                )
                continue
            if not wait:
                return None
            time.sleep(min(CLAIM_INTERVAL, (lease - age) / 1000 + 0.001))
            found = backend.connection.run(statements.FETCH_CLAIM, claim=claim)

    def _results(self, group: str, request: Any) -> list[Any]:
        """The results of the header, in its order and shape.

        :raises ChordError: of the first part that failed.
        """
        backend = self._backend
        header = backend.restore_group(group, cache=False)
        if header is not None:
            # A nested header: its shape was saved by apply(). All of it is there, so joining does not wait.
            header.on_ready()
            join = header.join_native if header.supports_native_join else header.join
            with allow_join_result():
                joined: list[Any] = join(timeout=backend.app.conf.result_chord_join_timeout, propagate=True)
            return joined
        parts = (
            backend.keep_trying(backend.connection.run, statements.fetch_chord_parts(self._table), group=group) or []
        )
        parts.sort(key=lambda part: (part["group_index"], part["task_id"]))
        return [self._value(part) for part in parts]

    def _value(self, part: dict[str, Any]) -> Any:
        backend = self._backend
        value = backend.decode_as(part["result"], part["encoding"])
        if part["status"] in states.EXCEPTION_STATES:
            value = backend.exception_to_python(value)
        if part["status"] in states.PROPAGATE_STATES:
            raise _chord_error(f"Dependency {part['task_id']} raised {value!r}", value)
        return value

    def _publish(self, group: str, callback: Any, results: list[Any]) -> None:
        app = self._backend.app
        # Celery 5.7 waits between the retries of a publish as its policy says.
        publish = getattr(app.amqp, "_retry_publish", lambda send, *args: send(*args))
        try:
            publish(callback.delay, results)
        except Exception as exc:
            logger.exception("The body of chord %r could not be published", group)
            self._fail(group, callback, _chord_error(f"Callback error: {exc!r}", exc))
        else:
            self._finish(group)

    def _fail(self, group: str, callback: Any, error: ChordError) -> None:
        try:
            self._backend.chord_error_from_stack(callback, error)
        finally:
            self._finish(group)

    def _finish(self, group: str) -> None:
        """Mark the chord done and let its parts go. The body is out: a failure here is only untidy."""
        backend = self._backend
        try:
            backend.keep_trying(
                backend.connection.run_all,
                statements.finish_chord(self._table),
                group=group,
                size=self._record(group, "size"),
                claim=self._record(group, "claim"),
                uneven=self._record(group, "uneven"),
            )
        except Exception:
            logger.exception("Chord %r is done, but its records could not be deleted; they expire", group)


def _chord_error(message: str, cause: Any) -> ChordError:
    error = ChordError(message)
    if isinstance(cause, Exception):
        error.__cause__ = cause
    return error
