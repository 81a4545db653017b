"""The chords in the database: header tasks' parts, and the claim on the body. Celery's semantics are in `chords`.

A part costs one round trip, however large the header is: only a part that finds its bucket full counts. The body is
published under a claim with a lease, so that another can take over where its holder dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from ...client.connection import Connection
from ...client.failures import Failure
from ...client.values import RecordID
from ...errors import PermissionDenied, RecordExists
from ..expiry import lifetime
from ..replies import check_stored
from ..statements import Statement
from . import statements
from .parts import PartReader
from .records import (
    FIRST_LOOK,
    Claim,
    Header,
    HeaderPart,
    HeaderState,
    PartKey,
    Progress,
    StoredPart,
    batch_of,
    is_uneven,
    may_complete,
    neighbours,
)


class ChordStore:
    """The records of chords in one table.

    Args:
        connection: Where they are.
        table: The table's name, prefix included.
        unfinished: How long a chord is kept after its last progress, in seconds; None for ever.
        finished: How long the mark is kept that a chord is done, in seconds; None for ever.
    """

    def __init__(self, connection: Connection, table: str, *, unfinished: float | None, finished: float | None) -> None:
        self._connection = connection
        self._table = table
        self._unfinished = unfinished
        self._unfinished_lifetime = lifetime(unfinished)
        self._finished = finished

    def _record(self, *path: Any) -> RecordID:
        return RecordID(self._table, list(path))

    def _records(self, group: str) -> dict[str, Any]:
        """The parameters that name a chord's records, and say how long they live."""
        return {
            "group": group,
            "size_record": self._record(statements.SIZES, group),
            "header": self._record(group, "header"),
            "uneven": self._record(group, "uneven"),
            "claim": self._record(group, "claim"),
            "chord_lifetime": self._unfinished_lifetime,
        }

    def _refused(self, what: str) -> PermissionDenied:
        return PermissionDenied(
            f"the database user may not {what} records of the table {self._table!r}; "
            "docs/reliability.md lists the rights that chords need"
        )

    # -- the sending side ---------------------------------------------------------------------------

    def announce(self, group: str, size: int, *, nested: bool, beside: Statement) -> None:
        """Store how many parts to wait for, before the header is sent. A stored number is never lowered.

        Args:
            group: The chord.
            size: How many header tasks there are.
            nested: Whether there are groups among the header's results.
            beside: A statement to run in the same request.

        Raises:
            PermissionDenied: The user may not write.
        """
        saved, *_, found = self._connection.run_all(
            f"{beside.text};{statements.ANNOUNCE}",
            **{**beside.parameters, **self._records(group)},
            size=size,
            nested=nested or None,
        )
        check_stored(saved, beside.table)
        check_stored(found, self._table)

    def start(self, group: str, size: int, header: Header | None) -> None:
        """Store how many parts to wait for. Early parts may be there already: they stay.

        Args:
            group: The chord.
            size: How many header tasks there are.
            header: Other facts to keep about the header; None leaves the stored ones.

        Raises:
            PermissionDenied: The user may not write, or not delete the claim of an earlier run.
        """
        text, parameters = statements.START_UNKNOWN, {**self._records(group), "size": size}
        if header is not None:
            text = f"{statements.START};{statements.STORE_HEADER}"
            parameters |= {"fields": asdict(header), "nested": header.shape is not None or None}
        _, old_claim, _, found, *stored = self._connection.run_all(text, **parameters)
        if old_claim:
            raise self._refused("delete")
        if not found or [] in stored:
            raise self._refused("create")

    def add(self, group: str, task_id: str) -> None:
        """Wait for one part more, however often that is said.

        Args:
            group: The chord.
            task_id: The task that was added to its header.

        Raises:
            PermissionDenied: The user may not write.
        """
        added = self._record(group, "added", task_id)
        if not self._connection.run(statements.ADD, added=added, task_id=task_id, **self._records(group)):
            raise self._refused("create")

    # -- parts ----------------------------------------------------------------------------------------

    def add_part(self, part: HeaderPart, store: Statement | None = None) -> StoredPart:
        """Store a part, and see whether it may complete the header. A part that is there already stays.

        Args:
            part: The part.
            store: Stores the task's own result, in the same transaction. Its parameter `t` has what
                `HeaderPart.fields` has: the result is sent once.

        Returns:
            The outcome: whether the part is new, and whether the header may be complete.

        Raises:
            PermissionDenied: The user may not write.
        """
        group, bucket = part.group, part.bucket
        (stored, added), states, indexes = self._connection.run_all(
            statements.add_part(self._table, store.text if store else None),
            **(store.parameters if store else {"t": part.fields}),
            g=group,
            b=bucket,
            i=part.index,
            n=part.length,
            c=self._unfinished_lifetime,
        )
        if not added:
            # Delivered again, or sent again after its reply was lost.
            place = self._record(group, "part", bucket, part.index, part.task_id)
            there = self._connection.run(statements.PART_EXISTS, part=place, claim=self._record(group, "claim"))
            if all(value is None for value in there or ()):
                raise self._refused("create")
        header = _header_state(states)
        uneven = is_uneven(part, header, indexes)
        return StoredPart(stored, bool(added), header, uneven, may_complete(part, header, indexes, uneven=uneven))

    def keep_unfinished(self, group: str, header: HeaderState) -> None:
        """Prolong an unfinished chord's life where half of it is over. Usually nothing is sent.

        Args:
            group: The chord.
            header: The header as its last part saw it.
        """
        if self._unfinished and header.life is not None and header.life < self._unfinished / 2:
            self._connection.run(statements.RENEW, young=int(self._unfinished * 750), **self._records(group))

    def complete(self, part: HeaderPart, stored: StoredPart, claimant: str) -> Progress:
        """See whether a header is complete, and claim its body if it is.

        Args:
            part: The part that may complete it.
            stored: The outcome of storing it.
            claimant: The name to claim the body by; the same for all attempts, so that a claim whose reply was lost
                is found to be one's own.

        Raises:
            PermissionDenied: The user may not write.
        """
        text = statements.complete_header(self._table, mark_uneven=stored.uneven and not stored.header.uneven)
        outcomes = self._connection.attempt(
            text,
            **self._records(part.group),
            **asdict(neighbours(part, stored)),
            claimant=claimant,
            task_id=part.task_id,
            keys=FIRST_LOOK,
        )
        *others, created, claims, state = outcomes
        _raise_first(*others, claims, state)
        progress = _progress(state, claims)
        if progress.complete:
            self._check_claim(created, progress.claim)
        return progress

    def look_at(self, group: str) -> Progress:
        """See how far a header is, without changing anything.

        Args:
            group: The chord.
        """
        *_, claims, state = self._connection.run_all(statements.look_at_chord(self._table), **self._records(group))
        return _progress(state, claims)

    def header(self, group: str) -> Header | None:
        """Return what is kept of a header; None where nothing is.

        Args:
            group: The chord.
        """
        found = self._connection.run(statements.FETCH_HEADER, header=self._record(group, "header"))
        return Header(**{field.name: found[0].get(field.name) for field in fields(Header)}) if found else None

    def parts(self, group: str, progress: Progress, retry: Callable[..., Any] | None = None) -> PartReader:
        """Return an iterable over the parts of a complete header in its order, a bounded slice of them per request.

        Args:
            group: The chord.
            progress: The state of its header.
            retry: Calls a function with arguments, again while it fails in a way that passes: for each request by itself.
        """
        run = self._connection.run_all
        return PartReader(partial(retry, run) if retry else run, self._table, group, progress)

    # -- the claim on the body --------------------------------------------------------------------------

    def claim(self, group: str, claimant: str, task_id: str | None) -> Claim | None:
        """Claim a body.

        Args:
            group: The chord.
            claimant: The name to claim it by.
            task_id: The task that claims it.

        Returns:
            The claim that there is now; it may be another worker's.

        Raises:
            PermissionDenied: The user may not write.
        """
        created, claims = self._connection.attempt(
            statements.CLAIM, **self._records(group), claimant=claimant, task_id=task_id
        )
        _raise_first(claims)
        found = _claim(claims)
        self._check_claim(created, found)
        return found

    def _check_claim(self, created: Any, found: Claim | None) -> None:
        """Look at the reply of the statement that creates a claim."""
        if isinstance(created, Failure) and created.error is not RecordExists:
            raise created.exception("claiming a chord's body")
        if created == [] and found is None:
            raise self._refused("create")

    def fetch_claim(self, group: str) -> Claim | None:
        """Return the claim on a body; None where there is none, or the chord was applied again.

        Args:
            group: The chord.
        """
        return _claim(self._connection.run(statements.FETCH_CLAIM, claim=self._record(group, "claim")))

    def take_over(self, group: str, claimant: str, task_id: str | None, stale: Claim) -> Claim | None:
        """Take over a claim whose holder is gone; the first of several that try gets it.

        Args:
            group: The chord.
            claimant: The name to claim the body by.
            task_id: The task that claims it.
            stale: The claim to replace.

        Returns:
            The claim that there is now; it may be another worker's.
        """
        *_, claims = self._connection.run_all(
            statements.TAKE_OVER,
            claim=self._record(group, "claim"),
            claimant=claimant,
            task_id=task_id,
            stale=stale.holder,
        )
        return _claim(claims)

    def renew_claim(self, group: str, claimant: str) -> bool:
        """Hold a claim for another lease.

        Args:
            group: The chord.
            claimant: Whose claim it is.

        Returns:
            Whether it still is: False where another took over.
        """
        claim = self._record(group, "claim")
        return bool(self._connection.run(statements.RENEW_CLAIM, claim=claim, claimant=claimant))

    def finish(self, group: str, claimant: str, *, mean_size: int = 0, beside: Statement | None = None) -> bool:
        """Mark a chord done, and let its records go.

        Args:
            group: The chord.
            claimant: Whose claim it is.
            mean_size: Bytes of a part, about: a request deletes as many as the database reads in a moment.
            beside: A statement to run in the first request.

        Returns:
            Whether the claim still was the claimant's: False where another took over, or the chord was applied again.

        Raises:
            PermissionDenied: The user may not delete.
        """
        text = statements.finish_chord(self._table)
        number = batch_of(mean_size)
        parameters = {**self._records(group), "chord_lifetime": lifetime(self._finished)}
        first, more = (f"{beside.text};", beside.parameters) if beside else ("", {})
        while True:
            outcome = self._connection.run(first + text, **{**more, **parameters}, claimant=claimant, number=number)
            mine, found, left = outcome
            if not mine:
                return False
            if left:
                raise self._refused("delete")
            if found < number:
                return True
            first, more = "", {}

    # -- clean-up -------------------------------------------------------------------------------------

    def unfinished(self, after: str = "", number: int = 500) -> list[tuple[str, bool]]:
        """Return a page of the unfinished chords, in the order of their ids.

        Args:
            after: The last chord of the page before.
            number: How many at most.

        Returns:
            Each chord, and whether it was sent so long ago that its first parts may expire soon.
        """
        old = int((self._unfinished or 0) * 500) if self._unfinished else 2**53
        found = self._connection.run(statements.unfinished(self._table), after=after, number=number, old=old)
        return [(group, bool(is_old)) for group, is_old in found or ()]

    def prolong_parts(self, group: str) -> None:
        """Let the first parts of a chord live as long as the chord itself.

        Args:
            group: The chord.
        """
        self._connection.run(
            statements.prolong_parts(self._table),
            group=group,
            size_record=self._record(statements.SIZES, group),
            soon=lifetime((self._unfinished or 0) / 2),
        )


def _raise_first(*outcomes: Any) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise outcome.exception()


def _header_state(states: Any) -> HeaderState:
    """What the records say that `add_part` reads; a row of them per record, on 3.0.2 also of those that are not there."""
    state = HeaderState()
    for size, nested, uneven, done, life in states or ():
        if size:
            state = HeaderState(size, bool(nested), state.uneven, state.done, life / 1000 if life is not None else None)
        elif uneven:
            state = HeaderState(state.size, state.nested, True, state.done, state.life)
        elif done:
            state = HeaderState(state.size, state.nested, state.uneven, True, state.life)
    return state


def _claim(claims: Any) -> Claim | None:
    if not claims:
        return None
    holder, task_id, done, age = claims[0]
    return Claim(holder, task_id, bool(done), age / 1000)


def _progress(state: Any, claims: Any) -> Progress:
    size, complete, nested, uneven, keys = state
    known = tuple(PartKey(*key) for key in keys) if complete else ()
    return Progress(size, bool(complete), _claim(claims), bool(nested), bool(uneven), known)
