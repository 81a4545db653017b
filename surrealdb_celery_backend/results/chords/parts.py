"""The parts of a complete header, read as a stream: no request asks for more than a bounded slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import statements
from .records import FIRST_LOOK, NO_BUCKET, PartKey, PartResult, Progress, look_ahead, slice_of

#: Runs SurrealQL: takes a text and its parameters, returns a value per statement.
Run = Callable[..., list[Any]]


class PartReader:
    """Reads the parts of one header in its order: those with an index first, then those without.

    Where the next parts are and how large is asked for together with the parts before them, so that a slice can be
    cut by size without a round trip of its own.

    Args:
        run: Runs statements.
        table: The chord table.
        group: The chord.
        progress: The state of its header.
    """

    def __init__(self, run: Run, table: str, group: str, progress: Progress) -> None:
        self._run = run
        self._table = table
        self._group = group
        self._progress = progress
        #: How many parts were read, and how many bytes of results.
        self.number = self.size = 0

    @property
    def mean_size(self) -> int:
        """Bytes per part, of those that were read."""
        return self.size // self.number if self.number else 0

    def __iter__(self) -> Iterator[list[PartResult]]:
        keys = self._progress.keys or self._look([0, -1, ""], FIRST_LOOK, indexed=True)
        yield from self._read(list(keys), indexed=True)
        if self._progress.uneven:
            keys = self._look([NO_BUCKET, -1, ""], FIRST_LOOK, indexed=False)
            yield from self._read(list(keys), indexed=False)

    def _look(self, known: list[Any], number: int, *, indexed: bool) -> Sequence[PartKey]:
        text = statements.read_keys(self._table, indexed=indexed)
        (found,) = self._run(text, group=self._group, known=known, keys=number)
        return [PartKey(*key) for key in found]

    def _read(self, known: list[PartKey], *, indexed: bool) -> Iterator[list[PartResult]]:
        text = statements.read_parts(self._table, indexed=indexed)
        more = len(known) >= FIRST_LOOK
        place: list[Any] = [0 if indexed else NO_BUCKET, -1, ""]
        while known:
            number = slice_of(known)
            # Nothing is looked for while enough is known.
            keys = look_ahead(known) if more and number == len(known) else 0
            parts, found = self._run(
                text, group=self._group, place=place, number=number, known=known[-1].place, keys=max(keys, 1)
            )
            place = known[number - 1].place
            self.number += number
            self.size += sum(key.length for key in known[:number])
            del known[:number]
            if keys:
                known += [PartKey(*key) for key in found]
                more = len(found) >= keys
            yield [PartResult(**part) for part in parts]
