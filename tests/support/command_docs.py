"""Writes docs/commands.md from the commands themselves: `python -m tests.support.command_docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from surrealdb_celery_backend.cli import surrealdb
from tests.support.paths import CHECKOUT

PAGE = CHECKOUT / "docs" / "commands.md"
#: The page that explains the commands, by the first word of their names.
PAGES = {"schedule": "scheduling.md", "console": "console.md", "metrics": "monitoring.md"}
HEAD = """# Commands

Every command behind `celery -A proj surrealdb`, with all its options: what `--help` says of each. This page is written
by `python -m tests.support.command_docs`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name, command in commands() for line in _section(name, command))])


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, such as `schedule add`, groups left out."""
    context = click.Context(surrealdb)
    for name in surrealdb.list_commands(context):
        command = surrealdb.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            for inner, each in sorted(command.commands.items()):
                yield f"{name} {inner}", each
        else:
            yield name, command


def options(command: click.Command) -> list[click.Option]:
    """The options of a command, without `--help`."""
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def _section(name: str, command: click.Command) -> Iterator[str]:
    arguments = [(each.name or "").upper() for each in command.params if isinstance(each, click.Argument)]
    yield f"## `{' '.join([name, *arguments])}`"
    yield ""
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    yield ""
    yield f"More: [{PAGES.get(name.partition(' ')[0], 'history.md')}]({PAGES.get(name.partition(' ')[0], 'history.md')})"
    yield ""
    if options(command):
        yield "| option | |"
        yield "|---|---|"
    for option in options(command):
        names = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
        shown = f" Default: `{option.default}`." if option.show_default and option.default is not None else ""
        yield f"| {names} | {(option.help or '').replace('|', chr(92) + '|')}{shown} |"
    if options(command):
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
