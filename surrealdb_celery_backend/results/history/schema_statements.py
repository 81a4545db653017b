"""The SurrealQL about versions: which line of SurrealDB a server is of, and what 0.3.0 of this package stored."""

from __future__ import annotations

from functools import lru_cache

from ...client.surrealql import RANGE, quote


def _old(indexed: bool) -> str:
    """Records whose time is text. The bounds keep to the index, where there is one."""
    return "date_done >= '' AND date_done < '~'" if indexed else "encoding IS NONE AND date_done.is_string()"


@lru_cache(maxsize=64)
def count_old(table: str, *, indexed: bool) -> str:
    """How many records 0.3.0 wrote.

    Args:
        table: The table's name, prefix included.
        indexed: Whether an index helps.
    """
    return f"RETURN (SELECT VALUE n FROM (SELECT count() AS n FROM {quote(table)} WHERE {_old(indexed)} GROUP ALL))[0] ?? 0"


@lru_cache(maxsize=64)
def old_records(table: str, *, indexed: bool) -> str:
    """Some of them. Parameters: limit, skip. Id, encoded meta and time of each.

    Args:
        table: The table's name, prefix included.
        indexed: Whether an index helps.
    """
    return f"SELECT VALUE [id, result, date_done] FROM {quote(table)} WHERE {_old(indexed)} LIMIT $limit START $skip"


#: Write records anew that are still as they were read. Parameters: rows, each with id, old (the time) and fields.
REPLACE_OLD = "FOR $row IN $rows { UPDATE $row.id CONTENT $row.fields WHERE date_done = $row.old RETURN NONE; }"

_OLD_COUNTERS = f"{RANGE} WHERE chord_size IS NOT NONE AND counter IS NOT NONE"
#: The ids of some chord counters of 0.3.0: records whose id is a group's id alone. Parameters: range, limit.
OLD_COUNTERS = f"SELECT VALUE id FROM {_OLD_COUNTERS} LIMIT $limit"
#: How many there are. Parameters: range.
COUNT_OLD_COUNTERS = f"RETURN (SELECT VALUE n FROM (SELECT count() AS n FROM {_OLD_COUNTERS} GROUP ALL))[0] ?? 0"
