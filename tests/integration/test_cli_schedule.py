"""`celery surrealdb schedule …` on real engines: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.cli import surrealdb
from surrealdb_celery_backend.errors import InvalidSchedule, ScheduleExists, ScheduleNotFound
from tests.engines import Database

pytestmark = pytest.mark.integration


class Shell:
    """Runs commands of the schedule for one app."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.app = Celery(f"shop-{uuid.uuid4()}", broker="memory://", set_as_current=False)
        self.app.conf.update(database.settings, timezone="Europe/Berlin", result_backend="disabled://")
        self.app.conf.surrealdb_timeout = 60  # however slow the machine

        @self.app.task(name="shop.report", shared=False)
        def report() -> None:
            """Nothing: it is not run here."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        context = CLIContext(app=self.app, no_color=True, workdir=None)
        return CliRunner().invoke(surrealdb, ["schedule", *arguments], obj=context, input=stdin)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        result = self(*arguments, stdin=stdin)
        assert result.exit_code in (1, 2), result.output
        assert isinstance(result.exception, SystemExit), result.exception
        return result.stderr

    def records(self) -> list[dict[str, Any]]:
        return self.database.query("SELECT * FROM schedule")[0]


@pytest.fixture
def shell(fresh_database: Database) -> Shell:
    """A shell on a database of its own."""
    return Shell(fresh_database)


@pytest.fixture
def schedules(shell: Shell) -> Iterator[Schedules]:
    """The entries of the same app, for programs."""
    with Schedules(shell.app) as schedules:
        yield schedules


def test_a_table_of_what_there_is(shell: Shell) -> None:
    """`list` prints a table with one line per entry, and its next runs in its own zone."""
    assert shell.ok("list") == "no schedule entries\n"
    shell.ok("add", "morning", "--task", "shop.report", "--crontab", "0 9 15 * *", "--timezone", "Asia/Tokyo")
    shell.ok("add", "often", "--task", "shop.report", "--every", "1h30m", "--paused")
    head, morning, often = shell.ok("list", "--next", "2").splitlines()
    assert head.split("  ")[0] == "NAME"
    assert "crontab 0 9 15 * * Asia/Tokyo" in morning
    assert morning.count("-15 09:00:00+09:00") == 2
    assert "every 1h30m" in often
    assert "paused" in often
    # The columns are aligned.
    assert head.index("TASK") == morning.index("shop.report") == often.index("shop.report")
    assert len(shell.ok("list", "--paused").splitlines()) == 2
    assert shell.ok("list", "--broken") == "no schedule entries\n"


def test_add_show_set_and_remove(shell: Shell) -> None:
    """What is given is stored, shown, changed field by field, and removed."""
    shell.ok(
        "add", "full", "--task", "shop.report", "--every", "15", "--args", '[1, "two"]', "--kwargs", '{"none": null}',
        "--queue", "slow", "--priority", "3", "--expires", "60", "--options", '{"headers": {"x": "y"}}',
        "--start-time", "2030-01-01T00:00:00", "--expires-at", "2031-01-01T00:00:00+00:00", "--max-runs", "5",
        "--description", "what it is for",
    )  # fmt: skip
    shown = shell.json("show", "full")
    assert shown["schedule"] == {"timedelta": 15}
    assert shown["args"] == [1, "two"]
    assert shown["kwargs"] == {"none": None}
    assert shown["options"] == {"headers": {"x": "y"}, "queue": "slow", "priority": 3, "expires": 60}
    # A time without an offset is the app's wall time.
    assert shown["start_time"] == "2029-12-31T23:00:00+00:00"
    assert shown["next_runs"][0] == "2030-01-01T00:00:00+01:00"
    assert len(shown["next_runs"]) == 5
    text = shell.ok("show", "full", "--next", "2")
    assert "what it is for" in text
    assert "2030-01-01T00:00:15+01:00" in text
    shell.ok(
        "set", "full", "--priority", "7", "--crontab", "*/5 * * * *", "--unset", "max_runs", "--unset", "start_time"
    )
    shown = shell.json("show", "full")
    assert shown["options"]["priority"] == 7
    assert shown["options"]["queue"] == "slow"
    assert shown["schedule"] == {"minute": "*/5"}
    assert shown["max_runs"] is None
    assert "removed full" in shell.ok("remove", "full")
    assert shell.records() == []


def test_pause_resume_and_run(shell: Shell) -> None:
    """Several entries can be paused, resumed and asked to run at once; all must be there."""
    for name in ("a", "b"):
        shell.ok("add", name, "--task", "shop.report", "--every", "15")
    shell.ok("pause", "a", "b")
    assert {record["active"] for record in shell.records()} == {False}
    assert "there is no schedule entry 'c'" in shell.refused("resume", "a", "c")
    assert {record["active"] for record in shell.records()} == {False}
    shell.ok("resume", "a", "b")
    assert {record["active"] for record in shell.records()} == {True}
    shell.ok("run", "a")
    assert [record["name"] for record in shell.records() if record.get("run_requested_at")] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "x", "--every", "5"), "say what runs: --task"),
        (("add", "x", "--task", "shop.report"), "say when it runs: --every"),
        (("add", "x", "--task", "shop.report", "--every", "5", "--crontab", "* * * * *"), "say once when it runs"),
        (("add", "x", "--task", "shop.reprot", "--every", "5"), "did you mean 'shop.report'?"),
        (("add", "x", "--task", "shop.report", "--every", "soon"), "'soon' is no duration"),
        (("add", "x", "--task", "shop.report", "--crontab", "0 25 * * *"), "schedule.hour holds '25'"),
        (("add", "x", "--task", "shop.report", "--crontab", "0 0 31 2 *"), "never"),
        (("add", "x", "--task", "shop.report", "--at", "2001-01-01"), "its time has passed"),
        (("add", "x", "--task", "shop.report", "--every", "5", "--args", "{"), "--args holds '{', which is no JSON"),
        (("add", "x", "--task", "shop.report", "--every", "5", "--args", "{}"), "args holds {}: give a list"),
        (("add", "x", "--task", "shop.report", "--every", "5", "--timezone", "Mars"), "timezone holds 'Mars'"),
        (("add", "x", "--task", "shop.report", "--solar", "noon", "a", "b"), "give event, latitude, longitude"),
        (("add", "there", "--task", "shop.report", "--every", "5"), "there is a schedule entry 'there' already"),
        (("set", "ther", "--every", "5"), "there is no schedule entry 'ther'; did you mean 'there'?"),
        (("set", "there"), "say what to change"),
        (("set", "there", "--task", "shop.nothing"), "task holds 'shop.nothing'"),
        (("show", "nothing"), "there is no schedule entry 'nothing'"),
        (("remove", "code"), "'code' is in the code, which adds it again when a beat starts"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    shell: Shell, arguments: tuple[str, ...], sentence: str
) -> None:
    """A mistake is one clear sentence, and the table stays as it was."""
    shell.ok("add", "there", "--task", "shop.report", "--every", "15")
    shell.database.query(
        "CREATE schedule:code SET name = 'code', task = 'shop.report', schedule = {timedelta: 5}, source = 'code'"
    )
    before = shell.records()
    message = shell.refused(*arguments)
    assert sentence in message
    assert "Traceback" not in message
    assert shell.records() == before


def test_export_and_import_give_the_same_entries(shell: Shell, tmp_path: Path) -> None:
    """What `export` writes `import` adds again, also what SurrealDB has no form for."""
    shell.ok("add", "a", "--task", "shop.report", "--crontab", "0 9 * * mon-fri", "--kwargs", '{"none": null}')
    shell.ok("add", "b", "--task", "shop.report", "--every", "15", "--description", "ä ö ü")
    file = tmp_path / "entries.json"
    shell.ok("export", str(file))
    before = shell.json("list")
    assert "replace it" in shell.refused("import", str(file))
    shell.ok("remove", "a", "b")
    shell.ok("import", str(file))
    moving = ("changed_at", "next_runs")
    assert [{k: v for k, v in each.items() if k not in moving} for each in shell.json("list")] == [
        {k: v for k, v in each.items() if k not in moving} for each in before
    ]


def test_an_import_is_whole_or_not_at_all(shell: Shell) -> None:
    """If one entry of a file is wrong nothing of it is written; replacing keeps what beat counted."""
    shell.ok("add", "kept", "--task", "shop.report", "--every", "15")
    shell.database.query("UPDATE schedule SET total_run_count = 5")
    wrong = json.dumps(
        {"new": {"task": "shop.report", "schedule": 5}, "bad": {"task": "shop.report", "schedule": {"hour": "25"}}}
    )
    assert "entry 'bad' of <stdin>: schedule.hour holds '25'" in shell.refused("import", "-", stdin=wrong)
    assert [record["name"] for record in shell.records()] == ["kept"]
    assert "holds no JSON" in shell.refused("import", "-", stdin="{")
    assert "no list of entries" in shell.refused("import", "-", stdin="5")
    right = json.dumps({"kept": {"task": "shop.report", "schedule": 30}, "new": {"task": "shop.report", "schedule": 5}})
    shell.ok("import", "-", "--replace", stdin=right)
    found = {record["name"]: record for record in shell.records()}
    assert found["kept"]["schedule"] == {"timedelta": 30}
    assert found["kept"]["total_run_count"] == 5
    assert set(found) == {"kept", "new"}


def test_broken_records_can_be_seen_and_mended(shell: Shell) -> None:
    """A record that makes no entry is listed with the reason, shown, and mended with `set`."""
    shell.database.query("CREATE schedule:bad SET name = 'bad', task = 'shop.report', schedule = {hour: '25'}")
    assert "schedule.hour holds '25'" in shell.ok("list")
    assert "schedule.hour holds '25'" in shell.ok("show", "bad")
    [listed] = shell.json("list", "--broken")
    assert listed["name"] == "bad"
    shell.ok("set", "bad", "--every", "15")
    assert shell.json("list", "--broken") == []


def test_the_same_from_python(shell: Shell, schedules: Schedules) -> None:
    """`Schedules` does all of it with types, and raises what names the mistake."""
    added = schedules.add(ScheduleEntry("e", "shop.report", {"timedelta": 15}, args=[1]))
    assert added.changed_at is not None
    assert schedules.get("e").args == [1]
    assert [entry.name for entry in schedules.entries()] == ["e"]
    changed = schedules.change("e", schedule=timedelta(minutes=1), description="slower")
    assert changed.schedule == {"timedelta": 60}
    assert schedules.pause("e").active is False
    assert schedules.resume("e").active is True
    assert schedules.run("e").run_requested_at is not None
    entry, before = schedules.get("e"), datetime.now(timezone.utc)
    first, second = schedules.next_runs(entry, 2)
    assert second - first == timedelta(seconds=60)
    assert first > before
    with pytest.raises(ScheduleExists, match="'e' already"):
        schedules.add(ScheduleEntry("e", "shop.report", {"timedelta": 15}))
    with pytest.raises(InvalidSchedule, match="'nmae' cannot be changed"):
        schedules.change("e", nmae="f")
    schedules.remove("e")
    with pytest.raises(ScheduleNotFound, match="no schedule entry 'e'"):
        schedules.get("e")


def test_an_import_replaces_whole_fields(shell: Shell) -> None:
    """A replaced entry is what the file says: nothing of another schedule, of arguments or limits stays in it."""
    shell.ok(
        "add", "a", "--task", "shop.report", "--every", "10", "--kwargs", '{"a": 1, "b": 2}', "--queue", "q",
        "--timezone", "Asia/Tokyo", "--max-runs", "5", "--description", "d",
    )  # fmt: skip
    file = json.dumps([{"name": "a", "task": "shop.report", "schedule": {"minute": "5"}, "kwargs": {"c": 1}}])
    shell.ok("import", "-", "--replace", stdin=file)
    shown = shell.json("show", "a")
    assert shown["schedule"] == {"minute": "5"}
    assert shown["kwargs"] == {"c": 1}
    assert shown["options"] == {}
    assert (shown["timezone"], shown["max_runs"], shown["description"]) == (None, None, "")
    assert "total_run_count holds 'x'" in shell.refused(
        "import", "-", stdin=json.dumps([{"name": "b", "task": "shop.report", "schedule": 5, "total_run_count": "x"}])
    )


def test_names_and_ids_may_differ(shell: Shell) -> None:
    """Entries made or renamed by hand are found by the names that `list` shows, and take no name from others."""
    shell.database.query(
        "CREATE schedule:5 SET task = 'shop.report', schedule = {timedelta: 5};"
        "CREATE schedule:wrong SET name = 5, task = 'shop.report', schedule = {timedelta: 5};"
        "CREATE schedule:a SET name = 'b', task = 'shop.report', schedule = {timedelta: 5};"
        "CREATE schedule:c SET name = 'd', task = 'shop.report', schedule = {timedelta: 5};"
    )
    assert shell.json("show", "5")["name"] == "5"
    assert "name holds 5" in shell.ok("show", "wrong")
    shell.ok("add", "a", "--task", "shop.report", "--every", "5")
    shell.ok("import", "-", stdin=json.dumps({"c": {"task": "shop.report", "schedule": 5}}))
    assert {each["name"] for each in shell.json("list")} == {"5", "wrong", "a", "b", "c", "d"}
    shell.ok("remove", "5", "wrong", "5")
    assert {each["name"] for each in shell.json("list")} == {"a", "b", "c", "d"}


def test_several_entries_are_changed_all_or_none(shell: Shell) -> None:
    """If one of several names cannot be removed, paused or resumed, none is."""
    shell.ok("add", "a", "--task", "shop.report", "--every", "5")
    shell.ok("add", "over", "--task", "shop.report", "--every", "5", "--max-runs", "1")
    shell.database.query(
        "UPDATE schedule SET active = false, total_run_count = 1;"
        "CREATE schedule:code SET name = 'code', task = 'shop.report', schedule = {timedelta: 5}, source = 'code';"
        "CREATE schedule:bad SET name = 'bad', task = 'shop.report', schedule = {hour: '25'}"
    )
    before = shell.records()
    assert "'code' is in the code" in shell.refused("remove", "a", "code")
    assert "max_runs is 1: raise max_runs" in shell.refused("resume", "a", "over")
    assert "'bad' is broken" in shell.refused("run", "a", "bad")
    assert shell.records() == before


def test_a_time_that_has_passed_is_refused_of_a_planned_entry(shell: Shell) -> None:
    """An entry that beat has planned cannot be set to a time that has passed either."""
    shell.ok("add", "a", "--task", "shop.report", "--every", "5")
    shell.database.query("UPDATE schedule SET next_run_at = time::now() + 1h, plan = 'of before'")
    assert "its time has passed" in shell.refused("set", "a", "--at", "2001-01-01")
    late = "9999-12-31T23:59:59-05:00"
    assert "give a time of the years 1 to 9999" in shell.refused("set", "a", "--expires-at", late)
    assert "is too long" in shell.refused("set", "a", "--every", "99999999999d")


def test_export_leaves_out_what_only_code_can_hold(shell: Shell) -> None:
    """An import would make text of what stands for an object: such entries are named instead."""
    shell.database.query(
        "CREATE schedule:thing SET name = 'thing', task = 'shop.report', schedule = {timedelta: 5}, "
        "args = 'code: [a thing]', source = 'code'"
    )
    shell.app.conf.beat_schedule = {"thing": {"task": "shop.report", "schedule": 5, "args": (object,)}}
    result = shell("export", "--all")
    assert json.loads(result.stdout) == []
    assert "left out thing: only code can hold it" in result.stderr


def test_options_of_a_broken_entry_are_kept(shell: Shell) -> None:
    """`set --queue` on an entry that is broken adds to its options, and loses none."""
    shell.database.query(
        "CREATE schedule:bad SET name = 'bad', task = 'shop.report', schedule = {hour: '25'}, options = {priority: 3}"
    )
    shell.ok("set", "bad", "--every", "5", "--queue", "slow")
    assert shell.json("show", "bad")["options"] == {"priority": 3, "queue": "slow"}
