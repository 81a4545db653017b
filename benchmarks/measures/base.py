"""What a measure is: rows, sizes, the things that measures share during a run, and a timed series of calls."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import worker
from ..accounting import Accounts, Group, alone, children, tree
from ..contenders import Client, Contender, request_of
from ..servers import Server
from ..storer import Storer


@dataclass(frozen=True)
class Row:
    """A line of the table.

    :param key: how results name it.
    :param title: how the table names it.
    :param unit: behind the numbers.
    :param higher_is_better: None where a ratio says nothing.
    :param reference: whose number the ratio is against.
    :param decided_by: what the number depends on: ``client`` is this library, ``engine`` the server's machine.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool | None
    reference: str = "redis"
    decided_by: str = "engine"


@dataclass(frozen=True)
class Sizes:
    """How much is done per repetition."""

    calls: int = 250
    large_calls: int = 50
    join: int = 500
    wakes: int = 30
    tasks: int = 600
    header: int = 200
    parts: tuple[int, ...] = (200, 1000, 5000)
    expired: int = 50_000
    delayed_calls: int = 25


#: Enough to see that everything works, not enough to compare.
QUICK = Sizes(
    calls=60,
    large_calls=20,
    join=50,
    wakes=4,
    tasks=40,
    header=20,
    parts=(20, 60),
    expired=2500,
    delayed_calls=5,
)


class Bench:
    """What the measures share during a run."""

    def __init__(self, contenders: list[Contender], sizes: Sizes, broker: Server) -> None:
        self.contenders = contenders
        self.sizes = sizes
        self.broker = broker
        self.stack = contextlib.ExitStack()
        self._clients: dict[str, Client] = {}
        self._workers: dict[str, worker.RunningWorker] = {}
        self._storer: Storer | None = None

    def client(self, contender: Contender) -> Client:
        """The contender's client, opened once and warm."""
        if contender.name not in self._clients:
            client = self._clients[contender.name] = contender.client()
            self.stack.callback(client.close)
            for task_id in ids(50):
                client.store(task_id, "x", request_of(task_id))
                client.fetch(task_id)
        return self._clients[contender.name]

    def accounts(self, contender: Contender, running: worker.RunningWorker | None = None) -> Accounts:
        """The CPU of everybody who takes part: this client, the engine, and with a worker its processes and broker.

        :param running: the contender's worker.
        """
        groups: dict[str, Group] = {}
        if contender.server_pid is not None:
            groups["engine"] = tree(contender.server_pid)
        if running is not None:
            groups |= {"parent": alone(running.pid), "children": children(running.pid)}
            if self.broker.pid is not None:
                groups["broker"] = tree(self.broker.pid)
        return Accounts(groups)

    @property
    def storer(self) -> Storer:
        """The process that stores results meanwhile."""
        if self._storer is None:
            self._storer = self.stack.enter_context(Storer())
        return self._storer

    def worker(self, contender: Contender) -> worker.RunningWorker:
        """The contender's worker, started once; all idle but the one that is measured."""
        if contender.name not in self._workers:
            self._workers[contender.name] = self.stack.enter_context(worker.running(contender, self.broker.url))
        return self._workers[contender.name]


class Measure(ABC):
    """One kind of measurement, which may give several rows."""

    name: ClassVar[str]
    #: More repetitions would show nothing, or take too long.
    most_repeats: ClassVar[int] = 100
    #: Samples per repetition: short ones in quick alternation, where a busy moment would hide a difference.
    turns: ClassVar[int] = 1

    @abstractmethod
    def rows(self, sizes: Sizes) -> list[Row]:
        """The rows it gives."""

    def applies(self, contender: Contender) -> bool:
        """Whether the contender can do this at all."""
        return contender.celery

    @abstractmethod
    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        """One repetition: a number per row."""


def ids(number: int) -> list[str]:
    """Task ids as Celery makes them."""
    return [str(uuid.uuid4()) for _ in range(number)]


def timed(
    call: Callable[..., Any],
    arguments: list[tuple[Any, ...]],
    threads: int = 1,
    accounts: Accounts | None = None,
) -> tuple[float, dict[str, float]]:
    """Call with each of the arguments, from one or more threads.

    :param threads: how many; with more than one, the first call of each is not counted.
    :param accounts: of whom CPU is counted; of this process alone without it.
    :return: seconds from start to end, and seconds of CPU by group.
    """
    accounts = accounts or Accounts({})
    gc.collect()
    if threads == 1:
        with accounts.used() as cpu:
            began = time.perf_counter()
            for each in arguments:
                call(*each)
            elapsed = time.perf_counter() - began
        return elapsed, cpu
    ready = threading.Barrier(threads + 1)
    go = threading.Barrier(threads + 1)
    failures: list[BaseException] = []

    def work(share: list[tuple[Any, ...]]) -> None:
        try:
            call(*share[0])  # opens what this thread needs of its own
        except BaseException as error:
            failures.append(error)
        ready.wait()
        go.wait()
        try:
            for each in share[1:]:
                call(*each)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(arguments[start::threads],)) for start in range(threads)]
    for thread in workers:
        thread.start()
    ready.wait()
    with accounts.used() as cpu:
        began = time.perf_counter()
        go.wait()
        for thread in workers:
            thread.join()
        elapsed = time.perf_counter() - began
    if failures:
        raise failures[0]
    return elapsed, cpu
