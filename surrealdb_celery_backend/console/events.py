"""Live updates: one look at the database for all open pages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ..errors import SurrealDBBackendError
from ..results import TaskSummary
from .data import Data
from .matching import Match
from .views import summary_fields

logger = logging.getLogger(__name__)

#: Seconds that one call waits for a change.
WAIT = 1.0
#: Seconds in which changes gather before pages are told of them.
GATHERED = 0.2
#: Tasks in one event; where more changed, pages are told how many are left out.
MOST = 100
#: Events that a slow page may be behind before it loses the oldest.
BEHIND = 100
#: Seconds without an event after which a comment keeps the line open.
KEEP_ALIVE = 15.0


class Change:
    """Tasks that changed, written down once for all pages that want the same.

    Args:
        tasks: The tasks, in the order of their changes.
    """

    def __init__(self, tasks: Sequence[TaskSummary]) -> None:
        self._tasks = tasks
        self._all: str | None = None

    def text(self, match: Match | None) -> str:
        """The event for a page.

        Args:
            match: Says which tasks the page lists; None for all.
        """
        if match is None:
            if self._all is None:
                self._all = _event(self._tasks, ())
            return self._all
        matching = [task for task in self._tasks if match(task)]
        kept = {task.id for task in matching}
        return _event(matching, [task.id for task in self._tasks if task.id not in kept])


def _event(tasks: Sequence[TaskSummary], gone: Sequence[str]) -> str:
    fields = {
        "tasks": [summary_fields(task) for task in tasks[-MOST:]],
        "gone": list(gone),
        "more": max(0, len(tasks) - MOST),
    }
    return _text("tasks", fields)


def _text(kind: str, fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(fields, default=str)}\n\n"


#: Changes from now on are told: a page that is rendered after this event misses none.
FOLLOWING = _text("following", {})
#: The database does not answer; `FOLLOWING` comes when it does.
AWAY = _text("away", {})


class Hub:
    """Hands each change of a task to every open page.

    Args:
        data: The source of the events.
        refresh: Seconds between two looks.
    """

    def __init__(self, data: Data, refresh: float) -> None:
        self._data = data
        self._refresh = refresh
        self._pages: set[asyncio.Queue[Change | str]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._follows = False

    @property
    def pages(self) -> int:
        """How many pages are open."""
        return len(self._pages)

    async def follow(self, match: Match | None = None) -> AsyncGenerator[str, None]:
        """Yield events as server-sent events want them, until the page is closed.

        Args:
            match: Says which tasks the page lists; None for all.
        """
        queue: asyncio.Queue[Change | str] = asyncio.Queue(BEHIND)
        self._pages.add(queue)
        if self._follows:
            queue.put_nowait(FOLLOWING)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield "retry: 2000\n\n"
            while True:
                try:
                    change = await asyncio.wait_for(queue.get(), KEEP_ALIVE)
                except (TimeoutError, asyncio.TimeoutError):
                    yield ": still here\n\n"
                else:
                    yield change if isinstance(change, str) else change.text(match)
        finally:
            self._pages.discard(queue)
            if not self._pages and self._looking is not None:
                self._looking.cancel()
                self._looking = None
                self._follows = False

    def _tell(self, change: Change | str) -> None:
        for queue in self._pages:
            if queue.full():
                with contextlib.suppress(asyncio.QueueEmpty):
                    queue.get_nowait()
            queue.put_nowait(change)

    async def _look(self) -> None:
        """Follow the tasks for all pages; what goes wrong is told, and tried again."""
        while True:
            follower = None
            try:
                follower = await self._data.read(self._data.results.follower, look_every=self._refresh)
                self._follows = True
                self._tell(FOLLOWING)
                while True:
                    tasks = await self._data.read(follower.changes, WAIT)
                    if tasks:
                        self._tell(Change(tasks))
                        # What changes now gathers: a busy worker would change each page hundreds of times a second.
                        await asyncio.sleep(GATHERED)
            except SurrealDBBackendError as error:
                logger.warning("the console cannot look for changes at the moment: %s", error)
                self._tell(AWAY)
            finally:
                if self._looking is asyncio.current_task():
                    self._follows = False
                if follower is not None:
                    follower.close()
            await asyncio.sleep(self._refresh)
