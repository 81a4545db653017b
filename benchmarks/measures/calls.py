"""Storing and fetching: rates, round trips, and the CPU of client and engine."""

from __future__ import annotations

import contextlib

from ..contenders import CeleryClient, Client, Contender, request_of
from ..proxy import Proxy
from .base import Bench, Measure, Row, Sizes, ids, timed

#: Threads that store or fetch at once; the second as in a worker with a pool of threads or greenlets.
THREADS, MANY_THREADS = 8, 32
#: Bytes of a result.
SMALL, LARGE = 100, 65_536


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
                    Row(
                        f"{operation} {size} cpu",
                        f"client CPU per {operation}, {size}",
                        "ms",
                        False,
                        decided_by="client",
                    ),
                    Row(f"{operation} {size} engine", f"engine CPU per {operation}, {size}", "ms", False),
                ]
            many = f"{operation} {MANY_THREADS}"
            rows.append(Row(many, f"{operation} 100 B, {MANY_THREADS} threads", "/s", True))
            title = f"client CPU per {operation}, 100 B, {MANY_THREADS} threads"
            rows.append(Row(f"{many} cpu", title, "ms", False, decided_by="client"))
        return rows

    def applies(self, contender: Contender) -> bool:
        return contender.stores

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client, sizes, accounts = bench.client(contender), bench.sizes, bench.accounts(contender)
        results = {}
        for size, length, calls in (("100 B", SMALL, sizes.calls), ("64 KiB", LARGE, sizes.large_calls)):
            payload = "x" * length
            stores = [(task_id, payload, request_of(task_id)) for task_id in ids(calls)]
            fetches = [(task_id,) for task_id, *_ in stores]
            elapsed, cpu = timed(client.store, stores, accounts=accounts)
            results[f"store {size} 1"] = calls / elapsed
            results |= _per_call(f"store {size}", cpu, calls)
            elapsed, cpu = timed(client.fetch, fetches, accounts=accounts)
            results[f"fetch {size} 1"] = calls / elapsed
            results |= _per_call(f"fetch {size}", cpu, calls)
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
            results[f"{operation} {MANY_THREADS} cpu"] = cpu["client"] / (sizes.calls * 2) * 1000
        return results


def _per_call(name: str, cpu: dict[str, float], calls: int) -> dict[str, float]:
    """CPU per call of the client and, where its process is known, of the engine, in milliseconds."""
    found = {f"{name} cpu": cpu["client"] / calls * 1000}
    if "engine" in cpu:
        found[f"{name} engine"] = cpu["engine"] / calls * 1000
    return found


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
            task_ids = ids(calls)
            for task_id in task_ids:
                client.store(task_id, "x", request_of(task_id))
            after_stores = proxy.round_trips
            for task_id in task_ids:
                client.fetch(task_id)
            after_fetches = proxy.round_trips
            joined = stored(bench.client(contender), bench.sizes.join)
            before_join = proxy.round_trips
            client.join(joined)
            return {
                "store trips": (after_stores - before) / calls,
                "fetch trips": (after_fetches - after_stores) / calls,
                "join trips": float(proxy.round_trips - before_join),
            }


def stored(client: Client, number: int) -> list[str]:
    """Ids of new, stored results."""
    task_ids = ids(number)
    timed(client.store, [(task_id, "x" * SMALL, request_of(task_id)) for task_id in task_ids])
    return task_ids


class Join(Measure):
    """Fetching many finished results at once."""

    name = "join"

    def rows(self, sizes: Sizes) -> list[Row]:
        return [Row("join", f"join of {sizes.join} finished results", "s", False)]

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client = bench.client(contender)
        assert isinstance(client, CeleryClient)
        return {"join": timed(client.join, [(stored(client, bench.sizes.join),)])[0]}
