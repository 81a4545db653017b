"""Quantiles of durations: exact for few, to one per cent and in bounded memory for many."""

from __future__ import annotations

import math
import random
from datetime import datetime, timezone

import pytest

from surrealdb_celery_backend.results.history import statistics
from surrealdb_celery_backend.results.history.statistics import Durations, Tally

pytestmark = pytest.mark.unit


def nearest_rank(values: list[float], part: float) -> float:
    """The smallest value that so many are not above."""
    return sorted(values)[max(1, math.ceil(part * len(values))) - 1]


def test_few_durations_are_exact() -> None:
    """Of 1 to 100 the median is 50, and so on; of one all are that one."""
    durations = Durations()
    for each in range(100, 0, -1):
        durations.add(float(each))
    seen = durations.distribution()
    assert seen is not None
    assert (seen.count, seen.mean, seen.p50, seen.p95, seen.p99, seen.maximum) == (100, 50.5, 50.0, 95.0, 99.0, 100.0)
    durations = Durations()
    durations.add(0.25)
    seen = durations.distribution()
    assert seen is not None
    assert (seen.p50, seen.p95, seen.p99) == (0.25, 0.25, 0.25)
    assert Durations().distribution() is None


def test_many_durations_are_known_to_one_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the quantiles are off by less than one per cent, from microseconds to days."""
    monkeypatch.setattr(statistics, "EXACT", 1000)
    chance = random.Random(7)
    values = [10 ** chance.uniform(-5, 5) for _ in range(20_000)]
    durations = Durations()
    for each in values:
        durations.add(each)
    seen = durations.distribution()
    assert seen is not None
    assert seen.mean == pytest.approx(sum(values) / len(values))
    assert seen.maximum == max(values)
    for part, value in ((0.5, seen.p50), (0.95, seen.p95), (0.99, seen.p99)):
        assert value == pytest.approx(nearest_rank(values, part), rel=0.01)


def test_durations_that_clocks_made_negative_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero and negative durations are counted."""
    monkeypatch.setattr(statistics, "EXACT", 2)
    durations = Durations()
    for each in (-1.0, 0.0, -5.0, 2.0):
        durations.add(each)
    seen = durations.distribution()
    assert seen is not None
    assert (seen.count, seen.p50, seen.maximum) == (4, 0.0, 2.0)


def test_a_tally_counts_states_and_failures() -> None:
    """The failure rate is of tasks that ended; what is no number is no duration."""
    at = datetime(2026, 11, 26, 14, 30, tzinfo=timezone.utc)
    tally = Tally("name")
    for state, name, runtime in (
        ("SUCCESS", "a", 1.0),
        ("SUCCESS", "a", 3),
        ("FAILURE", "a", None),
        ("STARTED", "a", "x"),
        ("SUCCESS", None, float("nan")),
    ):
        tally.add(at, [state, name, "w", "q", runtime, None])
    first, second = tally.rows()
    assert (first.key, first.count) == ("a", 4)
    assert first.failure_rate == pytest.approx(1 / 3)
    assert first.states == {"SUCCESS": 2, "FAILURE": 1, "STARTED": 1}
    assert first.runtime is not None
    assert (first.runtime.count, first.runtime.mean) == (2, 2.0)
    assert (second.key, second.count, second.failure_rate, second.runtime) == ("", 1, 0.0, None)
    assert tally.total().count == 5
    hours = Tally("hour")
    hours.add(at, ["STARTED", "a", "w", "q", None, None])
    assert [(row.key, row.failure_rate) for row in hours.rows()] == [("2026-11-26T14:00:00+00:00", None)]
