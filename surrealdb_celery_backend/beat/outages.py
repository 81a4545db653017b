"""Outages of the database and of the broker: said once, with pauses that grow."""

from __future__ import annotations

import time

from celery.utils.log import get_logger

logger = get_logger("celery.beat")

#: How long beat waits before it asks again what is away, in seconds: the first time, and at most.
RETRY_FIRST, RETRY_LAST = 0.5, 5.0


class Outages:
    """The outages that last.

    Args:
        longest_pause: How long a pause may be, in seconds.
    """

    def __init__(self, longest_pause: float) -> None:
        self._longest_pause = min(longest_pause, RETRY_LAST)
        self._database_away_since: float | None = None
        self._broker_away_since: float | None = None
        self._retry_in = RETRY_FIRST

    @property
    def is_database_away(self) -> bool:
        """Whether the database did not answer the last time."""
        return self._database_away_since is not None

    @property
    def is_broker_away(self) -> bool:
        """Whether the broker took no message the last time."""
        return self._broker_away_since is not None

    def database_is_away(self, error: Exception) -> float:
        """Note that the database does not answer.

        Args:
            error: The exception.

        Returns:
            In how many seconds to ask again.
        """
        if self._database_away_since is None:
            self._database_away_since = time.monotonic()
            logger.error("beat: paused, nothing is fired until the database does its part: %s", error)
        return self._pause()

    def broker_is_away(self, error: Exception) -> float:
        """Note that the broker takes no messages.

        Args:
            error: The exception.

        Returns:
            In how many seconds to try again.
        """
        if self._broker_away_since is None:
            self._broker_away_since = time.monotonic()
            logger.error("beat: the broker does not take messages, what is due waits: %s", error)
        return self._pause()

    def over(self) -> None:
        """Note that both do their part."""
        self._retry_in = RETRY_FIRST
        for since, what in (
            (self._database_away_since, "the database answers"),
            (self._broker_away_since, "the broker takes messages"),
        ):
            if since is not None:
                logger.warning("beat: going on, %s again after %.1f s", what, time.monotonic() - since)
        self._database_away_since = self._broker_away_since = None

    def _pause(self) -> float:
        wait, self._retry_in = self._retry_in, min(2 * self._retry_in, RETRY_LAST)
        return min(wait, self._longest_pause)
