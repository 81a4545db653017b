"""The `surrealdb` group, which imports a command's module when that command is asked for.

It is loaded at every start of the `celery` command, so it imports nothing but click.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

#: The commands, each with its module and its name there, in the order of the help page.
COMMANDS = {
    "check": ("upkeep", "check"),
    "tasks": ("tasks", "tasks"),
    "show": ("tasks", "show"),
    "retry": ("acting", "retry"),
    "revoke": ("acting", "revoke"),
    "forget": ("acting", "forget"),
    "stats": ("figures", "stats"),
    "chords": ("figures", "chords"),
    "cleanup": ("upkeep", "cleanup"),
    "schema": ("schema", "schema"),
    "export": ("transfer", "export"),
    "import": ("transfer", "import_file"),
    "backup": ("transfer", "backup"),
    "metrics": ("metrics", "metrics"),
    "schedule": ("schedule", "schedule"),
    "console": ("console", "console"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f".{module}", __package__), name)
        return command


@click.group(cls=LazyGroup)
def surrealdb(**_: Any) -> None:
    """What is kept in SurrealDB: results of tasks, chords, schedules."""
