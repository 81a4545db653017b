"""Records are read in the order of their ids, page by page, whatever the ids are, and no further than a page goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from celery import Celery

from surrealdb_celery_backend.client.surrealql import RANGE
from surrealdb_celery_backend.client.values import FIRST_ID, RecordID, records_behind, records_between
from tests.engines import RunningEngine
from tests.engines.installed import sdk_of_this_environment
from tests.support.apps import contract_apps

pytestmark = pytest.mark.integration

#: In their order, which is that of their kinds first.
NUMBERS, TEXTS = [-5, 0, 7, 2**63 - 1], ["a", "a b", "\N{PILE OF POO}", "\U0010ffff"]
OTHERS = [UUID(int=5), [], ["a"], ["b", 1], {}, {"a": 1}, {"\N{PILE OF POO}": [1]}]
#: How many records a page has.
PAGE = 3


def pages(run: Callable[..., Any], table: str) -> list[list[Any]]:
    """The ids of a table, page by page."""
    found: list[list[Any]] = []
    after: Any = FIRST_ID
    while not found or len(found[-1]) == PAGE:
        records = run(f"SELECT VALUE id FROM {RANGE} LIMIT $limit", range=records_behind(table, after), limit=PAGE)
        found.append([record.id for record in records])
        after = found[-1][-1] if found[-1] else after
    return found


def assert_read_in_order(app: Celery) -> None:
    """Ids of every kind, from the first to the last, and those of a kind by themselves."""
    run, ids = app.backend.connection.run, [*NUMBERS, *TEXTS, *OTHERS]
    run("INSERT INTO t $rows RETURN NONE", rows=[{"id": each} for each in reversed(ids)])
    everything = [RecordID("t", each) for each in ids]
    found = pages(run, "t")
    assert {len(page) for page in found[:-1]} == {PAGE}
    read = [RecordID("t", each) for page in found for each in page]
    assert sorted(map(str, read)) == sorted(map(str, everything))
    assert read[: len(NUMBERS) + len(TEXTS)] == everything[: len(NUMBERS) + len(TEXTS)]
    between = records_between("t", "a", "b")
    assert [record.id for record in run(f"SELECT VALUE id FROM {RANGE} LIMIT 9", range=between)] == ["a", "a b"]


def test_ids_of_every_kind(app_with: Callable[..., Celery]) -> None:
    """On a server."""
    assert_read_in_order(app_with())


@pytest.mark.skipif(sdk_of_this_environment() is None, reason="this environment's SDK has no embedded engine")
def test_ids_of_every_kind_in_the_process() -> None:
    """In an engine inside the process, which gets its parameters from the SDK."""
    app = contract_apps.app_on(contract_apps.BACKEND, surrealdb_url="mem://")
    try:
        assert_read_in_order(app)
    finally:
        contract_apps.close(app)


def test_a_page_reads_no_further(engine: RunningEngine, app_with: Callable[..., Celery]) -> None:
    """A range that is a parameter is not read to its end."""
    if engine.version.startswith("2."):
        pytest.skip("SurrealDB 2 never reads further, and does not say how far it read")
    run = app_with().backend.connection.run
    run("INSERT INTO t $rows RETURN NONE", rows=[{"id": number} for number in range(1000)])
    plan = run(f"SELECT VALUE id FROM {RANGE} LIMIT 2 EXPLAIN FULL", range=records_behind("t", 0))
    assert max(int(rows) for rows in re.findall(r"'output_rows': (\d+)", str(plan))) == 2
