"""What each option costs: CPU of the engine and of the client, bytes on the line and requests, per store.

``python -m benchmarks.prices [--engine 3.0.2] [--stores 400] [--repeat 5] [--only NAME] [--json FILE]``

Every option has a database of its own on one engine, and all take turns in short series, so that a busy moment meets
all of them. CPU is from the operating system's accounting. Each option is compared with the one that lacks it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from celery import states
from celery.app.task import Context

from tests.engines import start as start_engine

from .accounting import Accounts, tree
from .contenders import CeleryClient, Contender, request_of, surrealdb
from .measures.base import ids
from .proxy import Proxy

#: One store, or one task that is sent.
Call = Callable[[], Any]
#: How many stores are counted for bytes and requests.
COUNTED = 20
EXTENDED = {"result_extended": True}
#: What a task is called with and returns: a small order.
ARGUMENTS: dict[str, Any] = {"order": "A-104233", "customer": 7, "password": "correct horse battery staple"}
RESULT: dict[str, Any] = {"total": 1490, "currency": "EUR", "lines": [{"sku": "K-12", "count": 2}], "note": "x" * 40}


class Failed(Exception):
    """The exception of the tasks that fail."""


TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/srv/shop/module_{number}.py", line {number}, in call\n    return client.call(order, timeout=timeout)\n'
    for number in range(8)
)


@dataclass(frozen=True)
class Option:
    """What is priced.

    Attributes:
        name: What the table calls it.
        than: The option that it is compared with; empty for none.
        settings: Settings of the app.
        kind: `store` a result, store a `failure`, store a result with its `life`, or `send` a task.
    """

    name: str
    than: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    kind: str = "store"


def _indexed(than: str, names: tuple[str, ...], settings: dict[str, Any], kind: str = "store") -> list[Option]:
    return [
        Option(f"`surrealdb_indexes`: {name}", than, {**settings, "surrealdb_indexes": f"date_done,{name}"}, kind)
        for name in names
    ]


OPTIONS: tuple[Option, ...] = (
    Option("without the index `date_done`", "", {"surrealdb_indexes": ""}),
    Option("the defaults", "without the index `date_done`"),
    Option("times and labels of a task's life", "the defaults", kind="life"),
    Option("`result_extended`", "the defaults", EXTENDED),
    *_indexed("`result_extended`", ("name", "status", "worker", "queue", "root_id", "group_id"), EXTENDED),
    Option("a failure, with its traceback", "", kind="failure"),
    *_indexed("a failure, with its traceback", ("error", "text"), {}, "failure"),
    Option("`surrealdb_result_format`: native", "`result_extended`", {**EXTENDED, "surrealdb_result_format": "native"}),
    Option("`surrealdb_redact`: one name", "`result_extended`", {**EXTENDED, "surrealdb_redact": ["password"]}),
    Option("`surrealdb_redact_limit`: 1000", "`result_extended`", {**EXTENDED, "surrealdb_redact_limit": 1000}),
    Option("sending a task", "", kind="send"),
    Option("`surrealdb_track_sent`, per task sent", "sending a task", {"surrealdb_track_sent": True}, "send"),
)


@dataclass(frozen=True)
class Price:
    """What one store costs: medians over the series.

    Attributes:
        engine: Milliseconds of CPU of the engine.
        client: Milliseconds of CPU of this process.
        sent: Bytes that the client sends.
        requests: Round trips.
    """

    engine: float
    client: float
    sent: float
    requests: float

    def minus(self, other: Price) -> Price:
        """The difference to another."""
        return Price(
            self.engine - other.engine,
            self.client - other.client,
            self.sent - other.sent,
            self.requests - other.requests,
        )


class Client(CeleryClient):
    """Does what an option is about, once per call.

    Args:
        option: The option.
        contender: The database.
    """

    def __init__(self, option: Option, contender: Contender) -> None:
        super().__init__(replace(contender, settings=option.settings))
        self._option = option

    def each(self, number: int) -> Iterator[Call]:
        """Calls that are ready to be made."""
        for task_id in ids(number):
            yield getattr(self, f"_{self._option.kind}")(task_id)

    def flush(self) -> None:
        """Wait for what goes behind the caller's back."""
        if self.backend.sent is not None and not self.backend.sent.flush(60.0):
            raise RuntimeError("tasks that were sent have not been stored")

    def _request(self, task_id: str, **more: Any) -> Context:
        request = request_of(task_id)
        request.update(task="shop.orders.confirm", args=[104233], kwargs=ARGUMENTS, hostname="celery@web-1", **more)
        return request

    def _stored(self, task_id: str, request: Context, value: Any, state: str, traceback: str | None) -> Call:
        return lambda: self.backend.store_result(task_id, value, state, traceback=traceback, request=request)

    def _store(self, task_id: str) -> Call:
        return self._stored(task_id, self._request(task_id), RESULT, states.SUCCESS, None)

    def _life(self, task_id: str) -> Call:
        now = time.time()
        request = self._request(task_id, sent_at=now - 1, tags=["vip"], periodic_task_name="nightly")
        # As the signal of a task's start notes it.
        request.__dict__["_surrealdb_started"] = (time.monotonic(), now)
        return self._stored(task_id, request, RESULT, states.SUCCESS, None)

    def _failure(self, task_id: str) -> Call:
        error = Failed(f"order {task_id} was not paid")
        return self._stored(task_id, self._request(task_id), error, states.FAILURE, TRACEBACK)

    def _send(self, task_id: str) -> Call:
        return lambda: self.app.send_task("shop.orders.confirm", [104233], ARGUMENTS, task_id=task_id)


def measure(version: str, store: str | None, options: list[Option], *, stores: int, repeat: int) -> dict[str, Price]:
    """Measure options on a new engine.

    Args:
        version: The engine's version.
        store: Its store; None for its first.
        options: The options.
        stores: How many stores a series has.
        repeat: How many series each option has.
    """
    with start_engine(version, store) as engine, contextlib.ExitStack() as stack:
        accounts = Accounts({"engine": tree(engine.pid)})
        counted: dict[str, tuple[float, float]] = {}
        clients: dict[str, Client] = {}
        for option in options:
            contender = surrealdb(option.name, engine)
            counted[option.name] = _count(option, contender)
            clients[option.name] = stack.enter_context(contextlib.closing(Client(option, contender)))
        samples: dict[str, list[dict[str, float]]] = {option.name: [] for option in options}
        for number in range(repeat):
            for option in random.sample(options, len(options)):
                samples[option.name].append(_series(clients[option.name], stores, accounts))
            print(f"series {number + 1} of {repeat}", file=sys.stderr, flush=True)
        return {
            name: Price(
                statistics.median(each["engine"] for each in found) * 1000,
                statistics.median(each["client"] for each in found) * 1000,
                *counted[name],
            )
            for name, found in samples.items()
        }


def _series(client: Client, stores: int, accounts: Accounts) -> dict[str, float]:
    """Seconds of CPU per call."""
    for call in client.each(10):
        call()
    client.flush()
    calls = list(client.each(stores))
    with accounts.used() as cpu:
        for call in calls:
            call()
        client.flush()
    return {name: seconds / stores for name, seconds in cpu.items()}


def _count(option: Option, contender: Contender) -> tuple[float, float]:
    """Bytes and round trips per call, as a proxy sees them."""
    with Proxy(contender.port) as proxy, contextlib.closing(Client(option, contender.at_port(proxy.port))) as client:
        for call in client.each(3):
            call()
        client.flush()
        before = proxy.bytes_sent, proxy.round_trips
        for call in list(client.each(COUNTED)):
            call()
        client.flush()
        return (proxy.bytes_sent - before[0]) / COUNTED, (proxy.round_trips - before[1]) / COUNTED


def table(options: list[Option], prices: dict[str, Price]) -> str:
    """The prices as Markdown: of an option what it adds, of one that is compared with none what it costs.

    Args:
        options: What was measured.
        prices: The outcome.
    """
    lines = [
        "| what | engine CPU | client CPU | bytes sent | round trips | compared with |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for option in options:
        price, sign = prices[option.name], ""
        if option.than in prices:
            price, sign = price.minus(prices[option.than]), "+"
        lines.append(
            f"| {option.name} | {price.engine:{sign}.3f} ms | {price.client:{sign}.3f} ms | {price.sent:{sign}.0f} "
            f"| {price.requests:{sign}.2f} | {option.than if sign else ''} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prices", description=__doc__)
    parser.add_argument("--engine", default="3.0.2", help="an engine of tests/engines (default: %(default)s)")
    parser.add_argument("--stores", type=int, default=400, help="stores in each series (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="series of each option (default: %(default)s)")
    parser.add_argument("--only", action="append", help="options with this in their name; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    version, _, store = options.engine.partition("-")
    chosen = [each for each in OPTIONS if not options.only or any(part in each.name for part in options.only)]
    chosen += [each for each in OPTIONS if each not in chosen and any(each.name == one.than for one in chosen)]
    chosen.sort(key=OPTIONS.index)
    prices = measure(version, store or None, chosen, stores=options.stores, repeat=options.repeat)
    print(table(chosen, prices))
    if options.json:
        options.json.write_text(json.dumps({name: vars(price) for name, price in prices.items()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
