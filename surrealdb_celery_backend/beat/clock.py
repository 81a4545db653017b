"""The time that beat goes by: the database's, so that differences between hosts do not matter."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Protocol

from ..client.values import EPOCH


class Clock(Protocol):
    """The scheduler's source of time."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        ...  # pragma: no cover

    def observe(self, moment: datetime, asked_at: float, answered_at: float) -> None:
        """Take in the database's time.

        Args:
            moment: The database's time.
            asked_at: This process's monotonic clock when the question was sent, in seconds.
            answered_at: The same clock when the answer came.
        """
        ...  # pragma: no cover


class DatabaseClock:
    """The database's time, told between two answers by this process's monotonic clock."""

    def __init__(self) -> None:
        #: The offset to the monotonic clock, in seconds; the host's own time until the database answers.
        self._offset = time.time() - time.monotonic()

    def now(self) -> datetime:
        """Return the database's time, in UTC."""
        return EPOCH + timedelta(seconds=time.monotonic() + self._offset)

    def observe(self, moment: datetime, asked_at: float, answered_at: float) -> None:
        """See :class:`Clock`."""
        self._offset = (moment - EPOCH).total_seconds() - (asked_at + answered_at) / 2
