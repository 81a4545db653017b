"""The SurrealQL texts behind metrics and figures of the last days. What must hold is said in `statements.py`."""

from __future__ import annotations

from functools import lru_cache

from ...client.surrealql import quote
from . import statements


@lru_cache(maxsize=64)
def ended_figures(table: str) -> str:
    """Tasks that ended, oldest first as far as whole seconds go.

    Parameters: index_start, index_end, limit, skip. Time, id, state, name, run and queue time of each.

    Args:
        table: The table's name, prefix included.
    """
    return (
        f"SELECT VALUE [{statements.AT}, task_id, status, name, runtime, queue_time] FROM {quote(table)} "
        f"WHERE {statements.index_range(None, '')} LIMIT $limit START $skip"
    )


@lru_cache(maxsize=64)
def recent_figures(table: str) -> str:
    """Tasks that ended, with the errors of those that failed, oldest first as far as whole seconds go.

    Parameters: index_start, index_end, limit, skip. Time, state, name, run and queue time of each; for a failure its
    id, the class of its error and the beginning of the message, too.

    Args:
        table: The table's name, prefix included.
    """
    failure = (
        f"IF status = 'FAILURE' {{ [task_id, error.type, {statements.beginning_of('error.message')}] }} ELSE {{ NONE }}"
    )
    return (
        f"SELECT VALUE [{statements.AT}, status, name, runtime, queue_time, {failure}] FROM {quote(table)} "
        f"WHERE {statements.index_range(None, '')} LIMIT $limit START $skip"
    )


@lru_cache(maxsize=64)
def unready_figures(table: str) -> str:
    """Tasks that have not ended. Parameters: limit (records read). State, name, time of sending of each; whether it is there.

    Args:
        table: The table's name, prefix included.
    """
    return (
        f"SELECT VALUE [status, name, sent_at, {statements.ALIVE}] FROM {quote(table)} "
        "WHERE date_done = NONE LIMIT $limit"
    )


@lru_cache(maxsize=64)
def unready_times(table: str) -> str:
    """Tasks that have not ended, in no order: sorting some thousands takes the database ten times as long as reading.

    Parameters: limit (records read), begin. Time, id and state of each, and whether it is still there.

    Args:
        table: The table's name, prefix included.
    """
    return (
        f"SELECT VALUE [{statements.UNREADY_AT}, task_id, status, {statements.ALIVE}] FROM {quote(table)} "
        "WHERE date_done = NONE LIMIT $limit"
    )
