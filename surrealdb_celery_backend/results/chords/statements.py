"""The SurrealQL of the chord store. Values are bound; only the table's name is written into a text.

A chord is a family of records whose ids begin with its group id, and one that stands apart::

    [0, group]                              how many header tasks there are; gone when the chord is done
    [group, 'header']                       the header tasks' ids or shape, and the body
    [group, 'added', task]                  one more header task, from add_to_chord
    [group, 'uneven']                       header tasks share an index or have none: buckets say nothing
    [group, 'part', bucket, index, task]    what a header task returned
    [group, 'claim']                        who publishes the body

The sizes of all chords stand together, apart from any group id, which is text: so unfinished chords are found
without reading the finished. Nothing is counted up, and nobody changes another's record: writers never meet.
"""

from __future__ import annotations

from functools import lru_cache

from ...client.surrealql import NOW, limited, quote
from ..expiry import ends_at

#: The beginning of the ids of chords' sizes. Group ids are text.
SIZES = 0
_PART, _ADDED = "'part'", "'added'"
_EXPIRES = f"expires_at: {ends_at('$chord_lifetime')}"
#: What is read where nothing is wanted: a LIMIT of 0 reads the whole range, 130 ms for 12,000 parts on 3.0.2.
_FEWEST = 1


def _range(table: str, *path: str) -> str:
    # From NONE to an array: the first and the last of what can follow in an id, on 2.x and 3.x alike.
    start = ", ".join(path)
    return f"{quote(table)}:[{start}, NONE]..[{start}, []]"


def _of_group(table: str, *path: str) -> str:
    return _range(table, "$group", *path)


def _count(records: str) -> str:
    # Reads no record: 2 µs each on 3.0.2, where count(SELECT VALUE id …) takes 15, and more for large ones.
    return f"((SELECT count() FROM {records} GROUP ALL)[0].count ?? 0)"


# -- sending a header ----------------------------------------------------------------------------------

_KEEP_SIZE = (
    f"UPSERT $size_record MERGE {{ group_id: $group, size: $size, %s sent_at: time::now(), {_EXPIRES} }} "
    "WHERE size IS NONE OR size <= $size RETURN VALUE size;"
    "SELECT VALUE size FROM $size_record"
)
#: Parameters: size_record, group, size, nested, chord_lifetime. Two values: the size where it was stored, in a list; the
#: size that is there. A size is never lowered: Celery before 5.7 announces the size of a group inside the header, too,
#: as if it were the header's.
ANNOUNCE = _KEEP_SIZE % "nested: $nested,"
_FORGET_CLAIM = "DELETE $claim RETURN NONE;SELECT VALUE claimant FROM $claim"
#: Parameters: claim, and those of `ANNOUNCE`. Three values: the claim of an old run, which must be gone; and those two.
START = f"{_FORGET_CLAIM};{ANNOUNCE}"
#: The same where nothing but the size is known. Without `nested`.
START_UNKNOWN = f"{_FORGET_CLAIM};{_KEEP_SIZE % ''}"
#: Parameters: header, fields (a record's), chord_lifetime. Its group id in a list.
STORE_HEADER = (
    "UPSERT $header CONTENT { group_id: $group, tasks: $fields.tasks, shape: $fields.shape, "
    "shape_encoding: $fields.shape_encoding, body: $fields.body, body_encoding: $fields.body_encoding, "
    f"body_id: $fields.body_id, body_name: $fields.body_name, {_EXPIRES} }} RETURN VALUE group_id"
)
#: Parameters: added, group, task_id, chord_lifetime. The task's id in a list.
ADD = f"UPSERT $added CONTENT {{ group_id: $group, task_id: $task_id, {_EXPIRES} }} RETURN VALUE task_id"
#: Parameters: header.
FETCH_HEADER = "SELECT * OMIT id, expires_at FROM $header"

# -- storing parts -------------------------------------------------------------------------------------

# Milliseconds left: a duration cannot be negative.
_LIFE = "(expires_at AND time::millis(expires_at) - time::millis(time::now()))"


@lru_cache(maxsize=64)
def add_part(table: str, store: str | None = None) -> str:
    """Store a part, and see whether its bucket is full.

    Parameters: g (the group), b (the bucket), i (the index), n (the length), c (the chord's lifetime), and t: an object
    with the task's id, status, result and encoding. Three values: the reply of `store` and a list that is empty if the
    part is there already; `[size, nested, uneven, done, life in ms]` of each of three records that says something of
    them; the index of every part in the bucket.

    The part is stored before anything is read: of two that are stored at once, one sees both.

    Args:
        table: The chord table.
        store: A statement to run in the same transaction, which costs little more than one of them. It has the same
            `$t`: the result is sent once.
    """
    full = quote(table)
    part = (
        f"INSERT IGNORE INTO {full} {{ id: [$g, {_PART}, $b, $i, $t.task_id], group_id: $g, task_id: $t.task_id, "
        "status: $t.status, result: $t.result, encoding: $t.encoding, group_index: $i, "
        f"length: $n, stored_at: time::now(), expires_at: {ends_at('$c')} }} RETURN VALUE group_index"
    )
    # Each write is a LET of its own: 3.x takes a block that begins with none for one that only reads.
    first = f"LET $stored = ({store});" if store else ""
    return (
        f"{{ {first} LET $added = ({part}); RETURN [{'$stored' if store else 'NONE'}, $added] }};"
        f"SELECT VALUE [size, nested, uneven, done, {_LIFE}] "
        f"FROM [{full}:[{SIZES}, $g], {full}:[$g, 'uneven'], {full}:[$g, 'claim']] WHERE size OR uneven OR done;"
        f"SELECT VALUE group_index FROM {_range(table, '$g', _PART, '$b')}"
    )


#: Parameters: part, claim. Not empty if the part is there, or was deleted when its chord was done.
PART_EXISTS = "SELECT VALUE group_index ?? done FROM [$part, $claim]"
#: Parameters: size_record, chord_lifetime, young (milliseconds). Prolong an unfinished chord that somebody else has not.
RENEW = f"UPDATE $size_record SET expires_at = {ends_at('$chord_lifetime')} WHERE {_LIFE} < $young RETURN NONE"


# -- claiming the body ---------------------------------------------------------------------------------

#: Parameters: claim.
FETCH_CLAIM = "SELECT VALUE [claimant, task_id, done, time::millis(time::now()) - time::millis(claimed_at)] FROM $claim"
_CREATE_CLAIM = (
    "CREATE $claim CONTENT { group_id: $group, claimant: $claimant, task_id: $task_id, "
    f"claimed_at: time::now(), {_EXPIRES} }} RETURN VALUE claimant"
)
#: Parameters: claim, group, claimant, task_id, chord_lifetime. Two values: the claimant in a list, or a failure (it is
#: claimed); the claim read back.
CLAIM = f"{_CREATE_CLAIM};{FETCH_CLAIM}"
#: Parameters: claim, claimant, task_id, stale (the claimant that may be replaced). The last value is the claim.
TAKE_OVER = (
    "UPDATE $claim SET claimant = $claimant, task_id = $task_id, claimed_at = time::now() "
    f"WHERE claimant = $stale AND done != true RETURN NONE;{FETCH_CLAIM}"
)
#: Parameters: claim, claimant. Not empty if the claim is still the claimant's, which it now is for another lease.
RENEW_CLAIM = (
    "UPDATE $claim SET claimed_at = time::now() WHERE claimant = $claimant AND done != true RETURN VALUE claimant"
)


def _sizes(table: str) -> str:
    return (
        "LET $known = (SELECT VALUE [size, nested] FROM $size_record)[0];"
        "LET $marked = array::len(SELECT VALUE uneven FROM $uneven) > 0;"
        f"LET $added = {_count(_of_group(table, _ADDED))};"
        "LET $total = IF $known[0] { $known[0] + $added } ELSE { 0 };"
    )


@lru_cache(maxsize=64)
def complete_header(table: str, *, mark_uneven: bool) -> str:
    """See whether a header is complete, and claim its body if it is.

    Parameters: group, size_record, uneven, claim (RecordIDs), claimant, task_id, chord_lifetime, keys (how many to
    read, at least 1); first and last bucket of those around the part's, and the parts that these have in a complete
    header (near; 0 where that is not known): where they do not, not all parts are counted. The last three values:
    nothing where the header is not complete, else as that of `CLAIM`; the claim read back; `[expected, complete,
    nested, uneven, keys]`, whose keys say nothing where it is not complete.

    Args:
        table: The chord table.
        mark_uneven: Whether to mark the header as uneven: before anything is counted, as above.
    """
    mark = (
        f"INSERT IGNORE INTO {quote(table)} {{ id: $uneven, group_id: $group, uneven: true, {_EXPIRES} }} RETURN NONE;"
    )
    around = f"{quote(table)}:[$group, {_PART}, $first, NONE]..[$group, {_PART}, $last, []]"
    # No list comes out of an IF: 3.2 gives what is in a list of one.
    return (
        f"{mark if mark_uneven else ''}{_sizes(table)}"
        f"LET $complete = IF $total = 0 {{ false }} ELSE IF $near > 0 AND {_count(around)} < $near {{ false }} "
        f"ELSE {{ {_count(_of_group(table, _PART))} >= $total }};"
        f"LET $limit = IF $complete {{ $keys }} ELSE {{ {_FEWEST} }};"
        "LET $place = [0, -1, ''];"
        f"LET $found = ({_read_keys(table, '$place', '$limit', indexed=True)});"
        f"IF $complete {{ ({_CREATE_CLAIM}) }};"
        f"{FETCH_CLAIM};"
        "RETURN [$total, $complete, $known[1], $marked, $found]"
    )


@lru_cache(maxsize=64)
def look_at_chord(table: str) -> str:
    """See how far a header is, without changing anything.

    Parameters: group, size_record, uneven, claim. The last two values: the claim; `[expected, complete, nested,
    uneven, keys]`, without keys. Parts are counted only where nobody has claimed the body.
    """
    return (
        f"{_sizes(table)}"
        f"LET $claims = ({FETCH_CLAIM});"
        "LET $complete = IF $total = 0 { false } ELSE IF array::len($claims) > 0 { true } "
        f"ELSE {{ {_count(_of_group(table, _PART))} >= $total }};"
        "RETURN $claims;"
        "RETURN [$total, $complete, $known[1], $marked, []]"
    )


# -- reading parts -------------------------------------------------------------------------------------


def _after(table: str, place: str, *, indexed: bool) -> str:
    # Not from [*place, NONE]: 2.x sorts an array behind those that begin with it.
    end = f"[$group, {_PART}, []]" if indexed else f"[$group, {_PART}, {place}[0], []]"
    return limited(f"{quote(table)}:[$group, {_PART}, {place}[0], {place}[1], {place}[2]]>..{end}")


def _read_keys(table: str, place: str, limit: str = "$keys", *, indexed: bool) -> str:
    return f"SELECT VALUE [group_index, task_id, length] FROM {_after(table, place, indexed=indexed)} LIMIT {limit}"


@lru_cache(maxsize=64)
def read_keys(table: str, *, indexed: bool) -> str:
    """Read where the next parts are, and how large: `[index, task, length]` of each.

    Parameters: group, known (`[bucket, index, task]` of the last one known), keys (their number).

    Args:
        table: The chord table.
        indexed: Whether to read parts with an index, or those without, which have a bucket of their own.
    """
    return _read_keys(table, "$known", indexed=indexed)


@lru_cache(maxsize=64)
def read_parts(table: str, *, indexed: bool) -> str:
    """Read the next parts, and the keys of those behind the last one known.

    Parameters: those of `read_keys`, place (`[bucket, index, task]` of the last one read) and number (of parts). Two
    values.

    Args:
        table: The chord table.
        indexed: As above.
    """
    parts = f"SELECT task_id, status, result, encoding FROM {_after(table, '$place', indexed=indexed)} LIMIT $number"
    return f"{parts};{_read_keys(table, '$known', indexed=indexed)}"


# -- the end -------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def finish_chord(table: str) -> str:
    """The body is published: keep the claim as the mark of it, let go of the rest, a batch of parts at a time.

    Parameters: group, claim, claimant, size_record, header, uneven, chord_lifetime (of the mark), number (of parts). The last
    value: how many claims were the claimant's, how many parts were found, and how many of these are left.

    Args:
        table: The table's name, prefix included.
    """
    # No list comes out of an IF, see above.
    return (
        f"LET $mine = (UPDATE $claim SET done = true, expires_at = {ends_at('$chord_lifetime')} "
        "WHERE claimant = $claimant RETURN VALUE claimant);"
        f"LET $limit = IF array::len($mine) > 0 {{ $number }} ELSE {{ {_FEWEST} }};"
        f"LET $ids = (SELECT VALUE id FROM {limited(_of_group(table, _PART))} LIMIT $limit);"
        "IF array::len($mine) > 0 {"
        " DELETE $size_record RETURN NONE; DELETE $header RETURN NONE; DELETE $uneven RETURN NONE;"
        f" DELETE {_of_group(table, _ADDED)} RETURN NONE;"
        " DELETE $ids RETURN NONE };"
        "RETURN [array::len($mine), array::len($ids), count(SELECT VALUE group_id FROM $ids)]"
    )


# -- clean-up ------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def unfinished(table: str) -> str:
    """A page of the unfinished chords. Parameters: after (a group id), number, old (milliseconds).

    `[group, whether it was sent so long ago]` of each.

    Args:
        table: The table's name, prefix included.
    """
    return (
        # The group out of the id: somebody may have written anything into the fields.
        "SELECT VALUE [record::id(id)[1], "
        "IF sent_at.is_datetime() { time::millis(time::now()) - time::millis(sent_at) > $old } ELSE { true }] "
        f"FROM {limited(f'{quote(table)}:[{SIZES}, $after]>..[{SIZES}, []]')} LIMIT $number"
    )


@lru_cache(maxsize=64)
def prolong_parts(table: str) -> str:
    """Let all of a chord live as long as its size does. Parameters: group, size_record, soon (a duration).

    Args:
        table: The table's name, prefix included.
    """
    # Without a call in the condition, as in clean-up.
    return (
        "LET $soon_ends = time::now() + $soon;"
        "LET $ends = (SELECT VALUE expires_at FROM $size_record)[0];"
        f"IF $ends {{ UPDATE {_of_group(table)} SET expires_at = $ends WHERE expires_at < $soon_ends AND expires_at < $ends RETURN NONE }}"
    )


# -- reports -------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def sizes(table: str) -> str:
    """The sizes of unfinished chords. Parameters: limit.

    Two values: group, size and the time of sending of each; the database's time.

    Args:
        table: The table's name, prefix included.
    """
    return (
        # Somebody may have written anything into the fields, also what the server cannot send.
        "SELECT VALUE [record::id(id)[1], IF size.is_int() { size } ELSE { NONE }, "
        "IF sent_at.is_datetime() { sent_at } ELSE { NONE }] "
        f"FROM {limited(_range(table, str(SIZES)))} LIMIT $limit;{NOW}"
    )


@lru_cache(maxsize=64)
def present(table: str) -> str:
    """The present records of a chord. Parameters: group, limit.

    Four values: the ids of the tasks whose parts are there; those of tasks added by others; the ids of the header tasks
    and the body's name; whether the body was sent.

    Args:
        table: The table's name, prefix included.
    """
    return (
        f"SELECT VALUE task_id FROM {limited(_of_group(table, _PART))} LIMIT $limit;"
        f"SELECT VALUE task_id FROM {limited(_of_group(table, _ADDED))} LIMIT $limit;"
        f"SELECT VALUE [tasks, body_name] FROM {quote(table)}:[$group, 'header'] WHERE group_id IS NOT NONE;"
        f"SELECT VALUE done ?? false FROM {quote(table)}:[$group, 'claim'] WHERE claimant IS NOT NONE"
    )
