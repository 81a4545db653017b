"""Every SurrealQL text of the schedules. Values are bound; only table names are written into a text.

What must hold for each: it means the same on SurrealDB 2 and 3. Known traps are in docs/architecture.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from ..client.surrealql import describe_table, limited, quote

# Four tables beside each other:
#   schedule           the entries; an entry's id is its name, unless somebody made it by hand
#   schedule_removed   which entries were removed lately, so that beat need not look at those that exist
#   schedule_claim     one record per firing, id [due time, entry name]: its creator fires
#   schedule_lease     one record per term of an active beat, id = its fencing token; the highest rules
# The database keeps three fields of an entry by itself, also where somebody edits it by hand: `revision`,
# a digest of what people decide about it, `changed_at`, when that digest changed last, and `changed_by`:
# the name that the write gave as `edited_by` (which is never kept), else the database's user. What beat
# writes down about the runs is in none of them, so beat does not see its own writes as changes.

SCHEDULE, SCHEDULE_REMOVED, SCHEDULE_CLAIM, SCHEDULE_LEASE = (
    "schedule",
    "schedule_removed",
    "schedule_claim",
    "schedule_lease",
)
SCHEDULE_TABLES = (SCHEDULE, SCHEDULE_REMOVED, SCHEDULE_CLAIM, SCHEDULE_LEASE)
#: Fields that people decide: a change of one of these is a change of the entry.
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
    "jitter",
    "run_at_once",
    "no_overlap",
    "description",
    "source",
)
#: The same, the wish to run now, and that beat has nothing left to run, which people may take back.
SCHEDULE_DEFINITION = (*SCHEDULE_FIELDS, "run_requested_at", "finished")
#: Who writes: as the write says, else the record user, else the system user.
_EDITOR = "(edited_by ?? (IF $auth IS NOT NONE THEN <string>$auth ELSE $token.ID END))"
_REVISION = f"crypto::md5(<string>[{', '.join(SCHEDULE_DEFINITION)}])"
#: The fields that the database keeps by itself.
_KEPT = {
    "changed_at": f"IF $before IS NOT NONE AND revision = {_REVISION} THEN $before ELSE time::now() END",
    "changed_by": f"IF $before IS NOT NONE AND revision = {_REVISION} THEN $before ELSE {_EDITOR} END",
    "edited_by": "NONE",
    "revision": _REVISION,
}


@lru_cache(maxsize=64)
def define_schedules(prefix: str) -> str:
    """Create the tables of the schedules.

    The fields are worked out in the order of their names: where `changed_at` and `changed_by` are, `revision`
    is still the old one and `edited_by` is still what the write says.

    Args:
        prefix: The beginning of the tables' names.
    """
    entry, removed, claim, lease = (
        quote(prefix + table) for table in (SCHEDULE, SCHEDULE_REMOVED, SCHEDULE_CLAIM, SCHEDULE_LEASE)
    )
    return ";".join(
        (
            *(f"DEFINE TABLE IF NOT EXISTS {table} TYPE NORMAL SCHEMALESS" for table in (entry, removed, claim, lease)),
            *(f"DEFINE FIELD IF NOT EXISTS {name} ON {entry} VALUE {value}" for name, value in _KEPT.items()),
            f"DEFINE INDEX IF NOT EXISTS schedule_name ON {entry} FIELDS name UNIQUE",
            f"DEFINE INDEX IF NOT EXISTS schedule_changed_at ON {entry} FIELDS changed_at",
            f"DEFINE INDEX IF NOT EXISTS schedule_removed_at ON {removed} FIELDS removed_at",
            (
                f"DEFINE EVENT IF NOT EXISTS schedule_removed ON {entry} WHEN $event = 'DELETE' "
                f"THEN (CREATE {removed} SET entry = $before.id, removed_at = time::now())"
            ),
        )
    )


@lru_cache(maxsize=64)
def describe_schedules(prefix: str) -> str:
    """The definitions of the table of entries, for :func:`are_current`.

    Args:
        prefix: The beginning of the tables' names.
    """
    return describe_table(prefix + SCHEDULE)


def are_current(info: object) -> bool:
    """Return whether the fields that the database keeps follow from all that people decide.

    Args:
        info: The value of :func:`describe_schedules`.
    """
    fields = info.get("fields") if isinstance(info, Mapping) else None
    if not isinstance(fields, Mapping):
        return True  # nothing that can be read: leave it as it is
    names = set(re.findall(r"\w+", str(fields.get("revision", ""))))
    return names.issuperset(SCHEDULE_DEFINITION) and set(_KEPT) <= set(fields)


@lru_cache(maxsize=64)
def redefine_schedules(prefix: str) -> str:
    """Bring the fields that an earlier version of this package defined up to date.

    Args:
        prefix: The beginning of the tables' names.
    """
    entry = quote(prefix + SCHEDULE)
    return ";".join(f"DEFINE FIELD OVERWRITE {name} ON {entry} VALUE {value}" for name, value in _KEPT.items())


#: Parameters: records.
FETCH_SCHEDULES = "SELECT * FROM $records"
#: The fields that are read of records that cannot be sent whole.
NAMING_FIELDS = ("id", "name", "revision", "broken")
#: Parameters: records. The values of `NAMING_FIELDS` of those that exist.
FETCH_NAMES = f"SELECT VALUE [{', '.join(NAMING_FIELDS)}] FROM $records WHERE id IS NOT NONE"


@lru_cache(maxsize=64)
def load_schedules(table: str, *, only_ids: bool = False) -> str:
    """The first page of the entries. Parameters: page (how many).

    Args:
        table: The table's name, prefix included.
        only_ids: Whether to give ids instead of records.
    """
    return f"SELECT {_selected(only_ids)} FROM {quote(table)} ORDER BY id LIMIT $page"


@lru_cache(maxsize=64)
def load_more_schedules(table: str, *, only_ids: bool = False) -> str:
    """The page behind an entry. Parameters: page, last (RecordID).

    Args:
        table: The table's name, prefix included.
        only_ids: Whether to give ids instead of records.
    """
    return f"SELECT {_selected(only_ids)} FROM {quote(table)} WHERE id > $last ORDER BY id LIMIT $page"


def _selected(only_ids: bool) -> str:
    return "VALUE id" if only_ids else "*"


@lru_cache(maxsize=64)
def find_schedules(table: str, *, only_ids: bool = False) -> str:
    """Entries by name, through the unique index; and by id, as a record made by hand may have no name.

    Parameters: names, records (RecordIDs of those names). Two values.

    Args:
        table: The table's name, prefix included.
        only_ids: Whether to give ids instead of records.
    """
    what = _selected(only_ids)
    return f"SELECT {what} FROM {quote(table)} WHERE name IN $names; SELECT {what} FROM $records"


@lru_cache(maxsize=64)
def changed_schedules(table: str, removed: str, *, only_ids: bool = False) -> str:
    """Changes since a time: the entries, the ids of those removed, and the database's time.

    Parameters: since. The cost follows from the number of changes.

    Args:
        table: The table's name, prefix included.
        removed: The table of marks of removed entries, prefix included.
        only_ids: Whether to give the entries' ids instead of their records.
    """
    return (
        f"SELECT {_selected(only_ids)} FROM {quote(table)} WHERE changed_at > $since;"
        f"SELECT VALUE entry FROM {quote(removed)} WHERE removed_at > $since;"
        "RETURN time::now()"
    )


@lru_cache(maxsize=64)
def live_schedules(table: str) -> str:
    """Notifications of every write to an entry.

    Args:
        table: The table's name, prefix included.
    """
    return f"LIVE SELECT * FROM {quote(table)}"


#: Marks an entry as changed, also where the tables were made without our fields. Parameters: by.
_CHANGED = "changed_at = time::now(), changed_by = $by, edited_by = $by, revision = <string>rand::uuid()"


@lru_cache(maxsize=256)
def write_schedule(verb: str, fields: tuple[str, ...]) -> str:
    """Set fields of an entry and say that it changed, also where the tables were made without our fields.

    Parameters: record, by (who changes it), and each of the fields; one that is None is removed. The entry is
    returned.

    Args:
        verb: `CREATE`, `UPDATE` or `UPSERT`.
        fields: Names out of :data:`SCHEDULE_DEFINITION`, or of the fields that beat keeps.
    """
    values = ", ".join(f"{field} = ${field}" for field in fields)
    return f"{verb} $record SET {values}, {_CHANGED} RETURN AFTER"


@lru_cache(maxsize=64)
def insert_schedules(table: str) -> str:
    """Add entries; those that are there already stay as they are. Parameters: entries. The new are returned.

    Args:
        table: The table's name, prefix included.
    """
    return f"INSERT IGNORE INTO {quote(table)} $entries RETURN AFTER"


_TAKEN = ", ".join(f"{name} = $each.fields.{name}" for name in SCHEDULE_FIELDS if name not in ("name", "source"))
#: Parameters: taken (entry, revision, fields, code, by), entries. An entry that was edited since it was read stays as it
#: is. Fields that are not given are removed. The last value: the entries read back.
TAKE_CODE = (
    f"FOR $each IN $taken {{ UPDATE $each.entry SET {_TAKEN}, code = $each.code, edited_by = $each.by ?? changed_by "
    "WHERE revision = $each.revision RETURN NONE };"
    "SELECT * FROM $entries WHERE id IS NOT NONE"
)


@lru_cache(maxsize=64)
def remove_schedules(removed: str) -> str:
    """Remove entries, with a mark of it also where our event was not defined.

    Parameters: records. The last two values: the ids of the marks, and of the entries that are still there.

    Args:
        removed: The table of marks of removed entries, prefix included.
    """
    return (
        "DELETE $records RETURN NONE;"
        "LET $at = time::now();"
        "LET $marks = array::map($records, |$each| { entry: $each, removed_at: $at });"
        f"INSERT INTO {quote(removed)} $marks RETURN VALUE id;"
        "SELECT VALUE id FROM $records WHERE id IS NOT NONE"
    )


#: Parameters: record, by.
REQUEST_RUN = f"UPDATE $record SET run_requested_at = time::now(), {_CHANGED} RETURN AFTER"

#: Parameters: plans (entry, revision, next, plan, broken, finished), entries. A plan for a definition that changed since is
#: void. The last value: the plans as they are stored, because a FOR does not say what its statements did.
PLAN_SCHEDULES = (
    "FOR $each IN $plans { UPDATE $each.entry SET next_run_at = $each.next, plan = $each.plan, "
    "broken = $each.broken, finished = $each.finished, edited_by = changed_by "
    "WHERE revision = $each.revision RETURN NONE };"
    "SELECT VALUE [id, revision, plan, broken] FROM $entries WHERE id IS NOT NONE"
)


@lru_cache(maxsize=64)
def claim_firings(claim: str, lease: str) -> str:
    """Claim firings, each by a record of its own, unless the lease is lost or the entry changed meanwhile.

    Parameters: lease (RecordID), holder, fence, firings (entry, revision, claim, due_at, task_id), claims
    (their RecordIDs). The last two values: whether the lease is held, and the claims read back.

    Args:
        claim: The table of claims, prefix included.
        lease: The table of leases, prefix included.
    """
    return (
        f"LET $held = array::len(SELECT VALUE id FROM $lease WHERE holder = $holder AND until > time::now()) = 1 "
        f"AND array::len(SELECT VALUE id FROM {quote(lease)} WHERE token > $fence) = 0;"
        "FOR $each IN $firings { "
        "IF $held AND (SELECT VALUE revision FROM $each.entry)[0] = $each.revision { "
        f"INSERT IGNORE INTO {quote(claim)} {{ id: $each.claim, entry: $each.entry, due_at: $each.due_at, "
        "task_id: $each.task_id, holder: $holder, token: $fence, claimed_at: time::now() } "
        "} };"
        "RETURN $held;"
        # Not `SELECT id, holder …`: of a list of records 3.0.2 gives fields only as VALUE, or all of them.
        "SELECT VALUE [id, holder, token, sent_at] FROM $claims WHERE token IS NOT NONE"
    )


@lru_cache(maxsize=64)
def read_firings(claim: str) -> str:
    """Read claims of a span of due times. Parameters: since, until (text, behind every name), name or NONE.

    Args:
        claim: The table of claims, prefix included.
    """
    return (
        "SELECT VALUE [record::id(id)[1], due_at, claimed_at, sent_at, task_id] "
        f"FROM {quote(claim)}:[$since]..[$until] WHERE $name IS NONE OR record::id(id)[1] = $name"
    )


#: The table of the results, which says whether the run before one still runs.
TASK = "task"
#: Parameters: records. Pairs of id and state.
TASK_STATES = "SELECT VALUE [task_id, status] FROM $records WHERE status IS NOT NONE"

#: Parameters: claims, holder, fence. Those that an earlier active beat claimed and may not have sent. The last
#: value: the claims read back.
TAKE_OVER_FIRINGS = (
    "UPDATE $claims SET holder = $holder, token = $fence, claimed_at = time::now() "
    "WHERE sent_at IS NONE AND token < $fence RETURN NONE;"
    "SELECT VALUE [id, holder, token, sent_at] FROM $claims WHERE token IS NOT NONE"
)

#: One more run. What somebody made something else of counts from 0: text and all that is no number is no less
#: than a number, or less than 0.
_COUNTED = (
    "total_run_count = IF total_run_count >= 0 AND total_run_count < 9223372036854775807 "
    "THEN total_run_count + 1 ELSE 1 END"
)

#: Parameters: claims, settled (entry, due, until, next, plan, finished), asked (entry, due, until, finished),
#: entries. Each entry counts a firing once, however often this is run. Comparing fails on no value, of whatever
#: type. The last two values: claims and entries read back.
SETTLE_FIRINGS = (
    "UPDATE $claims SET sent_at = time::now() WHERE sent_at IS NONE RETURN NONE;"
    "FOR $each IN $settled { UPDATE $each.entry SET last_run_at = time::now(), "
    f"{_COUNTED}, next_run_at = $each.next, plan = $each.plan, "
    "last_task_id = $each.task_id, finished = IF $each.finished THEN true ELSE NONE END, edited_by = changed_by "
    "WHERE next_run_at >= $each.due AND next_run_at < $each.until RETURN NONE };"
    "FOR $each IN $asked { UPDATE $each.entry SET last_run_at = time::now(), "
    # Serving the wish changes the revision, and is no edit of anybody's.
    f"{_COUNTED}, run_requested_at = NONE, edited_by = changed_by, last_task_id = $each.task_id, "
    "finished = IF $each.finished THEN true ELSE finished END, "
    "next_run_at = IF $each.finished THEN NONE ELSE next_run_at END, "
    "plan = IF $each.finished THEN $each.plan ELSE plan END "
    "WHERE run_requested_at >= $each.due AND run_requested_at < $each.until RETURN NONE };"
    "SELECT VALUE [id, sent_at] FROM $claims WHERE token IS NOT NONE;"
    "SELECT VALUE [id, next_run_at, run_requested_at] FROM $entries WHERE id IS NOT NONE"
)


@lru_cache(maxsize=64)
def forget_firings(claim: str) -> str:
    """Let go of some old claims. Parameters: before (text), batch. The last two values: how many, and how many stay.

    The id of a claim begins with its due time as text: the old ones are one range.

    Args:
        claim: The table of claims, prefix included.
    """
    return _forget(limited(f"{quote(claim)}:[NONE]..[$before]"))


@lru_cache(maxsize=64)
def forget_removals(removed: str) -> str:
    """Let go of some old marks of removed entries. Parameters: before, batch. Values as of :func:`forget_firings`.

    Args:
        removed: The table of marks of removed entries, prefix included.
    """
    return _forget(f"{quote(removed)} WHERE removed_at < $before")


def _forget(what: str) -> str:
    return (
        f"LET $old = (SELECT VALUE id FROM {what} LIMIT $batch);"
        "DELETE $old RETURN NONE;"
        "RETURN array::len($old);"
        "RETURN array::len((SELECT VALUE id FROM $old WHERE id IS NOT NONE))"
    )


@lru_cache(maxsize=64)
def read_lease(lease: str) -> str:
    """The lease that rules, and the database's time.

    Args:
        lease: The table of leases, prefix included.
    """
    return f"SELECT token, holder, host, process, app, taken_at, until FROM {quote(lease)} ORDER BY token DESC LIMIT 1;RETURN time::now()"


#: Parameters: lease (RecordID), fence, holder, host, process, app, length (text such as ``30000ms``).
TAKE_LEASE = (
    "CREATE $lease SET token = $fence, holder = $holder, host = $host, process = $process, app = $app, "
    "taken_at = time::now(), until = time::now() + <duration>$length RETURN VALUE id"
)


@lru_cache(maxsize=64)
def renew_lease(lease: str) -> str:
    """Renew the lease, unless it was taken over. Parameters: lease, holder, fence, length.

    Three values: a list that is empty if it was, the lease that rules, and the database's time.

    Args:
        lease: The table of leases, prefix included.
    """
    return (
        "UPDATE $lease SET until = time::now() + <duration>$length "
        f"WHERE holder = $holder AND array::len(SELECT VALUE id FROM {quote(lease)} WHERE token > $fence) = 0 "
        "RETURN VALUE token;"
        f"SELECT token, holder FROM {quote(lease)} ORDER BY token DESC LIMIT 1;"
        "RETURN time::now()"
    )


#: Parameters: lease, holder.
RELEASE_LEASE = "UPDATE $lease SET until = time::now() WHERE holder = $holder RETURN NONE"


@lru_cache(maxsize=64)
def forget_leases(lease: str) -> str:
    """Let go of the leases of long ago. Parameters: fence (older ones go). The last value: one that stays.

    Args:
        lease: The table of leases, prefix included.
    """
    return (
        f"DELETE {quote(lease)} WHERE token < $fence RETURN NONE;"
        f"SELECT VALUE id FROM {quote(lease)} WHERE token < $fence LIMIT 1"
    )


@lru_cache(maxsize=64)
def import_schedules(table: str) -> str:
    """Add and change entries, all or none. Parameters: added, changed (entry, fields), by.

    Of those that are changed every field that is not given is removed; `name` and `source` stay.

    Args:
        table: The table's name, prefix included.
    """
    fields = (field for field in SCHEDULE_FIELDS if field not in ("name", "source"))
    values = ", ".join(f"{field} = $each.fields.{field}" for field in fields)
    return (
        "BEGIN;"
        f"INSERT INTO {quote(table)} $added RETURN NONE;"
        f"FOR $each IN $added {{ UPDATE $each.id SET {_CHANGED} RETURN NONE }};"
        f"FOR $each IN $changed {{ UPDATE $each.entry SET {values}, {_CHANGED} RETURN NONE }};"
        "COMMIT"
    )
