"""Firings: each run that is due is claimed, sent and settled, once, by one beat."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery.utils.log import get_logger

from ..client.values import RecordID
from ..errors import LeaseLost, SurrealDBBackendError
from .agenda import Agenda
from .clock import Clock
from .lease import Lease
from .overlap import may_still_run
from .plan import Firing, Sent
from .records import firing_id
from .store import Claim, Claimed, Settled, Store

logger = get_logger("celery.beat")


class BrokerAway(Exception):
    """The message broker does not take messages."""


class NotSent(Exception):
    """An entry's own mistake keeps its task from being sent; the message says which."""


class Firings:
    """The protocol of a firing: claim, send, settle.

    A claim is a record whose id is made of due time and name. A beat that dies between claiming and
    settling leaves a claim that the next active beat takes over: the task is rather sent twice, under the
    same id, than never.

    Args:
        agenda: The agenda that the firings are from.
        store: The database.
        lease: The lease of this beat.
        clock: The clock that beat goes by.
        send: Sends the task of a firing under an id. It raises BrokerAway or NotSent.
        results_kept: How long results are kept; None for ever.
    """

    def __init__(
        self,
        agenda: Agenda,
        store: Store,
        lease: Lease,
        clock: Clock,
        send: Callable[[Firing, str], Any],
        *,
        results_kept: timedelta | None = None,
    ) -> None:
        self._agenda = agenda
        self._store = store
        self._lease = lease
        self._clock = clock
        self._send = send
        self._results_kept = results_kept
        #: Firings that were sent and that the database has yet to be told about.
        self._sent: list[Sent] = []

    @property
    def unsettled(self) -> int:
        """How many firings were sent that the database has yet to be told about."""
        return len(self._sent)

    def claim_record(self, firing: Firing) -> RecordID:
        """Return the id of the claim of a firing.

        Args:
            firing: The firing.
        """
        return self._store.claims.record(firing.due, firing.planned.entry.name)

    def task_id(self, firing: Firing) -> str:
        """Return the id of the task that a firing sends.

        Args:
            firing: The firing.
        """
        return firing_id(self._store.entries.whole_name, firing.planned.entry.name, firing.due)

    def fire(self, firings: list[Firing]) -> None:
        """Claim, send and settle firings. Firings that are not sent are due again afterwards.

        Args:
            firings: Taken off the agenda.

        Raises:
            BrokerAway: The broker does not take messages.
            LeaseLost: Another beat is active.
            SurrealDBBackendError: The database does not do its part.
        """
        firings = self._without_overlaps(firings)
        if not firings:
            return
        waiting = {str(self.claim_record(firing)): firing for firing in firings}
        try:
            for key, is_sent in self.claim(firings).items():
                firing = waiting[key]
                if firing.is_current:
                    self._serve(firing, is_sent=is_sent)
                del waiting[key]
            self.settle()
        except BrokerAway:
            self.settle()
            raise
        finally:
            # After any error: firings that were not sent stay due.
            for firing in waiting.values():
                self._agenda.put_back(firing)

    def _without_overlaps(self, firings: list[Firing]) -> list[Firing]:
        """Leave out the firings whose entry forbids overlaps and whose last run may still run."""
        careful = [each for each in firings if each.planned.entry.no_overlap and not each.is_asked]
        last = [each.planned.last_task_id for each in careful if each.planned.last_task_id is not None]
        if not last:
            return firings
        try:
            found = self._store.claims.states(last)
        except SurrealDBBackendError:
            for firing in firings:
                self._agenda.put_back(firing)
            raise
        now = self._clock.now()
        kept = []
        for firing in firings:
            planned = firing.planned
            if may_still_run(firing, found.get(planned.last_task_id or ""), now, self._results_kept):
                logger.info(
                    "beat: entry %r: the run due at %s is left out, the one before (%s) has not ended",
                    planned.entry.name,
                    firing.due,
                    planned.last_task_id,
                )
                self._agenda.leave_out(firing, now)
            else:
                kept.append(firing)
        self.write_plans()
        return kept

    def _serve(self, firing: Firing, *, is_sent: bool) -> None:
        """Send a firing, unless it was sent before, and plan what follows."""
        if not is_sent:
            if not self._lease.is_held:
                # Sending the ones before took too long: the database says whose turn it is.
                self._lease.renew()
            try:
                self._send(firing, self.task_id(firing))
            except NotSent as error:
                self._agenda.not_sent(firing, str(error), self._clock.now())
                self.write_plans()
                return
        firing.planned.last_task_id, firing.planned.last_sent_at = self.task_id(firing), self._clock.now()
        runs = self._counted(firing) if self._agenda.may_be_last(firing) else None
        self._sent.append(self._agenda.sent(firing, self._clock.now(), runs))

    def claim(self, firings: list[Firing]) -> dict[str, bool]:
        """Claim firings in the database.

        Args:
            firings: The firings; the entries of those that changed meanwhile are read again.

        Returns:
            By the id of the claim, as text: whether the task was sent already. Claims of entries that
            changed are missing.

        Raises:
            LeaseLost: Another beat is active.
            SurrealDBBackendError: The database does not do its part.
        """
        wanted = {}
        for firing in firings:
            record = self.claim_record(firing)
            wanted[str(record)] = Claim(
                record, firing.planned.record, firing.planned.revision, firing.due, self.task_id(firing)
            )
        token, holder = self._lease.token, self._lease.holder
        found = self._store.claims.claim(list(wanted.values()), token=token, holder=holder)
        if found is None:
            raise LeaseLost
        found = self._taken_over(found)
        if any(not claim.is_sent and claim.holder != holder for claim in found):
            raise LeaseLost
        claimed = {str(claim.record): claim.is_sent for claim in found}
        self._read_again([firing for firing in firings if str(self.claim_record(firing)) not in claimed])
        return claimed

    def _taken_over(self, found: list[Claimed]) -> list[Claimed]:
        """Take over the claims of a beat that died before it could say that it sent them."""
        token, holder = self._lease.token, self._lease.holder
        left_over = [
            claim.record
            for claim in found
            if not claim.is_sent and claim.holder != holder and claim.token < (token or 0)
        ]
        if not left_over:
            return found
        taken = self._store.claims.take_over(left_over, token=token, holder=holder)
        again = {str(claim.record): claim for claim in taken}
        return [again.get(str(claim.record), claim) for claim in found]

    def _read_again(self, firings: list[Firing]) -> None:
        """Take in again the entries that changed between being planned and being due."""
        if not firings:
            return
        found = self._store.entries.fetch([firing.planned.record for firing in firings])
        revisions = {str(record["id"]): record.get("revision") for record in found}
        if any(revisions.get(each.planned.key) == each.planned.revision is not None for each in firings):
            raise self._store.claims.refused()
        for firing in firings:
            self._agenda.forget(firing.planned.key)
        now = self._clock.now()
        for record in found:
            self._agenda.feed(record, now)
        self.write_plans()

    def _counted(self, firing: Firing) -> int | None:
        """Return how often an entry ran, this run included: somebody may have set the count back."""
        planned = firing.planned
        try:
            found = self._store.entries.fetch([planned.record])
        except SurrealDBBackendError:
            return None  # the run is sent: it must be settled, and not be sent again
        counted = found[0].get("total_run_count") if found else None
        if not isinstance(counted, int):
            return None
        return counted + 1 + sum(sent.firing.planned is planned for sent in self._sent)

    def settle(self) -> None:
        """Tell the database what was sent.

        Raises:
            SurrealDBBackendError: The database does not do its part; it is told the next time.
        """
        if not self._sent:
            return
        self._store.claims.settle(
            [
                Settled(
                    claim=self.claim_record(sent.firing),
                    entry=sent.firing.planned.record,
                    due=sent.firing.due,
                    is_asked=sent.firing.is_asked,
                    is_finished=sent.is_finished,
                    next_due=sent.next_due,
                    task_id=self.task_id(sent.firing),
                    digest=sent.firing.planned.digest,
                )
                for sent in self._sent
            ]
        )
        self._sent.clear()

    def write_plans(self) -> None:
        """Write the plans of the agenda to the records.

        Raises:
            SurrealDBBackendError: The database does not do its part.
        """
        self._store.entries.write_plans(self._agenda.take_plans())

    def drop(self) -> None:
        """Forget what was sent and not settled: the new active beat sees the claims and settles them."""
        self._sent.clear()
