"""The error for a write that the database refused in silence."""

from __future__ import annotations

from ...errors import PermissionDenied
from ...settings import Settings
from .. import statements

#: The rights that beat and the writing commands need, on each table of the schedules.
RIGHTS = "select, create, update, delete"


def denied(settings: Settings, right: str, table: str) -> PermissionDenied:
    """Make the error for a write that took no effect because of missing rights.

    Args:
        settings: The settings of the connection, which name the user.
        right: The missing right, such as ``create``.
        table: The full name of the table, with its prefix.

    Returns:
        The exception to raise.
    """
    if settings.access:
        who = f"the user of surrealdb_access {settings.access!r}"
    elif settings.token:
        who = "the user of surrealdb_token"
    else:
        who = f"surrealdb_username {settings.username!r}"
    tables = ", ".join(settings.table(name) for name in statements.SCHEDULE_TABLES)
    return PermissionDenied(
        f"{who} may not {right} records of the table {table!r}: give the user the role EDITOR, or, to a record user, "
        f"PERMISSIONS FOR {RIGHTS} on {tables}"
    )
