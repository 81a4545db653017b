"""Clean-up of chords, before it deletes: unfinished ones live on whole, forgotten bodies are published."""

from __future__ import annotations

from collections.abc import Iterator

from celery.utils.log import get_logger

from ...errors import TransientError
from .dispatch import Chords
from .store import ChordStore

logger = get_logger(__name__)


class Upkeep:
    """Goes through the unfinished chords, a page of them per request.

    Args:
        chords: Publishes bodies.
        store: Where the chords are.
    """

    def __init__(self, chords: Chords, store: ChordStore) -> None:
        self._chords = chords
        self._store = store

    def run(self) -> int:
        """See to every unfinished chord.

        Returns:
            How many bodies were published.
        """
        return sum(self._see_to(group, old) for group, old in self._unfinished())

    def _unfinished(self) -> Iterator[tuple[str, bool]]:
        after = ""
        while page := self._chords.host.retry(self._store.unfinished, after):
            yield from page
            after = page[-1][0]

    def _see_to(self, group: str, old: bool) -> bool:
        try:
            if old:
                self._chords.host.retry(self._store.prolong_parts, group)
            return self._chords.resume(group)
        except TransientError:
            raise
        except Exception:
            # One chord that cannot be published, or not be read, must not keep clean-up from the others.
            logger.exception("Chord %r could not be seen to", group)
            return False
