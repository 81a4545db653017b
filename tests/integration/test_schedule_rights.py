"""Commands and programs of a user who may do less than everything: each write says whether it took effect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules, statements
from surrealdb_celery_backend.errors import PermissionDenied
from tests.engines import Database
from tests.support.faults import rights
from tests.support.shell import ScheduleShell

pytestmark = pytest.mark.integration

#: Settings of the users whom the tests define.
USERS: dict[str, dict[str, Any]] = {
    "viewer": {
        "surrealdb_username": "viewer",
        "surrealdb_password": "secret",
        "surrealdb_auth_level": "database",
        "surrealdb_define_schema": False,
    },
    "record user": {
        "surrealdb_access": "workers",
        "surrealdb_username": "worker",
        "surrealdb_password": "secret",
        "surrealdb_auth_level": "database",
        "surrealdb_define_schema": False,
    },
}

#: What each of the writing commands is given.
WRITES = [
    ("add", "new", "--task", "shop.report", "--every", "5"),
    ("set", "there", "--every", "10"),
    ("pause", "there"),
    ("resume", "paused"),
    ("run", "there"),
    ("remove", "there"),
    ("remove", "code", "--force"),
    ("import", "-"),
    ("import", "-", "--replace"),
]


def define(database: Database, permissions: str) -> None:
    """Make the tables, the entries, the viewer, and the record user with these permissions on the tables."""
    database.query(statements.define_schedules(""))
    database.query(
        "CREATE schedule:there SET name = 'there', task = 'shop.report', schedule = {timedelta: 5}, active = true;"
        "CREATE schedule:paused SET name = 'paused', task = 'shop.report', schedule = {timedelta: 5}, active = false;"
        "CREATE schedule:code SET name = 'code', task = 'shop.report', schedule = {timedelta: 5}, source = 'code';"
        "DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER"
    )
    database.query(
        ";".join(
            f"DEFINE TABLE OVERWRITE {table} TYPE NORMAL SCHEMALESS PERMISSIONS {permissions}"
            for table in statements.SCHEDULE_TABLES
        )
    )
    access = rights.RECORD_ACCESS_2 if database.engine.version.startswith("2.") else rights.RECORD_ACCESS
    database.query(access)


def imported(arguments: tuple[str, ...]) -> str | None:
    """What an import is given on standard input."""
    if arguments[0] != "import":
        return None
    name = "there" if "--replace" in arguments else "new"
    return json.dumps({name: {"task": "shop.report", "schedule": 30}})


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("arguments", WRITES, ids=" ".join)
def test_who_may_only_look_is_told_so(fresh_database: Database, user: str, arguments: tuple[str, ...]) -> None:
    """A command that may not write ends with one sentence that names the user, the right and the table."""
    define(fresh_database, "FOR select FULL, FOR create, update, delete NONE")
    shell = ScheduleShell(fresh_database, **USERS[user])
    assert "there" in shell.ok("list")
    before = shell.records()
    result = shell(*arguments, stdin=imported(arguments))
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    message = result.stderr
    assert "may not" in message
    assert "schedule" in message
    assert "docs/" not in message
    assert ("'viewer'" if user == "viewer" else "'workers'") in message
    assert message.count("\n") == 1
    assert shell.records() == before


def test_programs_get_the_same_error(fresh_database: Database) -> None:
    """`Schedules` raises PermissionDenied for each write that took no effect."""
    define(fresh_database, "FOR select FULL, FOR create, update, delete NONE")
    shell = ScheduleShell(fresh_database, **USERS["viewer"])
    entry = ScheduleEntry("new", "shop.report", {"timedelta": 5})
    with Schedules(shell.app) as schedules:
        for write in (
            lambda: schedules.add(entry),
            lambda: schedules.change("there", description="x"),
            lambda: schedules.pause("there"),
            lambda: schedules.resume("paused"),
            lambda: schedules.run("there"),
            lambda: schedules.remove("there"),
            lambda: schedules.import_entries([entry]),
            lambda: schedules.import_entries([entry.changed(name="there")], replace=True),
        ):
            with pytest.raises(PermissionDenied, match="may not"):
                write()


def test_the_rights_that_are_named_suffice(fresh_database: Database) -> None:
    """A record user with the rights that the error names can do all of it."""
    define(fresh_database, "FOR select, create, update, delete WHERE $access = 'workers'")
    shell = ScheduleShell(fresh_database, **USERS["record user"])
    for arguments in WRITES:
        done = shell(*arguments, stdin=imported(arguments) if "--replace" not in arguments else json.dumps({
            "paused": {"task": "shop.report", "schedule": 30}
        }))  # fmt: skip
        if arguments[0] == "import" and "--replace" not in arguments:
            assert "'new' already" in done.stderr  # which `add` made
            continue
        assert done.exit_code == 0, done.output
    found = {record["name"]: record for record in shell.records()}
    assert set(found) == {"new", "paused"}
    assert found["paused"]["schedule"] == {"timedelta": 30}
    assert len(shell.database.query("SELECT * FROM schedule_removed")[0]) >= 2
    shell.database.query("UPDATE schedule:new SET changed_by = 'nobody'")


def test_the_record_user_who_writes_by_hand_is_named(fresh_database: Database) -> None:
    """What a record user changes without a name of its own is changed by that user."""
    define(fresh_database, "FOR select, create, update, delete WHERE $access = 'workers'")
    shell = ScheduleShell(fresh_database, **USERS["record user"])
    with Schedules(shell.app) as schedules:
        schedules._store._connection.run("UPDATE schedule:there SET description = 'by hand'")
        assert schedules.get("there").changed_by == "account:worker"
