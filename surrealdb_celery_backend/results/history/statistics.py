"""Figures of many tasks: counts, failure rates, and how long they ran and waited. No I/O here."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from celery import states

from .model import Distribution, StatRow

#: What figures are asked for by, and the place of its value in a row (see `figure_statements.figures`).
BY = ("name", "hour", "worker", "queue")
#: How many durations are kept exactly; of more, each is known to one part in a hundred.
EXACT = 50_000
#: The ratio of two neighbouring steps of the durations that are not kept exactly.
STEP = 1.01


class Durations:
    """Durations of which quantiles are wanted: exact up to a number of them, then in steps, in bounded memory.

    Args:
        exact: How many are kept exactly; None is :data:`EXACT`.
        step: The ratio of two neighbouring steps of the others; None is :data:`STEP`.
    """

    def __init__(self, exact: int | None = None, step: float | None = None) -> None:
        self._most, self._ratio = EXACT if exact is None else exact, STEP if step is None else step
        self._exact: array[float] | None = array("d")
        self._steps: Counter[int] = Counter()
        self._count = 0
        self._sum = 0.0
        self._maximum = 0.0

    def add(self, seconds: float) -> None:
        """Take in one."""
        self._maximum = max(self._maximum, seconds) if self._count else seconds
        self._count += 1
        self._sum += seconds
        if self._exact is None:
            self._steps[_step(seconds, self._ratio)] += 1
            return
        self._exact.append(seconds)
        self._spill()

    def merge(self, others: Durations) -> None:
        """Take in all of another collection, which has the same steps."""
        if not others._count:
            return
        self._maximum = max(self._maximum, others._maximum) if self._count else others._maximum
        self._count += others._count
        self._sum += others._sum
        if self._exact is not None and others._exact is not None:
            self._exact.extend(others._exact)
            self._spill()
            return
        self._spill(all_of_them=True)
        self._steps.update(others._steps)
        self._steps.update(_step(each, self._ratio) for each in others._exact or ())

    def _spill(self, *, all_of_them: bool = False) -> None:
        if self._exact is not None and (all_of_them or len(self._exact) > self._most):
            self._steps.update(_step(each, self._ratio) for each in self._exact)
            self._exact = None

    def distribution(self) -> Distribution | None:
        """The distribution; None where no duration is known."""
        if not self._count:
            return None
        p50, p95, p99 = self._quantiles((0.5, 0.95, 0.99))
        return Distribution(self._count, self._sum / self._count, p50, p95, p99, self._maximum)

    def _quantiles(self, parts: Iterable[float]) -> list[float]:
        # The nearest rank: the smallest duration that so many are not above.
        ranks = [max(1, math.ceil(part * self._count)) for part in parts]
        if self._exact is not None:
            ordered = sorted(self._exact)
            return [ordered[rank - 1] for rank in ranks]
        found, passed = [], 0
        waiting = list(ranks)
        for step in sorted(self._steps):
            passed += self._steps[step]
            while waiting and passed >= waiting[0]:
                found.append(min(_seconds(step, self._ratio), self._maximum))
                waiting.pop(0)
        return found


def _step(seconds: float, ratio: float) -> int:
    # Durations below a microsecond, and those that clocks made negative, are the first step.
    return 0 if seconds <= 1e-6 else 1 + round(math.log(seconds / 1e-6, ratio))


def _seconds(step: int, ratio: float) -> float:
    return 0.0 if step == 0 else 1e-6 * float(ratio) ** (step - 1)


class Group:
    """The tasks of one row.

    Args:
        exact: How many durations are kept exactly; None is :data:`EXACT`.
        step: The ratio of two neighbouring steps of the others; None is :data:`STEP`.
    """

    def __init__(self, exact: int | None = None, step: float | None = None) -> None:
        self.states: Counter[str] = Counter()
        self.runtime = Durations(exact, step)
        self.queue_time = Durations(exact, step)

    def add(self, state: str, runtime: Any, queue_time: Any) -> None:
        """Take in one task.

        Args:
            state: Its state.
            runtime: How long it ran, in seconds; anything else is left out.
            queue_time: How long it waited, likewise.
        """
        self.states[state] += 1
        if _is_number(runtime):
            self.runtime.add(float(runtime))
        if _is_number(queue_time):
            self.queue_time.add(float(queue_time))

    def merge(self, others: Group) -> None:
        """Take in the tasks of another row, whose durations have the same steps."""
        self.states.update(others.states)
        self.runtime.merge(others.runtime)
        self.queue_time.merge(others.queue_time)

    def row(self, key: str) -> StatRow:
        """The figures.

        Args:
            key: The key.
        """
        ended = sum(self.states[state] for state in states.READY_STATES)
        return StatRow(
            key,
            sum(self.states.values()),
            dict(self.states.most_common()),
            self.states[states.FAILURE] / ended if ended else None,
            self.runtime.distribution(),
            self.queue_time.distribution(),
        )


class Tally:
    """All rows.

    Args:
        by: One of :data:`BY`.
    """

    def __init__(self, by: str) -> None:
        self._by = by
        self._place = {"name": 1, "worker": 2, "queue": 3}.get(by)
        self._groups: dict[str, Group] = {}
        self._total = Group()

    def add(self, at: datetime, figures: list[Any]) -> None:
        """Take in one task.

        Args:
            at: Its time.
            figures: Its state, name, worker, queue, run and queue time.
        """
        state, runtime, queue_time = str(figures[0]), figures[4], figures[5]
        key = _hour(at) if self._place is None else figures[self._place]
        group = self._groups.setdefault(key if isinstance(key, str) else "", Group())
        group.add(state, runtime, queue_time)
        self._total.add(state, runtime, queue_time)

    def rows(self) -> tuple[StatRow, ...]:
        """The rows: hours in their order, others with the most tasks first."""
        made = [group.row(key) for key, group in self._groups.items()]
        if self._by == "hour":
            made.sort(key=lambda row: row.key)
        else:
            made.sort(key=lambda row: (-row.count, row.key))
        return tuple(made)

    def total(self) -> StatRow:
        """All of them."""
        return self._total.row("")


def _hour(at: datetime) -> str:
    return at.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0).isoformat()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
