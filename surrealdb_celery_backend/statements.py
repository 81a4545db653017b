"""Every SurrealQL text of the project. Values are bound; only table names are written into a text.

What must hold for each: it means the same on SurrealDB 2 and 3. Known traps are in docs/architecture.md.
"""

from __future__ import annotations

from functools import lru_cache

#: The tables of a result backend, without their prefix.
TASK, GROUP, CHORD, KEY = "task", "group", "chord", "key"


def name(identifier: str) -> str:
    """An identifier as SurrealQL text. Backticks with doubled backslashes are read alike by 2.x and 3.x."""
    return "`" + identifier.replace("\\", "\\\\").replace("`", "\\`") + "`"


# -- schema ------------------------------------------------------------------------------------------


def define_database(namespace: str, database: str) -> str:
    """Create namespace and database where they do not exist."""
    return (
        f"DEFINE NAMESPACE IF NOT EXISTS {name(namespace)};"
        f"USE NS {name(namespace)};"
        f"DEFINE DATABASE IF NOT EXISTS {name(database)}"
    )


@lru_cache(maxsize=64)
def define_schema(prefix: str) -> str:
    """Create the tables and the indexes that clean-up follows."""
    texts = []
    for table in (TASK, GROUP, CHORD, KEY):
        full = name(prefix + table)
        texts.append(f"DEFINE TABLE IF NOT EXISTS {full} TYPE NORMAL SCHEMALESS")
        texts.append(f"DEFINE INDEX IF NOT EXISTS {table}_expires_at ON {full} FIELDS expires_at")
    texts.append(f"DEFINE INDEX IF NOT EXISTS task_date_done ON {name(prefix + TASK)} FIELDS date_done")
    return ";".join(texts)


# -- tasks -------------------------------------------------------------------------------------------

#: A result that expired counts as not there, whether or not clean-up has come by.
_ALIVE = "(expires_at IS NONE OR expires_at > time::now())"
_EXPIRED = "(expires_at IS NOT NONE AND expires_at <= time::now())"

#: Parameters: record, task. Celery's rule: a SUCCESS is final. The status, or nothing where it was not stored:
#: because of what is there, or because the user may not write, which is no error to SurrealDB.
STORE_READY_TASK = f"UPSERT $record CONTENT $task WHERE status != 'SUCCESS' OR {_EXPIRED} RETURN VALUE status"
#: Parameters: record, task. A task that has ended is not set back to running by a late message.
STORE_UNREADY_TASK = (
    "UPSERT $record CONTENT $task WHERE status NOT IN ['SUCCESS', 'FAILURE', 'REVOKED'] "
    f"OR {_EXPIRED} RETURN VALUE status"
)


@lru_cache(maxsize=256)
def store_tasks(ready: int, number: int) -> str:
    """Store several tasks in one transaction: first those that have ended, then the others.

    Parameters: record0, task0, record1, …. One value: a list with the status of each, as the two above give it.

    :param ready: how many of them have ended.
    :param number: how many there are.
    """
    stores = []
    for place in range(number):
        store = STORE_READY_TASK if place < ready else STORE_UNREADY_TASK
        store = store.replace("$record", f"$record{place}").replace("$task", f"$task{place}")
        stores.append(f"LET $stored{place} = ({store});")
    statuses = ", ".join(f"$stored{place}" for place in range(number))
    return f"{{ {' '.join(stores)} RETURN [{statuses}] }}"


#: Parameters: record, task. For the key/value interface, which knows no states.
REPLACE_TASK = "UPSERT $record CONTENT $task RETURN NONE"

#: What records.py makes a task's meta from.
TASK_FIELDS = (
    "task_id",
    "status",
    "result",
    "traceback",
    "date_done",
    "children",
    "group_id",
    "parent_id",
    "encoding",
    "extended",
    "name",
    "args",
    "kwargs",
    "worker",
    "retries",
    "queue",
    "stamps",
)
# Whatever is there but what nobody needs. For 500 records 3.0.2 takes 5 ms for this and 12 ms for an array of
# the seventeen fields, most of which are NONE.
_TASK = "* OMIT id, expires_at, root_id, reply_to"
#: Parameters: records (one RecordID, or a list of them). Those that are not there are left out.
FETCH_TASKS = f"SELECT {_TASK} FROM $records WHERE {_ALIVE}"
#: Parameters: records. Only what is finished, for those who wait for many.
FETCH_READY_TASKS = f"SELECT {_TASK} FROM $records WHERE status IN ['SUCCESS', 'FAILURE', 'REVOKED'] AND {_ALIVE}"
#: Parameters: records (one RecordID, or a list).
DELETE = "DELETE $records RETURN NONE"
#: Parameters: records, expires_at.
EXPIRE = "UPDATE $records SET expires_at = $expires_at RETURN NONE"
#: Parameters: records.
UNEXPIRE = "UPDATE $records UNSET expires_at RETURN NONE"
#: Parameters: record.
EXISTS = f"SELECT VALUE true FROM $record WHERE {_ALIVE}"


@lru_cache(maxsize=64)
def live_tasks(table: str) -> str:
    """Results for the processes that sent the tasks. Parameters: addresses (their ``reply_to``)."""
    return f"LIVE SELECT {', '.join(TASK_FIELDS)} FROM {name(table)} WHERE reply_to IN $addresses"


#: Parameters: live (the id that the LIVE statement gave).
KILL = "KILL $live"

# -- groups and the key/value interface --------------------------------------------------------------

#: Parameters: record, fields.
STORE = "UPSERT $record CONTENT $fields RETURN NONE"
#: Parameters: records.
FETCH_GROUPS = f"SELECT VALUE [group_id, result, encoding] FROM $records WHERE {_ALIVE}"
#: Parameters: records.
FETCH_KEYS = f"SELECT VALUE [key, value] FROM $records WHERE {_ALIVE}"
#: Parameters: record, key. Conflicts are retried; a store that misses them can lose one (docs/architecture.md).
#: Not ``value = (value ?? 0) + 1``: 3.0.2 takes the old value for NONE there.
INCREMENT = "UPSERT $record SET key = $key, value += 1 RETURN VALUE value"

# -- clean-up ----------------------------------------------------------------------------------------


def _delete_batch(table: str, field: str, condition: str) -> str:
    # With a call in the condition, 3.0.2 reads the index to its end. And where the table does not exist,
    # SurrealDB 3 leaves $old without a value.
    return (
        "LET $now = time::now();"
        f"LET $old = (SELECT id, {field} FROM {name(table)} WHERE {field} >= $start AND {condition} LIMIT $batch);"
        "LET $ids = $old.id ?? [];"
        "DELETE $ids RETURN NONE;"
        f"RETURN [array::len($ids), array::max($old.{field} ?? [])]"
    )


@lru_cache(maxsize=64)
def delete_expired(table: str) -> str:
    """One batch of what has expired, along the index.

    Parameters: start, batch (records). Returns how many there were, and the time of the latest. ``start`` keeps
    records without ``expires_at`` out (``NONE < $date`` is true), and, from the second batch on, spares the
    engine the way over what is deleted already: on RocksDB 250 batches of 200 took 7 s instead of 25.
    """
    return _delete_batch(table, "expires_at", "expires_at <= $now")


@lru_cache(maxsize=64)
def delete_done_before(table: str) -> str:
    """One batch of tasks done before a time, likewise. Parameters: start, batch, cutoff, spared (states)."""
    return _delete_batch(table, "date_done", "date_done < $cutoff AND status NOT IN $spared")


# -- chords ------------------------------------------------------------------------------------------
# A chord is a family of records whose ids begin with its group id:
#   [group, 'size']                            how many header tasks there are
#   [group, 'added', task]                     one more, from add_to_chord
#   [group, 'claim']                           who publishes the body
#   [group, 'uneven']                          two header tasks share an index: buckets say nothing
#   [group, 'part', bucket, index, task]       what a header task returned
# Nothing is counted up, and nobody changes another's record (DESIGN 4.14): writers never meet.


_PART, _ADDED = "'part'", "'added'"


def _range(table: str, *start: str) -> str:
    # From NONE to an array: the first and the last of what can follow in an id, on 2.x and 3.x alike.
    path = ", ".join(("$group", *start))
    return f"{name(table)}:[{path}, NONE]..[{path}, []]"


@lru_cache(maxsize=64)
def add_chord_part(table: str) -> str:
    """Keep what a header task returned, and see whether its bucket is full.

    Parameters: part (a record with its id), size, claim, uneven (RecordIDs), group, bucket. Three values: a
    list that is empty if the part is there already; ``[size, uneven, done]`` of each of the three records
    that is there; the index of every part in the bucket.
    The part is written before anything is read: of two that finish at once, the later sees the earlier.
    """
    return f"{_insert_part(table)};{_look_at_bucket(table)}"


@lru_cache(maxsize=64)
def store_ready_task_and_add_chord_part(table: str) -> str:
    """Both in one transaction, which costs little more than one of them. Parameters of both.

    The values are those of the latter, but the first is a pair of both's.

    :param table: the chord table.
    """
    both = f"{{ LET $stored = ({STORE_READY_TASK}); RETURN [$stored, ({_insert_part(table)})] }}"
    return f"{both};{_look_at_bucket(table)}"


def _insert_part(table: str) -> str:
    return f"INSERT IGNORE INTO {name(table)} $part RETURN VALUE group_index"


def _look_at_bucket(table: str) -> str:
    return (
        "SELECT VALUE [size, uneven, done] FROM [$size, $uneven, $claim];"
        f"SELECT VALUE group_index FROM {_range(table, _PART, '$bucket')}"
    )


@lru_cache(maxsize=64)
def count_chord(table: str) -> str:
    """How far a chord is. Parameters: group, size (RecordID). Three values: parts, added, ``[size]``."""
    return (
        f"RETURN count(SELECT VALUE id FROM {_range(table, _PART)});"
        f"RETURN count(SELECT VALUE id FROM {_range(table, _ADDED)});"
        "SELECT VALUE size FROM $size"
    )


#: Parameters: claim.
FETCH_CLAIM = "SELECT VALUE [claimant, done, time::millis(time::now()) - time::millis(claimed_at)] FROM $claim"
#: Parameters: claim (RecordID), claimant, expires_at. Two values: None or a failure (it is claimed); the claim read back.
CLAIM_CHORD = (
    "CREATE $claim SET claimant = $claimant, expires_at = $expires_at, claimed_at = time::now() RETURN NONE;"
    f"{FETCH_CLAIM}"
)
#: Parameters: claim, claimant, stale (the claimant that may be replaced). The claim read back is returned.
TAKE_OVER_CHORD = (
    "UPDATE $claim SET claimant = $claimant, claimed_at = time::now() WHERE claimant = $stale AND done != true RETURN NONE;"
    f"{FETCH_CLAIM}"
)


@lru_cache(maxsize=64)
def fetch_chord_parts(table: str) -> str:
    """What the header tasks returned, in header order. Parameters: group."""
    return f"SELECT task_id, status, result, encoding, group_index FROM {_range(table, _PART)}"


@lru_cache(maxsize=64)
def finish_chord(table: str) -> str:
    """The body is published: keep the claim as the mark of it, let go of the rest. Parameters: group, claim, size, uneven."""
    return (
        "UPDATE $claim SET done = true RETURN NONE;"
        "DELETE $size RETURN NONE;"
        "DELETE $uneven RETURN NONE;"
        f"DELETE {_range(table, _PART)} RETURN NONE;"
        f"DELETE {_range(table, _ADDED)} RETURN NONE"
    )


#: Parameters: size, claim, fields. A frozen chord applied again has an old claim, which is for the old run.
SET_CHORD_SIZE = "DELETE $claim RETURN NONE; UPSERT $size CONTENT $fields RETURN NONE"

# -- schedules ---------------------------------------------------------------------------------------
# Four tables beside each other:
#   schedule           the entries; an entry's id is its name, unless somebody made it by hand
#   schedule_removed   which entries were removed lately, so that beat need not look at those that exist
#   schedule_claim     one record per firing, id [due time, entry name]: whoever creates it fires
#   schedule_lease     one record per term of an active beat, id = its fencing token; the highest rules
# The database keeps two fields of an entry by itself, also where somebody edits it by hand: `revision`,
# a digest of what people decide about it, and `changed_at`, when that digest changed last. What beat
# writes down about the runs is in neither, so beat does not see its own writes as changes.

SCHEDULE, SCHEDULE_REMOVED, SCHEDULE_CLAIM, SCHEDULE_LEASE = (
    "schedule",
    "schedule_removed",
    "schedule_claim",
    "schedule_lease",
)
#: What people decide about an entry: a change of one of these is a change of the entry.
SCHEDULE_FIELDS = (
    "name",
    "task",
    "schedule",
    "timezone",
    "args",
    "kwargs",
    "options",
    "active",
    "one_off",
    "start_time",
    "expires_at",
    "max_runs",
    "description",
    "source",
)
#: The same, and the wish to run now.
SCHEDULE_DEFINITION = (*SCHEDULE_FIELDS, "run_requested_at")
_REVISION = f"crypto::md5(<string>[{', '.join(SCHEDULE_DEFINITION)}])"


@lru_cache(maxsize=64)
def define_schedules(prefix: str) -> str:
    """Create the tables of the schedules.

    The fields are worked out in the order of their names: where `changed_at` is, `revision` is still the
    old one.
    """
    entry, removed, claim, lease = (
        name(prefix + table) for table in (SCHEDULE, SCHEDULE_REMOVED, SCHEDULE_CLAIM, SCHEDULE_LEASE)
    )
    return ";".join(
        (
            *(f"DEFINE TABLE IF NOT EXISTS {table} TYPE NORMAL SCHEMALESS" for table in (entry, removed, claim, lease)),
            (
                f"DEFINE FIELD IF NOT EXISTS changed_at ON {entry} "
                f"VALUE IF $before IS NOT NONE AND revision = {_REVISION} THEN $before ELSE time::now() END"
            ),
            f"DEFINE FIELD IF NOT EXISTS revision ON {entry} VALUE {_REVISION}",
            f"DEFINE INDEX IF NOT EXISTS schedule_name ON {entry} FIELDS name UNIQUE",
            f"DEFINE INDEX IF NOT EXISTS schedule_changed_at ON {entry} FIELDS changed_at",
            f"DEFINE INDEX IF NOT EXISTS schedule_removed_at ON {removed} FIELDS removed_at",
            (
                f"DEFINE EVENT IF NOT EXISTS schedule_removed ON {entry} WHEN $event = 'DELETE' "
                f"THEN (CREATE {removed} SET entry = $before.id, removed_at = time::now())"
            ),
        )
    )


#: The database's time.
NOW = "RETURN time::now()"
#: Parameters: records.
FETCH_SCHEDULES = "SELECT * FROM $records"


@lru_cache(maxsize=64)
def load_schedules(table: str) -> str:
    """The first page of the entries. Parameters: page (how many)."""
    return f"SELECT * FROM {name(table)} ORDER BY id LIMIT $page"


@lru_cache(maxsize=64)
def load_more_schedules(table: str) -> str:
    """The page behind an entry. Parameters: page, last (RecordID)."""
    return f"SELECT * FROM {name(table)} WHERE id > $last ORDER BY id LIMIT $page"


@lru_cache(maxsize=64)
def find_schedules(table: str) -> str:
    """Entries by name, through the unique index; and by id, as a record made by hand may have no name.

    Parameters: names, records (RecordIDs of those names). Two values.
    """
    return f"SELECT * FROM {name(table)} WHERE name IN $names; SELECT * FROM $records"


@lru_cache(maxsize=64)
def changed_schedules(table: str, removed: str) -> str:
    """What changed since a time: the entries, the ids of those removed, and the database's time.

    Parameters: since. What it costs is what changed.
    """
    return (
        f"SELECT * FROM {name(table)} WHERE changed_at > $since;"
        f"SELECT VALUE entry FROM {name(removed)} WHERE removed_at > $since;"
        "RETURN time::now()"
    )


@lru_cache(maxsize=64)
def live_schedules(table: str) -> str:
    """Notifications of every write to an entry."""
    return f"LIVE SELECT * FROM {name(table)}"


@lru_cache(maxsize=256)
def write_schedule(verb: str, fields: tuple[str, ...]) -> str:
    """Set fields of an entry and say that it changed, also where the tables were made without our fields.

    Parameters: record, and each of the fields; one that is None is removed. The entry is returned.

    :param verb: ``CREATE``, ``UPDATE`` or ``UPSERT``.
    :param fields: names out of :data:`SCHEDULE_DEFINITION`, or of what beat keeps.
    """
    values = ", ".join(f"{field} = ${field}" for field in fields)
    return f"{verb} $record SET {values}, changed_at = time::now(), revision = <string>rand::uuid() RETURN AFTER"


@lru_cache(maxsize=64)
def insert_schedules(table: str) -> str:
    """Add entries; those that are there already stay as they are. Parameters: entries. The new are returned."""
    return f"INSERT IGNORE INTO {name(table)} $entries RETURN AFTER"


@lru_cache(maxsize=64)
def remove_schedules(removed: str) -> str:
    """Remove entries, with a mark of it also where our event was not defined. Parameters: records."""
    return (
        "DELETE $records RETURN NONE;"
        f"FOR $each IN $records {{ CREATE {name(removed)} SET entry = $each, removed_at = time::now() RETURN NONE }}"
    )


#: Parameters: record.
REQUEST_RUN = (
    "UPDATE $record SET run_requested_at = time::now(), changed_at = time::now(), "
    "revision = <string>rand::uuid() RETURN AFTER"
)

#: Parameters: plans (entry, revision, next, plan, broken). A plan for a definition that changed since is void.
PLAN_SCHEDULES = (
    "FOR $each IN $plans { UPDATE $each.entry SET next_run_at = $each.next, plan = $each.plan, "
    "broken = $each.broken WHERE revision = $each.revision RETURN NONE }"
)


@lru_cache(maxsize=64)
def claim_firings(claim: str, lease: str) -> str:
    """Claim firings, each by a record of its own, unless the lease is lost or the entry changed meanwhile.

    Parameters: lease (RecordID), holder, fence, firings (entry, revision, claim, due_at, task_id), claims
    (their RecordIDs). The last two values: whether the lease is held, and the claims read back.
    """
    return (
        f"LET $held = array::len(SELECT VALUE id FROM $lease WHERE holder = $holder AND until > time::now()) = 1 "
        f"AND array::len(SELECT VALUE id FROM {name(lease)} WHERE token > $fence) = 0;"
        "FOR $each IN $firings { "
        "IF $held AND (SELECT VALUE revision FROM $each.entry)[0] = $each.revision { "
        f"INSERT IGNORE INTO {name(claim)} {{ id: $each.claim, entry: $each.entry, due_at: $each.due_at, "
        "task_id: $each.task_id, holder: $holder, token: $fence, claimed_at: time::now() } "
        "} };"
        "RETURN $held;"
        # Not `SELECT id, holder …`: of a list of records 3.0.2 gives fields only as VALUE, or all of them.
        "SELECT VALUE [id, holder, token, sent_at] FROM $claims WHERE token IS NOT NONE"
    )


#: Parameters: claims, holder, fence. Those that an earlier active beat claimed and may not have sent.
TAKE_OVER_FIRINGS = (
    "UPDATE $claims SET holder = $holder, token = $fence, claimed_at = time::now() "
    "WHERE sent_at IS NONE AND token < $fence RETURN VALUE id"
)

#: One more run. What somebody made something else of counts from 0: text and all that is no number is no less
#: than a number, or less than 0.
_COUNTED = (
    "total_run_count = IF total_run_count >= 0 AND total_run_count < 9223372036854775807 "
    "THEN total_run_count + 1 ELSE 1 END"
)

#: Parameters: claims, settled (entry, due, until, next, plan, finished), asked (entry, due, until, finished).
#: Each entry counts a firing once, however often this is run. Comparing fails on no value, of whatever type.
SETTLE_FIRINGS = (
    "UPDATE $claims SET sent_at = time::now() WHERE sent_at IS NONE RETURN NONE;"
    "FOR $each IN $settled { UPDATE $each.entry SET last_run_at = time::now(), "
    f"{_COUNTED}, next_run_at = $each.next, plan = $each.plan, "
    "active = IF $each.finished THEN false ELSE active END "
    "WHERE next_run_at >= $each.due AND next_run_at < $each.until RETURN NONE };"
    "FOR $each IN $asked { UPDATE $each.entry SET last_run_at = time::now(), "
    f"{_COUNTED}, run_requested_at = NONE, "
    "active = IF $each.finished THEN false ELSE active END, "
    "next_run_at = IF $each.finished THEN NONE ELSE next_run_at END, "
    "plan = IF $each.finished THEN NONE ELSE plan END "
    "WHERE run_requested_at >= $each.due AND run_requested_at < $each.until RETURN NONE }"
)


@lru_cache(maxsize=64)
def forget_firings(claim: str, removed: str) -> str:
    """Let go of old claims and of old marks of removed entries. Parameters: before (text), cutoff.

    The id of a claim begins with its due time as text: the old ones are one range.
    """
    return (
        f"DELETE {name(claim)}:[NONE]..[$before] RETURN NONE;"
        f"DELETE {name(removed)} WHERE removed_at < $cutoff RETURN NONE"
    )


@lru_cache(maxsize=64)
def read_lease(lease: str) -> str:
    """The lease that rules, with what is left of it in microseconds, and the database's time."""
    return (
        "SELECT token, holder, host, process, time::micros(until) - time::micros(time::now()) AS left "
        f"FROM {name(lease)} ORDER BY token DESC LIMIT 1;"
        "RETURN time::now()"
    )


#: Parameters: lease (RecordID), fence, holder, host, process, length (text such as ``30000ms``).
TAKE_LEASE = (
    "CREATE $lease SET token = $fence, holder = $holder, host = $host, process = $process, "
    "taken_at = time::now(), until = time::now() + <duration>$length RETURN NONE"
)


@lru_cache(maxsize=64)
def renew_lease(lease: str) -> str:
    """Renew the lease, unless it was taken over. Parameters: lease, holder, fence, length.

    Two values: a list that is empty if it was, and the database's time.
    """
    return (
        "UPDATE $lease SET until = time::now() + <duration>$length "
        f"WHERE holder = $holder AND array::len(SELECT VALUE id FROM {name(lease)} WHERE token > $fence) = 0 "
        "RETURN VALUE token;"
        "RETURN time::now()"
    )


#: Parameters: lease, holder.
RELEASE_LEASE = "UPDATE $lease SET until = time::now() WHERE holder = $holder RETURN NONE"


@lru_cache(maxsize=64)
def forget_leases(lease: str) -> str:
    """Let go of the leases of long ago. Parameters: fence (older ones go)."""
    return f"DELETE {name(lease)} WHERE token < $fence RETURN NONE"


@lru_cache(maxsize=64)
def import_schedules(table: str) -> str:
    """Add and change entries, all or none. Parameters: added, changed (entry, fields).

    Of those that are changed every field that is not given is removed; `name` and `source` stay.
    """
    fields = (field for field in SCHEDULE_FIELDS if field not in ("name", "source"))
    values = ", ".join(f"{field} = $each.fields.{field}" for field in fields)
    changed = "changed_at = time::now(), revision = <string>rand::uuid()"
    return (
        "BEGIN;"
        f"INSERT INTO {name(table)} $added RETURN NONE;"
        f"FOR $each IN $added {{ UPDATE $each.id SET {changed} RETURN NONE }};"
        f"FOR $each IN $changed {{ UPDATE $each.entry SET {values}, {changed} RETURN NONE }};"
        "COMMIT"
    )
