"""`Results.recent`: figures that read each record once, against the same computed in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.errors import InvalidFilter, ServerUnavailable
from surrealdb_celery_backend.results import RecentStats, Results
from surrealdb_celery_backend.results.history import forward, searching
from surrealdb_celery_backend.results.history import recent as recent_module
from tests.support import history_data as data

pytestmark = pytest.mark.integration

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def ended(number: int, ago: timedelta, **fields: Any) -> dict[str, Any]:
    """A task that ended so long ago."""
    done = datetime.now(timezone.utc) - ago
    return data.record(
        **{"task_id": f"t{number}", "date_done": done, "name": f"shop.{number % 3}", "runtime": 0.5, **fields}
    )


def counts(stats: RecentStats) -> Counter[str]:
    """How many ended in each state, by the parts of the span."""
    return sum((Counter(row.states) for row in stats.times), Counter())


def test_each_record_is_counted_once_however_often_it_is_asked(app: Celery, results: Results) -> None:
    """Spans of any length, asked in any order and with records in between, count what a query counts."""
    ages = [20 * MINUTE, 50 * MINUTE, 90 * MINUTE, 5 * HOUR, 20 * HOUR, timedelta(days=3), timedelta(days=8)]
    data.write(app, [ended(number, age) for number, age in enumerate(ages)])
    recent = results.recent()
    spans = {"day": (24 * HOUR, HOUR), "hour": (HOUR, 5 * MINUTE), "week": (timedelta(days=7), 6 * HOUR)}
    expected = {"day": 5, "hour": 2, "week": 6}
    for _ in range(2):
        for name, (span, step) in spans.items():
            stats = recent.stats(span, step)
            assert (stats.total.count, counts(stats)) == (expected[name], {"SUCCESS": expected[name]}), name
            assert stats.complete
            assert sum(row.count for row in stats.names) == expected[name]
            assert len(stats.times) == span // step
    data.write(app, [ended(100, timedelta(0), status="FAILURE", result=None)])
    for name, (span, step) in spans.items():
        assert recent.stats(span, step).total.states == {"SUCCESS": expected[name], "FAILURE": 1}, name


def test_failures_are_grouped_by_task_and_error(app: Celery, results: Results) -> None:
    """The most frequent stand first, each with its newest task; one without a stored error is there, too."""
    failed = {"status": "FAILURE", "result": None}

    def error(kind: str, message: str) -> dict[str, Any]:
        return {**failed, "error": {"type": kind, "module": "builtins", "message": message}}

    data.write(
        app,
        [
            ended(0, 40 * MINUTE, **error("ValueError", "order 1")),
            ended(3, 30 * MINUTE, **error("ValueError", "order 2")),
            ended(6, 20 * MINUTE, **error("OSError", "gone")),
            ended(1, 10 * MINUTE, **failed),
        ],
    )
    rows = results.recent().stats(24 * HOUR, HOUR).failures
    assert [(row.name, row.error, row.count, row.last_id, row.message) for row in rows] == [
        ("shop.0", "ValueError", 2, "t3", "order 2"),
        ("shop.0", "OSError", 1, "t6", "gone"),
        ("shop.1", "", 1, "t1", ""),
    ]


def test_tasks_that_have_not_ended_are_counted_and_the_newest_read(app: Celery, results: Results) -> None:
    """Those that have begun and those that wait are told apart; more than were wanted are counted only."""
    start = datetime.now(timezone.utc) - HOUR
    for number in range(5):
        for state, field in (("STARTED", "started_at"), ("PENDING", "sent_at")):
            times = {"date_done": None, "started_at": None, "sent_at": None, field: start + number * MINUTE}
            data.write(app, [data.record(task_id=f"{state}{number}", status=state, **times)])
    unready = results.recent().unready(2)
    assert unready.states == {"STARTED": 5, "PENDING": 5}
    assert [task.id for task in unready.begun] == ["STARTED4", "STARTED3"]
    assert [task.id for task in unready.waiting] == ["PENDING4", "PENDING3"]
    assert (unready.counted, unready.complete, len(unready)) == (True, False, 10)
    assert results.recent().unready().complete


@pytest.mark.parametrize(
    ("span", "step"),
    [(timedelta(days=8), HOUR), (HOUR, 2 * HOUR), (HOUR, 7 * MINUTE), (24 * HOUR, 30 * MINUTE), (HOUR, MINUTE)],
)
def test_a_span_that_cannot_be_counted_is_refused(results: Results, span: timedelta, step: timedelta) -> None:
    """The message says what a span and a step may be."""
    with pytest.raises(InvalidFilter, match="a span is a week at most"):
        results.recent().stats(span, step)


@pytest.mark.parametrize("indexes", ["date_done", ""])
def test_what_was_deleted_leaves_the_figures(
    app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch, indexes: str
) -> None:
    """Hours are read anew: where it is asked for, and after some minutes by themselves, one with each look at least."""
    app = app_with(surrealdb_indexes=indexes)
    data.write(app, [ended(number, number * HOUR + MINUTE) for number in range(6)])
    recent = Results(app).recent()

    def becomes(count: int) -> bool:
        return any(recent.stats(24 * HOUR, HOUR).total.count == count for _ in range(30))

    assert becomes(6)
    app.backend.forget("t2")
    recent.renew()
    assert becomes(5)
    app.backend.forget("t4")
    monkeypatch.setattr(recent_module, "RENEWED_AFTER", 0.0)
    assert becomes(4)


def test_what_could_not_be_read_to_its_end_is_not_counted_twice(
    app: Celery, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks in the middle of an hour leaves no part of it in the figures."""
    monkeypatch.setattr(forward, "PAGE", 2)
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    data.write(app, [data.record(date_done=hour + number * MINUTE) for number in range(5)])
    recent, connection = results.recent(), app.backend.connection
    run, full = connection.run, []

    def break_once(text: str, /, **variables: Any) -> Any:
        found = run(text, **variables)
        if "index_start" in variables and len(found) == 2:
            full.append(found)
            if len(full) == 2:
                raise ServerUnavailable
        return found

    monkeypatch.setattr(connection, "run", break_once)
    with pytest.raises(ServerUnavailable):
        recent.stats(24 * HOUR, HOUR)
    assert recent.stats(24 * HOUR, HOUR).total.count == 5


def test_without_an_index_a_look_reads_the_table_once(
    app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many hours a span has, and whether they were read before; the figures are those along the index."""
    monkeypatch.setattr(searching, "INDEXES_REMEMBERED", float("inf"))
    plain, indexed = app_with(surrealdb_indexes=""), app_with(surrealdb_table_prefix="i_")
    records = [ended(number, number * 5 * HOUR + MINUTE) for number in range(40)]
    data.write(plain, records)
    data.write(indexed, records, table="i_task")
    recent, expected = Results(plain).recent(), Results(indexed).recent()
    recent.stats(HOUR, 5 * MINUTE)
    for span, step in ((timedelta(days=7), 6 * HOUR), (24 * HOUR, HOUR), (HOUR, 5 * MINUTE)):
        before = plain.backend.connection.request_count
        stats = recent.stats(span, step)
        assert plain.backend.connection.request_count - before == 1
        # A part of the span may turn between two looks: then it is one before or one after it.
        along = expected.stats(span, step)
        known = [stats, recent.stats(span, step)]
        assert (along.total, along.names) in [(each.total, each.names) for each in known]
        assert stats.complete
