"""Waiting for a state, which is all that tests wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: How long a test waits for a state that should come at once, in seconds.
MAX_WAIT = 30.0
#: How often a state is looked at, in seconds.
LOOK_AGAIN = 0.005


def until(condition: Callable[..., Any], what: str, patience: float = MAX_WAIT) -> Any:
    """Wait until a state is there and return what the condition gave; the test fails if it never comes."""
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, f"still not after {patience:g} s: {what}"
        time.sleep(LOOK_AGAIN)
    return found
