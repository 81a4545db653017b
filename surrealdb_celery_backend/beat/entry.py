"""One schedule entry: what it says, and when it is due."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo

from . import recurrence as rules
from .entry_fields import EntryFields
from .zones import exact_zone, instant_of


class ScheduleEntry(EntryFields):
    """A periodic task: what runs, when, and what beat knows about its runs.

    Its fields are those of :class:`~surrealdb_celery_backend.beat.entry_fields.EntryFields`.
    """

    @property
    def is_finished(self) -> bool:
        """Whether it has run as often as it may."""
        return self.max_runs is not None and self.total_run_count >= self.max_runs

    def recurrence(self, default_zone: tzinfo, now: datetime | None = None) -> rules.Recurrence:
        """Return the rule that says when the entry is due.

        Args:
            default_zone: The app's zone, for an entry that names none.
            now: The time, for a schedule that is kept in code; this host's if left out.
        """
        if self.schedule_in_code is not None:
            return rules.InCode(self.schedule_in_code, exact_zone(default_zone), now)
        # Built once for an entry, which beat asks for it several times a tick.
        kept: tuple[tzinfo, rules.Recurrence] | None = self.__dict__.get("_rule")
        if kept is None or kept[0] is not default_zone:
            kept = (default_zone, rules.recurrence(self.schedule, self.zone(default_zone), self.start_time))
            object.__setattr__(self, "_rule", kept)
        return kept[1]

    def first_due(self, since: datetime, default_zone: tzinfo, now: datetime | None = None) -> datetime | None:
        """Return when the entry is due first.

        Args:
            since: The time it was added, changed or resumed; earlier due times are past.
            default_zone: The app's zone.
            now: The time (see :meth:`recurrence`).

        Returns:
            An instant in UTC, or `None` if it is never due again.
        """
        if not self.active or self.is_finished:
            return None
        start = self._instant(self.start_time, default_zone)
        if self.run_at_once and self.last_run_at is None and self.total_run_count == 0:
            return self._unless_expired(max(since, start or since).astimezone(timezone.utc), default_zone)
        anchor = start or self.last_run_at or self.changed_at or since
        if start is not None and start > since:
            since = start - timedelta(microseconds=1)
        return self._unless_expired(self.recurrence(default_zone, now).due_after(since, anchor), default_zone)

    def due_after(
        self, due: datetime, since: datetime, default_zone: tzinfo, now: datetime | None = None
    ) -> datetime | None:
        """Return when the entry is due after a due time.

        Args:
            due: The due time that was served; an interval counts from it.
            since: Due times up to this moment are passed over.
            default_zone: The app's zone.
            now: The time (see :meth:`recurrence`).

        Returns:
            An instant in UTC, or `None` if it is never due again.
        """
        # A due firing may not be allowed to run yet: it is not passed over before it ran.
        since -= timedelta(seconds=self.jitter or 0)
        following = self.recurrence(default_zone, now).due_after(max(due, since), due)
        return self._unless_expired(following, default_zone)

    def fires_at(self, due: datetime) -> datetime:
        """Return when a run is sent: with a jitter later than it is due.

        How much later follows from the entry's name and the due time, so that every beat says the same.

        Args:
            due: An instant at which the entry is due.

        Returns:
            An instant in UTC, up to `jitter` seconds after `due`, and before the entry expires.
        """
        if not self.jitter:
            return due
        digest = hashlib.blake2s(f"{self.name}\n{due.astimezone(timezone.utc).isoformat()}".encode(), digest_size=7)
        fraction = int.from_bytes(digest.digest(), "big") / 2**56
        fires_at = due + timedelta(seconds=self.jitter * fraction)
        end = self.expires_at
        return due if end is not None and end.tzinfo is not None and fires_at >= end else fires_at

    def _instant(self, moment: datetime | None, default_zone: tzinfo) -> datetime | None:
        return None if moment is None else instant_of(moment, self.zone(default_zone))

    def _unless_expired(self, due: datetime | None, default_zone: tzinfo) -> datetime | None:
        end = self._instant(self.expires_at, default_zone)
        return None if due is None or (end is not None and due >= end) else due

    def next_runs(self, count: int, after: datetime, default_zone: tzinfo) -> list[datetime]:
        """Return when the next runs are sent.

        Args:
            count: How many at most.
            after: An aware datetime; they are later.
            default_zone: The app's zone.
        """
        return list(self.localized(default_zone)._next_runs(count, after, default_zone))

    def _next_runs(self, count: int, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        if self.one_off:
            count = min(count, 1)
        if self.max_runs is not None:
            count = min(count, self.max_runs - self.total_run_count)
        if self.has_ended(zone):
            return
        due = self.next_run_at if self.active and self.planned == self.plan(zone) else None
        if due is None or self.fires_at(due) <= after:
            due = self.first_due(after, zone)
        while due is not None and count > 0:
            yield self.fires_at(due)
            count -= 1
            due = self.due_after(due, due, zone)

    def has_ended(self, default_zone: tzinfo) -> bool:
        """Return whether beat said that nothing is left to run, and nobody changed that since.

        Args:
            default_zone: The app's zone.
        """
        # Of any other entry the due times themselves say whether one is left.
        is_for_good = self.one_off or "clocked" in self.schedule
        return self.finished and is_for_good and self.planned == self.plan(default_zone)

    def plan(self, default_zone: tzinfo) -> str:
        """Return a digest of what its due times follow from.

        A stored `next_run_at` holds for as long as this is the same.

        Args:
            default_zone: The app's zone.
        """
        parts = [
            sorted(self.schedule.items()),
            str(self.zone(default_zone)),
            str(self._instant(self.start_time, default_zone)),
            str(self._instant(self.expires_at, default_zone)),
            self.max_runs,
            self.active,
            # Not at all where it is not set: plans that were written before this field hold.
            *(["run_at_once"] if self.run_at_once else []),
        ]
        return hashlib.blake2s(repr(parts).encode(), digest_size=8).hexdigest()
