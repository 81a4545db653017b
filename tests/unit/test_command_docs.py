"""The documentation has every command with every option, as the commands' help has them."""

from __future__ import annotations

import importlib
import re

import click
import pytest

from surrealdb_celery_backend.contrib.backup import NAME
from tests.support import command_docs

pytestmark = pytest.mark.unit


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    """docs/commands.md is written anew with every change: `python -m tests.support.command_docs`."""
    assert command_docs.PAGE.read_text(encoding="utf-8") == command_docs.page()


@pytest.mark.parametrize(("name", "command"), list(command_docs.commands()), ids=lambda each: str(each)[:30])
def test_each_command_is_explained(name: str, command: click.Command) -> None:
    """Each has a help text, each of its options has one, and its topic's page names it."""
    assert command.help
    assert [option.opts for option in command_docs.options(command) if not option.help] == []
    page = command_docs.PAGES.get(name.partition(" ")[0], "history.md")
    text = (command_docs.PAGE.parent / page).read_text(encoding="utf-8")
    last = name.rpartition(" ")[2]
    assert re.search(rf"`{last}[` ]|surrealdb {name}\b|schedule \S*\b{last}\b", text), (name, page)


def test_no_task_or_module_of_a_help_text_is_invented() -> None:
    """What help texts name of this package can be imported, or is a task that an import registers."""
    named = {
        found
        for _, command in command_docs.commands()
        for found in re.findall(r"surrealdb_celery_backend(?:\.\w+)+", command.help or "")
    }
    assert NAME in named
    for each in named - {NAME}:
        importlib.import_module(each)
