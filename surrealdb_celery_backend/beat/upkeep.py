"""Old claims and marks of removed entries are removed, so that their tables stay small."""

from __future__ import annotations

import time
from datetime import timedelta

from celery.utils.log import get_logger

from ..errors import PermissionDenied
from .clock import Clock
from .lease import Lease
from .store import Store

logger = get_logger("celery.beat")

#: How long the claim of a firing is kept after the firing was due, in seconds.
CLAIMS_KEPT = 3600

#: How long it is remembered that an entry was removed, in seconds.
REMOVALS_KEPT = 86400

#: How often old claims and removals are cleaned up, in seconds.
CLEAN_UP_EVERY = 300


class Upkeep:
    """The clean-up of beat's own tables.

    Args:
        store: The database.
        lease: The lease of this beat; without it nothing is removed.
        clock: The clock that beat goes by.
    """

    def __init__(self, store: Store, lease: Lease, clock: Clock) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._next = 0.0

    def rest(self) -> None:
        """Have the next clean-up be due a whole interval from now."""
        self._next = time.monotonic() + CLEAN_UP_EVERY

    def run(self) -> None:
        """Clean up, if it is time."""
        if time.monotonic() >= self._next:
            self.clean_up()

    def clean_up(self) -> None:
        """Remove what is old, in bounded batches."""
        self.rest()
        now = self._clock.now()
        claims_before = now - timedelta(seconds=max(CLAIMS_KEPT, 10 * self._lease.length))
        removals_before = now - timedelta(seconds=REMOVALS_KEPT)
        try:
            while self._store.claims.forget(claims_before) and self._lease.is_held:
                pass
            while self._store.entries.forget_removals(removals_before) and self._lease.is_held:
                pass
        except PermissionDenied as error:
            logger.warning("beat: old claims and marks of removed entries stay: %s", error)
