"""How far one machine goes: trials at a size that is far above everyday use, with their time and memory.

``python -m benchmarks.scale [--only NAME] [--scale 0.1] [--engine 3.0.2] [--json FILE]``

Every trial has a new engine and a client process of its own, so that peaks of memory are its own. It fails where a
result is missing or wrong. Nothing here is a target: `docs/scaling.md` states what came out, and which limit is met.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from celery import states
from celery.result import GroupResult

from surrealdb_celery_backend import aio
from tests.engines import start as start_engine

from .accounting import Accounts, tree
from .child import Child, spawn
from .contenders import CeleryClient, Contender, request_of, surrealdb
from .measures.base import ids
from .measures.cleanup import store_expired

#: How long a trial may take, in seconds: only a hang takes so long.
LIMIT = 1800.0
MIB = 2**20


@dataclass
class Outcome:
    """The figures of one trial.

    Args:
        trial: Its name.
        size: How many of its things there were.
        seconds: From start to end.
        client_cpu: Seconds of CPU of the client process; of all of them where there are more.
        engine_cpu: Seconds of CPU of the engine.
        client_memory: MiB that the client's peak lies above the process before the trial.
        engine_memory: MiB of the engine at its end.
        requests: Requests that the trial's main client sent.
        note: Other figures.
    """

    trial: str
    size: int
    seconds: float
    client_cpu: float
    engine_cpu: float
    client_memory: float
    engine_memory: float
    requests: int
    note: str


#: A trial: does its work on a client at a size, and returns its note.
Trial = Callable[[CeleryClient, int], str]


def _in_threads(threads: int, call: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(call, *each) for each in arguments]:
            done.result()


def _store_all(client: CeleryClient, task_ids: list[str], payload: str) -> None:
    _in_threads(32, client.store, [(task_id, payload, request_of(task_id)) for task_id in task_ids])


def _group(client: CeleryClient, task_ids: list[str]) -> GroupResult:
    app = client.app
    return app.GroupResult(uuid.uuid4().hex, [app.AsyncResult(task_id) for task_id in task_ids])


@contextlib.contextmanager
def _used(client: CeleryClient) -> Iterator[Callable[[], str]]:
    """Say how long a block took and how many requests it sent."""
    began, before = time.monotonic(), client.backend.connection.request_count

    def said() -> str:
        requests = client.backend.connection.request_count - before
        return f"{time.monotonic() - began:.2f} s, {requests} requests"

    yield said


def stores(client: CeleryClient, size: int) -> str:
    """Store results from 32 threads."""
    _store_all(client, ids(size), "x" * 100)
    return ""


def join(client: CeleryClient, size: int) -> str:
    """Join a group of many small results that are there."""
    task_ids = ids(size)
    _store_all(client, task_ids, "x")
    with _used(client) as said:
        values = _group(client, task_ids).get(timeout=LIMIT)
        note = said()
    assert values == ["x"] * size
    return f"the join alone: {note}"


def get_many(client: CeleryClient, size: int) -> str:
    """Iterate over many small results that are there."""
    task_ids = ids(size)
    _store_all(client, task_ids, "x")
    with _used(client) as said:
        found = {task_id for task_id, _ in client.backend.get_many(task_ids, timeout=LIMIT)}
        note = said()
    assert found == set(task_ids)
    return f"get_many alone: {note}"


def wide_join(client: CeleryClient, size: int) -> str:
    """Join a group whose results have 100 kB each."""
    payload = "x" * 100_000
    task_ids = ids(size)
    _store_all(client, task_ids, payload)
    with _used(client) as said:
        values = _group(client, task_ids).get(timeout=LIMIT)
        note = said()
    assert len(values) == size
    assert all(value == payload for value in values)
    return f"the join alone: {note}"


def large(client: CeleryClient, size: int) -> str:
    """Store and fetch one result of that many bytes."""
    task_id = uuid.uuid4().hex
    payload = "x" * size
    with _used(client) as stored:
        client.store(task_id, payload, request_of(task_id))
        note = f"store {stored()}"
    with _used(client) as fetched:
        assert client.fetch(task_id) == payload
        return f"{note}; fetch {fetched()}"


def _worker(pipe: Any, contender: Contender, task_ids: list[str], reply_to: str) -> None:
    """Store results in another process when told to; say when the last one was."""
    client = CeleryClient(contender)
    client.store("warm-up", "", request_of("warm-up"))
    pipe.send(None)
    pipe.recv()
    _in_threads(8, client.store, [(task_id, "x", request_of(task_id, reply_to)) for task_id in task_ids])
    pipe.send(time.monotonic())
    client.close()


def _waited_for(client: CeleryClient, size: int, reply_to: str) -> str:
    task_ids = ids(size)
    ours, theirs = spawn.Pipe()

    async def wait() -> float:
        waits = [asyncio.ensure_future(aio.get(client.app.AsyncResult(task_id), LIMIT)) for task_id in task_ids]
        await asyncio.sleep(0)
        ours.send(None)
        assert await asyncio.gather(*waits) == ["x"] * size
        return time.monotonic()

    with Child(_worker, theirs, client.contender, task_ids, reply_to):
        ours.recv()
        arrived = asyncio.run(wait())
        return f"the last arrived {arrived - ours.recv():.2f} s after its store"


def waits(client: CeleryClient, size: int) -> str:
    """Wait for many tasks of one's own at once, in coroutines, while another process stores them."""
    return _waited_for(client, size, client.app.thread_oid)


def foreign_waits(client: CeleryClient, size: int) -> str:
    """Wait for many tasks that another process sent at once."""
    return _waited_for(client, size, "")


def chord(client: CeleryClient, size: int) -> str:
    """Finish a chord's header from 8 threads; the last one joins the results and publishes the body."""
    body = client.app.signature("bench.total")
    body.freeze()
    body["chord_size"] = size
    group_id = str(uuid.uuid4())
    client.backend.set_chord_size(group_id, size)
    took: list[float] = []

    def finish(index: int, task_id: str) -> None:
        request = request_of(task_id)
        request.update(group=group_id, group_index=index, chord=dict(body))
        began = time.monotonic()
        client.backend.mark_as_done(task_id, index, request)
        took.append(time.monotonic() - began)

    _in_threads(8, finish, list(enumerate(ids(size))))
    with client.app.connection_for_write() as connection, connection.SimpleQueue("celery") as queue:
        message = queue.get(timeout=60)
        message.ack()
        assert message.payload[0] == [list(range(size))]
    first, last = took[: size // 10], took[-size // 10 : -1]
    tail = f"{sum(first) / len(first) * 1000:.1f} ms at first, {sum(last) / len(last) * 1000:.1f} ms at last"
    return f"a part: {tail}; the last one with the body: {took[-1]:.1f} s"


def threads(client: CeleryClient, size: int) -> str:
    """Wait in many threads, each for a task of its own that another process stores."""
    task_ids = ids(size)
    ours, theirs = spawn.Pipe()
    arrived: list[float] = []
    waiting = threading.Barrier(size + 1)

    def wait(task_id: str) -> None:
        result = client.app.AsyncResult(task_id)
        waiting.wait()
        assert result.get(timeout=LIMIT) == "x"
        arrived.append(time.monotonic())

    with Child(_worker, theirs, client.contender, task_ids, ""):
        ours.recv()
        workers = [threading.Thread(target=wait, args=(task_id,)) for task_id in task_ids]
        for each in workers:
            each.start()
        waiting.wait()
        ours.send(None)
        for each in workers:
            each.join()
        assert len(arrived) == size
        return f"the last arrived {max(arrived) - ours.recv():.2f} s after its store"


def cleanup(client: CeleryClient, size: int) -> str:
    """Clean up many expired results among a tenth as many that have not, while a thread stores."""
    store_expired(client, size)
    fresh = ids(size // 10)
    _store_all(client, fresh, "x")
    memory = psutil.Process().memory_info
    before, most, waits, ended = memory().rss, 0, [], threading.Event()

    def store() -> None:
        while not ended.is_set():
            task_id = uuid.uuid4().hex
            began = time.monotonic()
            client.store(task_id, "x", request_of(task_id))
            waits.append(time.monotonic() - began)

    def looked(_: Any) -> None:
        nonlocal most
        most = max(most, memory().rss)

    storer = threading.Thread(target=store)
    storer.start()
    with _used(client) as said:
        try:
            report = client.backend.cleanup(on_batch=looked)
        finally:
            ended.set()
            storer.join()
        note = said()
    assert report.records["task"] == size
    assert client.fetch(fresh[0]) == client.fetch(fresh[-1]) == "x"
    took = sorted(waits)
    return (
        f"clean-up alone: {note}, {len(took)} of which stored: median {took[len(took) // 2] * 1000:.1f} ms, "
        f"worst {took[-1] * 1000:.0f} ms; {(most - before) / MIB:.0f} MiB more in the client"
    )


def connections(client: CeleryClient, size: int) -> str:
    """Use many connections, one for each of so many apps."""
    used = [(CeleryClient(client.contender), task_id) for task_id in ids(size)]
    _in_threads(8, lambda app, task_id: app.store(task_id, "x", request_of(task_id)), used)
    opened = len(psutil.Process().net_connections("tcp"))
    _in_threads(8, lambda app, task_id: app.fetch(task_id), used)
    assert all(app.backend.get_state(task_id) == states.SUCCESS for app, task_id in used)
    for app, _ in used:
        app.close()
    return f"{opened} sockets"


#: The trials and their sizes.
TRIALS: dict[str, tuple[Trial, int]] = {
    "stores": (stores, 100_000),
    "join": (join, 50_000),
    "get-many": (get_many, 50_000),
    "join-wide": (wide_join, 6_000),
    "large": (large, 100_000_000),
    "waits": (waits, 20_000),
    "waits-foreign": (foreign_waits, 20_000),
    "chord": (chord, 20_000),
    "threads": (threads, 500),
    "connections": (connections, 500),
    "clean-up": (cleanup, 1_000_000),
}


def _run(pipe: Any, name: str, size: int, contender: Contender) -> None:
    """Run one trial in this process and send its outcome."""
    trial, _ = TRIALS[name]
    client = CeleryClient(contender)
    client.store("first", "x", request_of("first"))
    client.fetch("first")
    accounts = Accounts({"engine": tree(contender.server_pid)} if contender.server_pid else {})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    requests = client.backend.connection.request_count
    began = time.monotonic()
    with accounts.used() as cpu:
        note = trial(client, size)
    seconds = time.monotonic() - began
    engine = sum(each.memory_info().rss for each in tree(contender.server_pid)()) if contender.server_pid else 0
    pipe.send(
        Outcome(
            trial=name,
            size=size,
            seconds=seconds,
            client_cpu=cpu["client"],
            engine_cpu=cpu.get("engine", 0.0),
            client_memory=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
            engine_memory=engine / MIB,
            requests=client.backend.connection.request_count - requests,
            note=note,
        )
    )
    client.close()


def run(name: str, engine_name: str, scale: float) -> Outcome:
    """Run one trial on a new engine.

    Args:
        name: The trial.
        engine_name: An engine of tests/engines, with its store if not the default one.
        scale: The part of its size to run, 1 for all of it.

    Returns:
        Its figures.

    Raises:
        RuntimeError: It failed; its process has printed why.
    """
    version, _, store = engine_name.partition("-")
    size = max(int(TRIALS[name][1] * scale), 10)
    ours, theirs = spawn.Pipe()
    with start_engine(version, store or None) as engine:
        process = spawn.Process(target=_run, args=(theirs, name, size, surrealdb("ours", engine)))
        process.start()
        theirs.close()
        try:
            if not ours.poll(LIMIT):
                raise RuntimeError(f"{name} did not end within {LIMIT:g} s")
            outcome: Outcome = ours.recv()
        except EOFError:
            raise RuntimeError(f"{name} failed, for the reason above") from None
        finally:
            process.terminate()
            process.join()
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| trial | size | s | client CPU s | engine CPU s | client's peak MiB | engine MiB | requests | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in outcomes:
        figures = f"{each.seconds:.1f} | {each.client_cpu:.1f} | {each.engine_cpu:.1f} | {each.client_memory:.0f}"
        rest = f"{each.engine_memory:.0f} | {each.requests:,} | {each.note}"
        lines.append(f"| {each.trial} | {each.size:,} | {figures} | {rest} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", action="append", choices=TRIALS, help="only this trial; may be repeated")
    parser.add_argument("--engine", default="3.0.2", help="an engine of tests/engines (default: 3.0.2)")
    parser.add_argument("--scale", type=float, default=1.0, help="the part of each size to run (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    outcomes, failed = [], 0
    for name in options.only or TRIALS:
        try:
            outcomes.append(run(name, options.engine, options.scale))
            print(table(outcomes[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            failed = 1
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1))
    print(table(outcomes))
    print(f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
