"""The table of the leases."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from ...client.connection import Connection
from ...client.failures import Failure
from ...client.values import RecordID
from ...errors import RecordExists
from ...settings import Settings
from .. import statements
from .rights import denied


@dataclass(frozen=True)
class LeaseRow:
    """The lease that rules.

    Attributes:
        token: Its fencing token.
        holder: The unique id of the holder.
        host: The holder's host name.
        process: The holder's process id.
        left: The time until it runs out, in seconds; not above 0 when it has.
        app: The name of the holder's app, or None.
        taken_at: When the term began, or None.
    """

    token: int
    holder: str
    host: str
    process: int
    left: float
    app: str | None = None
    taken_at: datetime | None = None


@dataclass(frozen=True)
class LeaseReading:
    """The answer of the database about the lease.

    Attributes:
        row: The lease that rules, or None if there is none.
        now: The database's time when it answered.
        asked_at: This process's monotonic clock when it asked, in seconds.
        answered_at: The same when the answer came.
    """

    row: LeaseRow | None
    now: datetime
    asked_at: float
    answered_at: float


@dataclass(frozen=True)
class Renewal:
    """The answer of the database to a renewal.

    Attributes:
        is_held: Whether the lease was renewed.
        now: The database's time when it answered.
        asked_at: This process's monotonic clock when it asked, in seconds.
        answered_at: The same when the answer came.
    """

    is_held: bool
    now: datetime
    asked_at: float
    answered_at: float


class LeaseStore:
    """The table of the leases: one record for each term of an active beat.

    Args:
        connection: The session to use.
        settings: The names of the tables, and of the user.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._table = self._settings.table(statements.SCHEDULE_LEASE)

    def record(self, token: int | None) -> RecordID:
        """Return the id of the record of a term.

        Args:
            token: The number of the term.
        """
        return RecordID(self._table, token)

    def read(self) -> LeaseReading:
        """Return the lease that rules."""
        asked_at = time.monotonic()
        rows, now = self._connection.run_all(statements.read_lease(self._table))
        row = None
        if rows:
            values = rows[0]
            until = values.get("until")
            row = LeaseRow(
                token=int(str(values["token"])),
                holder=str(values.get("holder")),
                host=str(values.get("host")),
                process=int(str(values.get("process") or 0)),
                left=(until - now).total_seconds() if isinstance(until, datetime) else 0.0,
                app=values.get("app") if isinstance(values.get("app"), str) else None,
                taken_at=values.get("taken_at") if isinstance(values.get("taken_at"), datetime) else None,
            )
        return LeaseReading(row, now, asked_at, time.monotonic())

    def take(
        self, token: int, holder: str, host: str, process: int, length: float, *, app: str | None = None
    ) -> LeaseRow:
        """Try to begin a term.

        Args:
            token: The term's fencing token.
            holder: The unique id of the holder.
            host: The holder's host name.
            process: The holder's process id.
            length: How long it holds without being renewed, in seconds.
            app: The name of the holder's app.

        Returns:
            The lease that rules afterwards, read back whatever the reply was: on some stores more than one
            process can be told that it created the record, but only one is in it.

        Raises:
            PermissionDenied: The user may not create or not read records.
        """
        outcome = self._connection.attempt(
            statements.TAKE_LEASE,
            lease=self.record(token),
            fence=token,
            holder=holder,
            host=host,
            process=process,
            app=app,
            length=_duration(length),
        )[-1]
        if isinstance(outcome, Failure) and outcome.error is not RecordExists:
            raise outcome.exception("taking the schedule lease")
        row = self.read().row
        if row is None or row.token < token:
            # Neither this term nor a later one: nothing was written, or what was written cannot be read.
            raise denied(self._settings, "select" if outcome else "create", self._table)
        return row

    def renew(self, token: int | None, holder: str, length: float) -> Renewal:
        """Renew a term, unless a later one began.

        Args:
            token: The term's fencing token.
            holder: The unique id of the holder.
            length: How long it holds from now on, in seconds.

        Returns:
            Whether the lease was renewed, and when the database said so.

        Raises:
            PermissionDenied: The user may not update records.
        """
        asked_at = time.monotonic()
        renewed, ruling, now = self._connection.run_all(
            statements.renew_lease(self._table),
            lease=self.record(token),
            fence=token,
            holder=holder,
            length=_duration(length),
        )
        answered_at = time.monotonic()
        if not renewed and ruling == [{"token": token, "holder": holder}]:
            raise denied(self._settings, "update", self._table)
        return Renewal(bool(renewed), now, asked_at, answered_at)

    def release(self, token: int | None, holder: str) -> None:
        """End a term, so that a standby need not wait for its end.

        Args:
            token: The term's fencing token.
            holder: The unique id of the holder.
        """
        self._connection.run(statements.RELEASE_LEASE, lease=self.record(token), holder=holder)

    def forget(self, before: int) -> None:
        """Remove the records of past terms.

        Args:
            before: Those with lower tokens go.

        Raises:
            PermissionDenied: The user may not delete records.
        """
        if self._connection.run(statements.forget_leases(self._table), fence=before):
            raise denied(self._settings, "delete", self._table)


def _duration(seconds: float) -> str:
    # As text with a unit: the two SDKs have no common type for a duration.
    return f"{round(seconds * 1000)}ms"
