"""`celery surrealdb schema` on engines, with records as the published version 0.3.0 wrote them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import signals
from celery.result import GroupResult

import surrealdb_celery_backend
from surrealdb_celery_backend.beat.statements import SCHEDULE_TABLES
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.errors import UnreadableResult
from surrealdb_celery_backend.results import Results
from tests.engines import Database
from tests.support import history_data as data
from tests.support.apps.contract_apps import request
from tests.support.shell import Shell

pytestmark = pytest.mark.integration


@pytest.fixture
def shell(fresh_database: Database) -> Iterator[Shell]:
    """A shell on a database of its own."""
    shell = Shell(fresh_database)
    yield shell
    shell.close()


def write_as_0_3_0(shell: Shell, number: int) -> None:
    """Records of 0.3.0: the whole meta as JSON, the time as text, no task id and no lifetime."""
    backend = shell.app.backend
    rows: list[dict[str, Any]] = []
    for place in range(number):
        failed = place % 10 == 9
        at = (data.NOW - timedelta(minutes=place % 60)).isoformat()
        result = {"exc_type": "KeyError", "exc_message": ["x"], "exc_module": "builtins"} if failed else {"n": place}
        status = "FAILURE" if failed else "SUCCESS"
        meta: dict[str, Any] = {"task_id": f"old-{place}", "status": status, "result": result, "date_done": at}
        meta["traceback"] = "Traceback …" if failed else None
        rows.append(
            {"id": RecordID("task", f"old-{place}"), "status": status, "result": backend.encode(meta), "date_done": at}
        )
    backend.connection.run_all("INSERT INTO task $rows RETURN NONE", rows=rows)
    group = GroupResult("g", [backend.app.AsyncResult("old-0"), backend.app.AsyncResult("old-1")])
    backend.connection.run_all(
        "INSERT INTO group $row RETURN NONE",
        row={
            "id": RecordID("group", "g"),
            "result": json.dumps({"result": group.as_tuple()}),
            "date_done": data.NOW.replace(tzinfo=None).isoformat(),
        },
    )


def write_counter_of_0_3_0(shell: Shell, group_id: str, size: int, counter: int) -> None:
    """How 0.3.0 counted the parts of a chord."""
    shell.app.backend.connection.run_all(
        "INSERT INTO chord $row RETURN NONE",
        row={
            "id": RecordID("chord", group_id),
            "chord_size": size,
            "counter": counter,
            "date_created": data.NOW.replace(tzinfo=None).isoformat(),
        },
    )


def test_the_index_of_texts_is_shown_and_created(fresh_database: Database) -> None:
    """It is printed as this server has it, is missing where an administrator has not created it, and then created."""
    plain = Shell(fresh_database)
    shell = Shell(fresh_database, surrealdb_indexes=["text"], surrealdb_define_schema=False)
    try:
        plain.ok("schema")
        first = shell("schema")
        assert "DEFINE ANALYZER IF NOT EXISTS task_words" in first.stdout
        assert ("FULLTEXT" in first.stdout) == fresh_database.engine.version.startswith("3")
        assert "missing: index task_text_message" in first.stderr
        assert "missing: index task_text_traceback" in first.stderr
        shell.ok("schema", "--apply")
        assert "missing" not in shell("schema").stderr
    finally:
        plain.close()
        shell.close()


def test_a_new_database_is_up_to_date(shell: Shell) -> None:
    """The statements are printed, and nothing is missing."""
    result = shell("schema")
    assert "DEFINE TABLE IF NOT EXISTS `task`" in result.stdout
    assert f"-- surrealdb-celery-backend {surrealdb_celery_backend.__version__}: results" in result.stdout
    for table in SCHEDULE_TABLES:
        assert f"DEFINE TABLE IF NOT EXISTS `{table}`" in result.stdout
    assert "the database is up to date" in result.stderr
    # Statements and comments as SurrealDB takes them.
    shell.database.query(result.stdout)


@pytest.mark.parametrize("indexes", ["", "name, date_done"])
def test_the_indexes_are_those_of_the_setting(fresh_database: Database, indexes: str) -> None:
    """What `surrealdb_indexes` leaves out is not missing, and what it asks for is."""
    shell = Shell(fresh_database, surrealdb_indexes=indexes)
    try:
        assert "up to date" in shell("schema").stderr
        assert ("task_name" in shell.ok("schema")) == ("name" in indexes)
        if indexes:
            fresh_database.query("REMOVE INDEX task_name ON task")
            assert "missing: index task_name" in shell("schema").stderr
    finally:
        shell.close()


def test_what_is_missing_is_created(shell: Shell) -> None:
    """A missing index is named; a dry run creates nothing; `--apply` does."""
    shell.ok("schema")
    shell.database.query("REMOVE INDEX task_date_done ON task")
    assert "missing: index task_date_done" in shell("schema", "--apply", "--dry-run").stderr
    assert "missing: index task_date_done" in shell("schema").stderr
    shell.ok("schema", "--apply")
    assert "up to date" in shell("schema").stderr


def test_records_of_0_3_0_are_migrated_by_many_at_once(shell: Shell) -> None:
    """After it Celery and the typed API read them as if they had been written today; what is new is not touched."""
    write_as_0_3_0(shell, 450)
    data.write(shell.app, [data.record(task_id="new")])
    assert "written by 0.3.0: 450 tasks, 1 groups, 0 counters of chords" in shell("schema").stderr
    assert "would create 0 indexes and migrate 451 records" in shell("schema", "--apply", "--dry-run").stderr
    with Results(shell.app) as results:
        errors: list[BaseException] = []

        def migrate() -> None:
            try:
                results.schema.migrate()
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=migrate) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        state = results.schema.state()
        assert (state.old, state.missing) == (0, ())
        assert len(list(results.find_all())) == 451
        failure = results.get("old-9")
        assert failure.error is not None
        assert (failure.error.type, failure.traceback) == ("KeyError", "Traceback …")
        assert failure.expires_at == failure.date_done + timedelta(days=1)  # type: ignore[operator]
    assert shell.app.AsyncResult("old-3").get(timeout=10) == {"n": 3}
    with pytest.raises(KeyError):
        shell.app.AsyncResult("old-9").get(timeout=10)
    restored = shell.app.GroupResult.restore("g")
    assert [member.id for member in restored.results] == ["old-0", "old-1"]


def test_records_of_0_3_0_say_what_to_do(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    """Read before they are migrated, one is an error that names the command, and several are left out with a warning."""
    write_as_0_3_0(shell, 2)
    shell.app.backend.store_result("new", 5, "SUCCESS")
    with pytest.raises(UnreadableResult, match="celery surrealdb schema --apply"):
        shell.app.AsyncResult("old-0").get(timeout=60)
    with caplog.at_level("WARNING"):
        found = shell.app.backend.get_many(["new", "old-0", "old-1"], max_iterations=1)
        assert [task_id for task_id, _ in found] == ["new"]
    assert "celery surrealdb schema --apply" in caplog.text


def test_what_cannot_be_read_stays(shell: Shell) -> None:
    """A record that is no result is left as it is and counted; the others are migrated."""
    write_as_0_3_0(shell, 20)
    shell.database.query("UPDATE task:⟨old-3⟩ SET result = 'no json'")
    result = shell("schema", "--apply")
    assert result.exit_code == 1
    assert "1 records cannot be read" in result.stderr
    assert "migrated 19 tasks and 1 groups" in result.stderr


def test_a_chord_of_0_3_0_ends_once_after_its_counter_is_gone(shell: Shell) -> None:
    """Counters go and today's chords stay; `celery.chord_unlock`, which waits in the broker, sends the body, once."""
    app, backend = shell.app, shell.app.backend
    write_as_0_3_0(shell, 2)
    write_counter_of_0_3_0(shell, "in-flight", 3, 2)
    for place in range(300):
        write_counter_of_0_3_0(shell, f"lost-{place}", 5, 1)
    backend.set_chord_size("today", 2)
    assert "301 counters of chords" in shell("schema").stderr
    with pytest.raises(UnreadableResult, match="schema --apply"):
        app.AsyncResult("old-0").get(timeout=30)
    migrated = shell("schema", "--apply")
    assert migrated.exit_code == 0, migrated.output
    assert "deleted 301 counters of chords" in migrated.stderr
    assert "up to date" in shell("schema").stderr
    assert [chord["group_id"] for chord in shell.json("chords")] == ["today"]

    # The last header task runs on a worker of this version, with the message that 0.3.0 sent.
    sent: list[str] = []

    @app.task(name="shop.total", shared=False)
    def total(parts: list[Any]) -> None:
        """Nothing: it is not run here."""

    def note(sender: str, **_: Any) -> None:
        sent.append(sender)

    body = total.s()
    part = request("new", group="in-flight", group_index=2, chord={**body, "chord_size": 3})
    signals.before_task_publish.connect(note)
    try:
        backend.mark_as_done("new", 3, request=part)
        assert sent == []
        app.tasks["celery.chord_unlock"].apply(
            args=("in-flight", body),
            kwargs={"result": [app.AsyncResult(each).as_tuple() for each in ("old-0", "old-1", "new")]},
        ).get()
    finally:
        signals.before_task_publish.disconnect(note)
    assert sent == ["shop.total"]
