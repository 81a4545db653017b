"""`Results.stats`: counts, failure rates and quantiles, against the same computed in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.errors import InvalidFilter
from surrealdb_celery_backend.results import Results
from surrealdb_celery_backend.results.history import forward
from tests.support import history_data as data

pytestmark = pytest.mark.integration


def hour_of(fields: dict[str, Any]) -> str:
    """The hour that a task is counted in."""
    at = data.listed_at(fields)
    assert at is not None
    return at.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0).isoformat()


@pytest.mark.parametrize("page", [forward.PAGE, 50])
def test_counts_are_those_of_all_records(
    app: Celery, results: Results, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """By name, worker, queue and hour each record counts once, in pages of any size."""
    monkeypatch.setattr(forward, "PAGE", page)
    records = [fields | {"sent_at": data.listed_at(fields) or data.NOW} for fields in data.many(400)]
    data.write(app, records)
    keys: dict[str, Callable[[dict[str, Any]], str]] = {
        "name": lambda f: f["name"] or "",
        "worker": lambda f: str(f["worker"]),
        "queue": lambda f: str(f["queue"]),
        "hour": hour_of,
    }
    for by, key in keys.items():
        stats = results.stats(by)
        assert {row.key: row.count for row in stats.rows} == Counter(key(fields) for fields in records), by
        assert stats.total.count == len(records)
        for row in stats.rows:
            members = [fields for fields in records if key(fields) == row.key]
            assert row.states == Counter(fields["status"] for fields in members)
            ended = [fields for fields in members if fields["date_done"]]
            failed = sum(fields["status"] == "FAILURE" for fields in ended)
            assert row.failure_rate == (failed / len(ended) if ended else None)
            runtimes = sorted(fields["runtime"] for fields in ended)
            assert (row.runtime is None) == (not runtimes)
            if row.runtime is not None:
                assert row.runtime.count == len(runtimes)
                assert row.runtime.p50 == pytest.approx(runtimes[-(-len(runtimes) // 2) - 1])
                assert row.runtime.maximum == pytest.approx(runtimes[-1])


def test_filters_apply(app: Celery, results: Results) -> None:
    """Figures are of what matches, and of the span that was asked for."""
    records = data.many(300)
    data.write(app, records)
    since = data.NOW - timedelta(seconds=2000)
    stats = results.stats("queue", name="shop.*", state=["SUCCESS", "FAILURE"], since=since)
    expected = [
        fields
        for fields in records
        if (fields["name"] or "").startswith("shop.")
        and fields["status"] in ("SUCCESS", "FAILURE")
        and fields["date_done"] >= since
    ]
    assert stats.total.count == len(expected) > 0
    assert stats.since == since


def test_progress_is_told_and_mistakes_are_named(app: Celery, results: Results) -> None:
    """Who waits hears how many records were read; an unknown grouping is one sentence."""
    data.write(app, data.many(50))
    told: list[int] = []
    results.stats(on_progress=lambda read, _: told.append(read))
    assert told[-1] == 50
    with pytest.raises(InvalidFilter, match="by must be one of name, hour, worker, queue, not 'day'"):
        results.stats("day")
    assert results.stats(name="nothing").rows == ()
