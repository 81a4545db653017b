"""``celery beat -S surrealdb``: fires what is due, as the only active one of any number."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from celery import Celery
from celery.beat import Scheduler
from celery.utils.log import get_logger

from .. import errors
from ..client.connection import Connection
from ..errors import InvalidSchedule, LeaseLost, SurrealDBBackendError
from .agenda import Agenda
from .changes import ChangeFeed
from .clock import Clock, DatabaseClock
from .deployment import Deployment
from .entry import ScheduleEntry
from .firings import BrokerAway, Firings
from .heartbeat import Heartbeat
from .in_code import Code, app_name, check_overlap, check_task, settings_of
from .lease import GRACE, RENEW_AFTER, Lease
from .outages import Outages
from .plan import Firing
from .publishing import Outgoing, Publisher, outgoing
from .said import is_of_another_app
from .store import LeaseRow, Store
from .upkeep import Upkeep
from .zones import app_zone

logger = get_logger("celery.beat")

#: Firings that are claimed and settled in one request.
FIRINGS_AT_ONCE = 100

#: Failures that no retry helps with, at no time: mistakes in the code.
NO_OUTAGES = (errors.ConnectionClosed, InvalidSchedule)


class SurrealDBScheduler(Scheduler):
    """Schedules kept in SurrealDB.

    Any number of beats may run: one is active, the others stand by. See docs/scheduling.md.

    Args:
        app: The Celery app.
        clock: The clock to go by; the database's if left out.
        args: As Celery's scheduler takes them.
        kwargs: The same.
    """

    def __init__(self, app: Celery, *args: Any, clock: Clock | None = None, **kwargs: Any) -> None:
        self.settings = settings_of(app)
        self.clock: Clock = clock or DatabaseClock()
        self.store = Store(Connection(self.settings.options), self.settings)
        self.lease = Lease(self.store.leases, self.settings.beat_lease, self.clock, app_name(app))
        deadline = app.conf.beat_cron_starting_deadline
        self.agenda = Agenda(
            app_zone(app),
            catch_up=timedelta(seconds=max(self.settings.beat_catch_up, 2 * self.settings.beat_lease)),
            starting_deadline=None if deadline is None else timedelta(seconds=deadline),
            check=self._check_entry,
            is_foreign=partial(is_of_another_app, app_name=app_name(app)),
        )
        self.firings = Firings(
            self.agenda, self.store, self.lease, self.clock, self._send, results_kept=_results_kept(app)
        )
        self.changes = ChangeFeed(self.store, self.clock, self.agenda.is_news)
        self.heartbeat = Heartbeat(self.settings.beat_heartbeat)
        self.outages = Outages(self.lease.length * RENEW_AFTER)
        self.upkeep = Upkeep(self.store, self.lease, self.clock)
        self._deployment = Deployment(
            app,
            self.agenda,
            self.store.entries,
            self.clock,
            self._entries_of_celery,
            code_wins=self.settings.beat_code_wins,
        )
        self._publisher = Publisher(
            app, send=self._send_now, connect=self._ensure_connected, drop=self.disconnect_broker
        )
        #: Whether a tick is under way, or beat closes.
        self._is_busy = False
        #: Whether the entries are loaded and the lease was taken.
        self._is_active = False
        #: Whether the database ever answered.
        self._has_answered = False
        self._default_entries: dict[str, Any] = {}
        self._standing_by_for: int | None = None
        super().__init__(app, *args, **kwargs)

    # -- what Celery calls ------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Nothing yet: a database that is away must not keep beat from starting."""

    @property
    def schedule(self) -> dict[str, ScheduleEntry]:
        """The entries that beat keeps in mind, by name."""
        return self.agenda.entries

    @property
    def info(self) -> str:
        """A line for the banner."""
        return f"    . database -> {self.settings.uri()}"

    def _entries_of_celery(self, code: Code) -> dict[str, Any]:
        self._default_entries.clear()
        self.install_default_entries({**code.entries, **code.mistakes})
        return self._default_entries

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Take over the entries that Celery itself adds.

        Args:
            dict_: The entries, by name.
        """
        self._default_entries.update(dict_)

    def should_sync(self) -> bool:
        """Return False: every change is written at once."""
        return False

    def sync(self) -> None:
        """Nothing: every change is written at once."""

    def close(self) -> None:
        """Give back the lease and close the connections."""
        if self._is_busy:
            # Called by the handler of a signal, in the middle of a tick that may hold a lock:
            # Celery ends the tick by an exception, and then calls again.
            return
        self._is_busy = True  # a second signal may come in the middle of this
        try:
            if self.lease.token is not None and not self.outages.is_database_away:
                try:
                    self.firings.settle()
                    self.lease.release()
                except SurrealDBBackendError as error:
                    logger.warning("beat: the lease could not be given back: %s", error)
            self.changes.stop()
            self.store.close()
            self.heartbeat.remove()
            self._is_active = False
            super().close()
        finally:
            self._is_busy = False

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due.

        Returns:
            In how many seconds to call again.
        """
        self._is_busy = True
        try:
            wait = self._tick()
            self.heartbeat.write(
                self.state, self.clock.now(), token=self.lease.token, next_run_at=self.agenda.next_at()
            )
            return wait
        finally:
            self._is_busy = False

    @property
    def state(self) -> str:
        """The state of this beat: `active`, `standby`, or `paused` while the database or the broker is away."""
        if self.outages.is_database_away or self.outages.is_broker_away:
            return "paused"
        return "active" if self._is_active else "standby"

    def _tick(self) -> float:
        try:
            wait = self._step()
        except LeaseLost:
            self._step_down()
            return 0.0
        except BrokerAway as error:
            return self.outages.broker_is_away(error)
        except SurrealDBBackendError as error:
            # At the start anything but an outage is a mistake in the settings.
            is_outage = isinstance(error, errors.TransientError) or self._has_answered
            if not is_outage or isinstance(error, NO_OUTAGES):
                raise
            return self.outages.database_is_away(error)
        self._has_answered = True
        self.outages.over()
        wait = min(wait, float(self.max_interval))
        if not self.changes.is_live:
            return wait
        self.changes.wait(wait)
        return 0.0

    # -- one step ---------------------------------------------------------------------------------

    def _step(self) -> float:
        self.store.define()
        if self.lease.token is None:
            other = self.lease.take()
            if other is not None:
                return self._stand_by(other)
        elif self.lease.renew_in <= 0:
            self.lease.renew()
        if not self._is_active:
            self._activate()
        self.firings.settle()
        self.firings.write_plans()
        if self.changes.due_in <= 0:
            self._take_in_changes()
        self.upkeep.run()
        firings = self.agenda.take_due(self.clock.now(), FIRINGS_AT_ONCE)
        self.firings.write_plans()
        if firings:
            self.firings.fire(firings)
            return 0.0
        return self._until_something_happens()

    def _until_something_happens(self) -> float:
        waits = [self.lease.renew_in, self.changes.due_in]
        next_at = self.agenda.next_at()
        if next_at is not None:
            waits.append((next_at - self.clock.now()).total_seconds())
        return max(0.0, min(waits))

    def _take_in_changes(self) -> None:
        changes = self.changes.read()
        present = {str(record["id"]) for record in changes.entries}
        for record_id in changes.removed:
            if str(record_id) not in present:
                self.agenda.forget(str(record_id))
        now = self.clock.now()
        for record in changes.entries:
            if self.agenda.is_news(record):
                self.agenda.feed(record, now)
        self.firings.write_plans()

    # -- active and standing by -------------------------------------------------------------------

    def _stand_by(self, other: LeaseRow) -> float:
        if self._standing_by_for != other.token:
            self._standing_by_for = other.token
            if other.app is not None and self.lease.app is not None and other.app != self.lease.app:
                logger.error(
                    "beat: the active beat is that of another app, %r, and runs none of the entries of %r: give each "
                    "project a surrealdb_table_prefix or a surrealdb_database of its own",
                    other.app,
                    self.lease.app,
                )
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
        self.agenda.clear()
        self.firings.drop()
        self.changes.stop()

    def _activate(self) -> None:
        logger.info("beat: active with lease %s", self.lease.token)
        self._standing_by_for = None
        self.changes.start()
        self.agenda.clear()
        for record in self._deployment.bring_in_line():
            self.agenda.feed(record, self.clock.now())
        self.firings.write_plans()
        self.upkeep.rest()
        self._is_active = True
        logger.info("beat: %d entries", len(self.agenda))

    def _check_entry(self, entry: ScheduleEntry) -> None:
        if self.settings.beat_check_tasks:
            check_task(self.app, entry.task)
        check_overlap(self.app, entry)

    # -- sending ----------------------------------------------------------------------------------

    def _send(self, firing: Firing, task_id: str) -> None:
        self._publisher.publish(outgoing(firing.planned.entry, task_id, firing.due, app_zone(self.app)))

    def _send_now(self, message: Outgoing) -> None:
        message.failure = None
        # Monitors of others wrap this method of Celery's (Sentry, Datadog); it logs what it sends.
        self.apply_entry(message, producer=self.producer)
        if message.failure is not None:
            raise message.failure

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send an entry's task.

        Of an entry that beat fires a failure is kept: Celery's `apply_entry` would log and forget it.

        Args:
            entry: The entry, as Celery's scheduler takes it.
            producer: The producer that publishes the message.
            advance: As Celery's scheduler takes it.
            kwargs: The same.

        Returns:
            Celery's result of the task that was sent.
        """
        try:
            return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        except Exception as error:
            if not isinstance(entry, Outgoing):
                raise
            entry.failure = error
            return None

    def _ensure_connected(self) -> Any:
        # Without Celery's many retries: in between beat renews its lease and takes in changes.
        return self.connection.ensure_connection(max_retries=1, interval_start=0)

    def disconnect_broker(self) -> None:
        """Close the connection to the broker; the next message opens another."""
        self.__dict__.pop("producer", None)
        connection = self.__dict__.pop("connection", None)
        if connection is not None:
            connection.release()


def _results_kept(app: Celery) -> timedelta | None:
    expires = app.conf.result_expires
    if isinstance(expires, timedelta) or expires is None:
        return expires or None
    return timedelta(seconds=float(expires)) if expires else None
