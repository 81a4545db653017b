"""What is measured. Each measure gives numbers of one contender, one repetition at a time."""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

from celery import chord, group, states

from . import worker
from .contenders import CeleryClient, Client, Contender, request_of
from .proxy import Proxy
from .storer import Storer

#: What a distant or clustered server adds to every reply, in seconds.
DELAY = 0.02
THREADS = 8
#: As in a worker with a pool of threads or greenlets.
MANY_THREADS = 32
SMALL, LARGE = 100, 65_536


@dataclass(frozen=True)
class Row:
    """A line of the table.

    :param key: how results name it.
    :param title: how the table names it.
    :param unit: behind the numbers.
    :param higher_is_better: None where a ratio says nothing.
    :param reference: whose number the ratio is against.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool | None
    reference: str = "redis"


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

    def __init__(self, contenders: list[Contender], sizes: Sizes, broker: str) -> None:
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

    @property
    def storer(self) -> Storer:
        """The process that stores results meanwhile."""
        if self._storer is None:
            self._storer = self.stack.enter_context(Storer())
        return self._storer

    def worker(self, contender: Contender) -> worker.RunningWorker:
        """The contender's worker, started once; all idle but the one that is measured."""
        if contender.name not in self._workers:
            self._workers[contender.name] = self.stack.enter_context(worker.running(contender, self.broker))
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


def timed(call: Callable[..., Any], arguments: list[tuple[Any, ...]], threads: int = 1) -> tuple[float, float]:
    """Call with each of the arguments, from one or more threads.

    :return: seconds from start to end, and seconds of CPU of this process.
    """
    gc.collect()
    if threads == 1:
        began, began_cpu = time.perf_counter(), time.process_time()
        for each in arguments:
            call(*each)
        return time.perf_counter() - began, time.process_time() - began_cpu
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
    began, began_cpu = time.perf_counter(), time.process_time()
    go.wait()
    for thread in workers:
        thread.join()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    if failures:
        raise failures[0]
    return elapsed, cpu


class Calls(Measure):
    """Storing and fetching: per second, and the client's CPU per call."""

    name = "calls"
    turns = 4

    def rows(self, sizes: Sizes) -> list[Row]:
        rows = []
        for operation in ("store", "fetch"):
            for size in ("100 B", "64 KiB"):
                rows += [
                    Row(f"{operation} {size} 1", f"{operation} {size}, 1 thread", "/s", True),
                    Row(f"{operation} {size} {THREADS}", f"{operation} {size}, {THREADS} threads", "/s", True),
                    Row(f"{operation} {size} cpu", f"client CPU per {operation}, {size}", "ms", False),
                ]
            many = f"{operation} {MANY_THREADS}"
            rows.append(Row(many, f"{operation} 100 B, {MANY_THREADS} threads", "/s", True))
            rows.append(Row(f"{many} cpu", f"client CPU per {operation}, 100 B, {MANY_THREADS} threads", "ms", False))
        return rows

    def applies(self, contender: Contender) -> bool:
        return True

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client, sizes = bench.client(contender), bench.sizes
        results = {}
        for size, length, calls in (("100 B", SMALL, sizes.calls), ("64 KiB", LARGE, sizes.large_calls)):
            payload = "x" * length
            stores = [(task_id, payload, request_of(task_id)) for task_id in ids(calls)]
            fetches = [(task_id,) for task_id, *_ in stores]
            elapsed, cpu = timed(client.store, stores)
            results[f"store {size} 1"] = calls / elapsed
            results[f"store {size} cpu"] = cpu / calls * 1000
            elapsed, cpu = timed(client.fetch, fetches)
            results[f"fetch {size} 1"] = calls / elapsed
            results[f"fetch {size} cpu"] = cpu / calls * 1000
            stores = [(task_id, payload, request_of(task_id)) for task_id in ids(calls + THREADS)]
            elapsed, _ = timed(client.store, stores, THREADS)
            results[f"store {size} {THREADS}"] = calls / elapsed
            fetches = [(task_id,) for task_id, *_ in stores]
            elapsed, _ = timed(client.fetch, fetches, THREADS)
            results[f"fetch {size} {THREADS}"] = calls / elapsed
        stores = [(task_id, "x" * SMALL, request_of(task_id)) for task_id in ids(sizes.calls * 2 + MANY_THREADS)]
        for operation, call, arguments in (
            ("store", client.store, stores),
            ("fetch", client.fetch, [(task_id,) for task_id, *_ in stores]),
        ):
            elapsed, cpu = timed(call, arguments, MANY_THREADS)
            results[f"{operation} {MANY_THREADS}"] = sizes.calls * 2 / elapsed
            results[f"{operation} {MANY_THREADS} cpu"] = cpu / (sizes.calls * 2) * 1000
        return results


class RoundTrips(Measure):
    """How often the client waits for the server."""

    name = "round-trips"
    most_repeats = 1

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("store trips", "round trips per store", "", None),
            Row("fetch trips", "round trips per fetch", "", None),
            Row("join trips", f"round trips per join of {sizes.join}", "", None),
        ]

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        calls = 10
        with Proxy(contender.port) as proxy, contextlib.closing(CeleryClient(contender.at_port(proxy.port))) as client:
            for task_id in ids(3):
                client.store(task_id, "x", request_of(task_id))
                client.fetch(task_id)
            before = proxy.round_trips
            stored = ids(calls)
            for task_id in stored:
                client.store(task_id, "x", request_of(task_id))
            after_stores = proxy.round_trips
            for task_id in stored:
                client.fetch(task_id)
            after_fetches = proxy.round_trips
            joined = _stored(bench.client(contender), bench.sizes.join)
            before_join = proxy.round_trips
            client.join(joined)
            return {
                "store trips": (after_stores - before) / calls,
                "fetch trips": (after_fetches - after_stores) / calls,
                "join trips": float(proxy.round_trips - before_join),
            }


def _stored(client: Client, number: int) -> list[str]:
    stored = ids(number)
    timed(client.store, [(task_id, "x" * SMALL, request_of(task_id)) for task_id in stored])
    return stored


class Join(Measure):
    """Fetching many finished results at once."""

    name = "join"

    def rows(self, sizes: Sizes) -> list[Row]:
        return [Row("join", f"join of {sizes.join} finished results", "s", False)]

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client = bench.client(contender)
        assert isinstance(client, CeleryClient)
        return {"join": timed(client.join, [(_stored(client, bench.sizes.join),)])[0]}


class WakeUp(Measure):
    """From when another process begins to store a result to when get() has it."""

    name = "wake-up"

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("wake median", "wake-up of get(), median", "ms", False),
            Row("wake p95", "wake-up of get(), 95 of 100", "ms", False),
            Row("polled median", "the same with surrealdb_live off, median", "ms", False, "postgres"),
            Row("polled p95", "the same with surrealdb_live off, 95 of 100", "ms", False, "postgres"),
        ]

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        if contender.polled:
            return self._wakes(bench, contender, "polled", bench.client(contender))
        results = self._wakes(bench, contender, "wake", bench.client(contender))
        if contender.ours:
            polling = replace(contender, settings={**contender.settings, "surrealdb_live": "off"})
            with contextlib.closing(CeleryClient(polling)) as client:
                results |= self._wakes(bench, contender, "polled", client)
        return results

    def _wakes(self, bench: Bench, contender: Contender, name: str, client: Client) -> dict[str, float]:
        assert isinstance(client, CeleryClient)
        waits = []
        for task_id in ids(bench.sizes.wakes + 1):
            # What Celery does when a task is sent.
            client.backend.on_task_call(None, task_id)
            bench.storer.store_later(contender, task_id, client.app.thread_oid, random.uniform(0.05, 0.25))
            client.app.AsyncResult(task_id).get(timeout=60)
            got = time.monotonic()
            waits.append((got - bench.storer.stored_at()) * 1000)
        waits = sorted(waits[1:])  # the first opens connections
        return {f"{name} median": statistics.median(waits), f"{name} p95": waits[int(len(waits) * 0.95)]}


class EndToEnd(Measure):
    """A real prefork worker, its broker and its results, with the client that waits for them."""

    name = "end-to-end"

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("tasks", f"tasks end to end, {worker.CHILDREN} prefork children", "/s", True),
            Row("chord", f"chord of {sizes.header}, sent to got", "s", False),
            Row("parent", "resident memory of the worker's parent", "MiB", False),
            Row("child", "resident memory of a worker's child", "MiB", False),
        ]

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        running = bench.worker(contender)
        add, total = running.app.tasks["bench.add"], running.app.tasks["bench.total"]
        tasks, header = bench.sizes.tasks, bench.sizes.header
        gc.collect()
        began = time.perf_counter()
        sums = group(add.s(number, 1) for number in range(tasks)).apply_async().get(timeout=300)
        elapsed = time.perf_counter() - began
        if sums != list(range(1, tasks + 1)):
            raise RuntimeError(f"{contender.label} returned other results than were computed")
        began = time.perf_counter()
        answer = chord(add.s(number, 0) for number in range(header))(total.s()).get(timeout=300)
        chord_elapsed = time.perf_counter() - began
        if answer != sum(range(header)):
            raise RuntimeError(f"{contender.label} called a chord's body with other results than were computed")
        parent, child = running.memory()
        return {"tasks": tasks / elapsed, "chord": chord_elapsed, "parent": parent, "child": child}


class ChordParts(Measure):
    """What a finished header task costs its worker, by the size of the header: its result and its part."""

    name = "chord-parts"
    most_repeats = 3

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row(f"part {size}", f"result and part of a header task, of {size:,}", "ms", False) for size in sizes.parts
        ]

    def applies(self, contender: Contender) -> bool:
        return contender.celery and not contender.polled  # SQLAlchemy has none: a task polls instead

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client = bench.client(contender)
        assert isinstance(client, CeleryClient)
        results = {}
        for size in bench.sizes.parts:
            elapsed = _return_parts(client, size, size)
            results[f"part {size}"] = elapsed / size * 1000
        return results


def _return_parts(client: CeleryClient, size: int, returned: int) -> float:
    """Let header tasks of a chord of a size return, the last of them too if all do; seconds."""
    body = client.app.signature("bench.total")
    body.freeze()
    body["chord_size"] = size
    group_id = str(uuid.uuid4())
    client.backend.set_chord_size(group_id, size)
    parts = []
    for index, task_id in enumerate(ids(returned)):
        request = request_of(task_id)
        request.update(group=group_id, group_index=index, chord=dict(body))
        parts.append((task_id, index, request))
    return timed(client.backend.mark_as_done, parts)[0]


class CleanUp(Measure):
    """Deleting what has expired, and how long a store waits meanwhile."""

    name = "clean-up"
    most_repeats = 3

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("clean-up", f"clean-up of {sizes.expired:,} expired results", "s", False, "postgres"),
            Row("worst wait", "worst wait of a store during it", "ms", False, "postgres"),
            Row("worst wait ratio", "the same against just before", "times", None),
        ]

    def applies(self, contender: Contender) -> bool:
        return contender.ours or contender.polled  # Redis expires keys by itself

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client = bench.client(contender)
        assert isinstance(client, CeleryClient)
        _store_expired(client, bench.sizes.expired)
        bench.storer.begin(contender)
        time.sleep(bench.sizes.expired / 25_000)
        usual = max(bench.storer.end())
        bench.storer.begin(contender)
        elapsed, _ = timed(client.backend.cleanup, [()])
        worst = max(bench.storer.end())
        return {"clean-up": elapsed, "worst wait": worst * 1000, "worst wait ratio": worst / usual}


def _store_expired(client: CeleryClient, number: int) -> None:
    first = datetime.now(timezone.utc) - timedelta(days=2)
    batch = 1000
    backend = client.backend
    for start in range(0, number, batch):
        task_ids = [
            (task_id, first + timedelta(milliseconds=n))
            for n, task_id in enumerate(ids(min(batch, number - start)), start)
        ]
        if client.contender.ours:
            records = [
                {
                    "id": task_id,
                    "task_id": task_id,
                    "status": states.SUCCESS,
                    "result": "x" * SMALL,
                    "encoding": "application/json",
                    "children": [],
                    "date_done": done,
                    "expires_at": done,
                }
                for task_id, done in task_ids
            ]
            backend.connection.run("INSERT INTO task $records RETURN NONE", records=records)
        else:
            session = backend.ResultSession()
            rows = [
                {"task_id": task_id, "status": states.SUCCESS, "result": b"x" * SMALL, "date_done": done}
                for task_id, done in task_ids
            ]
            session.execute(backend.task_cls.__table__.insert(), rows)
            session.commit()
            session.close()


class Distant(Measure):
    """The same with every reply 20 ms late: there only round trips count."""

    name = "distant"
    most_repeats = 3

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("distant store", "store, 1 thread", "/s", True),
            Row("distant stores", f"store, {THREADS} threads", "/s", True),
            Row("distant fetch", "fetch, 1 thread", "/s", True),
            Row("distant join", f"join of {sizes.join} finished results", "s", False),
            Row("distant part", "result and part of a header task", "ms", False),
        ]

    def applies(self, contender: Contender) -> bool:
        return contender.celery and not contender.polled

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        calls = bench.sizes.delayed_calls
        joined = _stored(bench.client(contender), bench.sizes.join)
        distant_proxy = Proxy(contender.port, DELAY)
        with distant_proxy as proxy, contextlib.closing(CeleryClient(contender.at_port(proxy.port))) as client:
            client.store("warm-up", "x", request_of("warm-up"))
            client.fetch("warm-up")
            stores = [(task_id, "x" * SMALL, request_of(task_id)) for task_id in ids(calls)]
            many = [(task_id, "x" * SMALL, request_of(task_id)) for task_id in ids((calls + 1) * THREADS)]
            return {
                "distant store": calls / timed(client.store, stores)[0],
                "distant stores": calls * THREADS / timed(client.store, many, THREADS)[0],
                "distant fetch": calls / timed(client.fetch, [(each[0],) for each in stores])[0],
                "distant join": timed(client.join, [(joined,)])[0],
                "distant part": _return_parts(client, calls * 2, calls) / calls * 1000,
            }


MEASURES: tuple[type[Measure], ...] = (RoundTrips, Calls, Join, WakeUp, EndToEnd, ChordParts, CleanUp, Distant)
