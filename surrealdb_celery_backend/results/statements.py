"""Every SurrealQL text of the result backend. Values are bound; only table names are written into a text.

What must hold for each: it means the same on SurrealDB 2 and 3. Known traps are in docs/architecture.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

from ..client.surrealql import quote
from .expiry import ALIVE as _ALIVE
from .expiry import ends_at, until


class Statement(NamedTuple):
    """A statement with its parameters, to go with another one in one request.

    Attributes:
        text: Its SurrealQL.
        parameters: Its parameters.
        table: The full name of the table that it changes.
    """

    text: str
    parameters: Mapping[str, Any]
    table: str = ""


#: The tables of a result backend, without their prefix.
TABLES = TASK, GROUP, CHORD, KEY = "task", "group", "chord", "key"


# -- schema ------------------------------------------------------------------------------------------


class Index(NamedTuple):
    """An index of a table.

    Attributes:
        table: The table's name, without its prefix.
        name: Its own.
        text: The statement that creates it.
    """

    table: str
    name: str
    text: str


@lru_cache(maxsize=64)
def define_tables(prefix: str) -> tuple[str, ...]:
    """Create the tables.

    Args:
        prefix: The beginning of the tables' names.
    """
    return tuple(f"DEFINE TABLE IF NOT EXISTS {quote(prefix + table)} TYPE NORMAL SCHEMALESS" for table in TABLES)


@lru_cache(maxsize=64)
def define_indexes(prefix: str, indexes: str = "date_done") -> tuple[Index, ...]:
    """Create the indexes.

    Args:
        prefix: The beginning of the tables' names.
        indexes: The fields that index tasks besides their end, which clean-up follows; with commas in between.

    Returns:
        All but the index of texts, which not every engine defines alike.
    """
    wanted = [(table, "expires_at", "expires_at") for table in TABLES]
    wanted += [(TASK, name, _INDEXED[name]) for name in indexes.split(",") if name in _INDEXED]
    return tuple(
        Index(
            table,
            f"{table}_{name}",
            f"DEFINE INDEX IF NOT EXISTS {table}_{name} ON {quote(prefix + table)} FIELDS {fields}",
        )
        for table, name, fields in wanted
    )


def define_schema(prefix: str, indexes: str = "date_done") -> str:
    """Create the tables and their indexes.

    Args:
        prefix: The beginning of the tables' names.
        indexes: As of :func:`define_indexes`.
    """
    return ";".join([*define_tables(prefix), *(index.text for index in define_indexes(prefix, indexes))])


@lru_cache(maxsize=64)
def many_in(table: str, number: int) -> str:
    """Tell whether a table has more records than a number: a list that is then not empty.

    Args:
        table: The table's full name.
        number: The number.
    """
    return f"SELECT VALUE true FROM {quote(table)} LIMIT 1 START {number}"


#: The fields of an index, by its name in `surrealdb_indexes`: most end in a time, so that the newest of a name are together.
_INDEXED = {
    "date_done": "date_done",
    "name": "name, date_done",
    "status": "status, date_done",
    "worker": "worker, date_done",
    "queue": "queue, date_done",
    "root_id": "root_id, date_done",
    "group_id": "group_id, date_done",
    "error": "error.type, date_done",
}


#: The names of the indexes of texts.
TEXT_INDEXES = ("task_text_message", "task_text_traceback")
#: What the indexes of texts take words to be.
DEFINE_ANALYZER = "DEFINE ANALYZER IF NOT EXISTS task_words TOKENIZERS class FILTERS lowercase"
#: A call that SurrealDB 3 does not know under this name.
KNOWN_TO_2 = "RETURN type::is::object({})"


@lru_cache(maxsize=64)
def define_text_indexes(prefix: str, *, line_2: bool) -> tuple[Index, ...]:
    """Index the words of error messages and tracebacks; the analyzer is defined before.

    Args:
        prefix: The beginning of the tables' names.
        line_2: As SurrealDB 2 has it; otherwise as SurrealDB 3 has it.
    """
    full, kind = quote(prefix + TASK), "SEARCH" if line_2 else "FULLTEXT"
    return tuple(
        Index(
            TASK,
            name,
            f"DEFINE INDEX IF NOT EXISTS {name} ON {full} FIELDS {field} {kind} ANALYZER task_words BM25",
        )
        for name, field in zip(TEXT_INDEXES, ("error.message", "traceback"), strict=True)
    )


#: The comment of an index that is being built, or whose building was interrupted.
UNFINISHED = "not built to its end"


def build_beside_writers(index: Index, table: str) -> str:
    """Begin to build an index, unless there is one of its name. For SurrealDB 3.

    Args:
        index: The index.
        table: Its table, prefix included.

    Returns:
        Three statements; the second gives how far it is, the third the definitions of the table.
    """
    begin = f"{index.text} COMMENT '{UNFINISHED}' CONCURRENTLY"
    return f"{begin}; INFO FOR INDEX {index.name} ON {quote(table)}; INFO FOR TABLE {quote(table)}"


def finish_index(name: str, table: str) -> str:
    """Say that an index is built to its end.

    Args:
        name: The index's name.
        table: Its table, prefix included.
    """
    return f"ALTER INDEX IF EXISTS {quote(name)} ON {quote(table)} DROP COMMENT"


def remove_index(name: str, table: str) -> str:
    """Remove an index.

    Args:
        name: The index's name.
        table: Its table, prefix included.
    """
    return f"REMOVE INDEX IF EXISTS {quote(name)} ON {quote(table)}"


#: A sign of life.
PING = "RETURN true"
#: Parameters: record. Two lists, each of which is empty where the user may not create, or delete.
CHECK_RIGHTS = (
    "{ LET $created = (CREATE $record RETURN VALUE true); LET $deleted = (DELETE $record RETURN VALUE true); "
    "RETURN [$created, $deleted] }"
)

# -- tasks -------------------------------------------------------------------------------------------

_ATTEMPT = "object::from_entries(array::concat($a, [['at', time::now()]]))"
#: SurrealQL added to a task's fields, by the parameter that it is made of. The database counts from its own time. The
#: texts are short: each store sends them.
_ADDED = {
    # How long the record lives; without it for ever.
    "l": "['expires_at',time::now()+$l]",
    # How long ago the task ended, where that is not now.
    "e": "['date_done',time::now()-$e]",
    # How long ago it started.
    "s": "['started_at',time::now()-$s]",
    # Its run, see runs.py.
    "u": "['run',$u]",
    # One more attempt, as pairs. A run stores one: the second is the same again, after its reply was lost. Not an IF, out
    # of which 3.2 takes no list.
    "a": "['attempts',array::concat(attempts ?? [],"
    f"(!(status='RETRY' AND run IS NOT NONE AND run=$u) AND [{_ATTEMPT}]) OR [])]",
    # True: the task was retried, so its attempts stay.
    "k": "['attempts',attempts]",
}
#: What a record knows of its task and keeps where a state is stored without a request, such as that of a task that is
#: revoked before it runs.
_FACTS = (
    "name",
    "queue",
    "worker",
    "root_id",
    "reply_to",
    "sent_at",
    "started_at",
    "eta",
    "attempts",
    "periodic_task_name",
    "retry_of",
    "priority",
    "tags",
    "meta",
)
#: True: no request says them.
_ADDED["o"] = ",".join(f"['{name}',{name}]" for name in _FACTS)
_ENDS_NOW = "['date_done',time::now()]"
_GONE = "(expires_at AND expires_at<=time::now())"
#: What the end of a task may replace. Celery's rule: a SUCCESS is final.
_YIELDS_TO_READY = f"status!='SUCCESS' OR {_GONE}"
#: What a state of a task that runs may replace. A task that has ended is not set back to running by a late
#: message of the run that ended; a later run, after a FAILURE or a revoke, is another matter (see runs.py).
_YIELDS_TO_UNREADY = f"status NOT IN ['SUCCESS', 'FAILURE', 'REVOKED'] OR {_GONE}"
_YIELDS_TO_LATER_RUN = f"{_YIELDS_TO_UNREADY} OR (status!='SUCCESS' AND run IS NOT NONE AND $u!=run AND $u[0]>=run[0])"
#: What a retry may replace: not what the next run says, which may come first. Celery sends a retry before it stores it.
_YIELDS_TO_RETRY = f"({_YIELDS_TO_LATER_RUN}) AND (run IS NONE OR run[0]<=$u[0] OR {_GONE})"


def _replace(names: tuple[str, ...], *, ready: bool, fields: str) -> str:
    added = [text for name, text in _ADDED.items() if name in names]
    if ready and "e" not in names:
        added.append(_ENDS_NOW)
    # Not $t + […]: SurrealDB 2 adds no arrays.
    pairs = f"array::concat({fields},[{','.join(added)}])" if added else fields
    return f"UPSERT $r CONTENT object::from_entries({pairs})"


def _yields(names: tuple[str, ...], *, ready: bool) -> str:
    if ready:
        return _YIELDS_TO_READY
    if "u" not in names:
        return _YIELDS_TO_UNREADY
    return _YIELDS_TO_RETRY if "a" in names else _YIELDS_TO_LATER_RUN


@lru_cache(maxsize=256)
def store_task(names: tuple[str, ...], ready: bool, fields: str = "$t") -> str:
    """Store a task's state, where Celery's rules let it replace what is there.

    Parameters: r (RecordID), t (its fields, as pairs), and of those of `_ADDED` the ones that the task has: only they
    stand in the text. The reply is the status, or nothing where it was not stored: because of what is there, or because
    the user may not write, which is no error to SurrealDB.

    Args:
        names: The names of the parameters.
        ready: Whether the task has ended.
        fields: SurrealQL of the pairs.
    """
    return f"{_replace(names, ready=ready, fields=fields)} WHERE {_yields(names, ready=ready)} RETURN VALUE status"


@lru_cache(maxsize=64)
def store_task_explained(names: tuple[str, ...], ready: bool) -> str:
    """The same for a store that took no effect, with the reason.

    Two values: the status, as above, and of the record that is there, if there is one, whether it yields. Where it
    does, or where there is none, the user may not write.

    Celery sends a retry before it stores that there is one. Where the next run has stored a state already, that stays, and
    the attempt is added to it.

    Args:
        names: The names of the parameters.
        ready: Whether the task has ended.
    """
    late = (
        "IF $yields=[false] { LET $retries = object::from_entries($a).retries; "
        f"UPDATE $r SET attempts = array::append(attempts ?? [], {_ATTEMPT}) "
        "WHERE (retries ?? run[0] ?? ($retries+1))>$retries AND $retries NOT IN (attempts ?? []).retries RETURN NONE }; "
        if "a" in names
        else ""
    )
    return (
        f"{{ LET $stored = ({store_task(names, ready)}); "
        f"LET $yields = (SELECT VALUE !!({_yields(names, ready=ready)}) FROM $r); {late}"
        "RETURN [$stored, $yields] }"
    )


_PARAMETER = re.compile(r"\$([a-z]\b)")


@lru_cache(maxsize=1024)
def _numbered(names: tuple[str, ...], ready: bool, place: int) -> str:
    store = _PARAMETER.sub(rf"$\g<1>{place}", store_task(names, ready))
    return f"LET $o{place} = ({store});"


def store_tasks(shapes: Iterable[tuple[tuple[str, ...], bool]]) -> str:
    """Store several tasks in one transaction.

    Parameters: r0, t0, …, r1, …. One value: a list with the status of each, as `store_task` gives it.

    Args:
        shapes: Of each, the names of its parameters and whether it has ended.
    """
    stores = [_numbered(names, ready, place) for place, (names, ready) in enumerate(shapes)]
    return f"{{ {' '.join(stores)} RETURN [{', '.join(f'$o{place}' for place in range(len(stores)))}] }}"


@lru_cache(maxsize=256)
def insert_sent(table: str, number: int) -> str:
    """Store tasks that were sent, where nothing is known of them yet.

    Parameters: lifetime, task0 (a record with its id), task1, ….

    Args:
        table: The table of tasks.
        number: How many there are.
    """
    return ";".join(
        f"INSERT IGNORE INTO {quote(table)} {until(f'$task{place}')} RETURN NONE" for place in range(number)
    )


@lru_cache(maxsize=64)
def replace_task(names: tuple[str, ...]) -> str:
    """Store a task, whatever is there: for the key/value interface, which knows no states.

    Args:
        names: The names of the parameters, as of `store_task`.
    """
    return f"{_replace(names, ready=False, fields='$t')} RETURN VALUE true"


# Whatever is there but what nobody needs: what most records have, or what may be long. For 500 records 3.0.2 takes
# 5 ms for this and 12 ms for an array of the seventeen fields, most of which are NONE.
_TASK = (
    "* OMIT id, expires_at, root_id, reply_to, sent_at, started_at, runtime, queue_time, priority, error, attempts, "
    "progress, tags, meta"
)
_READY = "status IN ['SUCCESS', 'FAILURE', 'REVOKED']"
#: Parameters: records (one RecordID, or a list of them). Those that are not there are left out.
FETCH_TASKS = f"SELECT {_TASK} FROM $records WHERE {_ALIVE}"
#: Parameters: records. Only what is finished, for those who wait for many.
FETCH_READY_TASKS = f"SELECT {_TASK} FROM $records WHERE {_READY} AND {_ALIVE}"


def _fetch_small(condition: str) -> str:
    # In the usual case all that was asked for is small and there: the second look is spared.
    return (
        f"{{ LET $small = (SELECT {_TASK} FROM $records WHERE size IS NONE AND {condition}); "
        "RETURN [$small, IF array::len($small) < array::len($records) THEN "
        f"(SELECT VALUE [task_id, size] FROM $records WHERE size IS NOT NONE AND {condition}) ELSE [] END] }}"
    )


#: Parameters: records (a list). Two lists: the records that are small, and id and size of those that are not.
FETCH_SMALL_TASKS = _fetch_small(_ALIVE)
#: Parameters: records (a list). Likewise, of what is finished.
FETCH_SMALL_READY_TASKS = _fetch_small(f"{_READY} AND {_ALIVE}")
#: Parameters: records (one RecordID, or a list). The ids that are still there: the user may not delete.
DELETE = "{ DELETE $records RETURN NONE; RETURN (SELECT VALUE id FROM $records) }"


def _update(change: str) -> str:
    return f"{{ LET $updated = (UPDATE $records {change} RETURN VALUE true); RETURN [$updated, (SELECT VALUE id FROM $records)] }}"


#: Parameters: records, lifetime. Two lists: a value for each that was updated, and the ids that are there.
EXPIRE = _update(f"SET expires_at = {ends_at('$lifetime')}")
#: Parameters: records. Likewise.
UNEXPIRE = _update("UNSET expires_at")
#: Parameters: record.
EXISTS = f"SELECT VALUE true FROM $record WHERE {_ALIVE}"


@lru_cache(maxsize=64)
def live(table: str, shape: tuple[tuple[str, ...], ...]) -> str:
    """Notify of records that any of some filters accepts.

    Parameters: values0, values1, …: for each field of each filter, in their order, the values that it may have.

    Args:
        table: The table's full name.
        shape: The names of each filter's fields. A filter without fields accepts all records.

    Returns:
        The text.
    """
    numbers = count()
    filters = [" AND ".join(f"{quote(name)} IN $values{next(numbers)}" for name in names) for names in shape]
    if not all(filters):
        return f"LIVE SELECT * FROM {quote(table)}"
    return f"LIVE SELECT * FROM {quote(table)} WHERE {' OR '.join(f'({each})' for each in filters) or 'false'}"


# -- groups and the key/value interface --------------------------------------------------------------

#: Parameters: record, fields, lifetime. A list, which is empty where the user may not write.
STORE = f"UPSERT $record CONTENT {until('$fields')} RETURN VALUE true"
#: Parameters: records.
FETCH_GROUPS = f"SELECT VALUE [group_id, result, encoding] FROM $records WHERE {_ALIVE}"
#: Parameters: records.
FETCH_KEYS = f"SELECT VALUE [key, value] FROM $records WHERE {_ALIVE}"
#: Parameters: record, key. Conflicts are retried; a store that misses them can lose one (docs/architecture.md).
#: Not ``value = (value ?? 0) + 1``: 3.0.2 takes the old value for NONE there.
INCREMENT = "UPSERT $record SET key = $key, value += 1 RETURN VALUE value"
