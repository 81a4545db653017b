"""CPU by process, from the operating system's accounting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

#: Gives the processes of a group when it is asked: a pool may have replaced some.
Group = Callable[[], list[psutil.Process]]


def tree(pid: int) -> Group:
    """A process with all that it started."""

    def processes() -> list[psutil.Process]:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]

    return processes


def alone(pid: int) -> Group:
    """A process without its children."""
    return lambda: [psutil.Process(pid)]


def children(pid: int) -> Group:
    """The children of a process, with all that they started."""
    return lambda: psutil.Process(pid).children(recursive=True)


class Accounts:
    """Seconds of CPU, user and system, that groups of processes used.

    Args:
        groups: The groups by name. This process is ``client`` without being named.
    """

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self._groups = dict(groups)

    def read(self) -> dict[str, float]:
        """Seconds of CPU of each group so far."""
        return {"client": time.process_time(), **{name: _seconds(group) for name, group in self._groups.items()}}

    @contextmanager
    def used(self) -> Iterator[dict[str, float]]:
        """Seconds of CPU of each group inside the block; filled when it ends."""
        before = self.read()
        spent: dict[str, float] = {}
        yield spent
        spent.update({name: seconds - before[name] for name, seconds in self.read().items()})


def _seconds(group: Group) -> float:
    total = 0.0
    for process in group():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def peak_memory(pid: int) -> float:
    """The most memory that a process had at once so far, in MiB: what lay in RAM.

    Args:
        pid: The process.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # no Linux
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
