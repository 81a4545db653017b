"""Beat and `Schedules` as users with few rights: each missing right is named, and nothing is said to be done that is not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules, statements
from surrealdb_celery_backend.errors import PermissionDenied
from tests.engines import Database
from tests.support.beats import Beats, Endless, take_in_changes, tick_until_idle
from tests.support.faults import rights

pytestmark = pytest.mark.integration

UTC = timezone.utc

VIEWER = {
    "surrealdb_username": "viewer",
    "surrealdb_password": "secret",
    "surrealdb_auth_level": "database",
    "surrealdb_define_schema": False,
}
RECORD_USER = {
    "surrealdb_access": "workers",
    "surrealdb_username": "worker",
    "surrealdb_password": "secret",
    "surrealdb_auth_level": "database",
    "surrealdb_define_schema": False,
}
RIGHTS = ("select", "create", "update", "delete")
#: Nobody changes the mark of a removed entry.
NOT_NEEDED = {("schedule_removed", "update")}


def viewer(beats: Beats, **settings: Any) -> Celery:
    """An app whose user has the role VIEWER; the tables are there."""
    beats.database.query(statements.define_schedules(""))
    beats.database.query("DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER")
    return beats.new_app(**VIEWER, **settings)


def record_user(database: Database, without: dict[str, str] | None = None) -> None:
    """Make the record user, who lacks one right on some tables."""
    database.query(statements.define_schedules(""))
    for table in statements.SCHEDULE_TABLES:
        lacking = (without or {}).get(table)
        granted = ", ".join(right for right in RIGHTS if right != lacking)
        permissions = f"FOR {granted} WHERE $access = 'workers'" + (f" FOR {lacking} NONE" if lacking else "")
        database.query(f"DEFINE TABLE OVERWRITE {table} TYPE NORMAL SCHEMALESS PERMISSIONS {permissions}")
    is_old = database.engine.version.startswith("2.")
    database.query(rights.RECORD_ACCESS_2 if is_old else rights.RECORD_ACCESS)


@pytest.mark.parametrize("are_defined", [True, False])
def test_a_viewers_beat_ends_with_one_sentence(beats: Beats, are_defined: bool) -> None:
    """Beat as a user who may not write ends at once and says which right it lacks, on which table."""
    app = viewer(beats, beat_schedule={"tick": {"task": "shop.report", "schedule": 10}})
    if not are_defined:
        app.conf.surrealdb_define_schema = True
        beats.database.query(";".join(f"REMOVE TABLE {table}" for table in statements.SCHEDULE_TABLES))
    with pytest.raises(PermissionDenied) as raised:
        beats.start(app)
    if are_defined:
        assert str(raised.value).startswith(
            "surrealdb_username 'viewer' may not create records of the table 'schedule_lease': give the user the role "
            "EDITOR"
        )
    assert "\n" not in str(raised.value)


def entry(name: str) -> ScheduleEntry:
    """An entry that is not due soon."""
    return ScheduleEntry(name, "shop.report", {"timedelta": 3600})


@pytest.mark.parametrize(
    "write",
    [
        lambda schedules: schedules.add(entry("new")),
        lambda schedules: schedules.change("there", schedule=10),
        lambda schedules: schedules.pause("there"),
        lambda schedules: schedules.resume("there"),
        lambda schedules: schedules.run("there"),
        lambda schedules: schedules.remove("there"),
        lambda schedules: schedules.import_entries([entry("new")]),
        lambda schedules: schedules.import_entries([entry("there").changed(args=[1])], replace=True),
    ],
    ids=["add", "change", "pause", "resume", "run", "remove", "import", "import replace"],
)
def test_a_viewers_commands_change_nothing_and_say_so(beats: Beats, write: Callable[[Schedules], Any]) -> None:
    """Every write of a user who may not is one clear error, and the table stays as it is; reading works."""
    app = viewer(beats)
    with beats.schedules() as schedules:
        schedules.add(entry("there"))
    before = beats.records()
    with Schedules(app) as schedules:
        assert [each.name for each in schedules.entries()] == ["there"]
        with pytest.raises(PermissionDenied, match=r"surrealdb_username 'viewer' may not .* the table 'schedule'"):
            write(schedules)
    assert beats.records() == before


def test_a_record_user_with_the_documented_rights(beats: Beats) -> None:
    """Beat and all commands work as a record user with the permissions that docs/reliability.md names."""
    record_user(beats.database)
    app = beats.new_app(**RECORD_USER, beat_schedule={"tick": {"task": "shop.report", "schedule": 10}})
    everything(beats, app)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"tick", "asked"}
    assert "changed" in beats.records()


def everything(beats: Beats, app: Celery) -> None:
    """All that beat and the commands do, once."""
    beats.clock.moment = datetime.now(UTC)
    beats.database.query("CREATE schedule_lease:1 SET token = 1; CREATE schedule_lease:20 SET token = 20")
    beats.database.query(
        "CREATE schedule:gone SET name = 'gone', task = 'shop.report', source = 'code', schedule = {timedelta: 5}"
    )
    first = beats.start(app)
    with Schedules(app) as schedules:
        schedules.import_entries([entry(name) for name in ("changed", "asked", "removed")])
        schedules.change("changed", args=[1])
        schedules.run("asked")
        schedules.remove("removed")
        take_in_changes(first)
        beats.clock.advance(15)
        tick_until_idle(first)
    first.lease.renew()
    # A firing that a beat claimed before it died.
    beats.clock.advance(10)
    first.firings.claim(first.agenda.take_due(beats.clock.now(), 10))
    first.close()
    second = beats.start(app)
    tick_until_idle(second)
    beats.clock.advance(90_000)
    second.upkeep.clean_up()


@pytest.mark.parametrize(
    ("table", "right"),
    [(table, right) for table in statements.SCHEDULE_TABLES for right in RIGHTS if (table, right) not in NOT_NEEDED],
)
def test_each_missing_right_is_named(beats: Beats, table: str, right: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever right a record user lacks, beat or the command says so, naming the table, instead of going on."""
    record_user(beats.database, {table: right})
    app = beats.new_app(**RECORD_USER, beat_schedule={"tick": {"task": "shop.report", "schedule": 10}})
    caplog.set_level(logging.WARNING)
    told = ""
    try:
        everything(beats, app)
    except PermissionDenied as error:
        told = str(error)
    except Endless:
        pass  # beat that runs already pauses, so that it goes on when the right is granted
    told += caplog.text
    assert "surrealdb_access 'workers' may not" in told
    assert f"the table {table!r}" in told
