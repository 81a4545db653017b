"""Work done in a forked child, whose failure is the test's."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable


def in_fork(work: Callable[[], object]) -> None:
    """Run something in a forked child and fail if it failed there."""
    pid = os.fork()
    if pid == 0:
        # A child that hangs ends, and its exit code says so: nobody else would end it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(100)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
