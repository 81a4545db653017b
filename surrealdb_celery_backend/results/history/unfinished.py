"""Chords whose body has not been sent: how many parts are there, which are missing, and what their tasks do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import states
from celery.utils.log import get_logger

from ...client.values import RecordID
from ...errors import UnreadableRecord
from ..chords import statements as chord_statements
from . import statements
from .scanning import Runner
from .searching import UNREADY_SORTED, Search

logger = get_logger(__name__)

#: How many chords one look finds at most, and how many parts of each it reads.
CHORDS_MOST, PARTS_MOST = 1000, 5000
#: Of how many missing parts of a chord the states are asked for.
MISSING_MOST = 500


@dataclass(frozen=True)
class MissingPart:
    """A header task of a chord that has not returned.

    Attributes:
        task_id: The task's id.
        state: Its state; `PENDING` where nothing is stored of it.
    """

    task_id: str
    state: str


@dataclass(frozen=True)
class UnfinishedChord:
    """A chord whose body has not been sent.

    Attributes:
        group_id: The id of its header.
        size: How many header tasks it has.
        present: How many of them have returned.
        missing: Those that have not, as far as they are known.
        age: How long ago it was sent, in seconds, by the database's clock; None where that is not stored.
        body_name: The name of the body's task, where that is stored.
    """

    group_id: str
    size: int
    present: int
    missing: tuple[MissingPart, ...]
    age: float | None
    body_name: str | None


class UnfinishedChords:
    """Finds unfinished chords.

    Args:
        runner: The connection that runs statements.
        chords: The table of chords.
        tasks: The table of tasks.
        search: Looks for tasks.
    """

    def __init__(self, runner: Runner, chords: str, tasks: str, search: Search) -> None:
        self._runner, self._chords, self._tasks, self._search = runner, chords, tasks, search

    def find(self, wanted: str | None = None, skip: int = 0) -> Iterator[UnfinishedChord]:
        """Yield unfinished chords, oldest first: one request for all of them and two for each.

        Args:
            wanted: Only the chord of this group.
            skip: Leave out so many of the oldest.

        Raises:
            UnreadableRecord: The chord that is wanted has a value that the server cannot send. Of several, such a chord
                is left out.
        """
        found = self._runner.run_all(chord_statements.sizes(self._chords), limit=CHORDS_MOST)
        rows, now = found[0] or [], found[1]
        rows.sort(key=lambda row: (*((False, row[2]) if isinstance(row[2], datetime) else (True, now)), str(row[0])))
        for group, size, sent_at in rows[skip:]:
            if wanted not in {None, group}:
                continue
            if isinstance(group, str) and isinstance(size, int):
                try:
                    chord = self._chord(group, size, sent_at, now)
                except UnreadableRecord as exc:
                    if wanted is not None:
                        raise UnreadableRecord(f"chord {group!r} cannot be read: {exc}") from exc
                    logger.warning("chord %r is left out: %s", group, exc)
                    continue
                if chord is not None:
                    yield chord

    def _chord(self, group: str, size: int, sent_at: Any, now: datetime) -> UnfinishedChord | None:
        parts, added, headers, claims = self._runner.run_all(
            chord_statements.present(self._chords), group=group, limit=PARTS_MOST
        )
        if any(claims or ()):
            return None  # its body was sent meanwhile
        present = set(parts or ())
        tasks, body_name = (headers or [(None, None)])[0]
        age = (now - sent_at).total_seconds() if isinstance(sent_at, datetime) else None
        total = size + len(added or ())
        missing = self._missing(group, [*(tasks or ()), *(added or ())], present) if len(present) < total else ()
        return UnfinishedChord(group, total, len(present), missing, age, body_name)

    def _missing(self, group: str, known: list[str], present: set[str]) -> tuple[MissingPart, ...]:
        ids = [each for each in dict.fromkeys(known) if each not in present]
        if not known:
            text = statements.unready_of_group(self._tasks)
            unready = self._search.rows(text, {"group": group}, UNREADY_SORTED)
            return tuple(MissingPart(task_id, state) for task_id, state in unready if task_id not in present)
        asked = ids[:MISSING_MOST]
        rows = (
            self._runner.run(statements.STATES, records=[RecordID(self._tasks, each) for each in asked])
            if asked
            else ()
        )
        stored: dict[str, str] = dict(rows or ())
        return tuple(MissingPart(each, stored.get(each, states.PENDING)) for each in ids)
