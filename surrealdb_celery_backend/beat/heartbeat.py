"""A file that says that beat lives, for liveness probes that look at its age or its content."""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import datetime
from pathlib import Path

from celery.utils.log import get_logger

logger = get_logger("celery.beat")

#: How often the file is written at most, in seconds.
WRITE_EVERY = 1.0


class Heartbeat:
    """The file named by `surrealdb_beat_heartbeat`, written anew by each tick.

    Args:
        path: The file, or None for none.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self._next = 0.0
        self._is_told = False

    def write(self, state: str, now: datetime, *, token: int | None, next_run_at: datetime | None) -> None:
        """Write the file, if it is time.

        Args:
            state: `active`, `standby` or `paused`.
            now: The time.
            token: The fencing token of the lease, or None.
            next_run_at: When the next run is to be sent, or None.
        """
        if self._path is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + WRITE_EVERY
        content = {
            "state": state,
            "at": now.isoformat(),
            "process": os.getpid(),
            "lease": token,
            "next_run_at": None if next_run_at is None else next_run_at.isoformat(),
        }
        # Replaced, not written into: a reader sees a whole file, and a link in its place is not followed.
        written = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            written.write_text(json.dumps(content) + "\n", encoding="utf-8")
            written.replace(self._path)
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                logger.warning("beat: surrealdb_beat_heartbeat %s cannot be written: %s", self._path, error)

    def remove(self) -> None:
        """Remove the file: beat ends in order."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
