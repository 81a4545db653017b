"""What can be counted instead of timed: the same on any machine, so that a limit may fail a build.

``python -m benchmarks.counts [--engine 3.0.2]`` prints the figures and ends with 1 if one is above its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import statistics
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tests.engines import start as start_engine

from . import contenders
from .contenders import CeleryClient, request_of
from .measures.base import ids
from .proxy import Proxy

#: How often each operation is counted; the median is taken.
TIMES = 21
#: The most that each figure may be. A change that needs more says why in its commit.
LIMITS = {
    "requests per store": 1,
    "requests per fetch": 1,
    "requests per join of 200": 1,
    "requests per header task": 1,
    "bytes sent per store": 640,
    "bytes sent per fetch": 320,
    "bytes sent per header task": 1310,
    "Python calls per store": 105,
    "Python calls per fetch": 88,
    "Python calls per header task": 145,
    "objects left by a store": 0,
    "objects left by a fetch": 0,
}


def figures(contender: contenders.Contender) -> dict[str, float]:
    """Count on a running engine, through a proxy that sees what goes over the line."""
    with Proxy(contender.port) as proxy, contextlib.closing(CeleryClient(contender.at_port(proxy.port))) as client:
        for task_id in ids(5):
            client.store(task_id, "x" * 100, request_of(task_id))
            client.fetch(task_id)
        stores = _stores()
        fetches = [(task_id,) for task_id, *_ in stores]
        many = ids(200)
        found = {
            **_line(proxy, "store", client.store, stores),
            **_line(proxy, "fetch", client.fetch, fetches),
            # Of tasks that have none yet: a second SUCCESS is not stored, and takes another request to say why.
            **_python("store", client.store, _stores),
            **_python("fetch", client.fetch, lambda: fetches),
        }
        for task_id in many:
            client.store(task_id, "x", request_of(task_id))
        found["requests per join of 200"] = _line(proxy, "join", client.join, [(many,)])["requests per join"]
        parts = list(_parts(client))
        found |= _line(proxy, "header task", client.backend.mark_as_done, parts)
        found |= _python("header task", client.backend.mark_as_done, lambda: list(_parts(client)), left=False)
        return found


def _line(proxy: Proxy, name: str, call: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> dict[str, float]:
    """Requests and bytes that one call sends."""
    trips, sent = [], []
    for each in arguments:
        before = proxy.round_trips, proxy.bytes_sent
        call(*each)
        trips.append(proxy.round_trips - before[0])
        sent.append(proxy.bytes_sent - before[1])
    return {f"requests per {name}": statistics.median(trips), f"bytes sent per {name}": statistics.median(sent)}


def _stores() -> list[tuple[Any, ...]]:
    """The arguments of stores of new tasks."""
    return [(task_id, "x" * 100, request_of(task_id)) for task_id in ids(TIMES)]


def _python(
    name: str, call: Callable[..., Any], make: Callable[[], list[tuple[Any, ...]]], *, left: bool = True
) -> dict[str, float]:
    """Calls of functions in Python that one call makes, and the objects that it leaves behind."""
    calls = []
    for each in make():
        with _counted() as count:
            call(*each)
        calls.append(count[0])
    found = {f"Python calls per {name}": statistics.median(calls)}
    if left:
        # Twice: the first time fills caches.
        for _ in range(2):
            arguments = make()
            gc.collect()
            before = len(gc.get_objects())
            for each in arguments:
                call(*each)
            gc.collect()
            found[f"objects left by a {name}"] = (len(gc.get_objects()) - before) // len(arguments)
    return found


@contextlib.contextmanager
def _counted() -> Iterator[list[int]]:
    """Count calls of Python functions of this thread inside the block."""
    count = [0]

    def profile(_: Any, event: str, __: Any) -> None:
        if event == "call":
            count[0] += 1

    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)


def _parts(client: CeleryClient) -> Iterator[tuple[str, int, Any]]:
    """Header tasks of a large chord, as a worker finishes them."""
    body = client.app.signature("bench.total")
    body.freeze()
    group_id = str(uuid.uuid4())
    client.backend.set_chord_size(group_id, TIMES * 10)
    for index, task_id in enumerate(ids(TIMES)):
        request = request_of(task_id)
        request.update(group=group_id, group_index=index, chord={**body, "chord_size": TIMES * 10})
        yield task_id, index, request


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__)
    parser.add_argument("--engine", default="3.0.2", help="an engine of tests/engines (default: 3.0.2)")
    options = parser.parse_args(arguments)
    version, _, store = options.engine.partition("-")
    with start_engine(version, store or None) as engine:
        found = figures(contenders.surrealdb("ours", engine))
    above = [name for name, figure in found.items() if figure > LIMITS.get(name, sys.maxsize)]
    print("| what | counted | limit |\n| --- | ---: | ---: |")
    for name, figure in found.items():
        print(f"| {name} | {figure:g} | {LIMITS.get(name, '')} |{' above' if name in above else ''}")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
