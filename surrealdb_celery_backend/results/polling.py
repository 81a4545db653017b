"""When results that are waited for are looked for: early at first, then ever more rarely.

How early, and how rarely, depends on whether a LIVE query brings the result anyway. Pure: times are handed in, in seconds of the
monotonic clock.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import Enum

#: Results due within this many seconds are looked for in the same request.
TOGETHER = 0.005
#: How long until a state that a look found, although its notification may be under way, is looked for again.
CONFIRM = 0.1
#: Entries of the heap that are out of date are swept once there are this many more than valid ones.
SWEEP = 256


@dataclass(frozen=True)
class Pauses:
    """The pauses between two looks, in seconds.

    Attributes:
        first: The shortest.
        share: A pause is this part of the time waited, between the shortest and the longest.
        last: The longest.
    """

    first: float
    share: float
    last: float

    def after(self, waited: float) -> float:
        """Return the pause before the next look.

        Args:
            waited: For how long the result has been waited for.
        """
        return min(max(waited * self.share, self.first), self.last)


class Coverage(Enum):
    """How a LIVE query covers a result that is waited for."""

    #: It does not notify of the result. The expected delay is half a tenth of the time waited.
    NONE = Pauses(first=0.01, share=0.1, last=0.5)
    #: The process sent the task, and results for its address are asked for. They come, unless the task was replaced
    #: in a worker or given another address.
    ADDRESS = Pauses(first=0.05, share=1.0, last=5.0)
    #: The same, where the last results that this process sent the tasks of did come so.
    PROVEN_ADDRESS = Pauses(first=0.2, share=1.0, last=5.0)
    #: The LIVE query names the task's id. Looks are for notifications that are lost.
    ID = Pauses(first=1.0, share=0.1, last=5.0)


class Schedule:
    """When to look for which result. Not safe for threads by itself: its owner holds a lock."""

    def __init__(self) -> None:
        #: Since when each is waited for, and when it is due. Due is missing while it is looked for.
        self._since: dict[str, float] = {}
        self._due: dict[str, float] = {}
        #: Those that a look did not find while a LIVE query named them: the next look should have nothing to find.
        self._relied_on: set[str] = set()
        #: (due, id). An entry counts if `_due` says the same.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._since)

    @property
    def entries(self) -> int:
        """How many entries the heap has, those out of date included."""
        return len(self._heap)

    def add(self, task_id: str, now: float, pause: float) -> None:
        """Begin to look for a result. A result that has another waiter is looked for early again.

        Args:
            task_id: The task's id.
            now: The time.
            pause: How long until the first look, in seconds.
        """
        self._since[task_id] = now
        self._plan(task_id, min(now + pause, self._due.get(task_id, now + pause)))

    def drop(self, task_id: str) -> None:
        """Stop looking for a result.

        Args:
            task_id: The task's id.
        """
        self._since.pop(task_id, None)
        self._due.pop(task_id, None)
        self._relied_on.discard(task_id)
        self._sweep()

    def plan(self, task_id: str, now: float, coverage: Coverage, *, at_least: float = 0.0, soon: bool = False) -> None:
        """Plan the next look for a result that was just looked for, unless it is planned already.

        Args:
            task_id: The task's id.
            now: The time.
            coverage: Whether LIVE covers it.
            at_least: The shortest pause, in seconds: while looks fail, above all.
            soon: Whether what was found needs another look, since no look before relied on LIVE.
        """
        since = self._since.get(task_id)
        if since is None or task_id in self._due:
            return
        pause = coverage.value.after(now - since)
        if coverage is Coverage.ID:
            if soon and task_id not in self._relied_on:
                pause = CONFIRM
            self._relied_on.add(task_id)
        self._plan(task_id, now + max(pause, at_least))

    def look_at_once(self, now: float) -> None:
        """Make everything due: notifications may have been missed.

        Args:
            now: The time.
        """
        self._relied_on.clear()
        for task_id in self._since:
            self._due[task_id] = now
        self._heap = [(now, task_id) for task_id in self._since]

    def relied_on(self, task_id: str) -> bool:
        """Return whether a LIVE query had to bring a result that a look finds now.

        Args:
            task_id: The task's id.
        """
        return task_id in self._relied_on

    def age(self, task_id: str, now: float) -> float:
        """Return for how long a result has been looked for, in seconds.

        Args:
            task_id: The task's id.
            now: The time.
        """
        return now - self._since.get(task_id, now)

    def take_due(self, now: float) -> list[str]:
        """Return what is due, and what is nearly so. Each is due again once :meth:`plan` says when.

        Args:
            now: The time.
        """
        due = []
        while self._heap and self._heap[0][0] <= now + TOGETHER:
            when, task_id = heapq.heappop(self._heap)
            if self._due.get(task_id) == when:
                del self._due[task_id]
                due.append(task_id)
        return due

    @property
    def next_due(self) -> float | None:
        """When the next look is due; None where nothing is planned."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _plan(self, task_id: str, when: float) -> None:
        if self._due.get(task_id) != when:
            self._due[task_id] = when
            heapq.heappush(self._heap, (when, task_id))

    def _sweep(self) -> None:
        if not self._due:
            self._heap.clear()
        elif len(self._heap) > 2 * len(self._due) + SWEEP:
            self._heap = [(when, task_id) for task_id, when in self._due.items()]
            heapq.heapify(self._heap)
