"""The SurrealQL of clean-up.

Each statement deals with a bounded number of records, may be sent again, and harms no other clean-up that runs at
the same time: a record is deleted or changed under the condition that it is still what it was when it was found.

All of them follow the index on `expires_at`. Three facts about it, on SurrealDB 2 and 3: with a call in the
condition 3.0.2 reads the index to its end, so times stand in a LET; `NONE < $date` is true, so each range has a
beginning; and the index sorts datetimes as texts, in which a whole second comes behind its fractions, so what comes
in an index's order is not exactly in the order of time.
"""

from __future__ import annotations

from functools import lru_cache

from ..client.surrealql import RANGE, quote

_DELETE = (
    # Not whatever has those ids: a task may have been run again since.
    "LET $deleted = array::len((DELETE $ids WHERE expires_at <= $now RETURN VALUE true) ?? []);"
    "LET $left = IF $deleted < array::len($ids) "
    "{ count(SELECT VALUE id FROM $ids WHERE expires_at <= $now) } ELSE { 0 };"
)
#: Delete records that were found expired. Parameters: ids. The value has `deleted`, `left` and `millis`.
DELETE_FOUND = (
    f"LET $now = time::now();{_DELETE}"
    "RETURN {deleted: $deleted, left: $left, millis: time::millis(time::now()) - time::millis($now)}"
)


@lru_cache(maxsize=64)
def delete_expired(table: str) -> str:
    """Delete some of what has expired.

    Parameters: start (a datetime), batch (a number). The value has

    - `found`: how many there were;
    - `deleted`: how many this statement deleted;
    - `left`: how many of them are still there, because the user may not delete them;
    - `latest`: the end of the latest, where the next batch starts. On RocksDB what is deleted stays in the way until
      it is compacted: 250 batches of 200 took 7 s, and 25 s where each began at the index's start;
    - `millis`: how long it took the database.

    Args:
        table: The table's name, prefix included.
    """
    return (
        f"{_found(table)}{_DELETE}"
        "RETURN {found: array::len($ids), deleted: $deleted, left: $left, "
        "latest: array::max($old.expires_at ?? []), millis: time::millis(time::now()) - time::millis($now)}"
    )


@lru_cache(maxsize=64)
def find_expired(table: str, *, whole: bool = True) -> str:
    """Read some of what has expired. Parameters: start, batch. Like `delete_expired`, with `ids` and `records`.

    Args:
        table: The table's name, prefix included.
        whole: Whether the records are read, too.
    """
    records = "(SELECT * FROM $ids WHERE expires_at <= $now)" if whole else "[]"
    return (
        f"{_found(table)}"
        "RETURN {found: array::len($ids), latest: array::max($old.expires_at ?? []), "
        f"ids: $ids, records: {records}}}"
    )


#: Read what was found expired, whole. Parameters: ids.
WHOLE_EXPIRED = "LET $now = time::now();SELECT * FROM $ids WHERE expires_at <= $now"


def _found(table: str) -> str:
    # Where the table does not exist, SurrealDB 3 leaves $old without a value.
    return (
        "LET $now = time::now();"
        f"LET $old = (SELECT id, expires_at FROM {quote(table)} "
        "WHERE expires_at >= $start AND expires_at <= $now LIMIT $batch);"
        "LET $ids = $old.id ?? [];"
    )


@lru_cache(maxsize=64)
def give_ends(table: str) -> str:
    """Give an end to some tasks without one: stored by an older version, or while results were kept for ever.

    Parameters: batch; success, failure, unfinished (durations). The value has `found`, `changed` and `millis`.

    Args:
        table: The table's name, prefix included.
    """
    lifetime = "(IF status = 'FAILURE' { $failure } ELSE { $success })"
    return (
        "LET $now = time::now();"
        f"LET $found = (SELECT VALUE id FROM {quote(table)} WHERE expires_at = NONE LIMIT $batch);"
        "LET $ids = $found ?? [];"
        # Nobody knows how old the state of an unfinished task is.
        f"LET $changed = (UPDATE $ids SET expires_at = IF date_done.is_datetime() {{ date_done + {lifetime} }} "
        "ELSE { $now + $unfinished } WHERE expires_at = NONE RETURN VALUE true) ?? [];"
        "RETURN {found: array::len($ids), changed: array::len($changed), "
        "millis: time::millis(time::now()) - time::millis($now)}"
    )


#: The kinds of the fields that clean-up decides by.
_KINDS = {"name": "string", "status": "string", "date_done": "datetime", "own_expires": "bool"}


def _surveyed(*, ends: bool, checked: bool) -> str:
    name, status, date_done, own = (
        f"IF {field}.is_{kind}() {{ {field} }} ELSE {{ NONE }}" if checked else field for field, kind in _KINDS.items()
    )
    return f"SELECT VALUE [id, {name}, {status}, {date_done}, {'expires_at' if ends else 'NONE'}, {own}]"


@lru_cache(maxsize=64)
def survey(table: str, *, checked: bool = False) -> str:
    """Read some records that end in a time, and of tasks what clean-up decides by.

    Parameters: start, until (datetimes), batch. The value is a list of `[id, name, status, date_done, expires_at,
    own_expires]`.

    Args:
        table: The table's name, prefix included.
        checked: Whether to leave out fields of another kind, which somebody wrote by hand: the server cannot send all.
    """
    return (
        f"{_surveyed(ends=True, checked=checked)} FROM {quote(table)} "
        "WHERE expires_at >= $start AND expires_at < $until LIMIT $batch"
    )


@lru_cache(maxsize=64)
def survey_without_end(table: str, *, checked: bool = False) -> str:
    """Read the same of some tasks without an end. Parameters: batch (a number).

    Args:
        table: The table's name, prefix included.
        checked: As of `survey`.
    """
    return f"{_surveyed(ends=False, checked=checked)} FROM {quote(table)} WHERE expires_at = NONE LIMIT $batch"


@lru_cache(maxsize=64)
def survey_ids(*, checked: bool = False) -> str:
    """Read the same of the next records in the order of ids, whenever they end.

    Skipping through the index instead costs the more the further it goes: 73 s for 200,000 tasks on 3.0.2.

    Parameters: range, batch (a number).

    Args:
        checked: As of `survey`.
    """
    return f"{_surveyed(ends=True, checked=checked)} FROM {RANGE} LIMIT $batch"


#: Let tasks end earlier. Parameters: ids, success, failure (durations). The value is how many were changed.
SHORTEN = (
    "LET $changed = (UPDATE $ids SET expires_at = IF date_done = NONE { expires_at } "
    "ELSE { date_done + (IF status = 'FAILURE' { $failure } ELSE { $success }) } "
    "WHERE date_done.is_datetime() AND own_expires != true "
    "AND expires_at > date_done + (IF status = 'FAILURE' { $failure } ELSE { $success }) RETURN VALUE true) ?? [];"
    "RETURN array::len($changed)"
)
#: Let finished tasks end now, unless they run again or ended again since. Parameters: ids, done_by (a datetime). The value
#: is how many were changed.
END_NOW = (
    "LET $now = time::now();"
    "LET $changed = (UPDATE $ids SET expires_at = $now WHERE date_done.is_datetime() AND date_done <= $done_by RETURN VALUE true) ?? [];"
    "RETURN array::len($changed)"
)
