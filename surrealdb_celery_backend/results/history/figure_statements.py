"""The SurrealQL behind figures and metrics. What must hold is said in `statements.py`."""

from __future__ import annotations

from functools import lru_cache

from ..expiry import ALIVE
from .statements import AT, UNREADY_AT, beginning_of, condition, of_ended, of_unready

#: What figures are made of: state, name, worker, queue, run and queue time.
FIGURES = "status, name, worker, queue, runtime, queue_time"


@lru_cache(maxsize=256)
def figures(table: str, terms: tuple[str, ...]) -> str:
    """Figures of tasks that ended, oldest first as far as whole seconds go.

    Parameters: those of the terms; index_start, index_end, limit, skip. One value: `[at, hit, figures…]` of each.

    Args:
        table: The table's name, prefix included.
        terms: The terms of the condition: keys of :data:`~.terms.TERMS`.
    """
    return of_ended(table, f"{AT}, ({condition(terms)}), {FIGURES}")


@lru_cache(maxsize=256)
def figures_of_unready(table: str, terms: tuple[str, ...]) -> str:
    """The same of tasks that have not ended. Parameters: those of the terms; begin, limit, skip.

    Args:
        table: The table's name, prefix included.
        terms: The terms of the condition: keys of :data:`~.terms.TERMS`.
    """
    values = f"{UNREADY_AT}, ({condition(terms)}), {FIGURES}"
    return f"{of_unready(table, values)} START $skip"


@lru_cache(maxsize=64)
def ended_figures(table: str) -> str:
    """Tasks that ended, oldest first as far as whole seconds go.

    Parameters: index_start, index_end, limit, skip. Time, id, state, name, run and queue time of each.

    Args:
        table: The table's name, prefix included.
    """
    return of_ended(table, f"{AT}, task_id, status, name, runtime, queue_time")


@lru_cache(maxsize=64)
def recent_figures(table: str) -> str:
    """Tasks that ended, with the errors of those that failed, oldest first as far as whole seconds go.

    Parameters: index_start, index_end, limit, skip. Time, state, name, run and queue time of each; for a failure its
    id, the class of its error and the beginning of the message, too.

    Args:
        table: The table's name, prefix included.
    """
    failure = f"IF status = 'FAILURE' {{ [task_id, error.type, {beginning_of('error.message')}] }} ELSE {{ NONE }}"
    return of_ended(table, f"{AT}, status, name, runtime, queue_time, {failure}")


@lru_cache(maxsize=64)
def unready_figures(table: str) -> str:
    """Tasks that have not ended. Parameters: limit (records read). State, name, time of sending of each; whether it is there.

    Args:
        table: The table's name, prefix included.
    """
    return of_unready(table, f"status, name, sent_at, {ALIVE}")


@lru_cache(maxsize=64)
def unready_times(table: str) -> str:
    """Tasks that have not ended. Parameters: limit (records read), begin. Time, id and state of each; whether it is there.

    Args:
        table: The table's name, prefix included.
    """
    return of_unready(table, f"{UNREADY_AT}, task_id, status, {ALIVE}")
