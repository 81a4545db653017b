"""All checks, as `Results.check()` and `celery surrealdb check` make them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ... import __version__
from ...client import surrealql
from ...errors import PermissionDenied
from .. import statements
from ..indexing import is_complete
from .beat import check_beat
from .database import check_clocks, check_connection, check_latency, check_rights, check_settings, made
from .finding import Checked, Finding, Severity
from .live import check_live

if TYPE_CHECKING:
    from celery import Celery


def check_everything(app: Celery, backend: Checked) -> list[Finding]:
    """Check everything; where the database cannot be reached, the settings only.

    Args:
        app: The Celery app.
        backend: Its result backend.

    Returns:
        The findings, in the order of the checks.
    """
    found = [
        Finding("package", Severity.NOTE, f"surrealdb-celery-backend {__version__}"),
        *_check_configuration(app),
        *check_settings(backend.settings),
        check_connection(backend),
    ]
    if found[-1].severity is Severity.OK:
        checks = (check_latency, check_clocks, check_rights, check_schema, check_live, check_beat)
        found += made(checks, backend)
    return found


def _check_configuration(app: Celery) -> Iterator[Finding]:
    """Find settings of Celery that keep results from being stored, or from being useful."""
    if not app.conf.result_extended:
        yield Finding(
            "result_extended",
            Severity.NOTE,
            "is off: names, arguments, workers and queues of tasks are not stored",
            "set result_extended = True to list tasks by name and to send them again",
        )
    if app.conf.task_ignore_result:
        yield Finding(
            "task_ignore_result",
            Severity.WARNING,
            "is on: no result is stored",
            "leave it out, or set it per task",
        )


def check_schema(backend: Checked) -> Finding:
    """See whether the table of tasks has its indexes.

    Args:
        backend: The backend.

    Returns:
        A warning that names the indexes that are missing; a note where the user may not look.
    """
    table = backend.settings.table(statements.TASK)
    try:
        information = backend.connection.run(surrealql.describe_table(table))
    except PermissionDenied:
        return Finding(
            "schema",
            Severity.NOTE,
            f"the database user may not see the indexes of {table!r}, and searches use that of date_done alone",
            "run `celery surrealdb schema` as a user with the role EDITOR to compare",
        )
    indexes = (information or {}).get("indexes") or {}
    wanted = ["expires_at", *(name for name in backend.settings.indexes.split(",") if name and name != "text")]
    missing = [f"task_{name}" for name in wanted if not is_complete(indexes.get(f"task_{name}"))]
    if missing:
        return Finding(
            "schema",
            Severity.WARNING,
            f"the table {table!r} lacks {', '.join(missing)}: clean-up and searches read the whole table",
            "run `celery surrealdb schema --apply` as a user who may define indexes",
        )
    return Finding("schema", Severity.OK, f"{table}: indexes {', '.join(sorted(indexes))}")
