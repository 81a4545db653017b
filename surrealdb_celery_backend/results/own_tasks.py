"""The tasks that this process sent, and the addresses that their results are for."""

from __future__ import annotations

#: How many ids are remembered. Beyond it the oldest are looked for like tasks of another process.
MAX_IDS = 50_000
#: How many of Celery's own addresses, one per sending thread, a LIVE query asks for, besides the process's.
MAX_ADDRESSES = 256


class OwnTasks:
    """Remembers ids as long as result objects of them live. Safe for threads: single operations on dicts only.

    Nothing here takes a lock: :meth:`forget` is called when the collector finds a result object, at any moment.
    """

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._addresses: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    @property
    def addresses(self) -> frozenset[str]:
        """Celery's addresses of the threads that sent tasks."""
        return frozenset(self._addresses.copy())

    def add(self, task_id: str, address: str) -> None:
        """Remember a task.

        Args:
            task_id: The task's id.
            address: Celery's address of the sending thread (``reply_to``).
        """
        self._ids[task_id] = None
        _shorten(self._ids, MAX_IDS)
        if address not in self._addresses:
            self._addresses[address] = None
            _shorten(self._addresses, MAX_ADDRESSES)

    def forget(self, task_id: object) -> None:
        """Forget a task.

        Args:
            task_id: The task's id.
        """
        self._ids.pop(task_id, None)  # type: ignore[call-overload]


def _shorten(ordered: dict[str, None], length: int) -> None:
    while len(ordered) > length:
        try:
            ordered.pop(next(iter(ordered)), None)
        except (StopIteration, RuntimeError):  # pragma: no cover - another thread was faster
            return
