"""Runs `celery surrealdb …` for one app, in this process."""

from __future__ import annotations

import json
import uuid
from typing import Any

from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from surrealdb_celery_backend.cli import surrealdb
from tests.engines import Database


class Shell:
    """Commands for an app on a database.

    Args:
        database: Where its results are.
        **conf: Further settings.
    """

    def __init__(self, database: Database, **conf: Any) -> None:
        self.database = database
        self.app = Celery(f"shop-{uuid.uuid4()}", broker="memory://", set_as_current=False)
        self.app.conf.update(
            database.settings,
            timezone="Europe/Berlin",
            result_backend="surrealdb_celery_backend:SurrealDBBackend",
            result_extended=True,
            surrealdb_timeout=60,  # however slow the machine
        )
        self.app.conf.update(conf)

    def __call__(self, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        context = CLIContext(app=self.app, no_color=True, workdir=None)
        return CliRunner().invoke(surrealdb, list(arguments), obj=context, input=stdin, env=env)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        """What a command that works prints."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output or repr(result.exception)
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """What it prints as JSON."""
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """What a command that fails says: one sentence, no traceback."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code in (1, 2), result.output
        assert isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.stderr
        return result.stderr

    def close(self) -> None:
        """End the app and its connections."""
        self.app.backend.close()
        self.app.close()


class ScheduleShell(Shell):
    """Runs commands of the schedule, for an app whose results are elsewhere.

    Args:
        database: Where its entries are.
        **settings: Further settings.
    """

    def __init__(self, database: Database, **settings: Any) -> None:
        super().__init__(database, result_backend="disabled://", result_extended=False, **settings)

        @self.app.task(name="shop.report", shared=False)
        def report() -> None:
            """Nothing: it is not run here."""

    def __call__(self, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        return super().__call__("schedule", *arguments, stdin=stdin, env=env)

    def records(self) -> list[dict[str, Any]]:
        return self.database.query("SELECT * FROM schedule")[0]
