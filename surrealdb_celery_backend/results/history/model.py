"""The return values of the typed API: frozen dataclasses. Times are aware datetimes in UTC, durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from celery import states

__all__ = [
    "Attempt",
    "Distribution",
    "Page",
    "Progress",
    "StatRow",
    "Stats",
    "TaskDetail",
    "TaskError",
    "TaskNode",
    "TaskSummary",
    "Workflow",
]


@dataclass(frozen=True)
class TaskError:
    """The exception of a task.

    Attributes:
        type: The name of its class, such as `ValueError`.
        module: The module of its class, such as `builtins`; empty where it is not known.
        message: Its text.
    """

    type: str
    module: str = ""
    message: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True)
class Attempt:
    """One run of a task that ended in a retry.

    Attributes:
        at: When it ended, by the database's clock.
        error: Why it is retried.
        worker: The worker's name, such as `celery@host`.
    """

    at: datetime | None
    error: TaskError | None
    worker: str | None


@dataclass(frozen=True)
class Progress:
    """How far a running task is.

    Attributes:
        current: How much is done, in the task's own unit.
        total: How much there is to do, in the same unit; None where the task does not know.
        message: The task's current step.
    """

    current: float | None = None
    total: float | None = None
    message: str | None = None

    @property
    def fraction(self) -> float | None:
        """The part that is done, from 0 to 1; None where the total is not known."""
        if self.current is None or not self.total:
            return None
        return min(1.0, max(0.0, self.current / self.total))


@dataclass(frozen=True)
class TaskSummary:
    """A stored task as a line of a list.

    Fields that the record does not have are None: `name`, `worker`, `queue`, `args_text` and `kwargs_text` need
    `result_extended`, and the records of older versions have no `sent_at`, `error` and the like.

    Attributes:
        id: The task's id.
        state: `SUCCESS`, `FAILURE`, `STARTED`, …, or a state of its own.
        name: The task's name, such as `shop.report`.
        worker: The worker that ran it, such as `celery@host`.
        queue: The queue that it was sent to.
        retries: How often it was retried.
        sent_at: When it was first sent, by the sender's clock.
        started_at: When its last run began, by the database's clock.
        date_done: When it ended, by the database's clock; None while it has not.
        eta: The time before which it was not to run, by the sender's clock.
        expires_at: When the record may be deleted, by the database's clock; None for never.
        runtime: How long its last run took, in seconds, by a clock of the worker that cannot be set.
        queue_time: How long it waited before its last run, in seconds, from its `eta` or from when it was sent, again after
            a retry: two clocks, the sender's and the worker's.
        clock_skew: By how many seconds the sender's clock is ahead of the worker's at least, where `queue_time` is 0
            because it would be negative; else None.
        error: Its exception, of FAILURE and RETRY.
        progress: How far it is, where it says so.
        group_id: The group that it belongs to.
        parent_id: The task that sent it.
        root_id: The first task of its workflow.
        retry_of: The task that it is a retry of, sent by hand.
        periodic_task_name: The beat entry that sent it.
        priority: The message's priority.
        tags: Its tags.
        args_text: The beginning of its positional arguments as they are stored; None where they are not text.
        kwargs_text: The beginning of its keyword arguments, likewise.
        result_text: The beginning of its result, likewise.
    """

    id: str
    state: str
    name: str | None = None
    worker: str | None = None
    queue: str | None = None
    retries: int | None = None
    sent_at: datetime | None = None
    started_at: datetime | None = None
    date_done: datetime | None = None
    eta: datetime | None = None
    expires_at: datetime | None = None
    runtime: float | None = None
    queue_time: float | None = None
    clock_skew: float | None = None
    error: TaskError | None = None
    progress: Progress | None = None
    group_id: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    retry_of: str | None = None
    periodic_task_name: str | None = None
    priority: int | None = None
    tags: tuple[str, ...] = ()
    args_text: str | None = None
    kwargs_text: str | None = None
    result_text: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it has ended: `SUCCESS`, `FAILURE` or `REVOKED`."""
        return bool(self.state in states.READY_STATES)

    @property
    def failed(self) -> bool:
        """Whether it ended in a `FAILURE`."""
        return bool(self.state == states.FAILURE)

    @property
    def at(self) -> datetime | None:
        """The time that it is listed under: when it ended, else began, else was sent."""
        return self.date_done or self.started_at or self.sent_at


@dataclass(frozen=True)
class TaskDetail(TaskSummary):
    """A stored task with all that is known of it.

    Attributes:
        args: Its positional arguments, decoded.
        kwargs: Its keyword arguments, decoded.
        args_kept: Whether both are what the task was called with: False where `result_extended` was off, or they
            were redacted or too large to keep.
        args_redacted: Whether they were masked (`surrealdb_redact`) or cut (`surrealdb_redact_limit`) before they
            were stored.
        result: The decoded return value; None for a failure, which is in `error`.
        traceback: Its traceback, of a failure.
        attempts: The runs before the last, oldest first.
        children: The ids of the tasks that it sent.
        meta: The `meta` header of its message; without one, what `update_state` stored last.
        stamps: The stamps of its message.
        unreadable: Fields that cannot be decoded here, with the reason; they are None.
        expires_in: Seconds until the record may be deleted, by the database's clock; None for never.
    """

    args: Any = None
    kwargs: Any = None
    args_kept: bool = False
    args_redacted: bool = False
    result: Any = None
    traceback: str | None = None
    attempts: tuple[Attempt, ...] = ()
    children: tuple[str, ...] = ()
    meta: Any = None
    stamps: Mapping[str, Any] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    expires_in: float | None = None


@dataclass(frozen=True)
class Page:
    """One page of a list of tasks, newest first: those that have not ended, then the others by when they ended.

    Attributes:
        tasks: The tasks.
        after: The argument of `find(after=…)` for the next page; None after the last.
        complete: Whether the page is full or the last; False where the search stopped at `max_scanned`.
        scanned: How many records were looked at.
    """

    tasks: tuple[TaskSummary, ...]
    after: str | None
    complete: bool
    scanned: int


@dataclass(frozen=True)
class TaskNode:
    """A task in its workflow.

    Attributes:
        id: The task's id.
        state: Its state; `PENDING` where nothing is stored.
        task: The stored task; None where none is.
        children: The tasks that it sent, in the order in which they were sent.
    """

    id: str
    state: str
    task: TaskSummary | None
    children: tuple[TaskNode, ...] = ()

    def __len__(self) -> int:
        # Not by recursion: a chain may be thousands of generations long.
        count, stack = 0, [self]
        while stack:
            count += 1
            stack.extend(stack.pop().children)
        return count


@dataclass(frozen=True)
class Workflow:
    """All tasks that one call has set off.

    Attributes:
        root: The first task, with those that it sent.
        states: How many tasks have each state.
        complete: False where there are more tasks, or more to search, than one call may read.
    """

    root: TaskNode
    states: Mapping[str, int]
    complete: bool

    def __len__(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True)
class Distribution:
    """Durations of many tasks, in seconds.

    Attributes:
        count: How many tasks have one.
        mean: Their mean.
        p50: The median: half of the tasks took no longer.
        p95: 95 of 100 took no longer.
        p99: 99 of 100 took no longer.
        maximum: The longest.
    """

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float


@dataclass(frozen=True)
class StatRow:
    """Figures of the tasks that have one name, hour, worker or queue.

    Attributes:
        key: The name, worker or queue; the hour as `2026-11-26T14:00:00+00:00`; empty where a record has none.
        count: How many tasks there are.
        states: How many have each state.
        failure_rate: The part of those that ended that failed, from 0 to 1; None where none ended.
        runtime: How long their last runs took, in seconds; None where no record says.
        queue_time: How long they waited before their last runs, in seconds; None where no record says.
    """

    key: str
    count: int
    states: Mapping[str, int]
    failure_rate: float | None
    runtime: Distribution | None
    queue_time: Distribution | None


@dataclass(frozen=True)
class Stats:
    """Figures of many tasks.

    Attributes:
        by: The key of the rows: `name`, `hour`, `worker` or `queue`.
        rows: The rows: hours in their order, others with the most tasks first.
        total: The same for all tasks.
        since: Of tasks done since then; None for all.
        until: Of tasks done before then; None for all.
    """

    by: str
    rows: tuple[StatRow, ...]
    total: StatRow
    since: datetime | None
    until: datetime | None
