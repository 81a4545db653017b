"""Celery's chords: every header task keeps what it returned; the worker that completes the header publishes the body.

Celery's semantics here are those of its Redis backend: the body runs when all parts are there, and then either with
all results in header order, or fails with the `ChordError` of the first failed part.

The part is stored together with its task's SUCCESS, the body is published after. In between its worker may die, and
whatever brings the part again finds the header complete: the message delivered again, the worker's main process that
stores the failure of a task acknowledged early, or clean-up. What Celery asks before it gives up such a delivery is
answered by `settled`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult
from celery.utils.log import get_logger

from ... import celery_compat
from ...errors import TransientError
from ..records import TaskRecord, identifier
from ..statements import Statement, store_task
from .body import decode_body, encode_body
from .host import Host
from .joining import Joiner, chord_error, leaves
from .records import NO_INDEX, Claim, Header, HeaderPart, PartResult, Progress, StoredPart
from .store import ChordStore

logger = get_logger(__name__)

Result = TypeVar("Result")

#: How often a worker looks whether another's claim is done or has run out, in seconds.
CLAIM_INTERVAL = 0.2
#: Of how many chords that are being sent the header is kept in memory until its size is announced.
MAX_SENDING = 256
#: Of how many header tasks the ids are kept, to say which are missing.
MAX_TASKS = 10_000
#: States that a body's result has before any worker took the body.
_UNPUBLISHED = frozenset({"PENDING", "SENT"})


class ClaimLost(Exception):
    """Another worker publishes the body."""


@dataclass
class HeaderTask:
    """A header task that has ended, on its way into its chord.

    Attributes:
        group: The chord: the id of its header.
        task_id: The task.
        index: Its index in the header; `NO_INDEX` without one.
        part: The return value or exception, once it is encoded.
        stored: The outcome of storing that.
    """

    group: str
    task_id: str
    index: int
    part: HeaderPart | None = None
    stored: StoredPart | None = None

    def with_result(self, status: str, result: Any, encoding: str) -> HeaderPart:
        """Return its part.

        Args:
            status: The task's state.
            result: The encoded return value or exception.
            encoding: How.
        """
        self.part = HeaderPart(self.group, self.task_id, self.index, status, result, encoding)
        return self.part


@dataclass(frozen=True)
class _Run:
    """One attempt to publish a body.

    Attributes:
        group: The chord.
        me: The name that it is claimed by.
        progress: The state of its header.
        taken_over: Whether another worker claimed it before, and may have published it.
    """

    group: str
    me: str
    progress: Progress
    taken_over: bool


class Chords:
    """The chords of one backend.

    Args:
        host: The backend.
        store: Where parts and claims are.
        lease: How long a worker may take to publish a body before another takes over, in seconds.

    Attributes:
        host: The backend.
    """

    def __init__(self, host: Host, store: ChordStore, lease: float) -> None:
        self.host = host
        self._store = store
        self._lease = lease
        self._joiner = Joiner(host)
        self._sending: OrderedDict[str, Header] = OrderedDict()

    # -- the sending side ---------------------------------------------------------------------------

    def apply(self, header_result_args: tuple[Any, ...], body: Any, *, keep_body: bool = True) -> None:
        """Prepare for a header that is about to be sent: store its kept facts and its size in one request.

        Only the size of a nested header goes at once: others may announce one for it before its sender does.

        Args:
            header_result_args: The header's id, and the results of its tasks.
            body: The body's signature.
            keep_body: Whether the database may have the body's arguments, until it is published.
        """
        group_id, results, *_ = header_result_args
        group = identifier("group_id", group_id)
        header = encode_body(self.host.app, body, whole=keep_body)
        # A generator's header is a list too, and looking at it would send nothing until it ends.
        if not celery_compat.is_generator_header(results):
            header = self._with_tasks(group, results, header)
        self._sending[group] = header
        while len(self._sending) > MAX_SENDING:
            self._sending.popitem(last=False)

    def _with_tasks(self, group: str, results: Any, header: Header) -> Header:
        host = self.host
        shape = host.app.GroupResult(group, results)
        tasks = list(leaves(shape))
        header = replace(header, tasks=tasks if len(tasks) <= MAX_TASKS else ())
        if not any(isinstance(result, GroupResult) for result in results):
            return header
        encoded = host.encode(shape.as_tuple())
        self._retry(
            f"storing the header of chord {group}",
            self._store.announce,
            group,
            len(tasks),
            nested=True,
            beside=host.saving_group(group, encoded),
        )
        return replace(header, shape=encoded, shape_encoding=host.content_type)

    def set_size(self, group_id: str, size: int) -> None:
        """Say how many parts to wait for.

        Args:
            group_id: The chord.
            size: How many header tasks it has.
        """
        group = identifier("group_id", group_id)
        header = self._sending.pop(group, None)
        self._retry(f"storing the size of chord {group}", self._store.start, group, int(size), header)

    def add(self, group_id: str, result: Any) -> None:
        """Wait for one part more.

        Args:
            group_id: The chord.
            result: The result of the task that was added, or its id.
        """
        group, task_id = identifier("group_id", group_id), identifier("task_id", getattr(result, "id", result))
        self._retry(f"adding task {task_id} to chord {group}", self._store.add, group, task_id)

    def _retry(self, what: str, operation: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        return self.host.retry(operation, *args, what=what, **kwargs)

    # -- the worker's side --------------------------------------------------------------------------

    def header_task(self, request: Any) -> HeaderTask | None:
        """Return the header task that a request is; None where it is in no group.

        Args:
            request: The task's request.
        """
        if not request or not request.group or not request.id:
            return None
        index = request.group_index
        if not isinstance(index, int) or index < 0:
            index = NO_INDEX
        return HeaderTask(identifier("group_id", request.group), identifier("task_id", request.id), index)

    def store_with(self, task: HeaderTask, record: TaskRecord) -> Any:
        """Store a header task's part and its own result, in one transaction.

        Args:
            task: The header task.
            record: The record of its result.

        Returns:
            The reply of the statement that stores the result.
        """
        fields = record.fields
        part = task.with_result(fields["status"], fields["result"], fields["encoding"])
        # An object and not pairs: the part is made of some of its fields.
        text = store_task(tuple(record.more), True, "object::entries($t)")
        task.stored = self._store.add_part(part, Statement(text, {"r": record.id, "t": fields, **record.more}))
        return task.stored.task

    def returned(self, task: HeaderTask, request: Any, state: str, result: Any) -> None:
        """A header task has ended: store its part, if that is not done, and publish the body if it was the last.

        Args:
            task: The header task.
            request: Its request, which has the body.
            state: Its state.
            result: The return value or exception.
        """
        host, store, group = self.host, self._store, task.group
        part = task.part or task.with_result(state, host.encode(host.encode_result(result, state)), host.content_type)
        what = f"the part of task {task.task_id} in chord {group}"
        stored = task.stored or self._retry(f"storing {what}", store.add_part, part)
        if not stored.may_complete:
            self._retry(f"prolonging chord {group}", store.keep_unfinished, group, stored.header)
            return
        me = uuid4().hex
        progress = self._retry(f"completing chord {group}", store.complete, part, stored, me)
        if not progress.complete:
            self._retry(f"prolonging chord {group}", store.keep_unfinished, group, stored.header)
        elif self._hold(group, me, part.task_id, progress.claim, wait=not stored.added):
            logger.debug("chord %s is complete with %d parts", group, progress.size)
            body = maybe_signature(request.chord, app=host.app)
            taken_over = progress.claim is not None and progress.claim.holder != me
            self._publish(_Run(group, me, progress, taken_over), body)

    def _hold(self, group: str, me: str, task_id: str | None, claim: Claim | None, *, wait: bool) -> bool:
        """Return whether the body is ours to publish.

        Args:
            group: The chord.
            me: The name that we claim by.
            task_id: The task that claims.
            claim: The claim that there is.
            wait: Whether to stay until another's claim is done or has run out. For a part that came again: its
                first run may have claimed and died, and nobody else would come after it.
        """
        store = self._store
        while claim is not None and claim.holder != me:
            if claim.done:
                return False
            if claim.age >= self._lease:
                logger.warning("chord %s: the worker that was to publish its body is gone, taking over", group)
                claim = self._retry(f"taking over chord {group}", store.take_over, group, me, task_id, claim)
            elif not wait:
                return False
            else:
                time.sleep(min(CLAIM_INTERVAL, self._lease - claim.age + 0.001))
                claim = self._retry(f"looking at chord {group}", store.fetch_claim, group)
        # Without a claim it was applied again meanwhile: its own parts will see to it.
        return claim is not None

    def settled(self, group_id: str, task_id: str) -> bool:
        """Return whether nothing is left to do for a task whose SUCCESS is stored, as far as its chord goes.

        Something is where its part completed the header and the body is not out: then its message has to come again.

        Args:
            group_id: The task's group, which need not be a chord's header.
            task_id: The task.
        """
        progress = self._store.look_at(identifier("group_id", group_id))
        if not progress.complete:
            return True
        claim = progress.claim
        return claim is not None and (claim.done or claim.task_id != task_id)

    def resume(self, group_id: str) -> bool:
        """Publish the body of a complete header that nobody publishes.

        Args:
            group_id: The chord.

        Returns:
            Whether it was seen to. It is not where the header is not complete, where a worker is at it or is done, or
            where the body was not kept in the database.
        """
        group, me, store = identifier("group_id", group_id), uuid4().hex, self._store
        what = f"resuming chord {group}"
        progress = self._retry(what, store.look_at, group)
        claim = progress.claim
        if not progress.complete or (claim is not None and (claim.done or claim.age < self._lease)):
            return False
        header = self._retry(what, store.header, group)
        body = decode_body(self.host.app, header) if header else None
        if body is None:
            logger.warning("chord %s is complete, but its body is not in the database", group)
            return False
        if claim is None:
            mine = self._retry(what, store.claim, group, me, None)
        else:
            mine = self._retry(what, store.take_over, group, me, None, claim)
        if mine is None or mine.holder != me:
            return False
        logger.warning("chord %s is complete and its body was not published: publishing it now", group)
        self._publish(_Run(group, me, progress, claim is not None), body)
        return True

    # -- the body -----------------------------------------------------------------------------------

    def _publish(self, run: _Run, body: Any) -> None:
        """Publish a body that we hold the claim on, or let it fail."""
        if run.taken_over and self._is_out(body):
            self._finish(run)
            return
        parts = self._store.parts(run.group, run.progress, self.host.retry)
        try:
            results = self._results(run, self._held(run, parts))
        except ClaimLost:
            logger.warning("chord %s: another worker took over while its parts were read", run.group)
            return
        except TransientError:
            # All parts are there, only not readable now: the body must not fail for that. The next worker reads them.
            logger.exception("The parts of chord %r could not be read", run.group)
            raise
        except ChordError as exc:
            logger.exception("Chord %r raised an error", run.group)
            self._fail(run, body, exc)
        except Exception as exc:
            logger.exception("Chord %r raised an error", run.group)
            self._fail(run, body, chord_error(f"Join error: {exc!r}", exc))
        else:
            self._send(run, body, results)
        self._finish(run, parts.mean_size)

    def _is_out(self, body: Any) -> bool:
        """Return whether a worker has taken the body already: the claim's holder died after publishing it."""
        for _, meta in self._retry("looking for a chord's body", self.host.fetch, [body.id]):
            return meta["status"] not in _UNPUBLISHED
        return False

    def _held(self, run: _Run, parts: Iterable[list[PartResult]]) -> Iterator[list[PartResult]]:
        """Keep the claim while parts are read."""
        renewed = time.monotonic()
        for several in parts:
            yield several
            if time.monotonic() - renewed > self._lease / 3:
                if not self._retry(f"holding chord {run.group}", self._store.renew_claim, run.group, run.me):
                    raise ClaimLost
                renewed = time.monotonic()

    def _results(self, run: _Run, slices: Iterator[list[PartResult]]) -> list[Any]:
        if not run.progress.nested:
            return self._joiner.flat(slices)
        header = self._retry(f"reading the header of chord {run.group}", self._store.header, run.group)
        if header is None or header.shape is None:
            # Sent by an app that only announced a size.
            return self._joiner.flat(slices)
        return self._joiner.nested(slices, header)

    def _send(self, run: _Run, body: Any, results: list[Any]) -> None:
        try:
            celery_compat.publish(self.host.app, body.delay, results)
        except Exception as exc:
            logger.exception("The body of chord %r could not be published", run.group)
            self._fail(run, body, chord_error(f"Callback error: {exc!r}", exc))

    def _fail(self, run: _Run, body: Any, error: ChordError) -> None:
        """Store that the body failed. Called where the exception is being handled: its traceback is stored, too."""
        try:
            self.host.chord_error_from_stack(body, error)
        except BaseException:
            self._finish(run)
            raise

    def _finish(self, run: _Run, mean_size: int = 0) -> None:
        """Mark the chord done and let its parts go. The body is out: a failure here is only untidy.

        Args:
            run: The run.
            mean_size: Bytes of a part, about; 0 where that is not known.
        """
        beside = self.host.expiring_group(run.group) if run.progress.nested else None
        try:
            self._retry(
                f"finishing chord {run.group}",
                self._store.finish,
                run.group,
                run.me,
                mean_size=mean_size,
                beside=beside,
            )
        except Exception:
            logger.exception("Chord %r is done, but its records could not be deleted; they expire", run.group)
