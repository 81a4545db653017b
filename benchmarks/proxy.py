"""A loopback proxy in a process of its own that counts round trips and can delay replies."""

from __future__ import annotations

import asyncio
from typing import Any

from .child import Child, spawn


class Proxy(Child):
    """Passes bytes between a port of this machine and a server.

    A round trip is a client that sends after it was sent something: with one request at a time, whatever the
    number of packets, that is one per wait for the server.

    :param port: the server's port on 127.0.0.1.
    :param delay: seconds that every reply is held back. Replies on their way do not wait for each other.
    """

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self._count, self._sent = spawn.Value("q", 0), spawn.Value("q", 0)
        ours, theirs = spawn.Pipe()
        super().__init__(_serve, port, delay, self._count, self._sent, theirs)
        #: Where to connect to instead.
        self.port: int = ours.recv()

    @property
    def round_trips(self) -> int:
        """Round trips so far, of all connections."""
        return int(self._count.value)

    @property
    def bytes_sent(self) -> int:
        """Bytes that clients sent so far, of all connections."""
        return int(self._sent.value)


def _serve(port: int, delay: float, count: Any, sent: Any, pipe: Any) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        loop = asyncio.get_running_loop()
        answered = True

        async def ask() -> None:
            nonlocal answered
            while data := await reader.read(262_144):
                with sent.get_lock():
                    sent.value += len(data)
                if answered:
                    answered = False
                    with count.get_lock():
                        count.value += 1
                server_writer.write(data)
            server_writer.close()

        def reply(data: bytes) -> None:
            nonlocal answered
            answered = True
            writer.write(data)

        async def answer() -> None:
            while data := await server_reader.read(262_144):
                if delay:
                    loop.call_later(delay, reply, data)
                else:
                    reply(data)
            if delay:
                await asyncio.sleep(delay)
            writer.close()

        await asyncio.gather(ask(), answer(), return_exceptions=True)

    async def main() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

    asyncio.run(main())
