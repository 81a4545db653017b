"""The table of the claims: one record per firing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ...client.connection import Connection
from ...client.values import RecordID
from ...settings import Settings
from .. import statements
from .rights import denied

#: Claims removed in one request.
FORGET_AT_ONCE = 1000

#: How far back the first request for the last firings looks, and how far all of them.
FIRST_SPAN, LONGEST_KEPT = timedelta(minutes=2), timedelta(days=1)


@dataclass(frozen=True)
class Claim:
    """The claim of one firing, to be written.

    Attributes:
        record: Its id, made of due time and name.
        entry: The record of the entry.
        revision: The definition that is fired; a claim for another one is refused.
        due: The due time.
        task_id: The id of the task that is sent.
    """

    record: RecordID
    entry: RecordID
    revision: str | None
    due: datetime
    task_id: str


@dataclass(frozen=True)
class Claimed:
    """A claim as it is stored.

    Attributes:
        record: Its id.
        holder: The unique id of the beat that has it.
        token: The fencing token of that beat.
        is_sent: Whether the task was sent.
    """

    record: RecordID
    holder: str
    token: int
    is_sent: bool


@dataclass(frozen=True)
class Firing:
    """One run of an entry, as beat keeps it for an hour.

    Attributes:
        name: The entry's name.
        due_at: When it was due.
        claimed_at: When a beat took it on, by the database's clock.
        sent_at: When its task was sent; None where that is not known, because beat went away or its task was not sent.
        task_id: The id of its task.
        state: The state of the task among the results; None where it has no record.
    """

    name: str
    due_at: datetime
    claimed_at: datetime
    sent_at: datetime | None
    task_id: str
    state: str | None


@dataclass(frozen=True)
class Settled:
    """A firing that was sent, for the record of its entry.

    Attributes:
        claim: The id of the claim.
        entry: The record of the entry.
        due: The due time.
        is_asked: Whether somebody asked for the run, outside the schedule.
        is_finished: Whether it was the entry's last run.
        digest: The digest of the fields that due times follow from.
        next_due: The next due time, or None.
        task_id: The id of the task that was sent.
    """

    claim: RecordID
    entry: RecordID
    due: datetime
    is_asked: bool
    is_finished: bool
    digest: str
    next_due: datetime | None = None
    task_id: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the firing as a parameter of its statement."""
        fields: dict[str, Any] = {
            "entry": self.entry,
            # A time of ours has microseconds, one of the database's may have more.
            "due": self.due,
            "until": self.due + timedelta(microseconds=1),
            "finished": self.is_finished,
            "plan": self.digest,
            "task_id": self.task_id,
        }
        if self.next_due is not None:
            fields["next"] = self.next_due
        return fields


class ClaimStore:
    """The table of the claims.

    Args:
        connection: The session to use.
        settings: The names of the tables, and of the user.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._table = self._settings.table(statements.SCHEDULE_CLAIM)
        self._entries = self._settings.table(statements.SCHEDULE)
        self._leases = self._settings.table(statements.SCHEDULE_LEASE)

    def record(self, due: datetime, name: str) -> RecordID:
        """Return the id of the claim of a firing; ids sort by due time.

        Args:
            due: The due time of the firing, aware.
            name: The entry's name.
        """
        text = due.astimezone(timezone.utc).isoformat(timespec="microseconds")
        return RecordID(self._table, [text, name])

    def claim(self, claims: Sequence[Claim], *, token: int | None, holder: str) -> list[Claimed] | None:
        """Claim firings, except those of entries that changed since.

        Args:
            claims: The claims to write.
            token: The fencing token of the lease.
            holder: The unique id of its holder.

        Returns:
            The claims as they are stored, also those of other beats; None if the lease is not held.
        """
        *_, held, found = self._connection.run_all(
            statements.claim_firings(self._table, self._leases),
            lease=RecordID(self._leases, token),
            holder=holder,
            fence=token,
            firings=[
                {
                    "entry": claim.entry,
                    "revision": claim.revision,
                    "claim": claim.record,
                    "due_at": claim.due,
                    "task_id": claim.task_id,
                }
                for claim in claims
            ],
            claims=[claim.record for claim in claims],
        )
        return _claimed(found) if held else None

    def refused(self) -> Exception:
        """Return the error for claims that were not written although their entries are unchanged."""
        return denied(self._settings, "create and select", self._table)

    def take_over(self, claims: Sequence[RecordID], *, token: int | None, holder: str) -> list[Claimed]:
        """Take over claims that an earlier active beat may not have sent.

        Args:
            claims: The ids of the claims.
            token: The fencing token of the lease.
            holder: The unique id of its holder.

        Returns:
            The claims as they are stored afterwards.

        Raises:
            PermissionDenied: The user may not update claims.
        """
        _, found = self._connection.run_all(
            statements.TAKE_OVER_FIRINGS, claims=list(claims), holder=holder, fence=token
        )
        claimed = _claimed(found)
        if any(not claim.is_sent and claim.token < (token or 0) for claim in claimed):
            raise denied(self._settings, "update", self._table)
        return claimed

    def settle(self, settled: Sequence[Settled]) -> None:
        """Write down that firings were sent. Each entry counts a firing once, however often this is called.

        Args:
            settled: The firings.

        Raises:
            PermissionDenied: The user may not update claims or entries.
        """
        *_, claims, entries = self._connection.run_all(
            statements.SETTLE_FIRINGS,
            claims=[firing.claim for firing in settled],
            settled=[firing.fields() for firing in settled if not firing.is_asked],
            asked=[firing.fields() for firing in settled if firing.is_asked],
            entries=[firing.entry for firing in settled],
        )
        if any(sent_at is None for _, sent_at in claims or []):
            raise denied(self._settings, "update", self._table)
        times = {str(entry): (next_run_at, requested_at) for entry, next_run_at, requested_at in entries or []}
        for firing in settled:
            next_run_at, requested_at = times.get(str(firing.entry), (None, None))
            if (requested_at if firing.is_asked else next_run_at) == firing.due:
                raise denied(self._settings, "update", self._entries)

    def states(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Return the states of tasks, of those that have a record among the results.

        Args:
            task_ids: The ids of the tasks; as many as firings are sent at once.
        """
        table = self._settings.table(statements.TASK)
        records = [RecordID(table, task_id) for task_id in task_ids]
        found = self._connection.run(statements.TASK_STATES, records=records) or []
        return {str(task_id): str(status) for task_id, status in found}

    def firings(self, name: str | None, now: datetime, limit: int) -> list[Firing]:
        """Return the last firings, the latest due first.

        They are looked for in spans of time that grow, from now back.

        Args:
            name: An entry's name; None for all entries.
            now: The time.
            limit: How many at most.
        """
        rows: list[Any] = []
        until, length = now + FIRST_SPAN, FIRST_SPAN
        while len(rows) < limit and now - until < LONGEST_KEPT:
            since = until - length
            found = self._connection.run(
                statements.read_firings(self._table), since=_behind(since), until=_behind(until), name=name
            )
            rows += sorted(found or [], key=lambda row: (row[1], row[0]), reverse=True)
            until, length = since, length * 4
        rows = rows[:limit]
        states = self.states([row[4] for row in rows if row[4]]) if rows else {}
        return [
            Firing(name, due_at, claimed_at, sent_at, task_id, states.get(task_id))
            for name, due_at, claimed_at, sent_at, task_id in rows
        ]

    def forget(self, before: datetime) -> bool:
        """Remove some of the old claims.

        Args:
            before: Claims of firings that were due before this go.

        Returns:
            Whether there may be more.

        Raises:
            PermissionDenied: The user may not delete claims.
        """
        *_, gone, left = self._connection.run_all(
            statements.forget_firings(self._table),
            before=before.astimezone(timezone.utc).isoformat(timespec="microseconds"),
            batch=FORGET_AT_ONCE,
        )
        if left:
            raise denied(self._settings, "delete", self._table)
        return bool(gone == FORGET_AT_ONCE)


def _behind(due: datetime) -> str:
    """A text behind the due time of every claim up to a time, with which their ids begin, and before all later ones."""
    return due.astimezone(timezone.utc).isoformat(timespec="microseconds") + "~"


def _claimed(rows: Any) -> list[Claimed]:
    return [Claimed(record, holder, token, sent_at is not None) for record, holder, token, sent_at in rows or []]
