"""The lock of an engine's directory: one process at a time.

SurrealDB 2.3 does not notice a second process on its directory, and both would write over each other. It imports
nothing of this package: the development server uses it too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: Held by the process that has the engine of its directory open.
LOCK_FILE = "celery-backend.lock"


class DirectoryLock:
    """A lock on a directory, held by this process until it ends or releases it.

    Args:
        directory: The directory; made for this user alone, with its parents, if it does not exist.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The directory cannot be made or written to.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        path = Path(directory)
        # Of its owner alone: results are nobody else's to read.
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        self._fd: int | None = os.open(path / LOCK_FILE, flags, 0o600)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise BlockingIOError(f"{path} is locked by another process") from None

    def release(self) -> None:
        """Close this process's hold on the directory; where a fork has another, that one stays."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
