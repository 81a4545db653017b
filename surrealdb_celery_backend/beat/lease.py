"""One active beat: a lease in the database, with a fencing token.

Each term of an active beat is a record of its own whose id is the token. The process
that creates the next id has the lease; the highest token rules. The database's clock
decides when a lease has run out, so clocks of hosts do not matter; this process's
monotonic clock only ever makes it give up earlier.
"""

from __future__ import annotations

import os
import socket
import time
import uuid

from celery.utils.log import get_logger

from ..client.values import RecordID
from ..errors import LeaseLost, PermissionDenied
from .clock import Clock
from .store import LeaseRow, LeaseStore

logger = get_logger("celery.beat")

#: A lease is renewed when this part of it has passed.
RENEW_AFTER = 1 / 3

#: Past leases that are kept, as a history of active beats.
PAST_LEASES = 10

#: How long past the end of another's lease a standby looks, in seconds.
GRACE = 0.01


class Lease:
    """The lease of one beat process.

    Args:
        store: The table of the leases.
        length: How long the lease holds without being renewed, in seconds.
        clock: The clock that is told the database's time.
        app: The name of this beat's app, for others to see.
    """

    def __init__(self, store: LeaseStore, length: float, clock: Clock, app: str | None = None) -> None:
        self.length = length
        self.app = app
        #: The holder's name to the database: unique per process and per object.
        self.holder = str(uuid.uuid4())
        #: The fencing token while the lease is held, else None.
        self.token: int | None = None
        self._store = store
        self._clock = clock
        #: When the last successful renewal was sent, by the monotonic clock.
        self._renewed_at = 0.0

    @property
    def record(self) -> RecordID:
        """The record of the current term."""
        return self._store.record(self.token)

    @property
    def is_held(self) -> bool:
        """Whether the lease is certainly held, without asking the database."""
        return self.token is not None and self._age() < self.length

    @property
    def renew_in(self) -> float:
        """Seconds until the lease should be renewed."""
        return self.length * RENEW_AFTER - self._age()

    def _age(self) -> float:
        return time.monotonic() - self._renewed_at

    def take(self) -> LeaseRow | None:
        """Take the lease if it is free.

        Returns:
            None if it is held now, else the lease of another process.

        Raises:
            SurrealDBBackendError: The database does not do its part.
        """
        reading = self._store.read()
        self._clock.observe(reading.now, reading.asked_at, reading.answered_at)
        ruling = reading.row
        if ruling is not None and ruling.left > 0:
            return ruling
        token = 1 if ruling is None else ruling.token + 1
        asked_at = time.monotonic()
        ruling = self._store.take(token, self.holder, socket.gethostname(), os.getpid(), self.length, app=self.app)
        if ruling.holder != self.holder:
            return ruling
        self.token = token
        self._renewed_at = asked_at
        try:
            self._store.forget(token - PAST_LEASES)
        except PermissionDenied as error:
            logger.warning("beat: past leases stay: %s", error)
        return None

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLost: Another process took it over.
            SurrealDBBackendError: The database does not do its part.
        """
        renewal = self._store.renew(self.token, self.holder, self.length)
        self._clock.observe(renewal.now, renewal.asked_at, renewal.answered_at)
        if not renewal.is_held:
            self.token = None
            raise LeaseLost
        self._renewed_at = renewal.asked_at

    def give_up(self) -> None:
        """Stop counting on the lease, because the database said that it is lost."""
        self.token = None

    def release(self) -> None:
        """Give the lease back, so that a standby need not wait for its end."""
        if self.token is None:
            return
        self._store.release(self.token, self.holder)
        self.token = None
