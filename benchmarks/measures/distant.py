"""The same with every reply 20 ms late: there only round trips count."""

from __future__ import annotations

import contextlib

from ..contenders import CeleryClient, Contender, request_of
from ..proxy import Proxy
from .base import Bench, Measure, Row, Sizes, ids, timed
from .calls import SMALL, THREADS, stored
from .parts import return_parts

#: What a distant or clustered server adds to every reply, in seconds.
DELAY = 0.02


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
        joined = stored(bench.client(contender), bench.sizes.join)
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
                "distant part": return_parts(client, calls * 2, calls)[0] / calls * 1000,
            }
