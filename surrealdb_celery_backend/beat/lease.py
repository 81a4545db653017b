"""One active beat: a lease in the database, with a fencing token.

Each term of an active beat is a record of its own whose id is the token. Whoever
creates the next id has the lease; the highest token rules. The database's clock
decides when a lease has run out, so clocks of hosts do not matter; this process's
monotonic clock only ever makes it give up earlier.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass

from celery.utils.log import get_logger

from .. import statements
from ..connection import Connection
from ..errors import LeaseLost
from ..failures import Failure
from ..values import RecordID
from .clock import Clock

logger = get_logger(__name__)

#: A lease is renewed when this part of it has passed.
RENEW_AFTER = 1 / 3

#: How many past leases are kept, to see who was active before.
PAST_LEASES = 10

#: How long past the end of another's lease a standby looks, in seconds.
GRACE = 0.01


@dataclass(frozen=True)
class Holder:
    """Who has the lease.

    :param token: its fencing token.
    :param host: the host's name.
    :param process: the process id.
    :param left: how long it still holds, in seconds; not above 0 when it ran out.
    """

    token: int
    host: str
    process: int
    left: float


class Lease:
    """The lease of one beat process.

    :param connection: where the lease is kept.
    :param length: how long it holds without being renewed, in seconds.
    :param clock: is told the database's time.
    """

    def __init__(self, connection: Connection, length: float, clock: Clock) -> None:
        self.length = length
        #: Who we are, to the database: unique per process and per object.
        self.holder = str(uuid.uuid4())
        #: Our fencing token while we have the lease, else None.
        self.token: int | None = None
        self._connection = connection
        self._clock = clock
        self._table = connection.settings.table(statements.SCHEDULE_LEASE)
        #: When the last successful renewal was sent, by the monotonic clock.
        self._renewed_at = 0.0

    @property
    def record(self) -> RecordID:
        """The record of our term."""
        return RecordID(self._table, self.token)

    @property
    def is_held(self) -> bool:
        """Whether the lease is certainly ours, without asking the database."""
        return self.token is not None and self._age() < self.length

    @property
    def renew_in(self) -> float:
        """Seconds until the lease should be renewed."""
        return self.length * RENEW_AFTER - self._age()

    def _age(self) -> float:
        return time.monotonic() - self._renewed_at

    def take(self) -> Holder | None:
        """Take the lease if nobody has it.

        :returns: ``None`` if it is ours now, else who has it.
        :raises SurrealDBBackendError: if the database does not do its part.
        """
        ruling = self._read()
        if ruling is not None and ruling.left > 0:
            return ruling
        token = 1 if ruling is None else ruling.token + 1
        asked_at = time.monotonic()
        outcome = self._connection.attempt(
            statements.TAKE_LEASE,
            lease=RecordID(self._table, token),
            fence=token,
            holder=self.holder,
            host=socket.gethostname(),
            process=os.getpid(),
            length=self._length_text,
        )[-1]
        # Read back, whatever the reply was: on some stores more than one can be told
        # that it created the record, but only one is in it.
        rows = self._connection.run_all(statements.read_lease(self._table))[0] or []
        if rows and rows[0]["holder"] == self.holder:
            self.token = token
            self._renewed_at = asked_at
            self._connection.run(statements.forget_leases(self._table), fence=token - PAST_LEASES)
            return None
        if not rows and isinstance(outcome, Failure):
            raise outcome.exception("taking the schedule lease")
        return self._holder(rows[0]) if rows else self.take()

    def renew(self) -> None:
        """Renew the lease.

        :raises LeaseLost: if another process took it over.
        :raises SurrealDBBackendError: if the database does not do its part.
        """
        asked_at = time.monotonic()
        renewed, now = self._connection.run_all(
            statements.renew_lease(self._table),
            lease=self.record,
            fence=self.token,
            holder=self.holder,
            length=self._length_text,
        )
        self._clock.observe(now, asked_at, time.monotonic())
        if not renewed:
            self.token = None
            raise LeaseLost
        self._renewed_at = asked_at

    def give_up(self) -> None:
        """Stop counting on the lease, because the database said that it is not ours."""
        self.token = None

    def release(self) -> None:
        """Give the lease back, so that a standby need not wait for its end."""
        if self.token is None:
            return
        self._connection.run(statements.RELEASE_LEASE, lease=self.record, holder=self.holder)
        self.token = None

    def _read(self) -> Holder | None:
        asked_at = time.monotonic()
        rows, now = self._connection.run_all(statements.read_lease(self._table))
        self._clock.observe(now, asked_at, time.monotonic())
        return self._holder(rows[0]) if rows else None

    @staticmethod
    def _holder(row: dict[str, object]) -> Holder:
        left = row.get("left")
        return Holder(
            token=int(str(row["token"])),
            host=str(row.get("host")),
            process=int(str(row.get("process") or 0)),
            left=left / 1e6 if isinstance(left, int) else 0.0,
        )

    @property
    def _length_text(self) -> str:
        # As text with a unit: the two SDKs have no common type for a duration.
        return f"{round(self.length * 1000)}ms"
