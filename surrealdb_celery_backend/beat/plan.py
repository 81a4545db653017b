"""The values that the agenda, the firings and the store hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..client.values import RecordID
from .entry import ScheduleEntry


@dataclass
class Planned:
    """An entry that beat keeps in mind.

    Attributes:
        record: Its record.
        entry: Its definition.
        revision: The database's digest of the definition; None for a record made before the tables
            were defined, and after a write of beat's own that changed it.
        digest: The digest of the fields that due times follow from.
        due: The next due time, or None.
        runs: How often it was fired.
        ran_at: When it ran last by its schedule, or was added.
        last_task_id: The id of the task that was sent last, or None.
        last_sent_at: When that was, or None.
    """

    record: RecordID
    entry: ScheduleEntry
    revision: str | None
    digest: str
    due: datetime | None
    runs: int
    ran_at: datetime
    last_task_id: str | None = None
    last_sent_at: datetime | None = None

    @property
    def key(self) -> str:
        """The key of the entry in the agenda."""
        return str(self.record)


@dataclass(frozen=True, eq=False)
class Firing:
    """One run of an entry that is due.

    Attributes:
        planned: The entry.
        due: The due time, or when somebody asked for the run.
        is_asked: Whether somebody asked for it, outside the schedule.
    """

    planned: Planned
    due: datetime
    is_asked: bool = False

    @property
    def is_current(self) -> bool:
        """Whether the entry is still due as planned: a run that was asked for may have been its last."""
        return self.is_asked or self.planned.due == self.due


@dataclass(frozen=True)
class Sent:
    """The consequences of a firing that was sent.

    Attributes:
        firing: The firing.
        next_due: The next due time, or None.
        is_finished: Whether it was the entry's last run.
    """

    firing: Firing
    next_due: datetime | None
    is_finished: bool


@dataclass(frozen=True)
class Plan:
    """A decision of beat about an entry, to be written to its record.

    Attributes:
        record: The entry's record.
        revision: The definition that the plan follows from; the plan of another one is void.
        due: The next due time, or None.
        digest: The digest of the fields that the due time follows from, or None for a broken entry.
        broken: The reason why the entry cannot run, or None.
        is_finished: Whether nothing is left to run.
    """

    record: RecordID
    revision: str | None
    due: datetime | None = None
    digest: str | None = None
    broken: str | None = None
    is_finished: bool = False

    def fields(self) -> dict[str, Any]:
        """Return the plan as a parameter of its statement."""
        fields = {
            "entry": self.record,
            "revision": self.revision,
            "next": self.due,
            "plan": self.digest,
            "broken": self.broken,
            "finished": self.is_finished or None,
        }
        return {name: value for name, value in fields.items() if value is not None}
