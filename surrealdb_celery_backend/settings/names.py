"""Names that are not quite a setting's: which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """The name that was probably meant.

    Args:
        name: The name as written.
        known: The names that there are.
        cutoff: How much must be alike, from 0 to 1.

    Returns:
        One of `known`: one that `name` is the beginning of, or the most similar; None where none is alike.
    """
    names = list(known)
    lowered = {candidate.lower(): candidate for candidate in names}
    longer = [candidate for candidate in lowered if candidate.startswith(name.lower())]
    found = longer or difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=cutoff)
    return lowered[found[0]] if found else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is none.

    Args:
        what: The kind of thing that has the name: `setting`.
        name: The name as written.
        known: The names that there are.

    Returns:
        One sentence that suggests the nearest name.
    """
    return f"unknown {what} {name!r}; did you mean {nearest(name, known, cutoff=0)!r}?"
