"""Celery's names for chords."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery import states

from .. import celery_compat
from ..settings import Settings
from .chords import Chords
from .expiry import longest
from .groups import GroupStore
from .outbox import Outbox
from .redaction import Redaction
from .statements import Statement


class ChordingMixin:
    """Celery's names for chords, and how long their headers' shapes are saved."""

    settings: Settings
    expires: float | None
    groups: GroupStore
    outbox: Outbox
    chords: Chords
    redaction: Redaction
    encode_result: Callable[[Any, str], Any]
    ensure_chords_allowed: Callable[[], None]

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Store how many header tasks a chord has; a chord applied again starts a new run.

        Args:
            group_id: The group's id.
            chord_size: The number of header tasks.
        """
        self.chords.set_size(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Store that a running task added one more header task."""
        self.chords.add(chord_id, result)

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Prepare for a chord's header, which is about to be sent. There is no `chord_unlock` task that polls."""
        self.ensure_chords_allowed()
        keep_body = not (self.redaction.active and self.redaction.hides(body))
        self.chords.apply(header_result_args, body, keep_body=keep_body)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Store what a header task returned or raised, and publish the body if it was the last."""
        task = self.chords.header_task(request)
        if task is None:
            return
        if self.redaction.active and state in states.EXCEPTION_STATES:
            result = self.redaction.masked_error(self.encode_result(result, state), request)
        if celery_compat.in_worker_main_loop():
            # It takes several round trips, may wait for another worker's claim, and publishes.
            what = f"the part of task {task.task_id} in chord {task.group}"
            self.outbox.keep(what, partial(self.chords.returned, task, request, state, result))
        else:
            self.chords.returned(task, request, state, result)

    def saving_group(self, group_id: str, shape: str | bytes) -> Statement:
        """Return what saves the shape of a chord's header: for as long as it is unfinished, and never less than results.

        Args:
            group_id: The header.
            shape: Its results as Celery writes them, encoded.
        """
        return self.groups.saving(group_id, shape, longest(self.settings.unfinished_expires, *self._header_lifetimes))

    def expiring_group(self, group_id: str) -> Statement:
        """Return what lets the saved shape of a header expire, as its results do, now that its chord is done.

        Args:
            group_id: The header.
        """
        return self.groups.expiring(group_id, longest(*self._header_lifetimes))

    @property
    def _header_lifetimes(self) -> tuple[float | None, ...]:
        """How long a chord is kept and how long its results are."""
        return celery_compat.chord_expires(self), self.expires
