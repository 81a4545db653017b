"""`celery surrealdb tasks`, `show`, `stats`, `retry`, `revoke`, `forget`, `export`, `import`, `backup` on engines."""

from __future__ import annotations

import csv
import gzip
import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from surrealdb_celery_backend.results import Results
from tests.engines import Database
from tests.support import history_data as data
from tests.support.shell import Shell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


@pytest.fixture
def shell(fresh_database: Database) -> Iterator[Shell]:
    """A shell on a database of its own."""
    shell = Shell(fresh_database)
    yield shell
    shell.close()


def failed(**fields: Any) -> dict[str, Any]:
    """A task that failed."""
    error = {"type": "KeyError", "module": "builtins", "message": "'x'"}
    return data.record(
        status="FAILURE", error=error, traceback="Traceback (most recent call last):\nKeyError: 'x'", **fields
    )


def test_a_table_of_tasks(shell: Shell) -> None:
    """Tasks are listed newest first, in the app's time zone, in aligned columns."""
    data.write(
        shell.app,
        [
            data.record(task_id="running", status="STARTED", date_done=None, started_at=data.NOW),
            failed(task_id="bad", date_done=data.NOW - timedelta(minutes=2)),
            data.record(task_id="good", date_done=data.NOW - timedelta(minutes=3)),
        ],
    )
    head, running, bad, good = shell.ok("tasks").splitlines()
    assert head.split()[:3] == ["TIME", "STATE", "NAME"]
    assert head.index("STATE") == running.index("STARTED") == bad.index("FAILURE") == good.index("SUCCESS")
    assert "KeyError: 'x'" in bad
    assert "500 ms" in good
    berlin = (data.NOW - timedelta(minutes=3)).astimezone(shell.app.timezone).strftime("%Y-%m-%d %H:%M:%S")
    assert good.startswith(berlin)
    assert [task["id"] for task in shell.json("tasks", "--state", "FAILURE")] == ["bad"]
    assert shell("tasks", "--name", "nothing").stderr == "no tasks\n"


def test_all_filters_can_be_given(shell: Shell) -> None:
    """Every filter of `find` is an option, and finds the same."""
    records = data.many(200)
    data.write(shell.app, records)
    with Results(shell.app) as results:
        for options, wanted in (
            (["--state", "FAILURE", "--state", "RETRY"], {"state": ["FAILURE", "RETRY"]}),
            (["--name", "shop.*", "--worker", "celery@one"], {"name": "shop.*", "worker": "celery@one"}),
            (["--queue", "slow", "--error", "KeyError"], {"queue": "slow", "error": "KeyError"}),
            (["--text", "lost", "--tag", "a", "--tag", "b"], {"text": "lost", "tags": ["a", "b"]}),
            (["--argument", "order-3", "--root", "root-13"], {"argument": "order-3", "root": "root-13"}),
            (["--group", "group-2", "--periodic", "nightly"], {"group": "group-2", "periodic": "nightly"}),
            (["--min-runtime", "9s"], {"min_runtime": 9}),
            (["--since", (data.NOW - timedelta(hours=1)).isoformat()], {"since": data.NOW - timedelta(hours=1)}),
        ):
            expected = [task.id for task in results.find(limit=1000, **wanted).tasks]
            assert expected, options
            assert [task["id"] for task in shell.json("tasks", "--limit", "1000", *options)] == expected


def test_pages_follow_each_other(shell: Shell) -> None:
    """What is left is said, and how to go on."""
    data.write(
        shell.app, [data.record(task_id=f"t{n:02}", date_done=data.NOW - timedelta(minutes=n)) for n in range(12)]
    )
    seen: list[str] = []
    after: list[str] = []
    for _ in range(3):
        result = shell("tasks", "--json", "--limit", "5", *after)
        seen += [task["id"] for task in json.loads(result.stdout)]
        if result.stderr:
            after = ["--after", result.stderr.split("--after ")[1].strip()]
    assert seen == [f"t{n:02}" for n in range(12)]


def test_csv_has_a_line_for_each_task(shell: Shell) -> None:
    """Any program for tables reads it."""
    data.write(shell.app, [failed(task_id="a,b"), data.record(task_id='c"d', tags=["x", "y"])])
    rows = list(csv.DictReader(shell.ok("tasks", "--csv").splitlines()))
    assert {row["id"] for row in rows} == {"a,b", 'c"d'}
    by_id = {row["id"]: row for row in rows}
    assert by_id["a,b"]["state"] == "FAILURE"
    assert json.loads(by_id["a,b"]["error"])["type"] == "KeyError"
    assert float(by_id['c"d']["runtime"]) == 0.5


def test_stored_text_does_not_reach_the_terminal_as_it_is(shell: Shell) -> None:
    """Escape sequences and marks that turn a line round are shown by their codes, wherever they were stored."""
    evil = "\x1b[2J\x9b31m\u202eabc\u2066\r\n\x07"
    data.write(
        shell.app,
        [
            failed(
                task_id="one",
                name=f"name{evil}",
                worker=f"worker{evil}",
                queue=f"queue{evil}",
                args=json.dumps([evil]),
                tags=[evil],
            )
            | {"error": {"type": f"E{evil}", "module": "m", "message": evil}, "traceback": f"line one\n{evil}"}
        ],
    )
    for command in (
        ("tasks",), ("tasks", "--json"), ("tasks", "--csv"), ("show", "one"), ("show", "one", "--json"),
        ("stats",), ("stats", "--csv"), ("stats", "--json"), ("retry", "one", "--dry-run"),
    ):  # fmt: skip
        printed = shell.ok(*command)
        assert not [
            character
            for character in printed
            if character in evil.replace("abc", "").replace("\n", "").replace("[2J", "").replace("31m", "")
        ], command
    assert "\\x1b[2J" in shell.ok("tasks")
    assert shell.json("tasks")[0]["name"] == f"name{evil}"


def test_show_prints_everything(shell: Shell) -> None:
    """Arguments, result, error, attempts and the workflow with states; the beginning of an id is enough."""
    data.write(
        shell.app,
        [
            data.record(task_id="root-1", root_id="root-1", children=json.dumps([[["leaf-1", None], None]])),
            failed(task_id="leaf-1", root_id="root-1", parent_id="root-1", retry_of="before", tags=["t"])
            | {
                "attempts": [
                    {"at": data.NOW, "error": {"type": "Timeout", "module": "m", "message": "late"}, "worker": "w"}
                ]
            },
        ],
    )
    text = shell.ok("show", "leaf")
    for part in ('[1, "two"]', '{"user": 7}', "KeyError: 'x'", "retry of", "before", "Timeout: late", "celery@one"):
        assert part in text
    assert "└─ FAILURE  shop.report  leaf-1" in text
    assert "← this" in text
    shown = shell.json("show", "root-1")
    assert shown["result"] == 3
    assert shown["workflow"]["root"]["children"][0]["state"] == "FAILURE"
    assert "workflow" not in shell.json("show", "root-1", "--no-tree")


def test_stats_prints_figures(shell: Shell) -> None:
    """Counts, failure rates and quantiles, of the last day unless more is asked for."""
    data.write(
        shell.app,
        [
            *(data.record(runtime=n / 100) for n in range(1, 100)),
            failed(runtime=1.0),
            data.record(name="old", date_done=data.NOW - timedelta(days=3)),
        ],
    )
    head, row, total = shell.ok("stats").splitlines()
    assert head.split()[:4] == ["NAME", "TASKS", "FAILED", "RATE"]
    assert row.split()[:4] == ["shop.report", "100", "1", "1.00%"]
    assert "500 ms" in row
    assert total.split()[:2] == ["total", "100"]
    found = shell.json("stats", "--all", "--by", "queue")
    assert found["total"]["count"] == 101
    assert found["rows"][0]["runtime"]["p95"] == pytest.approx(0.95)
    rows = list(csv.DictReader(shell.ok("stats", "--csv", "--by", "hour").splitlines()))
    assert rows[-1]["hour"] == "total"


def test_retry_asks_and_sends(shell: Shell) -> None:
    """What would be sent is said; it is sent after a yes; what cannot be sent says why, and the exit code is 1."""
    queue = str(uuid.uuid4())  # the broker in memory is that of all tests of this process
    data.write(shell.app, [failed(task_id="one", queue=queue), failed(task_id="two", name=None)])
    assert "(would be sent)" in shell.ok("retry", "one", "--dry-run")
    assert shell("retry", "one", stdin="n\n").exit_code == 1
    assert _waiting(shell, queue) == 0
    assert "send 1 task again?" in shell("retry", "one", stdin="y\n").stderr
    assert _waiting(shell, queue) == 1
    result = shell("retry", "--state", "FAILURE", "--yes")
    assert result.exit_code == 1
    assert "its name was not kept" in result.stdout
    assert "1 of 2 tasks cannot be sent again" in result.stderr
    assert _waiting(shell, queue) == 2
    [sent] = shell.json("retry", "one", "--args", "[5]", "--to-queue", queue, "--yes")
    assert sent["args"] == [5]
    assert sent["new_id"]


def _waiting(shell: Shell, queue: str) -> int:
    with shell.app.connection_for_read() as connection:
        return int(connection.default_channel.queue_declare(queue).message_count)


def test_forget_and_revoke_ask_first(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is deleted or revoked without a yes; filters choose tasks that have, or have not, ended."""
    asked: list[Any] = []
    monkeypatch.setattr(shell.app.control, "revoke", lambda ids, **options: asked.append((ids, options)))
    data.write(shell.app, [failed(task_id="one"), data.record(task_id="two", status="STARTED", date_done=None)])
    assert shell.ok("forget", "--name", "shop.*", "--dry-run") == "one\n"
    assert shell("forget", "one", stdin="n\n").exit_code == 1
    assert len(shell.json("tasks")) == 2
    assert shell.ok("forget", "one", "--yes") == "deleted what was stored of 1 task\n"
    assert [task["id"] for task in shell.json("tasks")] == ["two"]
    assert shell.ok("revoke", "--name", "shop.*", "--terminate", "--yes") == "asked the workers to revoke 1 task\n"
    assert asked == [(["two"], {"terminate": True, "signal": "SIGTERM"})]


def test_export_import_and_backup(shell: Shell, tmp_path: Path) -> None:
    """Records go to a file and come back; a backup is a new file, and old ones go."""
    data.write(shell.app, [data.record(task_id=f"t{n}") for n in range(5)])
    file = tmp_path / "x.gz"
    assert "wrote 5 of task" in shell.ok("export", str(file))
    shell.ok("forget", "--name", "*", "--yes")
    assert "task: 5 records, checked" in shell.ok("import", str(file), "--dry-run")
    assert shell.json("tasks") == []
    assert "task: 5 records, 5 written" in shell.ok("import", str(file))
    assert len(shell.json("tasks")) == 5
    folder = tmp_path / "backups"
    folder.mkdir()
    old = folder / "surrealdb-celery-20200101T000000Z.jsonl.gz"
    mine = folder / "notes.txt"
    old.write_bytes(b"")
    mine.write_text("stays")
    printed = shell.ok("backup", str(folder), "--keep", "7d")
    assert f"deleted {old}" in printed
    [made] = folder.glob("*.gz")
    assert mine.exists()
    with gzip.open(made, "rt") as lines:
        assert sum("task_id" in json.loads(line) for line in lines) == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "unknown-id"), "nothing is stored of task 'unknown-id'"),
        (("show", ""), "a task's id must be a text that is not empty"),
        (("forget", "same-1", "", "--yes"), "a task's id must be a text that is not empty"),
        (("show", "same"), "several ids begin with 'same': same-1, same-2; give more of it"),
        (("tasks", "--since", "soon"), "'soon' is no time; write 30m, 2h"),
        (("tasks", "--since", "1h", "--until", "2h"), "--since is not before --until"),
        (("tasks", "--min-runtime", "long"), "'long' is no duration"),
        (("tasks", "--after", "x"), "after must be what the page before gave"),
        (("tasks", "--json", "--csv"), "give --json or --csv, not both"),
        (("tasks", "--limit", "0"), "0 is not in the range x>=1"),
        (("tasks", "--name", ""), "name must be a text that is not empty"),
        (("retry",), "say which tasks"),
        (("retry", "same-1", "--state", "FAILURE"), "give ids or filters, not both"),
        (("retry", "same-1", "--args", "{"), "--args holds '{', which is no JSON"),
        (("retry", "same-1", "--args", "{}"), "args must be a list"),
        (("retry", "unknown-id"), "nothing is stored of task 'unknown-id'"),
        (("forget",), "say which tasks"),
        (("stats", "--by", "day"), "'day' is not one of"),
        (("stats", "--all", "--since", "1h"), "leave out --since and --until"),
        (("import", "no-such-file"), "'no-such-file' does not exist"),
        (("export", "/no/such/folder/x.gz"), "No such file or directory"),
        (("backup", "/dev/null/x"), "Not a directory"),
        (("export", "x.gz", "--table", "tasks"), "'tasks' is not one of"),
        (("export", ""), "path must be a path that is not empty"),
        (("export", "", "--resume"), "path must be a path that is not empty"),
        (("import", ""), "'' does not exist"),
        (("backup", ""), "folder must be a path that is not empty"),
        (("retry", "same-1", "--to-queue", ""), "queue must be a text that is not empty"),
        (("metrics", "--host", "", "--once"), "Invalid value for '--host': it is empty"),
        (("console", "--host", ""), "Invalid value for '--host': it is empty"),
        (("tasks", "--nmae", "x"), "No such option"),
        (("nothing",), "No such command 'nothing'"),
    ],
)
def test_mistakes_are_one_sentence(
    shell: Shell, arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every wrong input is one clear sentence, the exit code is not 0, and nothing is written."""
    data.write(shell.app, [failed(task_id="same-1"), failed(task_id="same-2")])
    monkeypatch.chdir(tmp_path)
    assert sentence.lower() in shell.refused(*arguments).lower().replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_no_server_and_no_rights_are_said(shell: Shell, dead_port: int) -> None:
    """Without a server, and with a wrong password, the sentence says which setting to look at; no password is in it."""
    shell.app.conf.surrealdb_password = "not-the-password"
    message = shell.refused("tasks")
    assert "surrealdb_username" in message
    assert "not-the-password" not in message
    other = Shell(shell.database, surrealdb_url=f"ws://127.0.0.1:{dead_port}/rpc", surrealdb_timeout=5)
    assert "cannot be reached" in other.refused("stats")
    other.close()
