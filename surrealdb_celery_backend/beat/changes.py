"""How beat learns of changes: by a LIVE query where the database has them, and by a look every so often."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from celery.utils.log import get_logger

from .. import errors
from ..client.connection import Connection
from ..client.transport import Transport
from ..client.values import EPOCH
from ..settings import Settings
from . import statements
from .clock import Clock
from .store import Changes, Store

logger = get_logger("celery.beat")

#: How far back changes are looked for again, in seconds: a change is dated when it is made and seen
#: when it is committed.
OVERLAP = 10


class ChangeFeed:
    """The changes of the entries since the last look.

    Args:
        store: The database.
        clock: The clock that is told the database's time.
        is_news: Whether a record of which a notification tells says anything new.
    """

    def __init__(self, store: Store, clock: Clock, is_news: Callable[[Mapping[str, Any]], bool]) -> None:
        self._store = store
        self._settings: Settings = store.settings
        self._clock = clock
        self._is_news = is_news
        self._push: Connection | None = None
        self._live: Transport | None = None
        #: Whether a notification told of a change that was not read yet.
        self._is_told = False
        #: The database's time of the last look.
        self._read_at = EPOCH
        self._next_look = 0.0

    @property
    def is_live(self) -> bool:
        """Whether changes are told as they are made."""
        return self._live is not None

    @property
    def due_in(self) -> float:
        """Seconds until the next look; not above 0 if it is due."""
        return 0.0 if self._is_told else self._next_look - time.monotonic()

    def start(self) -> None:
        """Begin to follow changes. Reads from now on are as new as they are."""
        # Listen first, then read, so that nothing that changes in between is missed.
        self._listen()
        self._read_at = self._store.now()
        self._next_look = time.monotonic() + self._settings.beat_sync_every

    def look_at_once(self) -> None:
        """Have the next look be due now."""
        self._next_look = 0.0

    def read(self) -> Changes:
        """Return the changes since the last look; costs what changed, however many entries there are."""
        self._is_told = False
        changes = self._store.entries.changed(self._read_at - timedelta(seconds=OVERLAP))
        self._clock.observe(changes.now, changes.asked_at, changes.answered_at)
        self._read_at = changes.now
        self._next_look = time.monotonic() + self._settings.beat_sync_every
        if not self.is_live:
            self._listen()
        return changes

    def wait(self, seconds: float) -> None:
        """Wait for a notification.

        Args:
            seconds: How long at most.
        """
        if seconds <= 0 or self._live is None:
            return
        try:
            self._live.listen(seconds)
        except OSError as error:
            logger.debug("beat: the connection that tells of changes is lost: %s", error)
            self.stop()
            # Opened again, and what was missed is read, at once.
            self.look_at_once()

    def stop(self) -> None:
        """End the LIVE query."""
        push, self._push, self._live = self._push, None, None
        if push is not None:
            push.close()

    def _listen(self) -> None:
        if self._settings.live == "off" or self._live is not None:
            return
        self.stop()
        push = Connection(self._settings.options, on_notification=self._on_notification)
        try:
            transport = push.transport
            if not transport.live:
                raise errors.LiveNotSupported
            push.run(statements.live_schedules(self._settings.table(statements.SCHEDULE)))
        except errors.SurrealDBBackendError as error:
            push.close()
            if self._settings.live == "on" and not isinstance(error, errors.TransientError):
                raise
            logger.debug("beat: changes are looked for every %g s: %s", self._settings.beat_sync_every, error)
            return
        self._push, self._live = push, transport

    def _on_notification(self, notification: dict[str, Any]) -> None:
        record = notification.get("result")
        if notification.get("action") in ("CREATE", "UPDATE") and isinstance(record, Mapping):
            self._is_told = self._is_told or self._is_news(record)
        else:
            self._is_told = True
