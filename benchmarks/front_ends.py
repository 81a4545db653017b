"""A cluster as a client sees it, in front of one engine: several front ends behind one address.

Each front end tells LIVE queries only of what was written through itself, answers late, refuses some writes because of
a conflict, and can be killed with all its connections. What is behind them is one engine: the data are exact.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import cbor2
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from .child import Child, spawn

#: A task's id inside a message.
_TASK_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WRITES = re.compile(r"\b(UPSERT|INSERT|CREATE|UPDATE|DELETE)\b")
_CONFLICT = "Transaction conflict: Write conflict. This transaction can be retried"
#: For how long a killed front end stays away, in seconds.
AWAY = 3.0
_CBOR = [Subprotocol("cbor")]


@dataclass(frozen=True)
class Faults:
    """The ways of a cluster.

    Args:
        delay: Seconds until a reply is handed on.
        conflicts: The share of writes that are refused.
        kill_every: Seconds between two kills of a front end, in turn; 0 for none.
    """

    delay: float = 0.04
    conflicts: float = 0.05
    kill_every: float = 5.0


class FrontEnds(Child):
    """The front ends, in a process of their own; used as a context manager.

    Args:
        port: The engine's port on 127.0.0.1.
        number: How many there are.
        faults: Their ways.
    """

    def __init__(self, port: int, number: int, faults: Faults) -> None:
        self._counts: Any = spawn.Array("q", len(_COUNTED))
        ours, theirs = spawn.Pipe()
        super().__init__(_run, port, number, faults, self._counts, theirs)
        #: The address of them all.
        self.port: int = ours.recv()

    def counts(self) -> dict[str, int]:
        """What happened so far: requests, conflicts, kills, notifications handed on and withheld."""
        return dict(zip(_COUNTED, self._counts, strict=True))


_COUNTED = ("requests", "conflicts", "kills", "notified", "withheld", "connections")


class _FrontEnd:
    """One of them."""

    def __init__(self) -> None:
        self.alive = True
        self.links: set[ServerConnection] = set()
        #: The tasks that were written through this front end.
        self.written: set[bytes] = set()


class _Cluster:
    """All of them, and the address that they share."""

    def __init__(self, port: int, number: int, faults: Faults, counts: Any) -> None:
        self._upstream = f"ws://127.0.0.1:{port}/rpc"
        self._faults = faults
        self._counts = counts
        self._front_ends = [_FrontEnd() for _ in range(number)]
        self._turn = itertools.cycle(self._front_ends)
        self._random = random.Random(4)

    def _count(self, what: str) -> None:
        self._counts[_COUNTED.index(what)] += 1

    async def serve(self) -> Server:
        """Listen at the shared address."""
        server: Server = await serve(
            self._connected, "127.0.0.1", 0, subprotocols=_CBOR, max_size=None, compression=None
        )
        return server

    async def kill_in_turn(self) -> None:
        """Kill one front end after the other; each comes back before the next goes."""
        for front_end in itertools.cycle(self._front_ends):
            await asyncio.sleep(self._faults.kill_every)
            front_end.alive = False
            self._count("kills")
            for link in list(front_end.links):
                link.transport.abort()
            await asyncio.sleep(AWAY)
            front_end.alive = True

    async def _connected(self, client: ServerConnection) -> None:
        front_end = next(one for one in self._turn if one.alive)
        front_end.links.add(client)
        self._count("connections")
        try:
            async with connect(self._upstream, subprotocols=_CBOR, max_size=None, compression=None) as upstream:
                later = _InOrder(self._faults.delay, client.send)
                sides = [
                    asyncio.ensure_future(self._ask(front_end, client, upstream, later)),
                    asyncio.ensure_future(self._answer(front_end, upstream, later)),
                    asyncio.ensure_future(later.run()),
                ]
                _, rest = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
                for side in rest:
                    side.cancel()
                await asyncio.gather(*sides, return_exceptions=True)
        except (ConnectionClosed, OSError):
            pass
        finally:
            front_end.links.discard(client)

    async def _ask(
        self, front_end: _FrontEnd, client: ServerConnection, upstream: ClientConnection, later: _InOrder
    ) -> None:
        async for data in client:
            assert isinstance(data, bytes)
            request = cbor2.loads(data)
            if request["method"] == "query":
                self._count("requests")
                text = request["params"][0]
                if _WRITES.search(text):
                    if self._random.random() < self._faults.conflicts and "DEFINE" not in text:
                        self._count("conflicts")
                        later.put(cbor2.dumps({"id": request["id"], "result": [_refused()] * _statements(text)}))
                        continue
                    front_end.written.update(_TASK_ID.findall(data))
            await upstream.send(data)

    async def _answer(self, front_end: _FrontEnd, upstream: ClientConnection, later: _InOrder) -> None:
        async for data in upstream:
            assert isinstance(data, bytes)
            if cbor2.loads(data).get("id") is None:
                if front_end.written.isdisjoint(_TASK_ID.findall(data)):
                    self._count("withheld")
                    continue
                self._count("notified")
            later.put(data)


class _InOrder:
    """Hands messages on after a while, in the order in which they came.

    Args:
        delay: The while, in seconds.
        send: Sends one.
    """

    def __init__(self, delay: float, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._delay = delay
        self._send = send
        self._waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    def put(self, data: bytes) -> None:
        """Take a message."""
        self._waiting.put_nowait((asyncio.get_running_loop().time() + self._delay, data))

    async def run(self) -> None:
        """Hand on what was taken."""
        while True:
            due, data = await self._waiting.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._send(data)


def _refused() -> dict[str, str]:
    return {"status": "ERR", "time": "1ms", "result": _CONFLICT}


def _statements(text: str) -> int:
    """How many statements a query has: those inside braces and quotes belong to another."""
    depth, quoted, number = 0, "", 1
    for character in text.rstrip("; \n"):
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "'\"`":
            quoted = character
        elif character in "{([":
            depth += 1
        elif character in "})]":
            depth -= 1
        elif character == ";" and depth == 0:
            number += 1
    return number


def _run(port: int, number: int, faults: Faults, counts: Any, pipe: Any) -> None:
    async def main() -> None:
        cluster = _Cluster(port, number, faults, counts)
        server = await cluster.serve()
        pipe.send(next(iter(server.sockets)).getsockname()[1])
        if faults.kill_every:
            await cluster.kill_in_turn()
        await server.serve_forever()

    asyncio.run(main())
