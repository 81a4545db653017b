"""Following tasks: what changes from now on, told by a LIVE query where there is one, looked for in any case.

Nothing depends on the LIVE query: in a cluster a write on another node is not notified. So what ended since the
last look, and what has not ended, is also looked for, once a second where nothing is notified and more rarely
where it is. A look reads what ended since the last one and at most :data:`UNREADY_MOST` tasks that have not.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from ...client.values import EPOCH, RecordID
from ..timeouts import seconds
from . import statements
from .filters import Filter
from .forward import Forward
from .model import TaskSummary
from .paging import FAR
from .reading import summary
from .scanning import Runner
from .searching import Search

#: The pause between two looks where nothing is notified, in seconds.
LOOK_EVERY = 1.0
#: The same where changes are notified.
LOOK_EVERY_LIVE = 10.0
#: Looks take at most this part of the time.
LOOK_SHARE = 0.1
#: How many tasks that have not ended one look reads.
UNREADY_MOST = 5000
#: How far back a look reaches, in seconds: a store takes its time before it commits.
OVERLAP = 5.0
#: How many changed tasks one request fetches.
FETCH_MOST = 500


class Change(Protocol):
    """A record that was written."""

    @property
    def record(self) -> Mapping[str, Any]:
        """Its fields."""
        ...  # pragma: no cover


class Closeable(Protocol):
    """A subscription, closed when the last follower leaves."""

    def close(self) -> None:
        """Stop following."""
        ...  # pragma: no cover


class Feed(Protocol):
    """The notifications of changes: one LIVE query for all followers of a process."""

    @property
    def live(self) -> bool:
        """Whether changes are notified now."""
        ...  # pragma: no cover

    def follow(self, on_change: Callable[[Any], None], *, on_gap: Callable[[], None]) -> Closeable:
        """Call a function with each change, another when some may have been missed."""
        ...  # pragma: no cover


class Follower:
    """A follower of tasks; to be closed.

    Args:
        runner: The connection that runs statements.
        table: The task table.
        search: The source of the database's time.
        wanted: The tasks of interest. `since` and `until` mean nothing here.
        feed: The notifications of changes, where there are any.
        look_every: The pause between two looks where nothing is notified, in seconds.
    """

    def __init__(
        self,
        runner: Runner,
        table: str,
        search: Search,
        wanted: Filter,
        feed: Feed | None = None,
        *,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._runner, self._table, self._search, self._filter, self._feed = runner, table, search, wanted, feed
        self._look_every = look_every
        self._condition = threading.Condition()
        #: Ids that were notified and not fetched yet, in their order.
        self._notified: dict[str, None] = {}
        self._gap = False
        self._closed = False
        #: What was told of each task: while it has not ended, and for as long afterwards as looks reach back.
        self._told: dict[str, tuple[Any, ...]] = {}
        self._mark = search.now
        self._next_look = 0.0
        self._following = feed.follow(self._on_change, on_gap=self._on_gap) if feed is not None else None
        self._begin()

    def close(self) -> None:
        """Stop following; waiting calls of :meth:`changes` return."""
        if self._following is not None:
            self._following.close()
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def changes(self, wait: float | None) -> list[TaskSummary]:
        """Return the tasks that changed, each as it is now, in the order of the changes.

        Args:
            wait: How long to wait for a change, in seconds; None waits on.

        Returns:
            Empty where nothing changed meanwhile.

        Raises:
            TypeError: The time to wait is no number.
            ValueError: It is NaN.
        """
        limit = seconds(wait, "wait")
        deadline = math.inf if limit is None else time.monotonic() + limit
        while True:
            with self._condition:
                if self._closed:
                    return []
                ids = list(self._notified)[:FETCH_MOST]
                for each in ids:
                    del self._notified[each]
                gap, self._gap = self._gap, False
            changed = self._fetch(ids) if ids else []
            if gap or time.monotonic() >= self._next_look:
                changed += self._look()
            if changed:
                return changed
            with self._condition:
                now = time.monotonic()
                if self._closed or now >= deadline:
                    return []
                if not self._notified and not self._gap:
                    self._condition.wait(max(0.0, min(deadline, self._next_look) - now))

    # -- notifications -----------------------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        task_id = change.record.get("task_id")
        if isinstance(task_id, str):
            with self._condition:
                self._notified[task_id] = None
                self._condition.notify_all()

    def _on_gap(self) -> None:
        with self._condition:
            self._gap = True
            self._condition.notify_all()

    # -- looks -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take what is there for known: only what changes from now on is told."""
        for task_id, told in self._unready():
            self._told[task_id] = told
        for rows in self._ended():
            for _, task_id, state, _ in rows:
                self._told[task_id] = (state,)

    def _look(self) -> list[TaskSummary]:
        began = time.monotonic()
        now = self._search.now
        changed: dict[str, None] = {}
        ended: dict[str, None] = {}
        for rows in self._ended():
            for _, task_id, state, hit in sorted(rows):
                ended[task_id] = None
                if hit and self._told.get(task_id) != (state,):
                    changed[task_id] = None
        unready = dict(self._unready())
        for task_id, told in unready.items():
            if self._told.get(task_id) != told and task_id not in ended:
                changed[task_id] = None
        for task_id in [each for each in self._told if each not in unready and each not in ended]:
            del self._told[task_id]
        self._mark = now
        pause = LOOK_EVERY_LIVE if self._feed is not None and self._feed.live else self._look_every
        took = time.monotonic() - began
        self._next_look = time.monotonic() + max(pause, took / LOOK_SHARE)
        ids = list(changed)
        found: list[TaskSummary] = []
        for place in range(0, len(ids), FETCH_MOST):
            found += self._fetch(ids[place : place + FETCH_MOST])
        return found

    def _ended(self) -> Forward:
        text = statements.ended_since(self._table, self._filter.terms)
        since = max(EPOCH, self._mark - timedelta(seconds=OVERLAP))
        return Forward(self._runner, text, self._filter.variables, since, FAR, scan=self._search.scan)

    def _unready(self) -> list[tuple[str, tuple[Any, ...]]]:
        if not self._filter.unready:
            return []
        text = statements.unready_now(self._table, self._filter.terms)
        rows = self._search.rows(text, self._filter.variables, UNREADY_MOST)
        return [(task_id, _told(*rest)) for task_id, *rest in rows]

    def _fetch(self, ids: list[str]) -> list[TaskSummary]:
        """Fetch tasks in one request, and leave out those that were told as they are."""
        rows = self._runner.run(
            statements.matching(self._filter.terms),
            **self._filter.variables,
            records=[RecordID(self._table, each) for each in ids],
        )
        tasks = {task.id: task for task in (summary(fields) for fields in rows or ())}
        changed = []
        for task_id in ids:
            task = tasks.get(task_id)
            if task is None:
                continue
            told = (task.state,) if task.date_done is not None else _told_of(task)
            if self._told.get(task_id) != told:
                self._told[task_id] = told
                changed.append(task)
        return changed


def _told(state: Any, started_at: datetime | None, retries: Any, progress: Any) -> tuple[Any, ...]:
    """Return the fields whose change is a change of a task that has not ended."""
    shown = progress if isinstance(progress, Mapping) else {}
    return (str(state), started_at, retries, shown.get("current"), shown.get("total"), shown.get("message"))


def _told_of(task: TaskSummary) -> tuple[Any, ...]:
    progress = task.progress
    shown = (
        {} if progress is None else {"current": progress.current, "total": progress.total, "message": progress.message}
    )
    return _told(task.state, task.started_at, task.retries, shown)
