"""When a record ends: the client sends a lifetime, and the database adds it to its own clock.

Clocks of hosts differ. A worker that is two days behind and wrote `expires_at` itself would lose its results at
once. So no time that decides an expiry is computed outside the database.
"""

from __future__ import annotations

from datetime import timedelta

#: A record that expired counts as not there, whether or not clean-up has come by.
ALIVE = "(expires_at IS NONE OR expires_at > time::now())"


def ends_at(lifetime: str) -> str:
    """The SurrealQL of a record's end.

    Args:
        lifetime: SurrealQL of a duration, or of NONE for never.

    Returns:
        An expression: the database's time after that duration; NONE, which is not stored, for never.
    """
    return f"({lifetime} AND time::now() + {lifetime})"


def until(fields: str, lifetime: str = "$lifetime", *more: str) -> str:
    """The SurrealQL of a record's fields, with `expires_at` counted from the database's time.

    Args:
        fields: SurrealQL of an object, such as a parameter.
        lifetime: SurrealQL of a duration, or of NONE for never.
        more: Further fields: SurrealQL of pairs of name and value. Those whose value is NONE are not stored.

    Returns:
        An expression for CONTENT or INSERT. An expression and not SET, which would keep the fields of the record
        that is replaced; made of entries, because SurrealDB 2 has no function that merges two objects.
    """
    entries = ", ".join([f"['expires_at', {ends_at(lifetime)}]", *more])
    return f"object::from_entries(array::concat(object::entries({fields}), [{entries}]))"


def lifetime(seconds: float | None) -> timedelta | None:
    """A lifetime as a parameter of a statement.

    Args:
        seconds: How long a record lives; None or 0 for ever, a negative number for not at all.
    """
    return timedelta(seconds=max(seconds, 1e-6)) if seconds else None


def longest(*seconds: float | None) -> float | None:
    """Return the longest of several lifetimes, in seconds.

    Args:
        seconds: Lifetimes, of which None and 0 are for ever; at least one.
    """
    return max(float(one) for one in seconds if one) if all(seconds) else None
