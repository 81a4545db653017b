"""Whether the LIVE query brings what it was asked for. Pure: times are handed in, in seconds of the monotonic clock."""

from __future__ import annotations

#: LIVE is distrusted once so many results came by a look that it should have brought, if they are also more than one
#: in ten: the server is a cluster, where a write on another node is not notified.
MISSED, PUSHED_PER_MISSED = 3, 10
#: How long a notification may take, in seconds, after a look has found the same record.
GRACE = 1.0


class LiveTrust:
    """Counts notifications that came and those that did not. Not safe for threads by itself."""

    def __init__(self) -> None:
        self.pushed = 0
        self.missed = 0
        #: Results that a look found before their notification came, and when.
        self._suspects: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._suspects)

    def came(self, task_id: str, *, useful: bool) -> None:
        """Note a notification of a task.

        Args:
            task_id: The task's id.
            useful: Whether somebody waited for the task.
        """
        if self._suspects.pop(task_id, None) is not None or useful:
            self.pushed += 1

    def found(self, task_id: str, now: float) -> None:
        """Note that a look found a result of which the LIVE query had to notify.

        Args:
            task_id: The task's id.
            now: The time.
        """
        self._suspects.setdefault(task_id, now)

    def forgive(self) -> None:
        """Drop what is in doubt: the LIVE query was lost, or has ended."""
        self._suspects.clear()

    def is_kept(self, now: float) -> bool:
        """Return whether the LIVE query can be trusted.

        Args:
            now: The time.
        """
        for task_id, found in list(self._suspects.items()):
            if now - found < GRACE:
                break  # in the order in which they were found
            del self._suspects[task_id]
            self.missed += 1
        return self.missed < MISSED or self.missed * PUSHED_PER_MISSED <= self.pushed
