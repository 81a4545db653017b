"""One log line for each call that takes long: kinds of statements and tables, never a value."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from .options import Options
from .values import RecordID

logger = logging.getLogger(__name__)

#: How many tables a line names.
TABLES = 5
#: Texts within a statement, which a caller may have written values into.
_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_KIND = re.compile(r"(?<![\w$.`])(SELECT|CREATE|INSERT|UPSERT|UPDATE|DELETE|RELATE|DEFINE|REMOVE|INFO|LIVE|KILL|USE)\b")
#: Table names as our statements write them, also of a range that `surrealql.limited` made.
_TABLE = re.compile(r"\b(?:FROM|INTO|ON|TABLE|CREATE|UPSERT|UPDATE|DELETE)\s+(?:array::at\(\[)?`((?:[^`\\]|\\.)+)`")


def tell(options: Options, text: str, variables: Mapping[str, Any], seconds: float, requests: int) -> None:
    """Log a call that took as long as `surrealdb_slow_call` says, or longer.

    Args:
        options: Of the connection.
        text: Its statements.
        variables: Their parameters; only the tables of records among them are shown.
        seconds: How long it took.
        requests: How many round trips it took, those of other threads meanwhile included.
    """
    if options.slow_call is None or seconds < options.slow_call:
        return
    logger.warning(
        "slow call: %s took %.3f s, %d round trips (surrealdb_slow_call=%g)",
        options.mask(describe(text, variables)),
        seconds,
        requests,
        options.slow_call,
    )


def describe(text: str, variables: Mapping[str, Any]) -> str:
    """Name statements by their kinds and tables: `SELECT, DELETE on task`.

    Args:
        text: SurrealQL.
        variables: Its parameters.
    """
    kinds, tables = kinds_and_tables(text, variables)
    more = ", …" if len(tables) > TABLES else ""
    return ", ".join(kinds) + (f" on {', '.join(tables[:TABLES])}{more}" if tables else "")


def kinds_and_tables(text: str, variables: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """Return the kinds of statements in a text, and the tables that it and its records name.

    Args:
        text: SurrealQL.
        variables: Its parameters.
    """
    kinds, tables = _named(text)
    return kinds, list(dict.fromkeys([*tables, *_tables(variables.values())]))


@lru_cache(maxsize=512)
def _named(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    bare = _TEXT.sub("''", text)
    return tuple(dict.fromkeys(_KIND.findall(bare))) or ("RETURN",), tuple(dict.fromkeys(_TABLE.findall(bare)))


def _tables(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        # Of a list the first is enough: a batch is of one table.
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        if isinstance(first, Mapping):
            first = first.get("id")
        if isinstance(first, RecordID):
            yield str(first.table_name)
