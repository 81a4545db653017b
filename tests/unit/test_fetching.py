"""Many records are fetched in requests whose replies have an upper size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results import fetching, statements
from surrealdb_celery_backend.results.fetching import Fetcher, by_size

pytestmark = pytest.mark.unit


@given(sizes=st.lists(st.integers(1, 3 * fetching.MAX_BYTES), max_size=30))
def test_by_size(sizes: list[int]) -> None:
    """Everything is fetched once, in its order, and no request has too many bytes unless it has one record."""
    named = [(str(number), size) for number, size in enumerate(sizes)]
    requests = list(by_size(named))
    assert [name for request in requests for name in request] == [name for name, _ in named]
    for request in requests:
        assert request
        assert len(request) == 1 or sum(sizes[int(name)] for name in request) <= fetching.MAX_BYTES


def test_by_number() -> None:
    """Nor has a request too many records."""
    requests = list(by_size((str(number), 1) for number in range(2 * fetching.MAX_RECORDS + 1)))
    assert [len(request) for request in requests] == [fetching.MAX_RECORDS, fetching.MAX_RECORDS, 1]


class Database:
    """Records by task id, and the requests for them. Those with a size are large."""

    def __init__(self, sizes: Mapping[str, int | None]) -> None:
        self.sizes = sizes
        self.requests: list[tuple[str, int]] = []

    def run(self, text: str, *, deadline: float | None, records: Any) -> Any:
        """Answer as the engine does."""
        asked = records if isinstance(records, list) else [records]
        self.requests.append((text, len(asked)))
        there = [{"task_id": record.id} for record in asked if record.id in self.sizes]
        if text not in (statements.FETCH_SMALL_TASKS, statements.FETCH_SMALL_READY_TASKS):
            return there
        small = [record for record in there if self.sizes[record["task_id"]] is None]
        large = [(record["task_id"], self.sizes[record["task_id"]]) for record in there if record not in small]
        return small, large


@pytest.fixture
def fetcher() -> Callable[[Database], Fetcher]:
    """Make a fetcher."""
    return lambda database: Fetcher(database.run, lambda task_id: RecordID("task", str(task_id)))


def test_one_record(fetcher: Any) -> None:
    """A single record is one request, whatever its size."""
    database = Database({"1": 10**9})
    assert list(fetcher(database).records(["1", "1"], only_ready=True)) == [("1", {"task_id": "1"})]
    assert database.requests == [(statements.FETCH_READY_TASKS, 1)]


def test_small_records(fetcher: Any) -> None:
    """Small records come in slices by number, and are found under the ids that were given, duplicates once."""
    number = 2 * fetching.MAX_RECORDS + 5
    database = Database(dict.fromkeys(map(str, range(number)), None))
    found = list(fetcher(database).records([*range(number), 0, "absent"]))
    assert [task_id for task_id, _ in found] == list(range(number))
    assert [asked for _, asked in database.requests] == [fetching.MAX_RECORDS, fetching.MAX_RECORDS, 6]


def test_large_records(fetcher: Any) -> None:
    """Large records come behind the small ones of their slice, no more at once than a reply may hold."""
    size = fetching.MAX_BYTES // 4
    database = Database({"a": None, **{f"large{number}": size for number in range(10)}, "z": None})
    found = [task_id for task_id, _ in fetcher(database).records(database.sizes)]
    assert found == ["a", "z", *(f"large{number}" for number in range(10))]
    assert database.requests[1:] == [
        (statements.FETCH_TASKS, 4),
        (statements.FETCH_TASKS, 4),
        (statements.FETCH_TASKS, 2),
    ]


def test_what_is_fetched_is_not_kept(fetcher: Any) -> None:
    """A reader that drops what it got never holds more than one slice: the next is asked for when it is needed."""
    database = Database(dict.fromkeys(map(str, range(5000)), None))
    records = fetcher(database).records(range(5000))
    next(records)
    assert len(database.requests) == 1


def test_no_table(fetcher: Any) -> None:
    """Where there is no table yet, nothing is found."""
    nothing = Fetcher(lambda text, **_: None, lambda task_id: RecordID("task", task_id))
    assert list(nothing.records(["1"])) == []
    assert list(nothing.records(["1", "2"])) == []
