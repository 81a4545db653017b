"""The agenda: which entries are due when. It knows no database and no clock of its own."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from celery.utils.log import get_logger

from ..client.values import RecordID
from ..errors import InvalidSchedule
from . import recurrence as rules
from .entry import ScheduleEntry
from .in_code import Code
from .plan import Firing, Plan, Planned, Sent
from .records import entry_of, record_name

logger = get_logger("celery.beat")

#: The shortest time after which a schedule class that was not due is asked again.
ASK_AGAIN = timedelta(seconds=1)

#: Outdated due times that are kept beside twice the number of entries.
MOST_OUTDATED = 100


@dataclass(frozen=True)
class _Broken:
    """An entry that was found broken; kept so that each reason is logged once.

    Attributes:
        reason: Why it cannot run.
        revision: The definition that is broken.
    """

    reason: str
    revision: str | None


class Agenda:
    """The entries that beat keeps in mind, and the order in which they are due.

    It is fed with records, gives what is due, is told what was sent, and collects the plans
    that have to be written to the records. All its answers follow from what it was told.

    Args:
        zone: The app's time zone.
        catch_up: How far back every due time that was missed is made up for; of older ones one is.
        starting_deadline: How late a crontab's run may be (Celery's `beat_cron_starting_deadline`), or None.
        check: Raises InvalidSchedule for an entry that cannot run in this app.
        is_foreign: Whether a record belongs to the code of another app, and is not run here.
    """

    def __init__(
        self,
        zone: tzinfo,
        *,
        catch_up: timedelta,
        starting_deadline: timedelta | None = None,
        check: Callable[[ScheduleEntry], None] | None = None,
        is_foreign: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        #: The entries of the app's code.
        self.code = Code()
        self._zone = zone
        self._catch_up = catch_up
        self._starting_deadline = starting_deadline
        self._check = check
        self._is_foreign = is_foreign
        self._planned: dict[str, Planned] = {}
        self._names: dict[str, str] = {}
        #: By when it is sent: an order, the key and the due time. Outdated ones stay until they are met.
        self._due: list[tuple[datetime, int, str, datetime]] = []
        self._order = itertools.count()
        self._asked: dict[str, datetime] = {}
        self._plans: list[Plan] = []
        #: The broken entries, by key.
        self._broken: dict[str, _Broken] = {}

    # -- entries ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._planned)

    @property
    def size(self) -> int:
        """How many due times are kept, the outdated ones included."""
        return len(self._due)

    @property
    def entries(self) -> dict[str, ScheduleEntry]:
        """The entries, by name."""
        return {planned.entry.name: planned.entry for planned in self._planned.values()}

    def clear(self) -> None:
        """Forget every entry and plan."""
        for container in (self._planned, self._names, self._due, self._asked, self._plans):
            container.clear()

    def is_news(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record says anything that the agenda does not know yet.

        Args:
            record: The record as it is stored now.
        """
        key = str(record.get("id"))
        revision = record.get("revision")
        known = self._planned.get(key)
        if known is not None:
            return known.revision != revision
        broken = self._broken.get(key)
        if broken is None or broken.revision != revision:
            return True
        # In tables that were made without the field, the revision of what is edited by hand says nothing.
        return revision is None and bool(record.get("broken") != broken.reason)

    def feed(self, record: Mapping[str, Any], now: datetime) -> None:
        """Take in an entry that was added or changed. One that is broken is marked and left out.

        Args:
            record: The record as it is stored.
            now: The time.
        """
        key = str(record["id"])
        broken = self._broken.get(key)
        self.forget(key)
        if self._is_foreign is not None and self._is_foreign(record):
            return
        name = record_name(record)
        try:
            if self._names.get(name, key) != key:
                raise InvalidSchedule(f"name holds {name!r}, which is another entry's too")
            entry = entry_of(record, self._zone, self.code.entries.get(name))
            if self._check is not None:
                self._check(entry)
            digest = entry.plan(self._zone)
            has_ended = entry.has_ended(self._zone)
            is_planned = entry.planned == digest and entry.broken is None
            is_planned = is_planned and (has_ended or entry.next_run_at is not None or not entry.active)
            due = entry.next_run_at if is_planned else self.first_due(entry, now)
            if has_ended:
                due = None
        except InvalidSchedule as error:
            if broken is not None:
                self._broken[key] = broken
            # Of an entry that code gets wrong the record is only a stand-in.
            reason = self.code.mistakes.get(name, str(error))
            self._mark_broken(record["id"], name, record.get("revision"), reason)
            return
        ran_at = min(entry.last_run_at or entry.changed_at or now, now)
        planned = Planned(record["id"], entry, record.get("revision"), digest, due, entry.total_run_count, ran_at)
        last = record.get("last_task_id")
        if isinstance(last, str):
            planned.last_task_id, planned.last_sent_at = last, entry.last_run_at
        self._planned[key] = planned
        self._names[name] = key
        if entry.run_requested_at is not None:
            self._asked[key] = entry.run_requested_at
        self._push(planned)
        if not is_planned:
            self._plan(planned)

    def forget(self, key: str) -> None:
        """Drop an entry that was removed.

        Args:
            key: The id of its record, as text.
        """
        planned = self._planned.pop(key, None)
        self._asked.pop(key, None)
        self._broken.pop(key, None)
        if planned is not None and self._names.get(planned.entry.name) == key:
            del self._names[planned.entry.name]

    def first_due(self, entry: ScheduleEntry, now: datetime) -> datetime | None:
        """Return when an entry is due that was added or changed.

        Args:
            entry: The entry.
            now: The time.

        Raises:
            InvalidSchedule: A schedule class of the project's failed.
        """
        since = entry.changed_at or now
        if "clocked" not in entry.schedule:
            since = max(since, now - self._catch_up)
        try:
            return entry.first_due(since, self._zone, now)
        except InvalidSchedule:
            raise
        except Exception as error:  # a schedule class of the project's may raise anything
            raise InvalidSchedule(_no_next_run(error)) from error

    def take_plans(self) -> list[Plan]:
        """Return the plans that are to be written, and forget them."""
        plans, self._plans = self._plans, []
        return plans

    # -- what is due ------------------------------------------------------------------------------

    def next_at(self) -> datetime | None:
        """Return when the next run is to be sent, or None if none is planned."""
        while self._due:
            fires_at, _, key, due = self._due[0]
            if self._is_up_to_date(key, due):
                return fires_at
            heapq.heappop(self._due)
        return None

    def is_anything_due(self, now: datetime) -> bool:
        """Return whether a run is due or was asked for.

        Args:
            now: The time.
        """
        following = self.next_at()
        return bool(self._asked) or (following is not None and following <= now)

    def take_due(self, now: datetime, most: int) -> list[Firing]:
        """Take due firings off the agenda. Put back those that are not sent.

        Args:
            now: The time.
            most: How many firings at most.

        Returns:
            The firings, those that were asked for first, then by due time.
        """
        firings = [
            Firing(self._planned[key], due, is_asked=True) for key, due in itertools.islice(self._asked.items(), most)
        ]
        while self._due and self._due[0][0] <= now and len(firings) < most:
            _, _, key, due = heapq.heappop(self._due)
            if not self._is_up_to_date(key, due):
                continue  # it was changed or removed since
            planned = self._planned[key]
            if (
                self._is_over(planned, due, now)
                or self._is_too_late(planned, due, now)
                or self._is_not_due_yet(planned, now)
            ):
                continue
            firings.append(Firing(planned, due))
        return firings

    def put_back(self, firing: Firing) -> None:
        """Put a firing back that was not sent.

        Args:
            firing: The firing.
        """
        if not firing.is_asked and firing.is_current:
            self._push(firing.planned)

    def _is_over(self, planned: Planned, due: datetime, now: datetime) -> bool:
        """End an entry that expired between a due time and now, when beat was away."""
        expires_at = planned.entry.expires_at
        if expires_at is None or now < expires_at:
            return False
        logger.info("beat: entry %r expired at %s: its run due at %s is left out", planned.entry.name, expires_at, due)
        planned.due = None
        self._plan(planned)
        return True

    def _is_too_late(self, planned: Planned, due: datetime, now: datetime) -> bool:
        """Pass over what Celery's `beat_cron_starting_deadline` says is not made up for."""
        entry, deadline = planned.entry, self._starting_deadline
        if deadline is None or now - entry.fires_at(due) <= deadline:
            return False
        if not isinstance(entry.recurrence(self._zone), rules.Crontab):
            return False
        planned.due = entry.due_after(due, now - deadline, self._zone)
        self._push(planned)
        self._plan(planned)
        return True

    def _is_not_due_yet(self, planned: Planned, now: datetime) -> bool:
        """Ask a schedule class of the project's again, which may wait for something."""
        rule = planned.entry.recurrence(self._zone, now)
        if not isinstance(rule, rules.InCode):
            return False
        try:
            ask_at = rule.not_before(planned.ran_at)
        except Exception as error:  # it may raise anything
            planned.due = None
            self._mark_broken(planned.record, planned.entry.name, planned.revision, _no_next_run(error))
            return True
        if ask_at is None:
            return False
        planned.due = max(ask_at, now + ASK_AGAIN)
        self._push(planned)
        self._plan(planned)
        return True

    # -- what became of it ------------------------------------------------------------------------

    def may_be_last(self, firing: Firing) -> bool:
        """Return whether a firing is the entry's last one, should its count of runs still be right.

        Args:
            firing: The firing.
        """
        limit = firing.planned.entry.max_runs
        return limit is not None and firing.planned.runs + 1 >= limit

    def sent(self, firing: Firing, now: datetime, runs: int | None = None) -> Sent:
        """Plan what follows a firing that was sent.

        Args:
            firing: The firing.
            now: The time.
            runs: How often the entry ran, this run included, if the database was asked.

        Returns:
            The fields to write to the record.
        """
        planned = firing.planned
        entry = planned.entry
        revision = planned.revision
        was_broken = self._broken.pop(planned.key, None) is not None
        planned.runs = planned.runs + 1 if runs is None else runs
        has_run_enough = entry.max_runs is not None and planned.runs >= entry.max_runs
        if firing.is_asked:
            self._asked.pop(planned.key, None)
            if has_run_enough:
                planned.due = planned.revision = None
            sent = Sent(firing, None, has_run_enough)
        else:
            sent = self._sent_as_planned(firing, now, has_run_enough)
        if was_broken and planned.due is not None:
            self._plan(planned, revision)
        return sent

    def _sent_as_planned(self, firing: Firing, now: datetime, has_run_enough: bool) -> Sent:
        planned = firing.planned
        entry = planned.entry
        is_broken = False
        following = None
        try:
            following = entry.due_after(firing.due, now - self._catch_up, self._zone, now)
        except Exception as error:  # a schedule class of the project's may raise anything
            is_broken = True
            self._mark_broken(planned.record, entry.name, planned.revision, _no_next_run(error))
        if entry.one_off or has_run_enough:
            following = None
        is_finished = following is None and not is_broken
        if is_finished:
            # Writing that changes the record's revision: every later read of it is a change.
            planned.revision = None
        planned.due, planned.ran_at = following, firing.due
        self._push(planned)
        return Sent(firing, following, is_finished)

    def leave_out(self, firing: Firing, now: datetime) -> None:
        """Pass over a firing because the run before it still runs.

        Args:
            firing: The firing; not one that somebody asked for.
            now: The time.
        """
        planned = firing.planned
        try:
            planned.due = planned.entry.due_after(firing.due, now, self._zone, now)
        except Exception as error:  # a schedule class of the project's may raise anything
            planned.due = None
            self._mark_broken(planned.record, planned.entry.name, planned.revision, _no_next_run(error))
            return
        self._push(planned)
        self._plan(planned)

    def not_sent(self, firing: Firing, reason: str, now: datetime) -> None:
        """Mark an entry that could not be sent, and plan the next attempt: the obstacle may be gone by then.

        Args:
            firing: The firing.
            reason: Why it could not be sent.
            now: The time.
        """
        planned = firing.planned
        self._mark_broken(planned.record, planned.entry.name, planned.revision, reason)
        if firing.is_asked:
            self._asked.pop(planned.key, None)
        else:
            try:
                planned.due = planned.entry.due_after(firing.due, now, self._zone, now)
            except Exception:  # a schedule class of the project's may raise anything
                planned.due = None
            planned.ran_at = firing.due
            self._push(planned)
        if planned.due is not None:
            self._plans[-1] = dataclasses.replace(self._plans[-1], due=planned.due, digest=planned.digest)

    # -- inside -----------------------------------------------------------------------------------

    def _push(self, planned: Planned) -> None:
        if planned.due is not None:
            fires_at = planned.entry.fires_at(planned.due)
            heapq.heappush(self._due, (fires_at, next(self._order), planned.key, planned.due))
        if len(self._due) > 2 * len(self._planned) + MOST_OUTDATED:
            # An entry that is fed again and again would leave an outdated due time each time.
            self._due = [each for each in self._due if self._is_up_to_date(each[2], each[3])]
            heapq.heapify(self._due)

    def _is_up_to_date(self, key: str, due: datetime) -> bool:
        planned = self._planned.get(key)
        return planned is not None and planned.due == due

    def _plan(self, planned: Planned, revision: str | None = None) -> None:
        is_finished = planned.due is None and planned.entry.active
        self._plans.append(
            Plan(
                planned.record,
                revision or planned.revision,
                planned.due,
                planned.digest,
                is_finished=is_finished,
            )
        )

    def _mark_broken(self, record: RecordID, name: str, revision: str | None, reason: str) -> None:
        known = self._broken.get(str(record))
        if known is None or known.reason != reason:
            logger.error("beat: entry %r is broken and does not run: %s", name, reason)
        self._broken[str(record)] = _Broken(reason, revision)
        self._plans.append(Plan(record, revision, broken=reason))


def _no_next_run(error: Exception) -> str:
    return f"schedule cannot say its next run: {error!r}"
