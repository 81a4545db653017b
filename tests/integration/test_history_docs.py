"""The output of commands in docs/history.md is what they print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.engines import Database
from tests.support import history_data as data
from tests.support.paths import CHECKOUT
from tests.support.shell import Shell

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]

PAGE = CHECKOUT / "docs" / "history.md"
NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)


@pytest.fixture
def shell(fresh_database: Database) -> Iterator[Shell]:
    """A shell on a database with the tasks of the page, in UTC."""
    shell = Shell(fresh_database, timezone="UTC")
    error = {"type": "KeyError", "module": "builtins", "message": "'EUR'"}
    failed = {"status": "FAILURE", "error": error, "result": None}
    tasks: list[dict[str, Any]] = [
        {"task_id": "6f1c", "name": "shop.charge", "args": "[17]", "queue_time": 0.2, "runtime": 0.4, **failed},
        {"task_id": "90ab", "name": "shop.report", "runtime": 12.5, "result": '"done"'},
        {"task_id": "c3d4", "name": "shop.charge", "args": "[18]", "queue_time": 0.1, "runtime": 0.6, "result": "true"},
    ]
    for minutes, fields in enumerate(tasks):
        done = NOON - timedelta(minutes=minutes)
        data.write(shell.app, [data.record(**{"date_done": done, "worker": "celery@one", **fields})])
    yield shell
    shell.close()


def test_the_output_in_the_page_is_what_the_commands_print(shell: Shell) -> None:
    """Each command in a console block is run on the tasks of the page, and prints what stands there."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        line, _, output = block.partition("\n")
        _, _, arguments = line.partition("surrealdb ")
        printed = shell.ok(*shlex.split(arguments), stdin="n\n")
        assert [each.rstrip() for each in printed.splitlines()] == output.splitlines(), arguments
