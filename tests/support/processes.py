"""Programs that tests start, and end."""

from __future__ import annotations

import signal
import subprocess

#: How long a program of an example may take to get somewhere, in seconds: a limit for a hang, not a wait.
MAX_WAIT = 300.0


def end(process: subprocess.Popen[bytes], patience: float = MAX_WAIT) -> None:
    """End a program as a service manager does, and fail if it does not end.

    Args:
        process: The program.
        patience: How long it may take, in seconds; then it is killed.
    """
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
