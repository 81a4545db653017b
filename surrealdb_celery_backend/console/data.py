"""The results and schedules of one app, for many requests at once: blocking calls in threads, figures remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CapacityLimiter, to_thread

from ..beat import Schedules
from ..results import Recent, RecentStats, Results, Stats, Unready
from .remembered import Known, Remembered

if TYPE_CHECKING:
    from celery import Celery

T = TypeVar("T")

#: Threads that wait for the database on behalf of requests, and those that count.
THREADS, COUNTING = 8, 3
#: Seconds that figures over many records stay as they are.
KEPT = 20.0
#: The same for those of the overview, of which only what is new is read.
KEPT_RECENT = 4.0
#: The same for short lists that every open overview shows.
KEPT_LISTS = 2.0
#: Tasks that have not ended which are listed beside others: the newest that have begun, and as many that wait.
NEWEST_UNREADY = 100
#: Seconds that a page waits for figures; it then says that they are being counted.
PATIENCE = 0.12


@dataclass(frozen=True)
class Span:
    """A span that figures are shown for.

    Attributes:
        length: How far back.
        step: The length of the parts of the chart over time.
        text: Its name on a page.
        step_text: What a part is called.
    """

    length: timedelta
    step: timedelta
    text: str
    step_text: str


#: The spans by their name in an address.
SPANS = {
    "1h": Span(timedelta(hours=1), timedelta(minutes=5), "hour", "5 minutes"),
    "24h": Span(timedelta(days=1), timedelta(hours=1), "24 hours", "hour"),
    "7d": Span(timedelta(days=7), timedelta(hours=6), "7 days", "6 hours"),
}


class Data:
    """What pages read from.

    Args:
        celery_app: The app whose results and schedules these are.
    """

    def __init__(self, celery_app: Celery) -> None:
        self.app = celery_app
        self._limiter: CapacityLimiter | None = None
        self._results: Results | None = None
        self._schedules: Schedules | None = None
        self._recent: Recent | None = None
        self._registry: Any = None
        self._opening = threading.Lock()
        self._remembered = Remembered(COUNTING)

    @property
    def results(self) -> Results:
        """The typed API over the results; made when first needed, so that an application starts without a database."""
        with self._opening:
            if self._results is None:
                self._results = Results(self.app)
            return self._results

    @property
    def schedules(self) -> Schedules:
        """The typed API over the schedules."""
        with self._opening:
            if self._schedules is None:
                self._schedules = Schedules(self.app, by="console")
            return self._schedules

    async def read(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call something that waits for the database, in a thread."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(THREADS)
        return await to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._limiter)

    async def change(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """The same for something that changes what pages show."""
        try:
            return await self.read(call, *args, **kwargs)
        finally:
            self._remembered.forget()

    async def forget(self, task_ids: Sequence[str]) -> None:
        """Delete results; the figures are counted anew without them."""

        def forget() -> None:
            self.results.forget(task_ids)
            self._counter().renew()

        await self.change(forget)

    async def shared(self, key: Hashable, call: Callable[[], T], patience: float | None = None) -> T | None:
        """Call something whose answer every page may share for a moment.

        Args:
            key: The name that the answer is remembered under.
            call: The call.
            patience: For how many seconds it is waited for; None waits until it is there.

        Returns:
            None where it took longer.
        """
        known = await self.read(
            self._remembered.of, ("shared", key), lambda _: call(), kept=KEPT_LISTS, patience=patience
        )
        return known.value

    async def unready(self) -> Unready | None:
        """Tasks that have not ended; None while they are read for the first time."""
        return await self.shared("unready", lambda: self._counter().unready(NEWEST_UNREADY), PATIENCE)

    async def recent(self, span: str) -> Known[RecentStats]:
        """Figures of a span that ends now: those that are known within a moment."""
        wanted = SPANS[span]
        return await self.read(
            self._remembered.of,
            ("recent", span),
            lambda publish: self._counter().stats(wanted.length, wanted.step, on_part=publish),
            kept=KEPT_RECENT,
            patience=PATIENCE,
        )

    async def stats(self, by: str, span: str) -> Known[Stats]:
        """Figures of a span by name, hour, worker or queue: those that are known within a moment."""

        def count(_: Callable[[Stats], None]) -> Stats:
            return self.results.stats(by=by, since=datetime.now(timezone.utc) - SPANS[span].length)

        return await self.read(self._remembered.of, ("stats", by, span), count, kept=KEPT, patience=PATIENCE)

    def _counter(self) -> Recent:
        results = self.results
        with self._opening:
            if self._recent is None:
                self._recent = results.recent()
            return self._recent

    def metrics(self) -> tuple[bytes, str]:
        """What Prometheus scrapes, and its content type.

        Raises:
            ImportError: prometheus-client is not installed.
        """
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        results = self.results
        with self._opening:
            if self._registry is None:
                registry = CollectorRegistry()
                registry.register(results.metrics())
                self._registry = registry
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def close(self) -> None:
        """Close the connections."""
        self._remembered.close()
        with self._opening:
            for opened in (self._results, self._schedules):
                if opened is not None:
                    opened.close()
            self._results = self._schedules = self._recent = None
