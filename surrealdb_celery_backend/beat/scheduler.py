"""``celery beat -S surrealdb``: fires what is due, as the only active one of any number."""

from __future__ import annotations

import heapq
import itertools
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.beat import Scheduler, SchedulingError
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError

from .. import errors, statements
from ..connection import Connection
from ..errors import InvalidSchedule, LeaseLost, SurrealDBBackendError
from ..values import RecordID
from . import recurrence as rules
from .clock import EPOCH, Clock, DatabaseClock
from .entry import ScheduleEntry, firing_id, record_name
from .in_code import check_task, checked_entries, code_entries, settings_of
from .lease import GRACE, RENEW_AFTER, Holder, Lease

logger = get_logger("celery.beat")

#: How many firings are claimed and settled at once.
FIRINGS_AT_ONCE = 100

#: How many entries are read at once.
PAGE = 5000

#: How many entries are written at once.
WRITES_AT_ONCE = 500

#: How far back an entry that changed is looked for again, in seconds: a change is
#: dated when it is made and seen when it is committed.
OVERLAP = 10

#: How long the claim of a firing is kept after the firing was due, in seconds.
CLAIMS_KEPT = 3600

#: How long it is remembered that an entry was removed, in seconds.
REMOVALS_KEPT = 86400

#: How often old claims and removals are cleaned up, in seconds.
CLEAN_UP_EVERY = 300

#: How long beat waits before it asks a database or a broker that is away again, in seconds.
RETRY_FIRST, RETRY_LAST = 0.5, 5.0

#: What a retry may help with; anything else at the start is a mistake in the settings.
OUTAGES = (
    errors.ConnectionFailed,
    errors.SessionEnded,
    errors.WriteConflict,
    errors.ServerOutOfOrder,
)

#: What no retry helps with, at no time: mistakes in the code.
NO_OUTAGES = (errors.ConnectionClosed, InvalidSchedule)


@dataclass
class Planned:
    """An entry that beat keeps in mind.

    :param record: its record.
    :param entry: its definition.
    :param revision: which definition that is, as the database says; ``None`` for a
        record made before the tables were defined.
    :param due: when it is due next, or ``None``.
    :param runs: how often it was fired.
    :param ran_at: when it ran last by its schedule, or was added.
    """

    record: RecordID
    entry: ScheduleEntry
    revision: str | None
    due: datetime | None
    runs: int
    ran_at: datetime


@dataclass
class Firing:
    """One run of an entry that is due.

    :param planned: the entry.
    :param due: when it is due.
    :param asked: whether somebody asked for it, outside the schedule.
    :param claim: the record that claims it.
    :param task_id: the id of the task that is sent.
    """

    planned: Planned
    due: datetime
    asked: bool
    claim: RecordID
    task_id: str


class BrokerAway(Exception):
    """The message broker does not take messages."""


class SurrealDBScheduler(Scheduler):
    """Schedules kept in SurrealDB.

    Any number of beats may run: one is active, the others stand by. See docs/scheduling.md.

    :param app: the Celery app.
    :param clock: what tells the time; the database's clock if left out.
    """

    def __init__(self, app: Celery, *args: Any, clock: Clock | None = None, **kwargs: Any) -> None:
        self.settings = settings_of(app)
        self.clock: Clock = clock or DatabaseClock()
        self.database = Connection(self.settings, define=False)
        self.lease = Lease(self.database, self.settings.beat_lease, self.clock)
        self.catch_up = timedelta(seconds=max(self.settings.beat_catch_up, 2 * self.settings.beat_lease))
        self._tables = {
            table: self.settings.table(table)
            for table in (
                statements.SCHEDULE,
                statements.SCHEDULE_REMOVED,
                statements.SCHEDULE_CLAIM,
                statements.SCHEDULE_LEASE,
            )
        }
        self._whole_name = "/".join(
            (self.settings.namespace, self.settings.database, self._tables[statements.SCHEDULE])
        )
        self._is_defined = not self.settings.define_schema
        #: Whether a tick is under way.
        self._is_busy = False
        #: Whether the entries are loaded and the lease was taken.
        self._is_active = False
        self._planned: dict[str, Planned] = {}
        self._names: dict[str, str] = {}
        self._due: list[tuple[datetime, int, str]] = []
        self._order = itertools.count()
        self._asked: dict[str, datetime] = {}
        self._in_code: dict[str, ScheduleEntry] = {}
        self._mistakes: dict[str, str] = {}
        self._default_entries: dict[str, Any] = {}
        #: What was said about broken entries, by record, so that it is said once.
        self._reported: dict[str, str] = {}
        #: Plans that the database has yet to be told.
        self._plans: list[dict[str, Any]] = []
        #: Firings that were sent and that the database has yet to be told about.
        self._sent: list[tuple[Firing, datetime | None, bool]] = []
        self._push: Connection | None = None
        self._live: Any = None
        #: Whether a notification told of a change that is not taken in yet.
        self._has_news = False
        #: The database's time when the changes were read last.
        self._synced_at = EPOCH
        self._next_sync = 0.0
        self._next_clean_up = 0.0
        self._standing_by_for: int | None = None
        self._away_since: float | None = None
        self._broker_away_since: float | None = None
        self._retry_in = RETRY_FIRST
        self._has_answered = False
        super().__init__(app, *args, **kwargs)

    # -- what Celery calls ------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Nothing yet: a database that is away must not keep beat from starting."""

    @property
    def schedule(self) -> dict[str, ScheduleEntry]:
        """The entries that beat keeps in mind, by name."""
        return {planned.entry.name: planned.entry for planned in self._planned.values()}

    @property
    def info(self) -> str:
        """A line for the banner."""
        return f"    . database -> {self.settings.uri()}"

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Take in the entries that Celery itself adds."""
        self._default_entries.update(dict_)

    def should_sync(self) -> bool:
        """Return False: what there is to be written is written at once."""
        return False

    def sync(self) -> None:
        """Nothing: what there is to be written is written at once."""

    def close(self) -> None:
        """Give back the lease and close the connections."""
        if self._is_busy:
            # Called by the handler of a signal, in the middle of a tick that may hold a lock:
            # Celery ends the tick by an exception, and then calls again.
            return
        self._is_busy = True  # a second signal may come in the middle of this
        try:
            if self.lease.token is not None and self._away_since is None:
                try:
                    self._settle()
                    self.lease.release()
                except SurrealDBBackendError as error:
                    logger.warning("beat: the lease could not be given back: %s", error)
            self._stop_listening()
            self.database.close()
            self._is_active = False
            super().close()
        finally:
            self._is_busy = False

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due.

        :returns: in how many seconds to call again.
        """
        self._is_busy = True
        try:
            return self._tick()
        finally:
            self._is_busy = False

    def _tick(self) -> float:
        try:
            wait = self._step()
        except LeaseLost:
            self._step_down()
            return 0.0
        except BrokerAway as error:
            return self._pause_for_broker(error)
        except SurrealDBBackendError as error:
            if not (isinstance(error, OUTAGES) or self._has_answered) or isinstance(error, NO_OUTAGES):
                raise
            return self._pause(error)
        self._resume()
        wait = min(wait, float(self.max_interval))
        return wait if self._live is None else self._listen(wait)

    # -- one step ---------------------------------------------------------------------------------

    def _step(self) -> float:
        self._define()
        if self.lease.token is None:
            other = self.lease.take()
            if other is not None:
                return self._stand_by(other)
        elif self.lease.renew_in <= 0:
            self.lease.renew()
        if not self._is_active:
            self._activate()
        self._settle()
        self._write_plans()
        if self._has_news or time.monotonic() >= self._next_sync:
            self._take_in_changes()
        if time.monotonic() >= self._next_clean_up:
            self._clean_up()
        firings = self._next_firings()
        if firings:
            self._fire(firings)
            return 0.0
        return self._until_something_happens()

    def _until_something_happens(self) -> float:
        waits = [self.lease.renew_in, self._next_sync - time.monotonic()]
        while self._due:
            due, _, key = self._due[0]
            planned = self._planned.get(key)
            if planned is not None and planned.due == due:
                waits.append((due - self.clock.now()).total_seconds())
                break
            heapq.heappop(self._due)
        return max(0.0, min(waits))

    def _define(self) -> None:
        if self._is_defined:
            return
        define_schedules(self.database)
        self._is_defined = True

    # -- active and standing by -------------------------------------------------------------------

    def _stand_by(self, other: Holder) -> float:
        if self._standing_by_for != other.token:
            self._standing_by_for = other.token
            logger.info(
                "beat: standing by: process %d on %s is active (lease %d)",
                other.process,
                other.host,
                other.token,
            )
        return min(other.left + GRACE, self.lease.length * RENEW_AFTER)

    def _step_down(self) -> None:
        logger.warning("beat: another beat took over the lease: standing by")
        self.lease.give_up()
        self._is_active = False
        self._planned.clear()
        self._names.clear()
        self._due.clear()
        self._asked.clear()
        self._plans.clear()
        # What was sent and not settled is the new active one's to settle: it sees the claims.
        self._sent.clear()
        self._stop_listening()

    def _activate(self) -> None:
        logger.info("beat: active with lease %s", self.lease.token)
        self._standing_by_for = None
        # Listen first, then read, so that nothing that changes in between is missed.
        self._start_listening()
        self._synced_at = self.database.run(statements.NOW)
        self._planned.clear()
        self._names.clear()
        self._due.clear()
        self._asked.clear()
        self._plans.clear()
        records = self._merged(self._load())
        for record in records:
            self._take_in(record)
        self._write_plans()
        self._next_sync = time.monotonic() + self.settings.beat_sync_every
        self._next_clean_up = time.monotonic() + CLEAN_UP_EVERY
        self._is_active = True
        logger.info("beat: %d entries", len(self._planned))

    def _load(self) -> list[dict[str, Any]]:
        table = self._tables[statements.SCHEDULE]
        records = page = self.database.run(statements.load_schedules(table), page=PAGE) or []
        while len(page) == PAGE:
            page = self.database.run(statements.load_more_schedules(table), page=PAGE, last=page[-1]["id"]) or []
            records = records + page
        return list(records)

    def _merged(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Bring the table in line with the code: what is in both stays as the table has it."""
        self._in_code, self._mistakes = code_entries(self.app)
        mistakes = self._mistakes
        self._default_entries.clear()
        self.install_default_entries({**self._in_code, **mistakes})
        defaults, _ = checked_entries(self._default_entries)
        self._in_code.update(defaults)
        obsolete = [record for record in records if self._is_obsolete(record)]
        gone = {str(record["id"]) for record in obsolete}
        kept = [record for record in records if str(record["id"]) not in gone]
        stored = {record_name(record) for record in kept}
        taken = {str(record["id"]) for record in kept}
        new = [self._new_record(e) for name, e in self._in_code.items() if name not in stored]
        for name, mistake in mistakes.items():
            if name not in stored:
                new.append({"id": self._record(name), "name": name, "source": "code", "broken": mistake})
        for record in new:
            if str(record["id"]) in taken:  # by an entry that somebody renamed
                record["id"] = self._record(str(uuid.uuid4()))
        # First, because what is new may have the id of what goes.
        if obsolete:
            remove_records(self.database, [record["id"] for record in obsolete])
        added: list[dict[str, Any]] = []
        for part in _parts(new, WRITES_AT_ONCE):
            added += self.database.run(statements.insert_schedules(self._tables[statements.SCHEDULE]), entries=part)
        for record in obsolete:
            if record_name(record) not in self._in_code:
                logger.info("beat: entry %r is removed: code has it no more", record_name(record))
        for record in added:
            logger.info("beat: entry %r of the code is added", record_name(record))
        return kept + added

    def _is_obsolete(self, record: Mapping[str, Any]) -> bool:
        name = record_name(record)
        if record.get("source") != "code":
            return False
        if name in self._in_code:
            # A stand-in of when code got it wrong.
            return record.get("task") is None and record.get("schedule") is None
        return name not in self._mistakes

    def _new_record(self, entry: ScheduleEntry) -> dict[str, Any]:
        now = self.clock.now()
        due = self._first_due(entry, now)
        return {
            **entry.definition(),
            "id": self._record(entry.name),
            "changed_at": now,
            "revision": firing_id(self._whole_name, entry.name, now),
            "plan": entry.plan(self.app.timezone),
            **({} if due is None else {"next_run_at": due}),
        }

    def _record(self, name: str) -> RecordID:
        return RecordID(self._tables[statements.SCHEDULE], name)

    # -- taking in entries ------------------------------------------------------------------------

    def _take_in_changes(self) -> None:
        """Read what changed; costs what changed, whatever there is."""
        self._has_news = False
        since = self._synced_at - timedelta(seconds=OVERLAP)
        asked_at = time.monotonic()
        changed, removed, now = self.database.run_all(
            statements.changed_schedules(self._tables[statements.SCHEDULE], self._tables[statements.SCHEDULE_REMOVED]),
            since=since,
        )
        self.clock.observe(now, asked_at, time.monotonic())
        self._synced_at = now
        self._next_sync = time.monotonic() + self.settings.beat_sync_every
        if self._live is None:
            self._start_listening()
        present = {str(record["id"]) for record in changed or []}
        for record_id in removed or []:
            if str(record_id) not in present:
                self._forget(str(record_id))
        for record in changed or []:
            known = self._planned.get(str(record["id"]))
            if known is None or known.revision != record.get("revision"):
                self._take_in(record)
        self._write_plans()

    def _forget(self, key: str) -> None:
        planned = self._planned.pop(key, None)
        self._asked.pop(key, None)
        self._reported.pop(key, None)
        if planned is not None and self._names.get(planned.entry.name) == key:
            del self._names[planned.entry.name]

    def _take_in(self, record: Mapping[str, Any]) -> None:
        key = str(record["id"])
        reported = self._reported.get(key)
        self._forget(key)
        name = record_name(record)
        try:
            if self._names.get(name, key) != key:
                raise InvalidSchedule(f"name holds {name!r}, which is another entry's too")
            entry = ScheduleEntry.from_record(record, self._in_code.get(name))
            if self.settings.beat_check_tasks:
                check_task(self.app, entry.task)
            plan = entry.plan(self.app.timezone)
            is_planned = entry.planned == plan and entry.broken is None
            due = entry.next_run_at if is_planned else self._first_due(entry, self._since(entry))
        except InvalidSchedule as error:
            if reported is not None:
                self._reported[key] = reported
            # Of an entry that code gets wrong the record is only a stand-in.
            reason = self._mistakes.get(name, str(error))
            self._mark_broken(record["id"], name, record.get("revision"), reason)
            return
        now = self.clock.now()
        ran_at = min(entry.last_run_at or entry.changed_at or now, now)
        planned = Planned(record["id"], entry, record.get("revision"), due, entry.total_run_count, ran_at)
        self._planned[key] = planned
        self._names[name] = key
        if entry.run_requested_at is not None:
            self._asked[key] = entry.run_requested_at
        self._push_due(key, planned)
        if not is_planned:
            self._plans.append({"entry": planned.record, "revision": planned.revision, "next": due, "plan": plan})

    def _since(self, entry: ScheduleEntry) -> datetime:
        """Return from when on a changed entry is due: since it changed, but not since long ago."""
        now = self.clock.now()
        changed_at = entry.changed_at or now
        if "clocked" in entry.schedule:
            return changed_at
        return max(changed_at, now - self.catch_up)

    def _first_due(self, entry: ScheduleEntry, since: datetime) -> datetime | None:
        try:
            return entry.first_due(since, self.app.timezone, self.clock.now())
        except InvalidSchedule:
            raise
        except Exception as error:  # a schedule class of the project's may raise anything
            raise InvalidSchedule(_no_next_run(error)) from error

    def _push_due(self, key: str, planned: Planned) -> None:
        if planned.due is not None:
            heapq.heappush(self._due, (planned.due, next(self._order), key))

    def _report(self, key: str, name: str, reason: str) -> None:
        if self._reported.get(key) != reason:
            self._reported[key] = reason
            logger.error("beat: entry %r is broken and does not run: %s", name, reason)

    def _mark_broken(self, record: RecordID, name: str, revision: str | None, reason: str) -> None:
        self._report(str(record), name, reason)
        self._plans.append({"entry": record, "revision": revision, "broken": reason})

    def _write_plans(self) -> None:
        for part in _parts(self._plans, WRITES_AT_ONCE):
            plans = [{name: value for name, value in plan.items() if value is not None} for plan in part]
            self.database.run(statements.PLAN_SCHEDULES, plans=plans)
        self._plans.clear()

    # -- firing -----------------------------------------------------------------------------------

    def _next_firings(self) -> list[Firing]:
        """Take what is due off the queue, up to so many."""
        now = self.clock.now()
        firings = [
            self._firing(self._planned[key], due, asked=True)
            for key, due in itertools.islice(self._asked.items(), FIRINGS_AT_ONCE)
        ]
        while self._due and self._due[0][0] <= now and len(firings) < FIRINGS_AT_ONCE:
            due, _, key = heapq.heappop(self._due)
            planned = self._planned.get(key)
            if planned is None or planned.due != due:
                continue  # it was changed or removed since
            if self._is_too_late(planned, due, now) or self._is_not_due_yet(planned, now):
                continue
            firings.append(self._firing(planned, due, asked=False))
        return firings

    def _is_too_late(self, planned: Planned, due: datetime, now: datetime) -> bool:
        """Pass over what Celery's ``beat_cron_starting_deadline`` says is not to be made up for."""
        deadline = self.app.conf.beat_cron_starting_deadline
        entry = planned.entry
        if deadline is None or now - due <= timedelta(seconds=deadline):
            return False
        if not isinstance(entry.recurrence(self.app.timezone), rules.Crontab):
            return False
        planned.due = entry.due_after(due, now - timedelta(seconds=deadline), self.app.timezone)
        self._push_due(str(planned.record), planned)
        self._plan(planned, planned.revision)
        return True

    def _plan(self, planned: Planned, revision: str | None) -> None:
        self._plans.append(
            {
                "entry": planned.record,
                "revision": revision,
                "next": planned.due,
                "plan": planned.entry.plan(self.app.timezone),
            }
        )

    def _is_not_due_yet(self, planned: Planned, now: datetime) -> bool:
        """Ask a schedule class of the project's again, which may wait for something."""
        entry = planned.entry
        rule = entry.recurrence(self.app.timezone, now)
        if not isinstance(rule, rules.InCode):
            return False
        try:
            ask_at = rule.not_before(planned.ran_at)
        except Exception as error:
            planned.due = None
            self._mark_broken(planned.record, entry.name, planned.revision, _no_next_run(error))
            return True
        if ask_at is None:
            return False
        planned.due = max(ask_at, now + timedelta(seconds=1))
        self._push_due(str(planned.record), planned)
        self._plan(planned, planned.revision)
        return True

    def _firing(self, planned: Planned, due: datetime, *, asked: bool) -> Firing:
        name = planned.entry.name
        text = due.astimezone(timezone.utc).isoformat(timespec="microseconds")
        return Firing(
            planned,
            due,
            asked,
            RecordID(self._tables[statements.SCHEDULE_CLAIM], [text, name]),
            firing_id(self._whole_name, name, due),
        )

    def _fire(self, firings: list[Firing]) -> None:
        waiting = {str(firing.claim): firing for firing in firings}
        try:
            ours = self._claimed(waiting)
            for key, is_sent in ours.items():
                firing = waiting[key]
                if not firing.asked and firing.planned.due != firing.due:
                    pass  # a run that was asked for was the last one
                elif is_sent:
                    self._advance(firing)
                else:
                    self._send(firing)
                del waiting[key]
            self._settle()
        except BrokerAway:
            self._settle()
            raise
        finally:
            # Whatever stood in the way, what was not sent stays due.
            for firing in waiting.values():
                if not firing.asked and firing.planned.due == firing.due:
                    self._push_due(str(firing.planned.record), firing.planned)

    def _claimed(self, waiting: dict[str, Firing]) -> dict[str, bool]:
        """Claim firings in the database.

        :param waiting: the firings by claim; those of entries that changed are taken out.
        :returns: by claim, what is ours to send (False) or was sent by somebody (True).
        """
        claims = [firing.claim for firing in waiting.values()]
        *_, held, found = self.database.run_all(
            statements.claim_firings(self._tables[statements.SCHEDULE_CLAIM], self._tables[statements.SCHEDULE_LEASE]),
            lease=self.lease.record,
            holder=self.lease.holder,
            fence=self.lease.token,
            firings=[
                {
                    "entry": firing.planned.record,
                    "revision": firing.planned.revision,
                    "claim": firing.claim,
                    "due_at": firing.due,
                    "task_id": firing.task_id,
                }
                for firing in waiting.values()
            ],
            claims=claims,
        )
        if not held:
            raise LeaseLost
        ours: dict[str, bool] = {}
        left_over: list[RecordID] = []
        for claim, holder, token, sent_at in found or []:
            if sent_at is not None:
                ours[str(claim)] = True
            elif holder == self.lease.holder:
                ours[str(claim)] = False
            elif token < (self.lease.token or 0):
                left_over.append(claim)
            else:
                raise LeaseLost
        if left_over:
            # Claimed by a beat that died before it could say that it was sent. Sending it
            # again under the same task id is better than losing it.
            taken = self.database.run(
                statements.TAKE_OVER_FIRINGS,
                claims=left_over,
                holder=self.lease.holder,
                fence=self.lease.token,
            )
            ours.update({str(claim): False for claim in taken or []})
            ours.update({str(claim): True for claim in left_over if str(claim) not in ours})
        self._reload([waiting.pop(key) for key in list(waiting) if key not in ours])
        return ours

    def _reload(self, firings: list[Firing]) -> None:
        """Take in again the entries that changed between being planned and being due."""
        if not firings:
            return
        records = [firing.planned.record for firing in firings]
        found = self.database.run(statements.FETCH_SCHEDULES, records=records) or []
        for record in records:
            self._forget(str(record))
        for record in found:
            self._take_in(record)
        self._write_plans()

    def _send(self, firing: Firing) -> None:
        """Send one firing's task.

        :raises BrokerAway: if the broker does not take it.
        :raises LeaseLost: if there was no time to renew the lease.
        """
        if not self.lease.is_held:
            # Sending the ones before took too long: the next step finds out whose turn it is.
            self.lease.renew()
        entry = firing.planned.entry
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        headers = {
            **(entry.options.get("headers") or {}),
            "periodic_task_name": entry.name,
            "due_at": firing.due.isoformat(),
        }
        message = SimpleNamespace(
            name=entry.name,
            task=entry.task,
            args=entry.args,
            kwargs=entry.kwargs,
            options={**entry.options, "headers": headers, "task_id": firing.task_id},
        )
        try:
            self._publish(message)
        except BrokerAway:
            raise
        except Exception as error:
            cause = error.__context__ if isinstance(error, SchedulingError) else error
            self._mark_broken(
                firing.planned.record,
                entry.name,
                firing.planned.revision,
                f"it cannot be sent: {cause}",
            )
            self._try_again_when_due(firing)
            return
        logger.debug("%s sent. id->%s", entry.task, firing.task_id)
        was_broken = self._reported.pop(str(firing.planned.record), None) is not None
        revision = firing.planned.revision
        self._advance(firing)
        if was_broken and firing.planned.due is not None:
            self._plan(firing.planned, revision)

    def _try_again_when_due(self, firing: Firing) -> None:
        """Plan what follows a firing that could not be sent: what was in the way may be gone by then."""
        planned, now = firing.planned, self.clock.now()
        key = str(planned.record)
        if firing.asked:
            self._asked.pop(key, None)
        else:
            try:
                planned.due = planned.entry.due_after(firing.due, now, self.app.timezone, now)
            except Exception:  # a schedule class of the project's may raise anything
                planned.due = None
            planned.ran_at = firing.due
            self._push_due(key, planned)
        if planned.due is not None:
            self._plans[-1].update(next=planned.due, plan=planned.entry.plan(self.app.timezone))
        self._write_plans()

    def _publish(self, message: Any) -> None:
        """Send a message.

        :raises BrokerAway: if the broker does not take it.
        :raises Exception: anything else is the entry's own mistake.
        """
        for is_last in (False, True):
            try:
                self.apply_async(message, producer=self.producer, advance=False)
            except Exception as error:
                cause = error.__context__ if isinstance(error, SchedulingError) else error
                if not self._is_brokers(cause):
                    raise
                self._drop_producer()
                if isinstance(cause, OperationalError) or not self._is_broker_there():
                    raise BrokerAway(str(cause)) from error
                # Also an entry's own mistake may be of a kind that a broker's are (with
                # Redis a KeyError is): where a new connection does not help it is.
                if is_last:
                    raise
            else:
                return

    def _is_broker_there(self) -> bool:
        try:
            self._ensure_connected()
        except Exception:
            return False
        return True

    def _ensure_connected(self) -> Any:
        # Without Celery's many retries: in between beat renews its lease and takes in changes.
        return self.connection.ensure_connection(max_retries=1, interval_start=0)

    def _is_brokers(self, error: BaseException | None) -> bool:
        known = (OperationalError, OSError, *self.app.connection_for_write().connection_errors)
        return isinstance(error, known)

    def _drop_producer(self) -> None:
        self.__dict__.pop("producer", None)
        connection = self.__dict__.pop("connection", None)
        if connection is not None:
            connection.release()

    def _advance(self, firing: Firing) -> None:
        """Plan what follows a firing, in mind; :meth:`_settle` tells the database."""
        planned = firing.planned
        entry = planned.entry
        key = str(planned.record)
        planned.runs += 1
        if entry.max_runs is not None and planned.runs >= entry.max_runs:
            planned.runs = self._counted(planned)
        has_run_enough = entry.max_runs is not None and planned.runs >= entry.max_runs
        if firing.asked:
            self._asked.pop(key, None)
            self._sent.append((firing, None, has_run_enough))
            if has_run_enough:
                planned.due = planned.revision = None
            return
        now = self.clock.now()
        is_broken = False
        try:
            following = entry.due_after(firing.due, now - self.catch_up, self.app.timezone, now)
        except Exception as error:  # a schedule class of the project's may raise anything
            following, is_broken = None, True
            self._mark_broken(planned.record, entry.name, planned.revision, _no_next_run(error))
        if entry.one_off or has_run_enough:
            following = None
        is_finished = following is None and not is_broken
        if is_finished:
            # The entry becomes inactive: whatever is read of it from now on is a change.
            planned.revision = None
        planned.due, planned.ran_at = following, firing.due
        self._push_due(key, planned)
        self._sent.append((firing, following, is_finished))

    def _counted(self, planned: Planned) -> int:
        """Return how often an entry ran, this run included: somebody may have set the count back."""
        try:
            found = self.database.run(statements.FETCH_SCHEDULES, records=[planned.record]) or []
        except SurrealDBBackendError:
            return planned.runs  # the run is sent: it must be settled, and not be sent again
        counted = found[0].get("total_run_count") if found else None
        if not isinstance(counted, int):
            return planned.runs
        return counted + 1 + sum(firing.planned is planned for firing, _, _ in self._sent)

    def _settle(self) -> None:
        """Tell the database what was sent."""
        if not self._sent:
            return
        settled, asked = [], []
        for firing, following, is_finished in self._sent:
            fields: dict[str, Any] = {
                "entry": firing.planned.record,
                # A time of ours has microseconds, one of the database's may have more.
                "due": firing.due,
                "until": firing.due + timedelta(microseconds=1),
                "finished": is_finished,
            }
            if firing.asked:
                asked.append(fields)
                continue
            if following is not None:
                # Without a plan the entry is planned anew when somebody resumes it.
                fields["plan"] = firing.planned.entry.plan(self.app.timezone)
                fields["next"] = following
            settled.append(fields)
        self.database.run_all(
            statements.SETTLE_FIRINGS,
            claims=[firing.claim for firing, _, _ in self._sent],
            settled=settled,
            asked=asked,
        )
        self._sent.clear()

    def _clean_up(self) -> None:
        self._next_clean_up = time.monotonic() + CLEAN_UP_EVERY
        now = self.clock.now()
        kept = timedelta(seconds=max(CLAIMS_KEPT, 10 * self.lease.length))
        self.database.run_all(
            statements.forget_firings(
                self._tables[statements.SCHEDULE_CLAIM], self._tables[statements.SCHEDULE_REMOVED]
            ),
            before=(now - kept).isoformat(timespec="microseconds"),
            cutoff=now - timedelta(seconds=REMOVALS_KEPT),
        )

    # -- listening --------------------------------------------------------------------------------

    def _start_listening(self) -> None:
        """Have changes told as they are made, where the database can; else they are polled."""
        if self.settings.live == "off" or self._live is not None:
            return
        self._stop_listening()
        push = Connection(self.settings, define=False, on_notification=self._on_notification)
        try:
            line = push.line
            if not line.live:
                raise errors.LiveNotSupported
            push.run(statements.live_schedules(self._tables[statements.SCHEDULE]))
        except SurrealDBBackendError as error:
            push.close()
            if self.settings.live == "on" and not isinstance(error, OUTAGES):
                raise
            logger.debug("beat: changes are looked for every %g s: %s", self.settings.beat_sync_every, error)
            return
        self._push, self._live = push, line

    def _stop_listening(self) -> None:
        push, self._push, self._live = self._push, None, None
        if push is not None:
            push.close()

    def _on_notification(self, notification: dict[str, Any]) -> None:
        record = notification.get("result")
        if notification.get("action") in ("CREATE", "UPDATE") and isinstance(record, Mapping):
            known = self._planned.get(str(record.get("id")))
            if known is not None and known.revision == record.get("revision"):
                return  # what beat itself wrote down
            if known is None and record.get("broken") == self._reported.get(str(record.get("id")), ""):
                return
        self._has_news = True

    def _listen(self, wait: float) -> float:
        """Wait for a notification instead of sleeping."""
        if wait <= 0:
            return 0.0
        try:
            self._live.listen(wait)
        except OSError as error:
            logger.debug("beat: the connection that tells of changes is lost: %s", error)
            self._stop_listening()
            # Listened to again, and read what was missed, at once.
            self._next_sync = 0.0
        return 0.0

    # -- outages ----------------------------------------------------------------------------------

    def _pause(self, error: SurrealDBBackendError) -> float:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.error("beat: paused, nothing is fired until the database answers: %s", error)
        return self._next_retry()

    def _pause_for_broker(self, error: BrokerAway) -> float:
        if self._broker_away_since is None:
            self._broker_away_since = time.monotonic()
            logger.error("beat: the broker does not take messages, what is due waits: %s", error)
        return self._next_retry()

    def _next_retry(self) -> float:
        wait, self._retry_in = self._retry_in, min(2 * self._retry_in, RETRY_LAST)
        return min(wait, self.lease.length * RENEW_AFTER)

    def _resume(self) -> None:
        self._has_answered = True
        self._retry_in = RETRY_FIRST
        for since, what in (
            (self._away_since, "the database answers"),
            (self._broker_away_since, "the broker takes messages"),
        ):
            if since is not None:
                logger.warning("beat: going on, %s again after %.1f s", what, time.monotonic() - since)
        self._away_since = self._broker_away_since = None


def define_schedules(connection: Connection) -> None:
    """Create the tables of the schedules, unless the user may not or need not."""
    settings = connection.settings
    if not settings.define_schema:
        return
    try:
        connection.run_all(statements.define_schedules(settings.prefix))
    except errors.NotPermitted as error:
        logger.warning(
            "the database user may not define the tables of the schedules (%s): define them once with "
            "a user who may, and set surrealdb_define_schema to False",
            error,
        )


def remove_records(connection: Connection, records: list[RecordID]) -> None:
    """Remove entries by their records, and leave a mark for beat."""
    settings = connection.settings
    for part in _parts(records, WRITES_AT_ONCE):
        connection.run_all(
            statements.remove_schedules(settings.table(statements.SCHEDULE_REMOVED)),
            records=part,
        )


def _parts(values: list[Any], size: int) -> Iterable[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _no_next_run(error: Exception) -> str:
    return f"schedule cannot say its next run: {error!r}"
