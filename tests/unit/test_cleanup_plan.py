"""Clean-up decides how much it asks of the database at one time, what ends earlier and what is too much."""

from __future__ import annotations

import random
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results import cleanup_statements
from surrealdb_celery_backend.results.cleanup_plan import (
    BATCH_LEAST,
    BATCH_MILLIS,
    BATCH_MOST,
    BatchSize,
    Lifetimes,
    Newest,
    Surveyed,
)
from surrealdb_celery_backend.results.cleanup_requests import Requests, batches

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


def task(name: str | None = "a", done: float | None = 0, ends: float | None = None, **fields: Any) -> Surveyed:
    """A task that ended, and ends, so many seconds after a moment."""
    values = {
        "id": RecordID("task", fields.pop("task_id", f"{name} {done}")),
        "name": name,
        "status": "SUCCESS",
        "date_done": None if done is None else NOW + timedelta(seconds=done),
        "expires_at": None if ends is None else NOW + timedelta(seconds=ends),
        "own": None,
    }
    return Surveyed(**{**values, **fields})


@pytest.mark.parametrize("micros_per_record", [5, 50, 500, 5000, 50_000])
def test_batches_take_the_time_they_should(micros_per_record: int) -> None:
    """However fast the database is, after a few batches one takes as long as it should, within the limits."""
    size = BatchSize()
    for _ in range(12):
        size.took(size.records, size.records * micros_per_record / 1000)
    millis = size.records * micros_per_record / 1000
    assert BATCH_MILLIS / 2 <= millis <= BATCH_MILLIS * 2 or size.records in (BATCH_LEAST, BATCH_MOST)


def test_batches_follow_a_database_that_gets_busy() -> None:
    """Where the database takes ten times as long, batches get smaller at once, and larger again afterwards."""
    size = BatchSize()
    for _ in range(12):
        size.took(size.records, size.records * 0.05)
    quick = size.records
    for _ in range(5):
        size.took(size.records, size.records * 0.5)
    assert size.records < quick / 5
    for _ in range(12):
        size.took(size.records, size.records * 0.05)
    assert size.records == pytest.approx(quick, rel=0.3)


def test_a_batch_that_was_not_full_says_nothing() -> None:
    """The last batch, of a few records, does not make the next larger."""
    size = BatchSize()
    before = size.records
    size.took(1, 0)
    assert size.records == before


def test_a_batch_that_timed_out_is_much_smaller_next_time() -> None:
    """A batch that took longer than a request may is not asked for again; there is always a batch."""
    size = BatchSize()
    before = size.records
    size.timed_out()
    assert size.records <= before / 4
    for _ in range(5):
        size.timed_out()
    assert size.records == BATCH_LEAST


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ends": 100}, False),
        ({"ends": 104}, False),
        ({"ends": 110}, True),
        ({"ends": 110, "own": True}, False),
        ({"ends": 110, "status": "FAILURE"}, False),
        ({"ends": 1100, "status": "FAILURE"}, True),
        ({"ends": 110, "status": "REVOKED"}, True),
        ({"ends": 1100, "done": None}, False),
        ({"ends": None}, False),
    ],
)
def test_what_ends_too_late(fields: dict[str, Any], expected: bool) -> None:
    """A result ends too late by its own state's lifetime, unless the task asked for more; not by a little."""
    assert task(**fields).ends_too_late(Lifetimes(100, 1000, None)) is expected


def test_nothing_ends_too_late_that_is_kept_for_ever() -> None:
    """Where the settings say for ever, no end is too late, and nothing is over."""
    kept = task(ends=10**9)
    assert not kept.ends_too_late(Lifetimes(None, 100, None))
    assert not kept.is_over(NOW + timedelta(days=10_000), Lifetimes(None, 100, None))
    assert task(status="FAILURE").is_over(NOW + timedelta(seconds=100), Lifetimes(None, 100, None))


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_are_kept_whatever_the_order(seed: int) -> None:
    """Of each name the newest stay; what is given back are all the others, each once."""
    tasks = [task(name, done) for name, number in (("a", 50), ("b", 3), ("c", 20)) for done in range(number)]
    tasks += [task(None, 1), task("a", None, task_id="running")]
    random.Random(seed).shuffle(tasks)
    surplus = list(Newest({"a": 5, "b": 5}.get).surplus(tasks))
    assert sorted(str(each.id) for each in surplus) == sorted(str(task("a", done).id) for done in range(45))


def test_the_memory_of_the_newest_is_bounded() -> None:
    """What is not kept is forgotten."""
    newest = Newest({"a": 5}.get)
    list(newest.surplus(task("a", done) for done in range(10_000)))
    assert len(newest._tasks) == len(newest._kept["a"]) == 5


def test_lists_of_a_size() -> None:
    """Values come in lists of a size, the last one shorter."""
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []


def test_a_failure_that_passes_is_retried_with_less() -> None:
    """A batch that timed out is tried again by the caller's rule, with fewer records."""
    from surrealdb_celery_backend.errors import RequestTimedOut

    asked: list[int] = []

    def run(text: str, /, **variables: Any) -> Any:
        asked.append(variables["batch"])
        if len(asked) < 3:
            raise RequestTimedOut
        return {"found": 1, "millis": 0}

    def retry(operation: Any) -> Any:
        while True:
            try:
                return operation()
            except RequestTimedOut:
                continue

    assert Requests(run, retry).batch("a text")["full"] is False
    assert asked[0] > asked[1] >= asked[2]


def test_only_the_indexed_field_stands_beside_a_limit() -> None:
    """3.0.2 counts a LIMIT before it looks at a condition beside an index: what it leaves out would be missed."""
    texts = [
        cleanup_statements.DELETE_FOUND,
        cleanup_statements.SHORTEN,
        cleanup_statements.END_NOW,
        cleanup_statements.survey_ids(),
        *(
            make("task")
            for make in (
                cleanup_statements.delete_expired,
                cleanup_statements.find_expired,
                cleanup_statements.give_ends,
                cleanup_statements.survey,
                cleanup_statements.survey_without_end,
            )
        ),
    ]
    conditions = [found for text in texts for found in re.findall(r"WHERE ([^;)]*?) LIMIT", text)]
    assert len(conditions) == 5
    for condition in conditions:
        assert set(re.findall(r"(?<![$\w])[a-z_]+(?![\w(])", condition)) == {"expires_at"}, condition
