"""Results whose `then()` got a callback, of which nobody may ever call `get()`.

A thread that waits for anything fulfils the results that it gave a callback to, if they come meanwhile: the callback
runs in the thread that added it. Under gevent and eventlet, a greenlet does that for all.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

#: Results of threads that ended are looked for whenever so many more were added, and dropped.
SWEEP = 64


@dataclass(frozen=True)
class _Kept:
    result: Any
    thread: weakref.ref[threading.Thread]


class Promises:
    """Keeps results until they are fulfilled. Safe for threads: single operations on a dict only.

    Args:
        shared: Whether one greenlet serves those of all threads.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self._kept: dict[int, _Kept] = {}
        self._sweep_at = SWEEP

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, result: Any) -> None:
        """Keep a result of this thread.

        Args:
            result: The result object.
        """
        self._kept[id(result)] = _Kept(result, weakref.ref(threading.current_thread()))
        if len(self._kept) >= self._sweep_at:
            for key, kept in list(self._kept.items()):
                thread = kept.thread()
                if not self.shared and (thread is None or not thread.is_alive()):
                    self._kept.pop(key, None)
            self._sweep_at = 2 * len(self._kept) + SWEEP

    def discard(self, result: Any) -> None:
        """Let go of a result: it is fulfilled or forgotten. Never blocks.

        Args:
            result: The result object; any other than those kept is let be.
        """
        self._kept.pop(id(result), None)

    def mine(self) -> list[Any]:
        """Return the results that this thread fulfils while it waits for others."""
        if not self._kept or self.shared:
            return []
        thread = threading.current_thread()
        return [kept.result for kept in list(self._kept.values()) if kept.thread() is thread]

    def all(self) -> list[Any]:
        """Return the results of all threads."""
        return [kept.result for kept in list(self._kept.values())]
