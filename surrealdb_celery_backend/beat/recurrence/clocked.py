"""Single times."""

from __future__ import annotations

from datetime import datetime, timezone

from .base import Recurrence


class Clocked(Recurrence):
    """Once, at a given time.

    Args:
        at: An instant.
    """

    def __init__(self, at: datetime) -> None:
        self.at = at.astimezone(timezone.utc)

    def due_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return self.at if self.at > moment else None

    def describe(self) -> str:
        return f"at {self.at.isoformat(timespec='seconds')}"
