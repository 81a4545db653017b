"""The timeout of a wait, as a caller gives it: any number of seconds, or None. Checked before anything waits."""

from __future__ import annotations

import math
from typing import Any


def seconds(timeout: Any, name: str = "timeout") -> float | None:
    """Return a timeout as a number of seconds.

    NaN is neither before nor after any moment, so a wait that compared it with the clock would never end. Text is not
    read as a number: Celery's Redis backend does not either.

    Args:
        timeout: The timeout. Zero, negative and infinite ones mean what they say.
        name: The name of the argument, for the message.

    Returns:
        The seconds; None to wait without end.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN, or an integer too large for a clock.
    """
    if timeout is None:
        return None
    what = f"{name} must be a number of seconds, or None to wait without end, not {timeout!r}"
    if isinstance(timeout, (str, bytes, bytearray)):
        raise TypeError(f"{what}: convert text with float() before")
    try:
        found = float(timeout)
    except OverflowError:
        raise ValueError(what) from None
    except (TypeError, ValueError):
        raise TypeError(what) from None
    if math.isnan(found):
        raise ValueError(what)
    return found
