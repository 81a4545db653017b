"""Every SurrealQL text of the typed API. Values are bound; only table names and our own field names are in a text.

What must hold for each, besides what `results/statements.py` says: nothing stands beside the range of an index in
a condition with a LIMIT, because 3.0.2 counts the limit before that is looked at. So records are read by the
index alone, at most so many, and what they are searched for is computed beside them and looked at outside.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ...client import surrealql
from ...client.surrealql import quote
from ..expiry import ALIVE
from ..native import NATIVE
from .terms import TERMS

#: How many characters of arguments and results a list shows.
PREVIEW = 200
#: Native fields of a record that a summary is made of.
SUMMARY_FIELDS = (
    "task_id",
    "status",
    "name",
    "worker",
    "queue",
    "retries",
    "sent_at",
    "started_at",
    "date_done",
    "eta",
    "expires_at",
    "runtime",
    "queue_time",
    "clock_skew",
    "error",
    "progress",
    "group_id",
    "parent_id",
    "root_id",
    "retry_of",
    "periodic_task_name",
    "priority",
    "tags",
    "encoding",
    "size",
)
#: Fields whose beginning a summary has: of a text, or of a native value, which a small record has whole.
PREVIEWED = ("args", "kwargs", "result")


def beginning_of(field: str) -> str:
    """The beginning of a field that is text, or of how a native value looks; else NONE.

    Args:
        field: The field's name.
    """
    return (
        f"IF {field}.is_string() {{ string::slice({field}, 0, {PREVIEW}) }} "
        f"ELSE IF !string::starts_with(encoding ?? '', '{NATIVE}') {{ NONE }} "
        f"ELSE IF size IS NOT NONE AND ({field}.is_array() OR {field}.is_object()) "
        f"{{ string::slice(<string>{field}, 0, {PREVIEW}) }} ELSE {{ {field} }}"
    )


SUMMARY = (
    "{ "
    + ", ".join(
        [f"{field}: {field}" for field in SUMMARY_FIELDS] + [f"{field}: {beginning_of(field)}" for field in PREVIEWED]
    )
    + " }"
)


def condition(terms: tuple[str, ...]) -> str:
    """The condition that a task is there and matches.

    Args:
        terms: Keys of :data:`TERMS`.
    """
    return " AND ".join((ALIVE, *(TERMS[term] for term in terms)))


@lru_cache(maxsize=64)
def describe_table(table: str) -> str:
    """The indexes of a table. Parameters: none. Two values: the table's definitions; the database's time.

    Args:
        table: The table's name, prefix included.
    """
    return f"{surrealql.describe_table(table)}; {surrealql.NOW}"


_INDEX = re.compile(
    r"^DEFINE INDEX .* ON (?:TABLE )?.* (?:FIELDS|COLUMNS) (?P<fields>[^,\s]+(?:, ?[^,\s]+)*)(?P<rest>.*)$"
)


def fields_of_index(definition: str) -> tuple[str, ...] | None:
    """The fields of an index that orders records by them; None for one of another kind.

    Args:
        definition: As `INFO FOR TABLE` gives it.
    """
    found = _INDEX.match(definition)
    if found is None or any(kind in found["rest"] for kind in ("SEARCH", "FULLTEXT", "HNSW", "MTREE", "COUNT")):
        return None
    return tuple(field.strip().strip("`") for field in found["fields"].split(","))


#: When a record is listed under, to the microsecond, as Python has it: a cursor must find its place again.
AT = "time::floor(date_done, 1us)"
#: The same of a task that has not ended.
UNREADY_AT = "time::floor(started_at ?? sent_at ?? $begin, 1us)"


def index_range(equal: str | None, number: str) -> str:
    """The range of an index: of `date_done`, or of a field with a known value and `date_done` after it.

    Two fields and both ends of the range are more than 3.x looks up by an index, so the end is left out there: what
    is read beyond it is sorted out with the rest.

    Args:
        equal: The field with the known value, if any.
        number: What the names of the parameters end with.
    """
    if equal is None:
        return f"date_done >= $index_start{number} AND date_done < $index_end{number}"
    return f"{equal} = $equal AND date_done >= $index_start{number}"


def of_ended(table: str, values: str) -> str:
    """Values of tasks that ended, oldest first as far as whole seconds go.

    Parameters: index_start, index_end, limit, skip; those of the values. Of each task a list.

    Args:
        table: The table's name, prefix included.
        values: SurrealQL of the values, with commas in between.
    """
    return f"SELECT VALUE [{values}] FROM {quote(table)} WHERE {index_range(None, '')} LIMIT $limit START $skip"


def of_unready(table: str, values: str) -> str:
    """Values of tasks that have not ended, in no order: sorting them takes the database five times as long as reading.

    Parameters: limit (records read); those of the values. Of each task a list.

    Args:
        table: The table's name, prefix included.
        values: SurrealQL of the values, with commas in between.
    """
    return f"SELECT VALUE [{values}] FROM {quote(table)} WHERE date_done = NONE LIMIT $limit"


@lru_cache(maxsize=256)
def find_in_windows(table: str, terms: tuple[str, ...], windows: int, equal: str | None, index: str | None) -> str:
    """Tasks that ended, newest first, in several windows of time, until enough are found or read.

    Parameters: those of the terms; limit (records read in a window), wanted (matches); start0, end0, index_start0,
    index_end0, start1, …; cursor_at, cursor_id; equal. One value: of each window how many records were read, the time
    of the latest where these are as many as a request reads, and the ids of the newest that match, at most as many as are wanted; and the summaries of all.

    Args:
        table: The task table.
        terms: The terms of the condition.
        windows: How many windows there are.
        equal: The field that the index has before `date_done`; None for the index of that alone.
        index: The index to use, by its name; None where the engine finds it.
    """
    hint = f" WITH INDEX {quote(index)}" if index else ""
    texts, answers = [], []
    for number in range(windows):
        read = (
            f"(SELECT id, task_id, {AT} AS at, ({condition(terms)}) AS hit FROM {quote(table)}{hint} "
            f"WHERE {index_range(equal, str(number))} LIMIT $limit)"
        )
        before = range(number)
        if number:
            found = " + ".join(f"$hits{each}" for each in before)
            looked = " + ".join(f"$size{each}" for each in before)
            # 3.2.4 makes a list of one record that record when it comes out of a block: `flatten` makes both a list.
            read = f"array::flatten([IF {found} >= $wanted OR {looked} >= $limit {{ [] }} ELSE {{ {read} }}])"
        texts.append(f"LET $read{number} = {read}")
        # Counted once: each look at a list copies it.
        texts.append(f"LET $size{number} = count($read{number})")
        texts.append(
            f"LET $found{number} = (SELECT id, at, task_id FROM {_hits(f'$read{number}')} "
            f"WHERE at >= $start{number} AND at < $end{number} AND {_BEHIND_CURSOR} "
            "ORDER BY at DESC, task_id DESC LIMIT $wanted)"
        )
        texts.append(f"LET $hits{number} = count($found{number})")
        answers.append(
            f"[$size{number}, IF $size{number} >= $limit "
            f"{{ array::max((SELECT VALUE at FROM $read{number})) }} ELSE {{ NONE }}, "
            f"(SELECT VALUE task_id FROM $found{number})]"
        )
    # One summary for all windows: the text is parsed with each request, and would be three times as long.
    ids = "array::flatten([" + ", ".join(f"(SELECT VALUE id FROM $found{number})" for number in range(windows)) + "])"
    texts.append(f"LET $ids = {ids}")
    rows = f"(SELECT VALUE {SUMMARY} FROM $ids WHERE task_id IS NOT NONE)"
    return ";".join(texts) + f";RETURN [[{', '.join(answers)}], {rows}]"


def _hits(rows: str) -> str:
    """Those of a list's rows that match. A SELECT over the whole list takes longer than reading the records did."""
    return f"{rows}[WHERE hit]"


_BEHIND_CURSOR = "($cursor_at IS NONE OR at < $cursor_at OR (at = $cursor_at AND task_id < $cursor_id))"


@lru_cache(maxsize=256)
def find_in_crowd(table: str, terms: tuple[str, ...]) -> str:
    """The newest matches of one page of a window that holds more than a request may read.

    Parameters: those of the terms; limit, skip, wanted; start, end, index_start, index_end; cursor_at, cursor_id. Two
    values: how many records were read; the summaries.

    Args:
        table: The table's name, prefix included.
        terms: The terms of the condition: keys of :data:`TERMS`.
    """
    return (
        f"LET $read = (SELECT id, task_id, {AT} AS at, ({condition(terms)}) AS hit FROM {quote(table)} "
        f"WHERE {index_range(None, '')} LIMIT $limit START $skip);"
        f"LET $found = (SELECT id, at, task_id FROM {_hits('$read')} WHERE at >= $start AND at < $end "
        f"AND {_BEHIND_CURSOR} ORDER BY at DESC, task_id DESC LIMIT $wanted);"
        f"RETURN [count($read), (SELECT VALUE {SUMMARY} FROM (SELECT VALUE id FROM $found))]"
    )


@lru_cache(maxsize=256)
def unready_places(table: str, terms: tuple[str, ...]) -> str:
    """Tasks that have not ended, in no order. Parameters: those of the terms; limit, skip, begin.

    Time, id and whether it matches of each.

    Args:
        table: The table's name, prefix included.
        terms: The terms of the condition: keys of :data:`TERMS`.
    """
    return f"{of_unready(table, f'{UNREADY_AT}, task_id, ({condition(terms)})')} START $skip"


@lru_cache(maxsize=256)
def find_unready(table: str, terms: tuple[str, ...]) -> str:
    """Tasks that have not ended, newest first, where the whole table is read and the database is to sort out the rest.

    Parameters: those of the terms; limit, skip, wanted; since, until, begin; cursor_at, cursor_id. One value: how many
    records were read, and the summaries.

    Args:
        table: The table's name, prefix included.
        terms: The terms of the condition: keys of :data:`TERMS`.
    """
    return (
        f"LET $read = (SELECT id, task_id, {UNREADY_AT} AS at, ({condition(terms)}) AS hit FROM {quote(table)} "
        "WHERE date_done = NONE LIMIT $limit START $skip);"
        f"LET $found = (SELECT id, at, task_id FROM {_hits('$read')} "
        "WHERE (at = $begin OR $since IS NONE OR at >= $since) AND ($until IS NONE OR (at > $begin AND at < $until)) "
        f"AND {_BEHIND_CURSOR} ORDER BY at DESC, task_id DESC LIMIT $wanted);"
        f"RETURN [count($read), (SELECT VALUE {SUMMARY} FROM (SELECT VALUE id FROM $found))]"
    )


#: Parameters: records. Summaries, with what says which tasks they sent. 3.0.2 makes a row of NONE of a record that is
#: not there.
SUMMARIES = f"SELECT VALUE [{SUMMARY}, children] FROM $records WHERE task_id IS NOT NONE AND {ALIVE}"
#: Parameters: record. All of a record, and the seconds that it has left.
DETAIL = f"SELECT *, time::micros(expires_at ?? time::now()) - time::micros(time::now()) AS micros_left FROM $record WHERE {ALIVE}"


@lru_cache(maxsize=64)
def find_equal(table: str, field: str) -> str:
    """The tasks of one workflow or group, where there is an index on the field that says it. Parameters: value, limit.

    Args:
        table: The table's name, prefix included.
        field: `root_id` or `group_id`.
    """
    return (
        f"LET $ids = (SELECT VALUE id FROM {quote(table)} WHERE {field} = $value LIMIT $limit);"
        f"{SUMMARIES.replace('$records', '$ids')}"
    )


#: Parameters: roots, groups.
_OF_WORKFLOW = "(root_id IN $roots OR group_id IN $groups)"


@lru_cache(maxsize=64)
def others_of_workflow(table: str) -> str:
    """Tasks that ended, oldest first, and whether they are of a workflow.

    Parameters: roots, groups (ids); index_start, index_end, limit, skip. One value: `[at, task_id, hit]` of each.

    Args:
        table: The table's name, prefix included.
    """
    return of_ended(table, f"{AT}, task_id, {_OF_WORKFLOW}")


@lru_cache(maxsize=64)
def unready_of_workflow(table: str) -> str:
    """The ids of a workflow's tasks that have not ended. Parameters: roots, groups, limit (records read).

    Args:
        table: The table's name, prefix included.
    """
    return (
        f"LET $read = (SELECT task_id, {_OF_WORKFLOW} AS hit FROM {quote(table)} WHERE date_done = NONE LIMIT $limit);"
        "SELECT VALUE task_id FROM $read WHERE hit"
    )


@lru_cache(maxsize=256)
def ended_since(table: str, terms: tuple[str, ...]) -> str:
    """Tasks that ended, oldest first as far as whole seconds go.

    Parameters: those of the terms; index_start, index_end, limit, skip. One value: `[at, task_id, status, hit]` of each.

    Args:
        table: The table's name, prefix included.
        terms: The terms of the condition: keys of :data:`TERMS`.
    """
    return of_ended(table, f"{AT}, task_id, status, ({condition(terms)})")


@lru_cache(maxsize=256)
def unready_now(table: str, terms: tuple[str, ...]) -> str:
    """What of matching tasks that have not ended may change.

    Parameters: those of the terms; limit (records read). One value: id, state, start, retries and progress of each.

    Args:
        table: The table's name, prefix included.
        terms: The terms of the condition: keys of :data:`TERMS`.
    """
    return (
        f"LET $read = (SELECT task_id, status, started_at, retries, progress, ({condition(terms)}) AS hit "
        f"FROM {quote(table)} WHERE date_done = NONE LIMIT $limit);"
        "SELECT VALUE [task_id, status, started_at, retries, progress] FROM $read WHERE hit"
    )


@lru_cache(maxsize=256)
def matching(terms: tuple[str, ...]) -> str:
    """Those of some tasks that match. Parameters: those of the terms; records.

    Args:
        terms: The terms of the condition: keys of :data:`TERMS`.
    """
    return f"SELECT VALUE {SUMMARY} FROM $records WHERE task_id IS NOT NONE AND {condition(terms)}"


#: Parameters: records. All of each, and the seconds that it has left.
DETAILS = DETAIL.replace("$record", "$records").replace(" WHERE ", " WHERE task_id IS NOT NONE AND ")
#: Parameters: records. The ids of those that are there.
STORED = "SELECT VALUE id FROM $records WHERE task_id IS NOT NONE"
#: Parameters: records. Two lists: the ids of those that were there, and of those that still are.
FORGET = (
    "LET $ids = (SELECT VALUE id FROM $records WHERE task_id IS NOT NONE); DELETE $ids RETURN NONE; "
    "RETURN [$ids, (SELECT VALUE id FROM $ids)]"
)


@lru_cache(maxsize=256)
def of_page(text: str, table: str) -> str:
    """A statement that reads a table along an index, on a page of its records in the order of their ids instead.

    Parameters: those of the statement; range, limit. One value: the last id of the page, how many records it
    has, and the value of the statement.

    Args:
        text: The statement, one of those of this module that read a table with a limit.
        table: The table's name, prefix included.
    """
    source = f"FROM {quote(table)} WHERE"
    before, found, behind = text.partition(source)
    condition, _, rest = behind.partition(" LIMIT $limit")
    assert found
    assert source not in behind
    *parts, last = f"{before}FROM $page WHERE{condition}{rest.removeprefix(' START $skip')}".split(";")
    parts = [f"LET $page = (SELECT VALUE id FROM {surrealql.RANGE} LIMIT $limit)", *parts]
    parts.append(f"LET $value = ({last.strip().removeprefix('RETURN ')})")
    return ";".join([*parts, "RETURN [array::last($page), count($page), $value]"])


@lru_cache(maxsize=64)
def unready_of_group(table: str) -> str:
    """Tasks of a group that have not ended. Parameters: group, limit (records read). Id and state of each.

    Args:
        table: The table's name, prefix included.
    """
    return (
        f"LET $read = (SELECT task_id, status, group_id FROM {quote(table)} WHERE date_done = NONE LIMIT $limit);"
        "SELECT VALUE [task_id, status] FROM $read WHERE group_id = $group"
    )


#: Parameters: records. Id and state of each task.
STATES = "SELECT VALUE [task_id, status] FROM $records WHERE task_id IS NOT NONE"
