"""Prometheus metrics of what is stored. Needs the extra `[metrics]`.

They come from the store and not from events: nothing is lost while nobody listens. A scrape reads what ended since
the one before, and at most :data:`UNREADY_MOST` tasks that have not ended.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ...errors import SurrealDBBackendError
from . import figure_statements
from .forward import Forward
from .paging import FAR
from .scanning import Runner
from .searching import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = get_logger(__name__)

#: The beginning of every metric's name.
PREFIX = "surrealdb_celery_"
#: The upper bounds of the histograms, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
#: How many names of tasks have metrics of their own; further ones are counted together.
NAMES_MOST = 500
OTHER = "(other)"
#: How many tasks that have not ended one scrape reads.
UNREADY_MOST = 5000
#: How far back a scrape reads again what the one before has read, in seconds: a store takes its time.
OVERLAP = 10.0
#: States of tasks that wait for a worker.
WAITING = frozenset({"PENDING", "RECEIVED", "RETRY"})


class _Histogram:
    """Durations of the tasks of one name."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += max(0.0, seconds)

    def buckets(self) -> list[tuple[str, float]]:
        total, made = 0, []
        for bound, count in zip((*(f"{each:g}" for each in BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            made.append((bound, float(total)))
        return made


class ResultsCollector(Collector):
    """Collects metrics at each scrape, for a registry of `prometheus_client`. Made by `Results.metrics`.

    Args:
        runner: The connection that runs statements.
        table: The task table.
        search: The source of the database's time.
        chords: Yields the ages of unfinished chords, in seconds; None where that is not known.
        lease: Returns the seconds that beat's lease still holds; None where there was none.
        lookback: From how long ago on tasks are counted at first, in seconds.
    """

    def __init__(
        self,
        runner: Runner,
        table: str,
        search: Search,
        chords: Callable[[], Iterable[float | None]],
        lease: Callable[[], float | None],
        *,
        lookback: float,
    ) -> None:
        self._runner, self._table, self._search, self._chords, self._lease = runner, table, search, chords, lease
        #: One scrape at a time.
        self._lock = threading.Lock()
        self._lookback = lookback
        self._mark: datetime | None = None
        self._counted: dict[str, datetime] = {}
        self._names: set[str] = set()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._runtimes: dict[str, _Histogram] = {}
        self._waits: dict[str, _Histogram] = {}

    def describe(self) -> list[Metric]:
        """Nothing: registering asks for no scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read what is new and give all metrics; where the database is away, what was known, and `up` 0."""
        with self._lock:
            began = time.monotonic()
            up, gauges = 1.0, []
            try:
                self._count_ended()
                gauges = self._gauges()
            except SurrealDBBackendError as exc:
                logger.warning("metrics could not be read: %s", exc)
                up = 0.0
            made = [*self._totals(), *gauges, _gauge("up", "Whether the database could be asked.", up)]
            made.append(
                _gauge("scrape_seconds", "How long the database was asked, in seconds.", time.monotonic() - began)
            )
        yield from made

    # -- tasks that ended --------------------------------------------------------------------------------

    def _count_ended(self) -> None:
        now = self._search.now
        mark = self._mark or now - timedelta(seconds=self._lookback)
        since = mark if self._mark is None else mark - timedelta(seconds=OVERLAP)
        text = figure_statements.ended_figures(self._table)
        for rows in Forward(self._runner, text, {}, since, FAR, scan=self._search.scan):
            for at, task_id, state, name, runtime, queue_time in rows:
                if self._counted.get(task_id) == at:
                    continue
                self._counted[task_id] = at
                label = self._label(name)
                self._ended[label, str(state)] += 1
                for histograms, seconds in ((self._runtimes, runtime), (self._waits, queue_time)):
                    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
                        histograms.setdefault(label, _Histogram()).add(float(seconds))
        self._mark = now
        old = now - timedelta(seconds=2 * OVERLAP)
        self._counted = {task_id: at for task_id, at in self._counted.items() if at >= old}

    def _label(self, name: Any) -> str:
        label = name if isinstance(name, str) else ""
        if label not in self._names:
            if len(self._names) >= NAMES_MOST:
                return OTHER
            self._names.add(label)
        return label

    def _totals(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(f"{PREFIX}tasks", "Tasks that ended.", labels=("name", "state"))
        for (name, state), number in self._ended.items():
            ended.add_metric((name, state), float(number))
        yield ended
        for what, text, histograms in (
            ("task_runtime_seconds", "How long tasks ran.", self._runtimes),
            ("task_queue_time_seconds", "How long tasks waited before they ran.", self._waits),
        ):
            family = HistogramMetricFamily(f"{PREFIX}{what}", text, labels=("name",))
            for name, histogram in histograms.items():
                family.add_metric((name,), buckets=histogram.buckets(), sum_value=histogram.sum)
            yield family

    # -- what is there now -------------------------------------------------------------------------------

    def _gauges(self) -> list[Metric]:
        rows = self._search.rows(figure_statements.unready_figures(self._table), {}, UNREADY_MOST)
        counts: Counter[tuple[str, str]] = Counter()
        waiting_since: list[datetime] = []
        for state, name, sent_at, there in rows:
            if not there:
                continue
            counts[self._label(name), str(state)] += 1
            if state in WAITING and isinstance(sent_at, datetime):
                waiting_since.append(sent_at)
        unfinished = GaugeMetricFamily(
            f"{PREFIX}tasks_unfinished",
            "Tasks that have not ended, as far as they are stored.",
            labels=("name", "state"),
        )
        for (name, state), number in counts.items():
            unfinished.add_metric((name, state), float(number))
        oldest = max(0.0, (self._search.now - min(waiting_since)).total_seconds()) if waiting_since else 0.0
        ages = list(self._chords())
        lease = self._lease()
        made: list[Metric] = [
            unfinished,
            _gauge("oldest_waiting_seconds", "For how long the oldest task that has not begun has waited.", oldest),
            _gauge("chords_unfinished", "Chords whose body has not been sent.", float(len(ages))),
            _gauge(
                "oldest_chord_seconds",
                "The age of the oldest of them.",
                max((each or 0.0 for each in ages), default=0.0),
            ),
        ]
        if lease is not None:
            made.append(
                _gauge("beat_lease_seconds", "For how long beat's lease still holds; below 0 nobody has it.", lease)
            )
        return made


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value=value)
