"""What the commands say where a user's rights or a setting do not suffice, and that wrong words end with an error."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.engines import Database
from tests.support import history_data as data
from tests.support.shell import Shell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


@pytest.fixture
def shell(fresh_database: Database) -> Iterator[Shell]:
    """A shell on a database of its own, with three results of which one has expired."""
    shell = Shell(fresh_database)
    data.write(
        shell.app,
        [
            data.record(task_id="aaaa-1"),
            data.record(task_id="aaaa-2", status="FAILURE"),
            data.record(task_id="old", expires_at=data.NOW - timedelta(hours=1)),
        ],
    )
    yield shell
    shell.close()


@pytest.fixture
def viewer(shell: Shell) -> Iterator[Shell]:
    """A shell whose database user may only read."""
    shell.ok("tasks")
    shell.database.query("DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER")
    viewer = Shell(
        shell.database,
        surrealdb_username="viewer",
        surrealdb_password="secret",
        surrealdb_auth_level="database",
    )
    yield viewer
    viewer.close()


def one_sentence(message: str) -> str:
    """The sentence of an error, which is one line behind the usage and the logs."""
    *_, last = message.strip().splitlines()
    assert last.startswith("Error: "), message
    return last


def test_who_may_only_read_is_told_so(shell: Shell, viewer: Shell, tmp_path: Path) -> None:
    """SurrealDB is silent about a write without the right to it; the commands are not, and nothing has changed."""
    file = str(tmp_path / "all.export")
    shell.ok("export", file)
    assert "may not delete" in one_sentence(viewer.refused("forget", "aaaa-1", "--yes"))
    assert "may not delete" in one_sentence(viewer.refused("cleanup"))
    assert "may not create and update" in one_sentence(viewer.refused("import", file, "--replace"))
    assert "may not define tables and indexes" in one_sentence(viewer.refused("schema", "--apply"))
    assert "EDITOR or OWNER" in one_sentence(viewer.refused("schema", "--apply"))
    assert {task["id"] for task in shell.json("tasks")} == {"aaaa-1", "aaaa-2"}
    assert shell.json("cleanup", "--dry-run")["records"]["task"] == 1
    # Reading needs no more than that.
    assert {task["id"] for task in viewer.json("tasks")} == {"aaaa-1", "aaaa-2"}
    assert viewer.json("show", "aaaa-1")["id"] == "aaaa-1"
    # What is there stays without --replace, which needs no right; what is not there does.
    viewer.ok("import", file)
    shell.ok("forget", "aaaa-1", "aaaa-2", "--yes")
    shell.ok("cleanup")
    assert "may not create and update" in one_sentence(viewer.refused("import", file))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("retry", "aaaa-2", "--countdown", "-5"), "countdown must be a number of seconds from 0"),
        (("retry", "aaaa-2", "--countdown", "nan"), "countdown must be a number of seconds from 0"),
        (("revoke", "aaaa-1", "--terminate", "--signal", "SIGNONE"), "signal must be the name of a signal"),
        (("revoke", "--state", "STARTED", "--signal", "9"), "signal must be the name of a signal"),
    ],
)
def test_values_that_make_no_sense_are_refused(shell: Shell, arguments: tuple[str, ...], sentence: str) -> None:
    """Before anything is sent, in a dry run, too."""
    assert sentence in one_sentence(shell.refused(*arguments, "--dry-run"))
    assert sentence in one_sentence(shell.refused(*arguments, "--yes"))


def test_a_state_that_celery_does_not_have_is_named(shell: Shell) -> None:
    """Tasks may have states of their own, so it is no error; a slip of the pen is seen all the same."""
    assert "FAILUER is none of Celery's states" in shell("tasks", "--state", "FAILUER").stderr
    assert "none of Celery's states" not in shell("tasks", "--state", "STARTED").stderr
    assert shell("tasks", "--state", "STARTED").stderr == "no tasks\n"


def test_the_examples_of_the_help_are_accepted(shell: Shell) -> None:
    """The example with other arguments and another queue names options that go together."""
    help_text = shell.ok("retry", "--help")
    assert "--args '[1, 2]' --to-queue slow" in help_text
    planned = shell.json("retry", "aaaa-2", "--args", "[1, 2]", "--to-queue", "slow", "--dry-run")
    assert [(each["args"], each["queue"]) for each in planned] == [([1, 2], "slow")]
