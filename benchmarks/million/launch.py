"""Run a program and print what it took, as JSON: ``python -S -E launch.py OUTPUT PROGRAM ARGUMENT …``.

It imports little, for a new process's peak of memory begins with that of the one that started it.
"""

import json
import os
import sys
import time


def main() -> None:
    """Run it."""
    output, *command = sys.argv[1:]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    into = [(os.POSIX_SPAWN_OPEN, number, f"{output}.{number}", flags, 0o600) for number in (1, 2)]
    began = time.monotonic()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=into)
    _, status, used = os.wait4(pid, 0)
    seconds = time.monotonic() - began
    found = {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime,
        "memory": used.ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
