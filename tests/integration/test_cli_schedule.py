"""`celery surrealdb schedule …` on real engines: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.errors import InvalidSchedule, ScheduleExists, ScheduleNotFound
from tests.support.shell import ScheduleShell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


def test_a_table_of_what_there_is(shell: ScheduleShell) -> None:
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


def test_add_show_set_and_remove(shell: ScheduleShell) -> None:
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


def test_pause_resume_and_run(shell: ScheduleShell) -> None:
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
        (("set", "there", "--queue", ""), "Invalid value for '--queue': it is empty"),
        (("set", "there", "--every", "", "--queue", "slow"), "'' is no duration"),
        (("set", "there", "--crontab", "", "--queue", "slow"), "schedule.crontab holds ''"),
        (("set", "there", "--rrule", "", "--queue", "slow"), "give parts such as FREQ=DAILY"),
        (("set", "there", "--at", "", "--queue", "slow"), "holds ''"),
        (("set", "there", "--schedule", "", "--queue", "slow"), "--schedule holds '', which is no JSON"),
        (("set", "there", "--task", "shop.nothing"), "task holds 'shop.nothing'"),
        (("show", "nothing"), "there is no schedule entry 'nothing'"),
        (("remove", "code"), "'code' is in the code, which adds it again when a beat starts"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    shell: ScheduleShell, arguments: tuple[str, ...], sentence: str
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


def test_export_and_import_give_the_same_entries(shell: ScheduleShell, tmp_path: Path) -> None:
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


def test_a_file_may_begin_with_the_mark_of_its_encoding(shell: ScheduleShell, tmp_path: Path) -> None:
    """Editors and PowerShell write a file in UTF-8 with a byte order mark; it is read from a file and from a pipe."""
    text = "\ufeff" + json.dumps({"ä": {"task": "shop.report", "schedule": 30}})
    file = tmp_path / "entries.json"
    file.write_text(text, encoding="utf-8")
    shell.ok("import", str(file))
    shell.ok("import", "-", "--replace", stdin=text)
    assert [record["name"] for record in shell.records()] == ["ä"]


def test_an_import_is_whole_or_not_at_all(shell: ScheduleShell) -> None:
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


def test_broken_records_can_be_seen_and_mended(shell: ScheduleShell) -> None:
    """A record that makes no entry is listed with the reason, shown, and mended with `set`."""
    shell.database.query("CREATE schedule:bad SET name = 'bad', task = 'shop.report', schedule = {hour: '25'}")
    assert "schedule.hour holds '25'" in shell.ok("list")
    assert "schedule.hour holds '25'" in shell.ok("show", "bad")
    [listed] = shell.json("list", "--broken")
    assert listed["name"] == "bad"
    shell.ok("set", "bad", "--every", "15")
    assert shell.json("list", "--broken") == []


def test_the_same_from_python(shell: ScheduleShell, schedules: Schedules) -> None:
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


def test_an_import_replaces_whole_fields(shell: ScheduleShell) -> None:
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


def test_names_and_ids_may_differ(shell: ScheduleShell) -> None:
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


def test_several_entries_are_changed_all_or_none(shell: ScheduleShell) -> None:
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


def test_a_time_that_has_passed_is_refused_of_a_planned_entry(shell: ScheduleShell) -> None:
    """An entry that beat has planned cannot be set to a time that has passed either."""
    shell.ok("add", "a", "--task", "shop.report", "--every", "5")
    shell.database.query("UPDATE schedule SET next_run_at = time::now() + 1h, plan = 'of before'")
    assert "its time has passed" in shell.refused("set", "a", "--at", "2001-01-01")
    late = "9999-12-31T23:59:59-05:00"
    assert "give a time of the years 1 to 9999" in shell.refused("set", "a", "--expires-at", late)
    assert "is too long" in shell.refused("set", "a", "--every", "99999999999d")


def test_the_end_of_the_calendar_is_shown(shell: ScheduleShell) -> None:
    """A time that is of the year 10000 in the entry's zone is shown in UTC."""
    end = "9999-12-31T23:59:59Z"
    shell.ok("add", "a", "--task", "shop.report", "--every", "1h", "--timezone", "Asia/Tokyo", "--expires-at", end)
    shell.ok("add", "b", "--task", "shop.report", "--at", end, "--timezone", "Asia/Tokyo")
    assert "9999-12-31T23:59:59+00:00" in shell.ok("show", "a")
    assert "9999-12-31 23:59:59 UTC" in shell.ok("list")


def test_export_leaves_out_what_only_code_can_hold(shell: ScheduleShell) -> None:
    """An import would make text of what stands for an object: such entries are named instead."""
    shell.database.query(
        "CREATE schedule:thing SET name = 'thing', task = 'shop.report', schedule = {timedelta: 5}, "
        "args = 'code: [a thing]', source = 'code'"
    )
    shell.app.conf.beat_schedule = {"thing": {"task": "shop.report", "schedule": 5, "args": (object,)}}
    result = shell("export", "--all")
    assert json.loads(result.stdout) == []
    assert "left out thing: only code can hold it" in result.stderr


def test_options_of_a_broken_entry_are_kept(shell: ScheduleShell) -> None:
    """`set --queue` on an entry that is broken adds to its options, and loses none."""
    shell.database.query(
        "CREATE schedule:bad SET name = 'bad', task = 'shop.report', schedule = {hour: '25'}, options = {priority: 3}"
    )
    shell.ok("set", "bad", "--every", "5", "--queue", "slow")
    assert shell.json("show", "bad")["options"] == {"priority": 3, "queue": "slow"}


def test_who_changed_an_entry_and_when(shell: ScheduleShell, schedules: Schedules) -> None:
    """Each change says who made it: who runs the command, the name a program gave, the user who wrote SurrealQL."""
    shell.ok("add", "e", "--task", "shop.report", "--every", "5")
    added = schedules.get("e")
    assert added.changed_by is not None
    assert added.changed_by.endswith(f"@{socket.gethostname()}")
    with Schedules(shell.app, by="anna") as hers:
        assert hers.pause("e").changed_by == "anna"
        assert hers.run("e").changed_by == "anna"
        hers.import_entries([ScheduleEntry("f", "shop.report", {"timedelta": 5})])
        hers.import_entries([ScheduleEntry("e", "shop.report", {"timedelta": 5})], replace=True)
    assert {entry.changed_by for entry in schedules.entries()} == {"anna"}
    before = schedules.get("e").changed_at
    shell.database.query("UPDATE schedule SET next_run_at = time::now()")  # as beat does: no change of the entry
    assert (schedules.get("e").changed_by, schedules.get("e").changed_at) == ("anna", before)
    shell.database.query("UPDATE schedule:e SET active = false")
    by_hand = schedules.get("e")
    assert by_hand.changed_by != "anna"
    assert by_hand.changed_at is not None
    assert before is not None
    assert by_hand.changed_at > before
    assert "edited_by" not in shell.records()[0]


def test_times_of_a_row_are_of_one_zone(shell: ScheduleShell) -> None:
    """The last and the next run of an entry are told in its zone, else in the app's."""
    shell.ok("add", "tokyo", "--task", "shop.report", "--every", "1h", "--timezone", "Asia/Tokyo")
    shell.ok("add", "app", "--task", "shop.report", "--every", "1h")
    shell.database.query("UPDATE schedule SET last_run_at = d'2026-01-15T12:00:00Z', total_run_count = 1")
    app, tokyo = shell.ok("list").splitlines()[1:]
    assert "2026-01-15 21:00:00+09:00" in tokyo
    assert tokyo.count("+09:00") == 2
    assert "2026-01-15 13:00:00+01:00" in app  # Europe/Berlin
    assert "UTC" not in app + tokyo
    assert "2026-01-15T21:00:00+09:00" in shell.ok("show", "tokyo")


def test_pausing_asks_for_no_more_than_pausing_needs(shell: ScheduleShell, schedules: Schedules) -> None:
    """An entry whose task is unknown, or whose time has passed, can be paused; to resume it, it must be able to run."""
    shell.database.query(
        "CREATE schedule:renamed SET name = 'renamed', task = 'shop.before', schedule = {timedelta: 5}, source = 'code';"
        "CREATE schedule:past SET name = 'past', task = 'shop.report', schedule = {clocked: d'2001-01-01T00:00:00Z'}"
    )
    assert "pause it" in shell.refused("remove", "renamed")
    shell.ok("pause", "renamed", "past")
    assert {record["active"] for record in shell.records()} == {False}
    assert schedules.change("renamed", description="to be mended").description == "to be mended"
    assert "task holds 'shop.before'" in shell.refused("resume", "renamed")
    assert "its time has passed" in shell.refused("resume", "past")
    shell.ok("set", "renamed", "--task", "shop.report")
    shell.ok("resume", "renamed")


def test_run_says_when_nobody_listens(shell: ScheduleShell, schedules: Schedules) -> None:
    """Asked for a run, the command says whether a beat is there to do it."""
    shell.ok("add", "e", "--task", "shop.report", "--every", "1h")
    assert schedules.active_beat() is None
    asked = shell("run", "e")
    assert (asked.exit_code, asked.stdout.splitlines()[0]) == (0, "asked beat to run e")
    assert "no beat is active" in asked.stderr
    shell.database.query(
        "CREATE schedule_lease:1 SET token = 1, holder = 'x', host = 'there', process = 7, until = time::now() + 1h"
    )
    beat = schedules.active_beat()
    assert beat is not None
    assert (beat.host, beat.process) == ("there", 7)
    assert shell("run", "e").stderr == ""
    shell.database.query("UPDATE schedule_lease SET until = time::now() - 1s")
    assert schedules.active_beat() is None


def test_export_says_what_it_leaves_out(shell: ScheduleShell) -> None:
    """Entries that code puts there are left out and counted, and exported when they are asked for."""
    shell.database.query(
        "CREATE schedule:a SET name = 'a', task = 'shop.report', schedule = {timedelta: 5}, source = 'code';"
        "CREATE schedule:b SET name = 'b', task = 'shop.report', schedule = {timedelta: 5}, source = 'code'"
    )
    result = shell("export")
    assert json.loads(result.stdout) == []
    assert "left out 2 that code puts there: --all exports these too" in result.stderr
    everything = shell("export", "--all")
    assert [each["name"] for each in json.loads(everything.stdout)] == ["a", "b"]
    assert everything.stderr == ""


def test_rules_and_durations_on_the_command_line(shell: ScheduleShell) -> None:
    """A rule of RFC 5545 and an expiry with a unit can be given; the changes are somebody's."""
    shell.ok(
        "add", "e", "--task", "shop.report", "--rrule", "FREQ=MONTHLY;BYMONTHDAY=-1", "--expires", "5m", "--by", "anna"
    )
    shown = shell.json("show", "e")
    assert shown["schedule"] == {"rrule": "FREQ=MONTHLY;BYMONTHDAY=-1"}
    assert shown["options"] == {"expires": 300}
    assert shown["changed_by"] == "anna"
    assert "give parts such as FREQ=DAILY" in shell.refused("set", "e", "--rrule", "monthly")
    assert "'-5' is no duration" in shell.refused("set", "e", "--expires", "-5")


@pytest.mark.parametrize("option", ["--args", "--kwargs", "--options", "--schedule"])
@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, "[1", "\x1b[31m"])
def test_broken_json_is_one_sentence(shell: ScheduleShell, option: str, text: str) -> None:
    """However deep or broken the JSON of an option or a file is, the command says so in one line."""
    for arguments, stdin in (
        (
            ("add", "e", "--task", "shop.report", *(() if option == "--schedule" else ("--every", "5")), option, text),
            None,
        ),
        (("import", "-"), text),
    ):
        message = shell.refused(*arguments, stdin=stdin)
        assert "no JSON" in message or "nested" in message or "holds" in message
        assert "Traceback" not in message
        assert "\x1b" not in message
        assert len(message) < 1000


def test_stored_text_does_nothing_to_a_terminal(shell: ScheduleShell) -> None:
    """Whatever names, descriptions and arguments hold, no command prints a control character of it."""
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    shell.database.query(
        "CREATE schedule:x SET name = $evil, task = $evil, schedule = {timedelta: 5}, description = $evil, args = [$evil];"
        "CREATE schedule:y SET name = 'y', task = 'shop.report', schedule = {hour: $evil};"
        "CREATE schedule:z SET name = 'z', task = 'shop.report', schedule = {timedelta: 5}, source = $evil, broken = $evil",
        {"evil": evil},
    )
    for arguments in (
        ("list",), ("list", "--json"), ("show", evil), ("show", evil, "--json"), ("show", "y"), ("show", "z"),
        ("pause", evil), ("resume", evil), ("run", evil), ("run", "y"), ("export",), ("set", evil, "--timezone", evil),
        ("show", evil + "?"), ("remove", evil), ("add", evil, "--task", evil, "--every", "5"),
    ):  # fmt: skip
        result = shell(*arguments)
        assert result.exit_code in (0, 1, 2), result.output
        assert not any(each in result.output for each in evil if not each.isprintable()), (arguments, result.output)
