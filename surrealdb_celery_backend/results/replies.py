"""Replies to writes. A write without the right to it is no error to SurrealDB: the reply is empty."""

from __future__ import annotations

from typing import Any

from ..errors import PermissionDenied

_MISSING = "the database user may not {right} records of the table {table!r}: grant that (docs: reliability, rights)"


def check_stored(reply: Any, table: str) -> None:
    """Raise if a record was not stored although nothing but a missing right can have kept it from that.

    Args:
        reply: A value for each record that was stored.
        table: The table's full name.

    Raises:
        PermissionDenied: Nothing was stored.
    """
    if not reply:
        raise PermissionDenied(_MISSING.format(right="create and update", table=table))


def check_deleted(reply: Any, table: str) -> None:
    """Raise if records are still there that were to be deleted.

    Args:
        reply: The records that are still there, as the transaction that was to delete them saw it. 3.0.2 has a
            None for each that is not.
        table: The table's full name.

    Raises:
        PermissionDenied: There are any.
    """
    if any(record is not None for record in reply or ()):
        raise PermissionDenied(_MISSING.format(right="delete", table=table))


def check_updated(reply: Any, table: str) -> None:
    """Raise if records are there that were to be updated and were not.

    Args:
        reply: Two lists: a value for each record that was updated, and the records that are there, with a None on
            3.0.2 for each that is not.
        table: The table's full name.

    Raises:
        PermissionDenied: Fewer were updated than are there.
    """
    updated, there = reply or ((), ())
    if len(updated) < sum(record is not None for record in there):
        raise PermissionDenied(_MISSING.format(right="update", table=table))
