"""Slices, because no request may be without an upper size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Return values in slices.

    Args:
        values: Any number of them.
        size: How many to a slice at most.
    """
    for start in range(0, len(values), size):
        yield values[start : start + size]
