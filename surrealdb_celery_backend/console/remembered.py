"""What many pages ask for at once: computed by one thread, remembered for some seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Computing takes at most this part of the time: what takes long stays fresh for longer.
SHARE = 0.1
#: Values that are kept; when there are more, those that are old go.
MOST, OLD = 200, 60.0
#: Makes a value. It may hand over what it has so far to the function that it is given.
Compute = Callable[[Callable[[T], Any]], T]


@dataclass(frozen=True)
class Known(Generic[T]):
    """A value that may be older than wanted.

    Attributes:
        value: The value; None while it is computed for the first time.
        computing: Whether a newer one is on its way.
        at: When it was ready.
        took: For how many seconds it was computed.
    """

    value: T | None
    computing: bool
    at: datetime | None
    took: float = 0.0


class Remembered:
    """Values by key. However many pages ask for one, one thread computes it.

    Args:
        threads: How many values are computed at once.
    """

    def __init__(self, threads: int) -> None:
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, Known[Any]]] = {}
        self._computing: dict[Hashable, Future[Known[Any]]] = {}
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="console-figures")

    def of(self, key: Hashable, compute: Compute[T], *, kept: float, patience: float | None) -> Known[T]:
        """A value: the remembered one while it is fresh, else a new one.

        Args:
            key: The name that it is remembered under.
            compute: Makes it.
            kept: For how many seconds it is fresh.
            patience: For how many seconds a new one is waited for before the old one, or none, is returned; None waits
                for as long as it takes.
        """
        with self._lock:
            known = self._known.get(key)
            future = self._computing.get(key)
            if known is not None and future is None and time.monotonic() - known[0] < max(kept, known[1].took / SHARE):
                return known[1]
            if future is None:
                future = self._computing[key] = self._threads.submit(self._compute, key, compute)
        try:
            return future.result(patience)
        except NotYet:
            with self._lock:
                known = self._known.get(key)
            return Known(None, True, None) if known is None else replace(known[1], computing=True)

    def forget(self) -> None:
        """Compute everything anew: somebody changed what is shown."""
        with self._lock:
            self._known.clear()

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compute(self, key: Hashable, compute: Compute[T]) -> Known[T]:
        began = time.monotonic()

        def publish(value: T, *, computing: bool = True) -> Known[T]:
            now = time.monotonic()
            made = Known(value, computing, datetime.now(timezone.utc), now - began)
            with self._lock:
                if len(self._known) >= MOST:
                    self._known = {each: known for each, known in self._known.items() if now - known[0] < OLD}
                self._known[key] = (now, made)
            return made

        try:
            return publish(compute(publish), computing=False)
        finally:
            with self._lock:
                self._computing.pop(key, None)
