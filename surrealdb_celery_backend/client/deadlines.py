"""Deadlines: when a block of code has to be done with the database, with all its calls.

A caller that may not wait sets one around what it calls; every call made in between ends in time. A deadline
belongs to the thread or greenlet that set it.

In all of this library a `deadline` is a moment of `time.monotonic()`, and a `timeout` is a number of seconds.
"""

from __future__ import annotations

import time
from contextvars import ContextVar, Token

_deadline: ContextVar[float | None] = ContextVar("surrealdb_deadline", default=None)


class time_limit:  # noqa: N801 - used like a function
    """Give what is called inside so much time, or less where a limit around it says so.

    Args:
        seconds: The time from now on; None changes nothing.
    """

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._token: Token[float | None] | None = None

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._token = _deadline.set(deadline(self._seconds))

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _deadline.reset(self._token)


def deadline(timeout: float) -> float:
    """Return when a call that begins now has to end, by the monotonic clock.

    Args:
        timeout: How long it may take, in seconds, where no limit around it says less.
    """
    end = time.monotonic() + timeout
    outer = _deadline.get()
    return end if outer is None else min(end, outer)


def time_left() -> float | None:
    """Return how many seconds are left of the limit around this code; None where there is none."""
    outer = _deadline.get()
    return None if outer is None else outer - time.monotonic()
