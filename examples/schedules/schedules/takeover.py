"""Start two beats, kill the active one, and show that the other takes over.

python -m schedules.takeover
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from surrealdb_celery_backend.beat import Schedules
from surrealdb_celery_backend.results import Results

from .app import app

#: How long a killed beat is waited for, in seconds. In production the default of 30 seconds is a good one.
LEASE = "3"
#: How long anything may take before this program gives up, in seconds.
MAX_WAIT = 120.0

T = TypeVar("T")


class TakeoverError(Exception):
    """A state that should have come did not."""


@contextlib.contextmanager
def two_beats() -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Run two `celery beat` processes.

    Yields:
        The processes by their ids.
    """
    command = [sys.executable, "-m", "celery", "-q", "-A", "schedules", "beat", "-S", "surrealdb", "--pidfile="]
    environment = {**os.environ, "CELERY_SURREALDB_BEAT_LEASE": LEASE}
    beats = [subprocess.Popen(command, env=environment) for _ in range(2)]
    try:
        yield {beat.pid: beat for beat in beats}
    finally:
        for beat in beats:
            beat.terminate()
        for beat in beats:
            try:
                beat.wait(MAX_WAIT)
            except subprocess.TimeoutExpired:
                beat.kill()
                beat.wait()


def until(condition: Callable[[], T | None], what: str) -> T:
    """Wait for a state.

    Args:
        condition: Whether it is there.
        what: Its name, for the error.

    Returns:
        What the condition gave.

    Raises:
        TakeoverError: It did not come within `MAX_WAIT`.
    """
    end = time.monotonic() + MAX_WAIT
    while not (found := condition()):
        if time.monotonic() > end:
            raise TakeoverError(f"still not after {MAX_WAIT:g} s: {what}")
        time.sleep(0.1)
    return found


def main() -> None:
    """Show the takeover."""
    with Schedules(app) as schedules, Results(app) as results:
        with two_beats() as beats:
            take_over(schedules, beats)
        runs = schedules.get("heartbeat").total_run_count

        def count() -> int:
            return sum(1 for _ in results.find_all(periodic="heartbeat", state="SUCCESS"))

        # The id of a run's task follows from its entry and its due time, so a run that is sent twice has one result.
        until(lambda: count() >= runs, f"each of {runs} runs has a result (is a worker there?)")
        print(f"{runs} runs, {count()} results: none is missing, none is there twice")


def take_over(schedules: Schedules, beats: dict[int, subprocess.Popen[bytes]]) -> None:
    """Kill the active beat.

    Args:
        schedules: The entries.
        beats: The two beats, by their process ids.
    """

    def active() -> int | None:
        beat = schedules.active_beat()
        return beat.process if beat is not None and beat.process in beats else None

    def runs() -> int:
        return schedules.get("heartbeat").total_run_count

    first = until(active, "one of the two is active")
    until(lambda: "heartbeat" in {each.name for each in schedules.stored()}, "the entries of the code are there")
    before = runs()
    until(lambda: runs() >= before + 3, "the entry ran three times")
    print("active: the", "first" if first == next(iter(beats)) else "second", "beat", flush=True)

    beats[first].kill()
    beats[first].wait()
    at_the_kill = runs()
    print(f"killed; {at_the_kill - before} runs until then", flush=True)

    until(lambda: active() not in {None, first}, "the other one took over")
    until(lambda: runs() >= at_the_kill + 5, "the entry ran on, and missed runs were made up for")
    print(f"active: the other beat; {runs() - at_the_kill} runs more", flush=True)


if __name__ == "__main__":
    main()
