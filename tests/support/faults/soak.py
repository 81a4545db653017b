"""Store and fetch for a long time in one process, with the line broken now and then: is anything growing?

    python -m tests.support.faults.soak                      100,000 results, 500 broken lines
    python -m tests.support.faults.soak --results 4000 --breaks 40

Prints memory and open files on the way and fails where they grow. Runs on Linux, which has /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery, states

from surrealdb_celery_backend.client.websocket import WebSocketTransport
from tests.engines import start

#: What memory may grow between the first tenth and the end, in MiB: less than 100 bytes per result.
GROWTH = 8.0


@dataclass(frozen=True)
class Sample:
    """A process at one moment: memory in MiB, open files, threads."""

    memory: float
    files: int
    threads: int

    @classmethod
    def now(cls) -> Sample:
        """This process, after a garbage collection."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        return cls(memory, len(list(Path("/proc/self/fd").iterdir())), threading.active_count())


def break_line(app: Celery) -> None:
    """The line breaks under the backend, which is not told."""
    line: Any = app.backend.connection.transport
    assert isinstance(line, WebSocketTransport)
    line._socket.shutdown(socket.SHUT_RDWR)


def soak(settings: dict[str, Any], results: int, breaks: int, *, say: Any = None) -> tuple[Sample, Sample]:
    """Store and fetch so many results.

    Args:
        settings: Those that lead to the database.
        results: How many.
        breaks: How often the line breaks, evenly spread.
        say: Called with a line now and then.

    Returns:
        The process after a tenth of the results, and at the end.
    """
    app = Celery("soak", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(settings)
    backend = app.backend
    every, tenth = max(1, results // breaks), max(1, results // 10)
    first = None
    started = time.monotonic()
    for number in range(1, results + 1):
        task_id, value = f"soak-{number}", {"number": number, "text": "x" * (number % 500)}
        backend.store_result(task_id, value, states.SUCCESS)
        assert backend.get_task_meta(task_id)["result"] == value
        if number % every == 0:
            break_line(app)
        if number % tenth == 0:
            sample = Sample.now()
            first = first or sample
            if say:
                rate = number / (time.monotonic() - started)
                say(
                    f"{number:>8} results {rate:6.0f}/s {sample.memory:7.1f} MiB {sample.files:>4} files "
                    f"{sample.threads:>3} threads {backend.connection.request_count:>8} round trips"
                )
    last = Sample.now()
    backend.close()
    assert first is not None
    return first, last


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--breaks", type=int, default=500)
    parser.add_argument("--engine", default="3.0.2")
    parser.add_argument("--settings", type=json.loads, help="surrealdb_* settings, as JSON, in the place of --engine")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        settings = options.settings or stack.enter_context(start(options.engine)).database().settings
        first, last = soak(settings, options.results, options.breaks, say=lambda line: print(line, flush=True))
    grown = last.memory - first.memory
    print(
        f"memory grew by {grown:.1f} MiB, open files {first.files} -> {last.files}, "
        f"threads {first.threads} -> {last.threads}"
    )
    return int(grown >= GROWTH or last.files > first.files or last.threads > first.threads)


if __name__ == "__main__":
    sys.exit(main())
