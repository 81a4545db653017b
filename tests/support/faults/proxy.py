"""A TCP proxy in front of an engine that behaves as bad lines do, when the test says so.

Nothing here goes by time, but for a slow line: a fault is a state that lasts until the test ends it, or it meets the next bytes
that pass. What the client asked is decoded on the way, so that tests can count sign-ins and requests.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from surrealdb.data.cbor import decode, encode
from websockets.frames import Frame, Opcode

from tests.support.states import LOOK_AGAIN, MAX_WAIT, until

if TYPE_CHECKING:
    from typing_extensions import Self

_CHUNK = 65536


def frame(data: bytes, opcode: Opcode = Opcode.BINARY) -> bytes:
    """A WebSocket frame as a server sends it."""
    return bytes(Frame(opcode, data).serialize(mask=False))


def message(content: Any) -> bytes:
    """A message of SurrealDB's protocol in a WebSocket frame, as a server sends it."""
    return frame(encode(content))


@dataclass(frozen=True)
class Request:
    """What a client asked.

    Attributes:
        line: The number of its connection, from 1.
        id: The request's id on that connection.
        method: ``signin``, ``query``, ….
        params: What came with it.
    """

    line: int
    id: Any
    method: str
    params: list[Any]

    @property
    def text(self) -> str:
        """The SurrealQL of a query."""
        return str(self.params[0]) if self.method == "query" else ""


class Proxy:
    """Passes bytes between clients and an engine, until told otherwise.

    Args:
        upstream: The engine's URL.
        tls: Terminate TLS here: what clients then use is ``wss`` or ``https``.
    """

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._closing = False
        #: Connections made so far.
        self.accepted = 0
        self._requests: list[Request] = []
        #: Replies wait here until this is set back.
        self.holding_replies = False
        #: Replies, or requests, are swallowed: the other side looks alive and says nothing.
        self.losing_replies = self.losing_requests = False
        #: New connections are taken and closed at once, or taken and left without a word.
        self.refusing = self.ignoring = False
        #: How many bytes of replies pass in a second, on each connection; None for any number.
        self.reply_rate: int | None = None
        #: One-shot faults: bytes of the next reply, or request, that still pass before the line is cut.
        self._cut_reply_after: int | None = None
        self._cut_request_after: int | None = None
        #: What is sent in the place of the next reply.
        self._instead: bytes | None = None
        #: Called with each request before it is passed on, by the thread of its connection: a fault set here
        #: is there before the engine can answer.
        self.on_request: Callable[[Request], Any] | None = None
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    # -- where it is ------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The `surrealdb_url` that leads through this proxy."""
        return f"{'wss' if self._tls else 'ws'}://localhost:{self.port}/rpc"

    @property
    def http_url(self) -> str:
        """The same over HTTP."""
        return "http" + self.url.removeprefix("ws")

    # -- what it saw ------------------------------------------------------------------------------

    @property
    def open_lines(self) -> int:
        """Connections that neither side has closed."""
        with self._lock:
            return len(self._links)

    def requests(self, method: str = "", text: str = "") -> list[Request]:
        """The requests that came from clients so far.

        Args:
            method: Only those of this method.
            text: Only queries with this in their SurrealQL.
        """
        with self._lock:
            seen = list(self._requests)
        return [one for one in seen if method in ("", one.method) and text in one.text]

    # -- what it does -----------------------------------------------------------------------------

    def cut_next_reply(self, after: int) -> None:
        """The next reply breaks off behind so many bytes, and the connection with it."""
        self._cut_reply_after = after

    def cut_next_request(self, after: int) -> None:
        """The next request breaks off behind so many bytes, and the connection with it."""
        self._cut_request_after = after

    def answer_next_with(self, data: bytes) -> None:
        """The next reply of the engine is replaced by these bytes."""
        self._instead = data

    @property
    def armed(self) -> bool:
        """Whether a fault for the next bytes has not met any yet."""
        return not (self._cut_reply_after is None and self._cut_request_after is None and self._instead is None)

    def say(self, data: bytes) -> None:
        """Send bytes to every client that the engine never sent."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.unasked.append(data)

    def break_lines(self) -> None:
        """Reset every connection (RST), as a firewall does that forgot them."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset = True
        until(lambda: not any(link in self._links for link in links), "the connections were reset")

    def close(self) -> None:
        """End it, with its connections."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.refusing:
                client.close()
                continue
            link = _Link(self, client, self.accepted)
            with self._lock:
                self._links.add(link)
            thread = threading.Thread(target=link.run, name=f"proxy line {link.number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _saw(self, requests: list[Request]) -> None:
        with self._lock:
            self._requests.extend(requests)
        for request in requests:
            if self.on_request is not None:
                self.on_request(request)

    def _gone(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Cut(Exception):
    """The line is to end here."""


class _Link:
    """One connection. One thread serves both directions: an SSL socket is not for two."""

    def __init__(self, proxy: Proxy, client: socket.socket, number: int) -> None:
        self.number = number
        self.reset = False
        self.unasked: list[bytes] = []
        self._proxy = proxy
        self._client = client
        self._asked = _Asked(number)

    def run(self) -> None:
        proxy = self._proxy
        upstream: socket.socket | None = None
        try:
            if proxy._tls is not None:
                self._client.settimeout(MAX_WAIT)
                self._client = proxy._tls.wrap_socket(self._client, server_side=True)
                self._client.settimeout(None)
            while proxy.ignoring:
                self._look_alive([])
            host, port = proxy._upstream
            assert port is not None, "the upstream's URL names no port"
            upstream = socket.create_connection((host, port))
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                self._step(upstream)
        except (OSError, _Cut):
            pass
        finally:
            if self.reset:
                with contextlib.suppress(OSError):
                    self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._client.close()
            if upstream is not None:
                upstream.close()
            proxy._gone(self)

    def _look_alive(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Which sockets have something to read; raises when the line is to end."""
        if self._proxy._closing or self.reset:
            raise _Cut
        while self.unasked:
            self._client.sendall(self.unasked.pop(0))
        poller = select.poll()
        by_fd = {one.fileno(): one for one in sockets}
        for fd in by_fd:
            poller.register(fd, select.POLLIN)
        return [by_fd[fd] for fd, _ in poller.poll(LOOK_AGAIN * 1000)]

    def _step(self, upstream: socket.socket) -> None:
        sockets = [self._client] if self._proxy.holding_replies else [self._client, upstream]
        for sock in self._look_alive(sockets):
            if sock is upstream:
                self._reply(upstream)
            else:
                self._request(upstream)

    def _reply(self, upstream: socket.socket) -> None:
        proxy = self._proxy
        rate = proxy.reply_rate
        data = upstream.recv(_CHUNK if rate is None else max(1, rate // 50))
        if not data:
            raise _Cut
        if rate is not None:
            time.sleep(len(data) / rate)
        if proxy.losing_replies:
            return
        if proxy._instead is not None:
            data, proxy._instead = proxy._instead, None
        if proxy._cut_reply_after is not None:
            after, proxy._cut_reply_after = proxy._cut_reply_after, None
            self._client.sendall(data[:after])
            if after >= len(data):
                proxy._cut_reply_after = after - len(data)
                return
            raise _Cut
        self._client.sendall(data)

    def _request(self, upstream: socket.socket) -> None:
        proxy = self._proxy
        while True:
            data = self._client.recv(_CHUNK)
            if not data:
                raise _Cut
            proxy._saw(self._asked.feed(data))
            if proxy._cut_request_after is not None:
                after, proxy._cut_request_after = proxy._cut_request_after, None
                upstream.sendall(data[:after])
                raise _Cut
            if not proxy.losing_requests:
                upstream.sendall(data)
            if not (isinstance(self._client, ssl.SSLSocket) and self._client.pending()):
                return


class _Asked:
    """Makes requests out of a client's bytes, over WebSocket and HTTP."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._buffer = bytearray()
        self._websocket = False

    def feed(self, data: bytes) -> list[Request]:
        self._buffer += data
        found = []
        while (body := self._next()) is not None:
            if not body:
                continue
            try:
                asked = decode(body)
            except Exception:
                continue
            if isinstance(asked, dict) and "method" in asked:
                found.append(Request(self._line, asked.get("id"), asked["method"], asked.get("params") or []))
        return found

    def _next(self) -> bytes | None:
        """The next message, empty for what has none; None when more bytes are needed."""
        return self._next_frame() if self._websocket else self._next_http()

    def _next_http(self) -> bytes | None:
        head, separator, _ = bytes(self._buffer).partition(b"\r\n\r\n")
        if not separator:
            return None
        headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        end = len(head) + 4 + int(headers.get(b"content-length", b"0"))
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[len(head) + 4 : end])
        del self._buffer[:end]
        self._websocket = headers.get(b"upgrade") == b"websocket"
        return body

    def _next_frame(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, at = buffer[1] & 127, 2
        if length > 125:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(buffer[2 : 2 + size], "big"), 2 + size
        end = at + 4 + length
        if len(buffer) < end:
            return None
        is_data, mask = buffer[0] & 15 <= 2, bytes(buffer[at : at + 4])
        payload = bytes(buffer[at + 4 : end])
        del buffer[:end]
        if not is_data:
            return b""
        stream = mask * (length // 4 + 1)
        unmasked = int.from_bytes(payload, "big") ^ int.from_bytes(stream[:length], "big")
        return unmasked.to_bytes(length, "big")
