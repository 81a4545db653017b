"""The SurrealQL of export and import. What must hold is said in `statements.py`."""

from __future__ import annotations

from functools import lru_cache

from ...client.surrealql import RANGE, quote
from .terms import TERMS

#: Parameters: records. The ids of those of any table that are there.
THERE = "SELECT VALUE id FROM $records WHERE id IS NOT NONE"
#: Parameters: records. All of each.
WHOLE = "SELECT * FROM $records WHERE id IS NOT NONE"


def _size(field: str) -> str:
    return (
        f"(IF {field}.is_string() {{ string::len({field}) }} ELSE IF {field}.is_bytes() {{ bytes::len({field}) }} "
        "ELSE { 100 })"
    )


_LISTED_AT = "(date_done ?? started_at ?? sent_at)"
_IN_SPAN = (
    f"($since IS NONE OR {_LISTED_AT} IS NONE OR {_LISTED_AT} >= $since) "
    f"AND ($until IS NONE OR ({_LISTED_AT} IS NOT NONE AND {_LISTED_AT} < $until))"
)


@lru_cache(maxsize=256)
def id_page(terms: tuple[str, ...] | None) -> str:
    """A page of a table in the order of ids.

    Parameters: range, limit; those of the terms, since and until. One value: `[id, hit, size]` of each record.

    Args:
        terms: The condition on tasks; None for all records, of any table.
    """
    hit = "true" if terms is None else f"({' AND '.join([_IN_SPAN, *(TERMS[term] for term in terms)])})"
    size = " + ".join(_size(field) for field in ("result", "args", "kwargs", "traceback"))
    # A record that is large says so, and a part of a chord how long it is, unless somebody wrote something else into it.
    known = f"IF length.is_int() {{ length }} ELSE IF size.is_int() {{ size }} ELSE {{ {size} }}"
    return f"SELECT VALUE [id, {hit}, {known}] FROM {RANGE} LIMIT $limit"


#: Ids in their order. Parameters: range, limit.
FIND_IDS = f"SELECT VALUE id FROM {RANGE} LIMIT $limit"


_WRITTEN = (
    "RETURN [count($written), count(SELECT VALUE expires_at FROM $written "
    "WHERE expires_at IS NOT NONE AND expires_at <= time::now())]"
)


@lru_cache(maxsize=64)
def insert_records(table: str) -> str:
    """Write records that are not there yet.

    Parameters: rows. One value: how many were written, and how many of those had expired.

    Args:
        table: The table's name, prefix included.
    """
    return f"LET $written = (INSERT IGNORE INTO {quote(table)} $rows RETURN id, expires_at);{_WRITTEN}"


#: Why a statement of ours ends itself: the user may not write, which is no error to SurrealDB.
NOT_WRITTEN = "a record was not written"
#: The same, over what is there.
REPLACE_RECORDS = (
    "FOR $row IN $rows { LET $new = (UPSERT $row.id CONTENT $row RETURN VALUE true); "
    f"IF array::len($new) = 0 {{ THROW '{NOT_WRITTEN}' }} }};"
    f"LET $written = (SELECT id, expires_at FROM $rows);{_WRITTEN}"
)
