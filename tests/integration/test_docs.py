"""What the documentation shows is true: its SurrealQL on every engine, its Python as it stands there."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from tests.engines import Database
from tests.support.paths import CHECKOUT

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


def blocks(page: str, language: str) -> list[str]:
    """Every block of a language on a page."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def statement(beginning: str, page: str = "docs/querying.md") -> str:
    """The one statement of a page that has these words."""
    (found,) = (block for block in blocks(page, "surql") if beginning in block)
    return found


@pytest.fixture
def app(fresh_database: Database) -> Iterator[Celery]:
    """An app whose results are in a database of its own."""
    app = Celery("docs", broker="memory://", backend=fresh_database.backend_url, set_as_current=False)
    app.conf.result_extended = True
    app.conf.surrealdb_timeout = 60  # however slow the machine
    yield app
    app.backend.close()
    app.close()


def store(app: Celery, name: str, result: Any, state: str = "SUCCESS", **request: Any) -> str:
    """Store one result through the backend, as a worker would."""
    task_id = request.pop("id", None) or str(uuid.uuid4())
    traceback = "Traceback (most recent call last):\n" + f"{type(result).__name__}: {result}\n"
    app.backend.store_result(
        task_id,
        result,
        state,
        traceback=traceback if state == "FAILURE" else None,
        request=Context(
            {
                "id": task_id,
                "task": name,
                "args": [1],
                "kwargs": {},
                "hostname": "w1@host",
                "delivery_info": {"routing_key": "celery"},
                "retries": 0,
                **request,
            }
        ),
    )
    return task_id


@pytest.mark.parametrize("page", ["README.md", "docs/querying.md", "docs/configuration.md"])
def test_every_statement_runs(app: Celery, fresh_database: Database, page: str) -> None:
    """No statement in the documentation is refused, by any engine, with records and with none."""
    texts = blocks(page, "surql")
    assert texts
    store(app, "tasks.add", 5)
    for text in texts:
        fresh_database.query(text)


def test_failures_of_yesterday_are_found(app: Celery, fresh_database: Database) -> None:
    """The statement finds that task's failure of yesterday, and no other."""
    wanted = store(app, "tasks.divide", ZeroDivisionError("x"), "FAILURE")
    other = store(app, "tasks.add", ZeroDivisionError("x"), "FAILURE")
    today = store(app, "tasks.divide", ZeroDivisionError("today"), "FAILURE")
    store(app, "tasks.divide", 1)

    def found_on(midnight: datetime) -> list[Any]:
        for ids, then in (([wanted, other], midnight - timedelta(hours=12)), ([today], midnight)):
            text = "UPDATE task SET date_done = $then WHERE task_id IN $ids"
            fresh_database.query(text, {"then": then, "ids": ids})
        return fresh_database.query(statement("name = 'tasks.divide'"))[0]

    def last_midnight() -> datetime:
        return fresh_database.query("RETURN time::floor(time::now(), 1d)")[0]

    rows = found_on(midnight := last_midnight())
    while midnight != last_midnight():
        # Meanwhile it became another day, and what is yesterday with it.
        rows = found_on(midnight := last_midnight())
    assert [row["task_id"] for row in rows] == [wanted]


def test_errors_are_counted_most_frequent_first(app: Celery, fresh_database: Database) -> None:
    """The statement counts failures by the last line of their traceback."""
    for error in (KeyError("a"), OSError("gone"), OSError("gone"), OSError("gone"), ValueError("b"), ValueError("b")):
        store(app, "tasks.any", error, "FAILURE")
    (rows,) = fresh_database.query(statement("AS error"))
    assert [(row["error"], row["times"]) for row in rows] == [
        ("OSError: gone", 3),
        ("ValueError: b", 2),
        ("KeyError: 'a'", 1),
    ]


def test_failures_and_retries_are_counted_by_task(app: Celery, fresh_database: Database) -> None:
    """The statements sum up by task, the worst first."""
    store(app, "tasks.good", 1, retries=1)
    store(app, "tasks.bad", OSError(), "FAILURE", retries=3)
    store(app, "tasks.bad", OSError(), "FAILURE", retries=2)
    store(app, "tasks.bad", 1)
    (failed,) = fresh_database.query(statement("AS failed"))
    assert [(row["name"], row["tasks"], row["failed"]) for row in failed] == [("tasks.bad", 3, 2), ("tasks.good", 1, 0)]
    (retried,) = fresh_database.query(statement("AS retried"))
    assert [(row["name"], row["retried"], row["worst"]) for row in retried] == [
        ("tasks.bad", 5, 3),
        ("tasks.good", 1, 1),
    ]


def test_work_is_counted_by_state_worker_and_hour(app: Celery, fresh_database: Database) -> None:
    """The statements count what there is."""
    for worker, number in (("w1@host", 1), ("w2@host", 3)):
        for _ in range(number):
            store(app, "tasks.add", 1, hostname=worker)
    running = store(app, "tasks.add", None, "STARTED")
    (states,) = fresh_database.query(statement("SELECT status"))
    assert {row["status"]: row["tasks"] for row in states} == {"SUCCESS": 4, "STARTED": 1}
    (workers,) = fresh_database.query(statement("worker, count()"))
    assert [(row["worker"], row["tasks"]) for row in workers] == [("w2@host", 3), ("w1@host", 1)]
    (hours,) = fresh_database.query(statement("AS hour"))
    assert sum(row["tasks"] for row in hours) == 4
    (now,) = fresh_database.query(statement("'STARTED'"))
    assert [row["task_id"] for row in now] == [running]


def test_one_task_and_its_workflow_are_found_by_id(app: Celery, fresh_database: Database) -> None:
    """A task is found by its id and by its record's id, and a workflow by its root."""
    task_id = "f6f4ea0c-9f5b-4c62-9b84-5f6d2f6a9b0e"
    store(app, "tasks.add", 5, id=task_id, root_id=task_id)
    child = store(app, "tasks.multiply", 6, root_id=task_id, parent_id=task_id)
    for words in ("WHERE task_id = ", "FROM task:⟨"):
        ((row,),) = fresh_database.query(statement(words))
        assert (row["task_id"], row["name"], row["result"]) == (task_id, "tasks.add", "5")
    (rows,) = fresh_database.query(statement("root_id ="))
    assert [row["task_id"] for row in rows] == [task_id, child]


def test_removing_by_hand_spares_what_is_not_done(app: Celery, fresh_database: Database) -> None:
    """The statement removes old results, and neither new ones nor tasks that still run."""
    old, new = store(app, "tasks.add", 1), store(app, "tasks.add", 2)
    running = store(app, "tasks.add", None, "STARTED")
    fresh_database.query(
        "UPDATE task SET date_done = $then WHERE task_id = $id",
        {"then": datetime.now(timezone.utc) - timedelta(days=31), "id": old},
    )
    fresh_database.query(statement("DELETE task"))
    (left,) = fresh_database.query("SELECT VALUE task_id FROM task")
    assert sorted(left) == sorted([new, running])


def test_schema_in_the_documentation_is_the_one_that_is_made(app: Celery, fresh_database: Database) -> None:
    """Who may not DEFINE is told to have exactly those tables and indexes made that the backend makes."""
    store(app, "tasks.add", 5)
    (info,) = fresh_database.query("INFO FOR DB")
    made = {table: set(fresh_database.query(f"INFO FOR TABLE `{table}`")[0]["indexes"]) for table in info["tables"]}
    text = "\n".join(blocks("docs/configuration.md", "surql"))
    told: dict[str, set[str]] = {table: set() for table in re.findall(r"TABLE IF NOT EXISTS (\w+)", text)}
    for index, table in re.findall(r"INDEX IF NOT EXISTS (\w+) ON (\w+)", text):
        told[table].add(index)
    assert told == made


def test_settings_in_the_documentation_are_those_there_are() -> None:
    """The table of settings names every `surrealdb_…` setting, with its default, and no other."""
    from surrealdb_celery_backend.settings.declared import names

    page = (CHECKOUT / "docs/configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`surrealdb_.*)$", page, flags=re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`surrealdb_(\w+)`", row.split(" | ")[0])}
    assert told == set(names())


def test_relative_links_lead_somewhere() -> None:
    """Every link from one page to another file of the project is to a file that is there."""
    import surrealdb_celery_backend

    # Beside the tests, or installed from a wheel.
    package = Path(surrealdb_celery_backend.__file__).parent
    for page in [
        *CHECKOUT.glob("*.md"),
        *sorted((CHECKOUT / "docs").rglob("*.md")),
        *sorted((CHECKOUT / "examples").glob("**/README.md")),
    ]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if path.is_relative_to(CHECKOUT / package.name):
                path = package / path.relative_to(CHECKOUT / package.name)
            assert path.exists(), f"{page.name} links to {target}"
