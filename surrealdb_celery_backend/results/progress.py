"""How far a task is, told at most so many times a second."""

from __future__ import annotations

import time
from typing import Any


class Progress:
    """Stores a task's progress, where it is native and searchable: `SELECT progress FROM task`.

    ::

        @app.task(bind=True)
        def load(self, rows):
            progress = Progress(self, total=len(rows))
            for number, row in enumerate(rows, 1):
                save(row)
                progress.update(number, message=row.name)

    Args:
        task: The running task (`bind=True`).
        total: How much there is to do; None where nobody knows.
        per_second: How many times a second at most the state is stored. What comes in between is dropped, but the
            first and the one that reaches `total` never are.
        state: The state's name.
    """

    def __init__(
        self, task: Any, total: float | None = None, *, per_second: float = 2.0, state: str = "PROGRESS"
    ) -> None:
        if per_second <= 0:
            raise ValueError(f"per_second must be above 0, not {per_second!r}")
        self.total = total
        self._task = task
        self._pause = 1.0 / per_second
        self._state = state
        self._stored_at: float | None = None

    def update(self, current: float, total: float | None = None, message: str | None = None) -> bool:
        """Tell how much is done.

        Args:
            current: How much.
            total: How much there is to do, where that has changed.
            message: The current step.

        Returns:
            Whether it was stored.
        """
        if total is not None:
            self.total = total
        now = time.monotonic()
        done = self.total is not None and current >= self.total
        if self._stored_at is not None and now - self._stored_at < self._pause and not done:
            return False
        self._stored_at = now
        meta: dict[str, Any] = {"current": current, "total": self.total}
        if message is not None:
            meta["message"] = message
        self._task.update_state(state=self._state, meta=meta)
        return True
