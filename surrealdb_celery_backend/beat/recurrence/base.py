"""The interface of every rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta


class Recurrence(ABC):
    """A rule that says when an entry is due."""

    @abstractmethod
    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first due time after a moment.

        Args:
            moment: An aware datetime; the answer is strictly later.
            anchor: Where an interval counts from; the other kinds ignore it.

        Returns:
            An instant in UTC, or `None` if there is none any more.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return the rule in a few words, for tables and logs."""


def whole_second(moment: datetime) -> datetime:
    """Return the first whole second that is not before a moment.

    Args:
        moment: A time, aware.
    """
    return moment.replace(microsecond=0) + timedelta(seconds=1 if moment.microsecond else 0)
