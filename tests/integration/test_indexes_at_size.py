"""Indexes that are asked for when there are many records: no store waits for them, and a command creates them."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from celery import Celery

from surrealdb_celery_backend.results import indexing, schema, statements
from tests.engines import Database, RunningEngine
from tests.support import history_data as data
from tests.support.apps import contract_apps
from tests.support.shell import Shell
from tests.support.waits import until

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with more than ten records is large, and nothing was said before."""
    monkeypatch.setattr(schema, "FEW", 10)
    monkeypatch.setattr(schema, "_said", set())


@pytest.fixture
def large(app_with: Callable[..., Celery]) -> Celery:
    """An app with eleven results and the indexes of the defaults."""
    app = app_with()
    data.write(app, [data.record(task_id=f"t{n}") for n in range(11)])
    return app


@pytest.fixture
def shell(large: Celery, fresh_database: Database) -> Iterator[Shell]:
    """A shell on that table, whose app asks for more indexes."""
    shell = Shell(fresh_database, surrealdb_indexes="date_done,name,text")
    yield shell
    shell.close()


def indexes(app: Celery) -> set[str]:
    """The indexes of the table of tasks, which have no remarks of ours."""
    found: dict[str, str] = app.backend.connection.run("INFO FOR TABLE task")["indexes"]
    assert not any("COMMENT" in definition for definition in found.values())
    return set(found)


@contextmanager
def stored_meanwhile(database: Database, threads: int = 4) -> Iterator[None]:
    """Workers of an app that asks for no more indexes store results, each over a connection of its own."""
    stopped, counts, failures = threading.Event(), [0] * threads, []

    def store(number: int) -> None:
        app = contract_apps.ours(database, result_extended=True)
        try:
            while not stopped.is_set():
                task_id = str(uuid.uuid4())
                request = contract_apps.request(task_id, task="shop.meanwhile")
                app.backend.store_result(task_id, 1, "SUCCESS", request=request)
                counts[number] += 1
        except BaseException as exc:
            failures.append(exc)
        finally:
            contract_apps.close(app)

    def more() -> None:
        so_far = counts.copy()
        until(
            lambda: failures or all(now > then + 5 for now, then in zip(counts, so_far, strict=True)), "more is stored"
        )

    running = [threading.Thread(target=store, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        more()
        yield
        more()
    finally:
        stopped.set()
        for thread in running:
            thread.join()
    assert failures == []


def not_in_the_index(app: Celery, name: str) -> set[str]:
    """Ids of tasks that are in the table, and not in the index of `name`."""
    run = app.backend.connection.run
    there = run("SELECT VALUE record::id(id) FROM task WITH NOINDEX WHERE name = $name", name=name)
    found = run("SELECT VALUE record::id(id) FROM task WITH INDEX task_name WHERE name = $name", name=name)
    assert len(there) > 20
    return set(there) - set(found)


def test_opening_a_session_creates_none_on_a_large_table(
    large: Celery, app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture
) -> None:
    """Workers start and store at once, and the log says once what to do."""
    there = indexes(large)
    with caplog.at_level(logging.WARNING):
        for number in range(2):
            app = app_with(surrealdb_indexes="date_done,name,text")
            app.backend.store_result(f"new-{number}", 1, "SUCCESS")
            assert app.backend.get_state(f"new-{number}") == "SUCCESS"
            assert indexes(app) == there
    [said] = [record.getMessage() for record in caplog.records if "lacks" in record.getMessage()]
    assert "lacks task_name, task_text_message, task_text_traceback: run `celery surrealdb schema --apply`" in said


def test_the_command_creates_them(shell: Shell) -> None:
    """`schema` names them, `--apply` creates them and says which it is at; after it nothing is missing."""
    for name in ("task_name", "task_text_message", "task_text_traceback"):
        assert f"missing: index {name}" in shell("schema").stderr
    applied = shell("schema", "--apply")
    assert applied.exit_code == 0, applied.output
    assert "creating index task_name" in applied.stderr
    assert {"task_name", "task_text_message", "task_text_traceback"} <= indexes(shell.app)
    assert "up to date" in shell("schema").stderr
    assert len(shell.json("tasks", "--name", "shop.report")) == 11


def test_a_small_table_gets_them_when_a_session_is_opened(app_with: Callable[..., Celery]) -> None:
    """While there is little to read, nobody has to do anything."""
    data.write(app_with(), [data.record(task_id=f"t{n}") for n in range(10)])
    app = app_with(surrealdb_indexes="date_done,name,text")
    assert {"task_name", "task_text_message", "task_text_traceback"} <= indexes(app)


def test_an_index_has_what_is_stored_while_it_is_built(
    app_with: Callable[..., Celery], fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, and by a session that is opened: a plain DEFINE INDEX loses what comes meanwhile on SurrealDB 3."""
    app = app_with()
    data.write(app, [data.record(task_id=f"t{n}", name="shop.before") for n in range(1500)])
    for by_command in (True, False):
        shell = Shell(fresh_database, surrealdb_indexes="date_done,name", surrealdb_define_schema=not by_command)
        monkeypatch.setattr(schema, "FEW", 1_000_000)
        with stored_meanwhile(fresh_database):
            if by_command:
                shell.ok("schema", "--apply")
            else:
                shell.app.backend.connection.run(statements.PING)
        assert "task_name" in indexes(app)
        assert not_in_the_index(app, "shop.meanwhile") == set()
        assert not_in_the_index(app, "shop.before") == set()
        fresh_database.query("REMOVE INDEX task_name ON task")
        shell.close()


@pytest.mark.slow
def test_an_index_that_the_end_of_the_server_interrupts(
    durable_engine: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for complete: `schema` misses it, a search does without it, and `--apply` builds it to its end."""
    if durable_engine.version.startswith("2"):
        pytest.skip("SurrealDB 2 has the whole index, or none")
    monkeypatch.setattr(indexing, "STALLED", 3.0)
    database = durable_engine.database()
    shell = Shell(database, surrealdb_indexes="date_done,name", surrealdb_define_schema=False)
    plain = contract_apps.ours(database)
    try:
        for start in range(0, 6000, 1000):
            data.write(plain, [data.record(task_id=f"t{n}", name="shop.before") for n in range(start, start + 1000)])
        [index] = [one for one in statements.define_indexes("", "name") if one.name == "task_name"]
        database.query(statements.build_beside_writers(index, "task"))
        durable_engine.kill()
        durable_engine.restart()
        assert "missing: index task_name" in shell("schema").stderr
        assert len(shell.json("tasks", "--name", "shop.before", "--limit", "1000")) == 1000
        applied = shell("schema", "--apply")
        assert applied.exit_code == 0, applied.output
        assert "up to date" in shell("schema").stderr
        assert "task_name" in indexes(plain)
        assert not_in_the_index(plain, "shop.before") == set()
    finally:
        shell.close()
        contract_apps.close(plain)
