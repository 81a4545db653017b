"""Pages of tasks: where they are looked for, and that every task is found once, in order, whatever the times are."""

from __future__ import annotations

import bisect
import itertools
import random
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surrealdb_celery_backend.client.values import EPOCH
from surrealdb_celery_backend.errors import InvalidFilter
from surrealdb_celery_backend.results.history.filters import Filter
from surrealdb_celery_backend.results.history.paging import FAR, Cursor, Pace, Walk, Window
from surrealdb_celery_backend.results.history.searching import READ_MOST, Search

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 26, 12, 0, 0, 250_000, tzinfo=timezone.utc)


def text_order(moment: datetime) -> str:
    """How the engines' indexes order datetimes: as text, with only as many digits as are needed."""
    if not moment.microsecond:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    digits = f"{moment.microsecond:06}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + (digits[:3] if digits.endswith("000") else digits) + "Z"


class FakeTable:
    """A table that answers what a search asks, as the engines do: index ranges in text order, then the limit."""

    def __init__(self, times: list[datetime], now: datetime = NOW) -> None:
        self.rows = sorted(((each, f"id-{number:06}") for number, each in enumerate(times)), key=self._key)
        self._keys = [text_order(at) for at, _ in self.rows]
        self.now = now
        self.most_read = 0
        self.requests = 0

    @staticmethod
    def _key(row: tuple[datetime, str]) -> tuple[str, str]:
        return text_order(row[0]), row[1]

    def run_all(self, text: str, /, **variables: Any) -> list[Any]:
        return [{"indexes": {"task_date_done": "DEFINE INDEX task_date_done ON task FIELDS date_done"}}, self.now]

    def run(self, text: str, /, **given: Any) -> Any:
        self.requests += 1
        if "date_done = NONE" in text:
            return []
        if "$skip" in text:
            read = self._read(given, "")[given["skip"] :][: given["limit"]]
            return [len(read), self._found(read, given, "")]
        answers: list[Any] = []
        summaries: list[Any] = []
        found = looked = 0
        number = 0
        while f"index_start{number}" in given:
            read = []
            if number == 0 or (found < given["wanted"] and looked < given["limit"]):
                read = self._read(given, str(number))[: given["limit"]]
            matches = self._found(read, given, str(number))
            found, looked = found + len(matches), looked + len(read)
            summaries += matches
            answers.append([len(read), _latest(read, given["limit"]), [each["task_id"] for each in matches]])
            number += 1
        self.most_read = max(self.most_read, looked)
        return [answers, summaries]

    def _read(self, given: dict[str, Any], number: str) -> list[tuple[datetime, str]]:
        start, end = text_order(given[f"index_start{number}"]), text_order(given[f"index_end{number}"])
        return self.rows[bisect.bisect_left(self._keys, start) : bisect.bisect_left(self._keys, end)]

    def _found(self, read: list[tuple[datetime, str]], given: dict[str, Any], number: str) -> list[Any]:
        start, end, cursor = given[f"start{number}"], given[f"end{number}"], (given["cursor_at"], given["cursor_id"])
        matches = [row for row in read if start <= row[0] < end and (cursor[0] is None or row < cursor)]
        matches.sort(reverse=True)
        return [{"task_id": name, "status": "SUCCESS", "date_done": at} for at, name in matches[: given["wanted"]]]


def _latest(read: list[tuple[datetime, str]], limit: int) -> datetime | None:
    return max(at for at, _ in read) if len(read) >= limit else None


def all_pages(table: FakeTable, limit: int, wanted: Filter | None = None) -> list[str]:
    """The ids of all tasks, page by page, each page from a search of its own."""
    ids: list[str] = []
    after = None
    while True:
        page = Search(table, "task").page(wanted or Filter(), limit, after)
        assert len(page.tasks) == limit or page.after is None
        ids += [task.id for task in page.tasks]
        after = page.after
        if after is None:
            return ids


def newest_first(table: FakeTable) -> list[str]:
    """The ids of all tasks in the order of a list."""
    return [name for _, name in sorted(table.rows, reverse=True)]


#: Times that are hard: whole seconds, milliseconds, equal ones, the future and long ago.
TIMES = st.builds(
    lambda seconds, micros: NOW.replace(microsecond=0) + timedelta(seconds=seconds, microseconds=micros),
    st.one_of(st.integers(-3, 3), st.integers(-(10**4), 10**4), st.integers(-(10**9), 10**6)),
    st.one_of(st.just(0), st.sampled_from([1, 500_000, 999_999, 1000, 1500]), st.integers(0, 999_999)),
)


@given(st.lists(TIMES, max_size=60), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_every_task_is_found_once_and_in_order(times: list[datetime], limit: int) -> None:
    """However the times lie, pages of any length together are all tasks, newest first."""
    table = FakeTable(times)
    assert all_pages(table, limit) == newest_first(table)


@given(st.lists(TIMES, max_size=40), TIMES, TIMES)
@settings(max_examples=100, deadline=None)
def test_bounds_are_exact(times: list[datetime], one: datetime, other: datetime) -> None:
    """`since` is inclusive and `until` exclusive, to the microsecond."""
    table = FakeTable([*times, one, other])
    since, until = sorted((one, other))
    found = all_pages(table, 7, Filter.of(since=since, until=until))
    assert found == [name for at, name in sorted(table.rows, reverse=True) if since <= at < until]


def test_thousands_in_one_second_are_found_in_order() -> None:
    """A second that holds more than a request may read is read in parts, none of which is lost."""
    chance = random.Random(5)
    second = NOW.replace(microsecond=0) - timedelta(hours=3)
    times = [second + timedelta(microseconds=chance.randrange(1_000_000)) for _ in range(READ_MOST + 500)]
    table = FakeTable([*times, second - timedelta(seconds=5), second + timedelta(seconds=1)])
    page = Search(table, "task").page(Filter(), 20)
    assert [task.id for task in page.tasks] == newest_first(table)[:20]
    page = Search(table, "task").page(Filter(), 20, page.after)
    assert [task.id for task in page.tasks] == newest_first(table)[20:40]


def test_a_page_costs_its_length() -> None:
    """Among a hundred times the tasks a page reads no more, wherever it lies, and takes no more requests."""
    costs = {}
    for number in (2_000, 200_000):
        step = 7 * 86_400 / number
        table = FakeTable([NOW - timedelta(seconds=step * each) for each in range(number)])
        search = Search(table, "task")
        page = search.page(Filter(), 50)
        first = (page.scanned, table.requests)
        table.requests = 0
        page = search.page(Filter(), 50, page.after)
        costs[number] = (first[0], first[1], page.scanned, table.requests)
        assert max(first[0], page.scanned) < 500
    # The first page also asks for tasks that have not ended.
    assert costs[200_000][1] <= costs[2_000][1] + 2
    assert costs[200_000][3] == 1


def test_a_request_reads_no_more_than_its_share() -> None:
    """A filter that matches nothing is searched for in requests of a bounded size."""

    class NoMatch(FakeTable):
        def _found(self, *_: Any) -> list[Any]:
            return []

    table = NoMatch([NOW - timedelta(seconds=each / 3) for each in range(40_000)])
    page = Search(table, "task").page(Filter(), 50)
    assert page.tasks == ()
    assert page.scanned >= 40_000
    assert table.most_read <= 2 * READ_MOST


def test_a_search_can_be_stopped_and_goes_on_where_it_stopped() -> None:
    """`max_scanned` gives an incomplete page whose `after` leads on; nothing is lost or given twice."""
    table = FakeTable([NOW - timedelta(seconds=each / 3) for each in range(9_000)])
    ids: list[str] = []
    after, pages = None, 0
    while True:
        page = Search(table, "task").page(Filter(), 1000, after, max_scanned=700)
        ids += [task.id for task in page.tasks]
        after, pages = page.after, pages + 1
        if after is None:
            break
    assert ids == newest_first(table)
    assert pages >= 9


class FewMatch(FakeTable):
    """A table in which a filter finds one of fifty."""

    def _found(self, read: list[tuple[datetime, str]], given: dict[str, Any], number: str) -> list[Any]:
        return super()._found([row for row in read if row[1].endswith(("00", "50"))], given, number)


def test_a_search_looks_at_hardly_more_than_it_may() -> None:
    """A filter that finds little costs what was allowed, not a request of the longest kind."""
    table = FewMatch([NOW - timedelta(seconds=each / 3) for each in range(9_000)])
    page = Search(table, "task").page(Filter(), 50, max_scanned=1000)
    assert not page.complete
    assert 1000 <= page.scanned < 1300
    assert page.tasks


def test_a_database_with_another_time_costs_no_more() -> None:
    """Windows begin at the database's time: a client whose clock is a year late does not read that year first."""
    later = NOW + timedelta(days=365)
    table = FakeTable([later - timedelta(seconds=each) for each in range(20_000)], now=later)
    page = Search(table, "task").page(Filter(), 20)
    assert [task.id for task in page.tasks] == newest_first(table)[:20]
    assert page.scanned < 500


def test_progress_is_told() -> None:
    """Who waits for a long search hears how far it is."""
    told: list[tuple[int, datetime | None]] = []
    table = FakeTable([NOW - timedelta(seconds=each) for each in range(3_000)])
    page = Search(table, "task").page(
        Filter.of(until=NOW - timedelta(days=9)), 50, on_progress=lambda *now: told.append(now)
    )
    assert page.tasks == ()
    assert told[-1][0] == page.scanned


def test_windows_reach_from_the_end_to_the_beginning() -> None:
    """Windows follow each other without a gap, are whole seconds, and the last reaches back to the start."""
    walk = Walk(NOW, None, None, pace=Pace(0.0, 100), most=1000)
    windows = walk.windows()
    assert windows[0].end == FAR
    assert windows[-1].start == EPOCH
    for newer, older in itertools.pairwise(windows):
        assert newer.start == older.end
        assert newer.start.microsecond == 0


def test_an_index_is_asked_beyond_a_window() -> None:
    """As an index has whole seconds last in their second, it is asked for a microsecond more on both sides."""
    window = Window(NOW.replace(microsecond=0), NOW.replace(microsecond=0) + timedelta(seconds=1))
    assert text_order(window.index_start) < text_order(window.start.replace(microsecond=1)) < text_order(window.start)
    assert text_order(window.index_end) > text_order(window.end - timedelta(microseconds=1))


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor(NOW, "id", ready=True),
        Cursor(NOW, "ä ⟩ '\"", ready=True, pace=Pace(12.3, 500)),
        Cursor(None, "id", ready=False, skip=3),
    ],
)
def test_a_cursor_survives_its_text(cursor: Cursor) -> None:
    """A cursor's text is fit for a URL and gives the cursor again."""
    assert str(cursor).replace("-", "").replace("_", "").isalnum()
    assert Cursor.read(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "x", "===", "bnVsbA", "WzFd", "WzEsMiwzLDQsNV0", "é", "W251bGwsImEiLDEsbnVsbCwwXQ"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """A text that no page gave is one clear error."""
    with pytest.raises(InvalidFilter, match="after must be what the page before gave"):
        Cursor.read(text)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"since": datetime(2026, 1, 1)}, "since must be a datetime with a time zone"),
        ({"until": "yesterday"}, "until must be a datetime"),
        ({"name": ""}, "name must be a text that is not empty"),
        ({"name": ["a", 5]}, "name must be a text"),
        ({"text": "a\x00b"}, "text must be a text of at most"),
        ({"root": "\ud800"}, "root holds half a surrogate pair"),
        ({"min_runtime": "5"}, "min_runtime must be a number of seconds"),
        ({"min_runtime": float("nan")}, "min_runtime must be a number of seconds"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(given: dict[str, Any], sentence: str) -> None:
    """Before anything is asked the mistake is named."""
    with pytest.raises(InvalidFilter, match=sentence):
        Filter.of(**given)


@pytest.mark.parametrize("limit", [0, -1, 1001, True, "5", None])
def test_a_page_has_an_upper_size(limit: Any) -> None:
    """A page has 1 to 1,000 tasks."""
    with pytest.raises(InvalidFilter, match="limit must be a number from 1 to 1000"):
        Search(FakeTable([]), "task").page(Filter(), limit)


def test_states_say_where_to_look() -> None:
    """A filter for states that end looks at no others, and the other way round."""
    assert (Filter.of(state="failure").ready, Filter.of(state="failure").unready) == (True, False)
    assert (Filter.of(state="STARTED").ready, Filter.of(state="STARTED").unready) == (False, True)
    assert (Filter.of(state=["STARTED", "SUCCESS"]).ready, Filter.of(state=["STARTED", "SUCCESS"]).unready) == (
        True,
        True,
    )
