"""`Results` for asyncio: the same, each call in another thread, so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .api import FOLLOW_WAIT, Results
from .following import LOOK_EVERY
from .model import Page, Stats, TaskDetail, TaskSummary, Workflow

if TYPE_CHECKING:
    from celery import Celery
    from typing_extensions import Self

    from ..checks import Finding
    from .actions import Retry
    from .transfer import Exported, Imported
    from .unfinished import UnfinishedChord


class AsyncResults:
    """What is stored of an app's tasks, for asyncio: see :class:`Results`, whose arguments each method takes.

    Args:
        app: The Celery app.
    """

    def __init__(self, app: Celery) -> None:
        self.sync = Results(app)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.sync.close)

    async def find(self, **given: Any) -> Page:
        """See :meth:`Results.find`."""
        return await asyncio.to_thread(self.sync.find, **given)

    async def find_all(self, **given: Any) -> AsyncIterator[TaskSummary]:
        """See :meth:`Results.find_all`."""
        after: str | None = None
        while True:
            page: Page = await asyncio.to_thread(self.sync.find, limit=1000, after=after, **given)
            for task in page.tasks:
                yield task
            after = page.after
            if after is None:
                return

    async def get(self, task_id: str) -> TaskDetail:
        """See :meth:`Results.get`."""
        return await asyncio.to_thread(self.sync.get, task_id)

    async def exists(self, task_id: str) -> bool:
        """See :meth:`Results.exists`."""
        return await asyncio.to_thread(self.sync.exists, task_id)

    async def tree(self, task_id: str) -> Workflow:
        """See :meth:`Results.tree`."""
        return await asyncio.to_thread(self.sync.tree, task_id)

    async def stats(self, by: str = "name", **given: Any) -> Stats:
        """See :meth:`Results.stats`."""
        return await asyncio.to_thread(self.sync.stats, by, **given)

    async def unfinished_chords(self) -> list[UnfinishedChord]:
        """See :meth:`Results.unfinished_chords`."""
        return await asyncio.to_thread(lambda: list(self.sync.unfinished_chords()))

    async def check(self) -> list[Finding]:
        """See :meth:`Results.check`."""
        return await asyncio.to_thread(self.sync.check)

    async def follow(self, *, look_every: float = LOOK_EVERY, **wanted: Any) -> AsyncIterator[TaskSummary]:
        """See :meth:`Results.follow`. It ends when the task that iterates is cancelled, or the iterator closed."""
        make: Callable[[], Any] = lambda: self.sync.follower(look_every=look_every, **wanted)  # noqa: E731
        follower = await asyncio.to_thread(make)
        try:
            while True:
                for task in await asyncio.to_thread(follower.changes, FOLLOW_WAIT):
                    yield task
        finally:
            follower.close()

    async def retry(self, *args: Any, **given: Any) -> list[Retry]:
        """See :meth:`Results.retry`."""
        return await asyncio.to_thread(self.sync.retry, *args, **given)

    async def revoke(self, *args: Any, **given: Any) -> list[str]:
        """See :meth:`Results.revoke`."""
        return await asyncio.to_thread(self.sync.revoke, *args, **given)

    async def forget(self, *args: Any, **given: Any) -> list[str]:
        """See :meth:`Results.forget`."""
        return await asyncio.to_thread(self.sync.forget, *args, **given)

    async def export(self, path: Any, **given: Any) -> Exported:
        """See :meth:`Results.export`."""
        return await asyncio.to_thread(self.sync.export, path, **given)

    async def import_file(self, path: Any, **given: Any) -> Imported:
        """See :meth:`Results.import_file`."""
        return await asyncio.to_thread(self.sync.import_file, path, **given)
