"""How a request reaches an engine: the one place below the SDK's public connections.

Three lines with one interface: a WebSocket, HTTP, and the engine inside this process. All speak
SurrealDB's CBOR (:mod:`~surrealdb_celery_backend.values`).

Why not the SDK's blocking WebSocket connection (measured with SDK 2.0.0 and 3.0.0b10, loopback):

* it handles one request at a time under a lock, so threads wait for each other's round trips; here
  any number of requests is in flight, and whichever thread waits reads for all;
* 2.0.0 waits for a reply for ever, 3.x for a fixed 30 s; here each request has its own deadline, and
  the reply of an abandoned request is dropped, never handed to a later one;
* it runs a thread per connection and compresses every message;
* its HTTP connection opens a TCP connection per request and has a fixed time-out of 30 s.

``benchmarks/`` has both beside each other: one thread stores and fetches a seventh more per second through this
module, with two thirds of the CPU (the engine's time is most of both); eight threads store three times as much,
and fetch twice as much.

``websockets`` (the library below the SDK) does the protocol here too, through its Sans-I/O interface; only
whole messages do not pass through it (:mod:`~surrealdb_celery_backend.frames`).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .frames import FrameSplitter, whole_message
from .values import MAKES_NO_SENSE, decode, encode

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

#: Held by whoever has the engine of a directory open, devserver.py too: SurrealDB 2.3 does not notice a
#: second process on its directory, and both would then write over each other.
LOCK_FILE = "celery-backend.lock"

#: Bytes asked of the socket at once.
READ_SIZE = 262_144
#: A line on which nothing was heard for so long, in seconds, may have been closed by the server meanwhile.
IDLE = 0.1
#: After how many requests in a row without an answer a line is given up although the server is heard on it.
UNANSWERED = 3

Reply = dict[str, Any]
#: Called with ``{id, action, result, …}`` of a LIVE query, by the thread that reads.
OnNotification = Callable[[Reply], None]


class Line(Protocol):
    """A way to one engine."""

    #: Whether notifications of LIVE queries can arrive on it.
    live: bool

    @property
    def usable(self) -> bool:
        """False once it broke or was closed."""
        ...  # pragma: no cover

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """Send one request and wait for its reply.

        :param timeout: seconds until the reply must have arrived.
        :return: ``{result: …}`` or ``{error: …}``, as the engine sent it.
        :raises OSError: the line is down, or the time is over (:class:`TimeoutError`).
        """
        ...  # pragma: no cover

    def look(self) -> None:
        """See whether the server closed the line meanwhile, without waiting: ``usable`` is right then."""
        ...  # pragma: no cover

    def close(self) -> None:
        """Let go of the line; requests under way end with an error."""
        ...  # pragma: no cover

    def abandon(self) -> None:
        """Forget the line without a word to the server: after a fork it is the parent's."""
        ...  # pragma: no cover


class LineBroken(ConnectionError):
    """The connection to the server broke.

    ``sent`` is False where the request certainly never reached the server.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class MessageTooLarge(LineBroken):
    """The server closed the connection because of the size of what was sent."""


class _Waiting:
    """One request under way."""

    __slots__ = ("error", "event", "reads", "reply", "size")

    def __init__(self, size: int) -> None:
        #: Bytes of the request.
        self.size = size
        self.reply: Reply | None = None
        self.error: LineBroken | None = None
        #: Its thread is the one that reads.
        self.reads = False
        #: Set when there is something to see; made only by a thread that has to wait for another.
        self.event: threading.Event | None = None

    def done(self) -> bool:
        """Whether there is a reply, or never will be."""
        return self.reply is not None or self.error is not None


class WebSocketLine:
    """One WebSocket, shared by any number of threads or greenlets.

    There is no reader thread: of the threads that wait for a reply one reads, hands out what it finds,
    and passes the reading on when its own reply has come. A process that does nothing costs nothing.

    :param url: ``ws://…/rpc`` or ``wss://…/rpc``.
    :param tls: for ``wss``.
    :param timeout: seconds that connecting, the TLS and the WebSocket handshake may take together.
    :raises OSError: the server cannot be reached, or is no SurrealDB server.
    """

    live = True

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None,
        timeout: float,
        on_notification: OnNotification | None = None,
    ) -> None:
        self._on_notification = on_notification
        #: Guards the protocol, the socket's calls (never its waits) and what is pending.
        self._lock = threading.Lock()
        self._pending: dict[str, _Waiting] = {}
        self._reading = False
        #: Bytes were asked of the socket, and what came has not been handed out yet.
        self._in_hand = False
        #: How many wait in ``select`` for the socket, which therefore stays open.
        self._waiting_for_socket = 0
        #: Held by the one of them that waits to send: eventlet takes no second one for a socket.
        self._turn_to_send = threading.Lock()
        #: How many requests in a row were given up.
        self._unanswered = 0
        self._ids = itertools.count(1)
        self._broken: LineBroken | None = None
        #: What is still to be sent: the head may be the rest of a frame.
        self._outgoing: deque[memoryview] = deque()
        self._incoming = FrameSplitter()
        #: The frames of a message that is not complete yet.
        self._fragments: list[bytes] = []
        #: When the server was last heard of, by the monotonic clock.
        self._heard = time.monotonic()
        deadline = time.monotonic() + timeout
        self._socket = self._connect(url, tls, deadline)
        #: Whether bytes that have arrived can be in TLS's buffer, where no wait for the socket sees them.
        self._buffered = isinstance(self._socket, ssl.SSLSocket)
        try:
            self._protocol = ClientProtocol(
                # No extension: permessage-deflate costs more than the bytes it saves (see above).
                parse_uri(url),
                subprotocols=[Subprotocol("cbor")],
                max_size=None,
            )
            self._shake_hands(deadline)
        except BaseException:
            self._socket.close()
            raise

    @staticmethod
    def _connect(url: str, tls: ssl.SSLContext | None, deadline: float) -> socket.socket:
        parts = urlsplit(url)
        host = parts.hostname or "localhost"
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        sock = _connected(host, port, deadline)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if parts.scheme == "wss":
                sock.settimeout(_remaining(deadline))
                sock = (tls or ssl.create_default_context()).wrap_socket(sock, server_hostname=host)
            sock.settimeout(0)
        except BaseException:
            sock.close()
            raise
        return sock

    def _shake_hands(self, deadline: float) -> None:
        protocol = self._protocol
        protocol.send_request(protocol.connect())
        with self._lock:
            self._flush(deadline)
        received = b""
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            chunk = self._receive(deadline)
            if chunk is None:
                raise TimeoutError("the server did not answer the WebSocket handshake in time")
            if not chunk:
                raise LineBroken("the server closed the connection during the WebSocket handshake", sent=False)
            received += chunk
            answer, blank_line, frames = received.partition(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 101"):
                # Whatever it is, websockets knows what is wrong with it.
                protocol.receive_data(received)
                received = b""
            elif blank_line:
                protocol.receive_data(answer + blank_line)
                if frames:
                    with self._lock:
                        self._take_in(frames)
        self._in_hand = False
        if protocol.handshake_exc is not None:
            raise LineBroken(f"no WebSocket there: {protocol.handshake_exc}", sent=False)

    @property
    def usable(self) -> bool:
        """False once the line broke or was closed."""
        return self._broken is None

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    # -- requests ---------------------------------------------------------------------------------

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """See :class:`Line`."""
        deadline = time.monotonic() + timeout
        request_id = str(next(self._ids))
        data = encode({"id": request_id, "method": method, "params": params})
        waiting = _Waiting(len(data))
        try:
            with self._lock:
                started = time.monotonic()
                if started - self._heard > IDLE:
                    self._take_in_what_is_there()
                if self._broken is not None:
                    raise LineBroken(str(self._broken), sent=False)
                self._pending[request_id] = waiting
                try:
                    self._outgoing.append(memoryview(whole_message(data)))
                    self._flush(deadline)
                except OSError as exc:
                    self._pending.pop(request_id, None)
                    error = LineBroken(f"the connection broke while sending: {exc}")
                    self._break(error)
                    if isinstance(exc, TimeoutError):
                        raise
                    raise error from exc
                except BaseException:
                    # This thread is interrupted, and nobody knows how much was sent.
                    self._break(LineBroken("sending was interrupted"))
                    raise
            while not self._wait_or_read(waiting, deadline):
                if time.monotonic() >= deadline:
                    return self._give_up(waiting, started, timeout)
        finally:
            try:
                self._end(request_id, waiting)
            except BaseException:
                # Interrupted: others wait to be woken.
                self._end(request_id, waiting)
                raise
        if waiting.error is not None:
            raise type(waiting.error)(str(waiting.error))
        assert waiting.reply is not None
        return waiting.reply

    def _give_up(self, waiting: _Waiting, started: float, timeout: float) -> Reply:
        with self._lock:
            if waiting.reply is not None:
                return waiting.reply
            if waiting.error is not None:
                raise LineBroken(str(waiting.error))
            self._unanswered += 1
            if self._heard < started or self._unanswered >= UNANSWERED:
                # Not a word since the request was sent, or nothing but pings: this line is of no use.
                self._break(LineBroken(f"the server was silent for {timeout:g} s"))
        raise TimeoutError(f"no answer within {timeout:g} s")

    def _wait_or_read(self, waiting: _Waiting, deadline: float) -> bool:
        """Wait until the reply is there, or the deadline is; True when there is something to see."""
        with self._lock:
            if waiting.done():
                return True
            if self._broken is not None:
                waiting.error = self._broken
                return True
            if not self._reading:
                waiting.reads = self._reading = True
            elif not waiting.reads:
                if waiting.event is None:
                    waiting.event = threading.Event()
                waiting.event.clear()
                event = waiting.event
        if not waiting.reads:
            event.wait(max(0.0, deadline - time.monotonic()))
            return waiting.done()
        while not waiting.done():
            if not self._read(deadline):
                return False
        return True

    def _end(self, request_id: str, waiting: _Waiting) -> None:
        """Nobody waits for this reply any more. It may have been woken to read for the others."""
        with self._lock:
            self._pending.pop(request_id, None)
            if waiting.reads:
                waiting.reads = self._reading = False
            self._hand_over()

    def _hand_over(self) -> None:
        """Wake one of those who wait so that it reads on. Called with the lock held."""
        if self._reading:
            return
        for other in self._pending.values():
            if other.event is not None and not other.done():
                other.event.set()
                break

    def listen(self, timeout: float) -> bool:
        """Read notifications for a while, where no thread waits for a reply.

        :param timeout: seconds to wait for something to read.
        :return: whether something arrived.
        :raises LineBroken: the line is down.
        """
        with self._lock:
            if self._broken is not None:
                raise LineBroken(str(self._broken))
            if self._reading:
                return False
            self._reading = True
        try:
            return self._read(time.monotonic() + timeout)
        finally:
            with self._lock:
                self._reading = False
                self._hand_over()

    # -- bytes ------------------------------------------------------------------------------------

    def _read(self, deadline: float) -> bool:
        """Take one chunk off the socket and hand out what it completes; False when the time is over."""
        try:
            chunk = self._receive(deadline)
            if chunk is None:
                return False
            with self._lock:
                notifications = self._take_in(chunk)
        except (OSError, ValueError) as exc:
            with self._lock:
                self._break(LineBroken(f"the connection broke: {exc}"))
            return True
        except BaseException:
            # Who is interrupted while waiting harms nobody; without bytes in hand the others cannot read on.
            if self._in_hand:
                with self._lock:
                    self._break(LineBroken("reading was interrupted"))
            raise
        for notification in notifications:
            if self._on_notification is not None:
                self._on_notification(notification)
        return True

    def _receive(self, deadline: float) -> bytes | None:
        """Bytes from the server; empty at its end, None when the time is over."""
        with self._lock:
            if not self._buffered and not self._wait_unlocked(deadline, write=False):
                return None
            while True:
                if self._broken is not None:
                    raise LineBroken(str(self._broken))
                try:
                    self._in_hand = True
                    return self._socket.recv(READ_SIZE)
                except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
                    write = False
                except ssl.SSLWantWriteError:
                    write = True
                self._in_hand = False
                if not self._wait_unlocked(deadline, write=write):
                    return None

    def _wait_unlocked(self, deadline: float, *, write: bool) -> bool:
        """Wait for the socket, the lock released meanwhile. Called with the lock held.

        The socket is not closed while anybody waits for it: its number would soon be that of another
        connection's, and the wait would be for that one.
        """
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        self._waiting_for_socket += 1
        try:
            self._lock.release()
            if not write:
                return _wait(self._socket, remaining)
            if not self._turn_to_send.acquire(timeout=remaining):
                return False
            try:
                return _wait(self._socket, max(0.0, deadline - time.monotonic()), write=True)
            finally:
                self._turn_to_send.release()
        finally:
            self._lock.acquire()
            self._waiting_for_socket -= 1
            if self._broken is not None and not self._waiting_for_socket:
                self._socket.close()

    def look(self) -> None:
        """See :class:`Line`."""
        with self._lock:
            self._take_in_what_is_there()

    def _take_in_what_is_there(self) -> None:
        """Pings and, above all, the news that the server closed while this process was idle.

        Found before anything is sent, nothing needs to be sent twice. Called with the lock held.
        """
        while self._broken is None and not self._reading:
            try:
                self._in_hand = True
                notifications = self._take_in(self._socket.recv(READ_SIZE))
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._in_hand = False
                return
            except (OSError, ValueError) as exc:
                self._break(LineBroken(f"the connection broke: {exc}"))
                return
            except BaseException:
                self._break(LineBroken("reading was interrupted"))
                raise
            for notification in notifications:
                if self._on_notification is not None:
                    self._on_notification(notification)

    def _take_in(self, chunk: bytes) -> list[Reply]:
        """Feed the protocol; replies go to those who wait, notifications are returned."""
        notifications: list[Reply] = []
        self._heard = time.monotonic()
        protocol = self._protocol
        try:
            messages, rest = self._incoming.split(chunk)
            if rest:
                protocol.receive_data(rest)
            if not chunk:
                protocol.receive_eof()
            if rest or not chunk:
                messages += self._messages()
                self._flush(None)  # pongs, and the answer to a close frame
            for message in messages:
                self._hand_out(decode(message), notifications)
        except (WebSocketException, OSError) as exc:
            self._break(LineBroken(f"the connection broke: {exc}"))
        except MAKES_NO_SENSE as exc:
            self._break(LineBroken(f"the server sent something that is not SurrealDB's protocol: {exc}"))
        except BaseException:
            self._break(LineBroken("reading was interrupted"))
            raise
        self._in_hand = False
        if self._broken is None and (not chunk or protocol.state is not State.OPEN):
            self._break(LineBroken("the server closed the connection"), protocol.close_rcvd)
        return notifications

    def _messages(self) -> list[bytes]:
        """The complete messages among the events received; a message may come in several frames."""
        messages = []
        for event in self._protocol.events_received():
            if not isinstance(event, Frame) or event.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                continue
            self._fragments.append(bytes(event.data))
            if event.fin:
                messages.append(self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments))
                self._fragments.clear()
        return messages

    def _hand_out(self, reply: Any, notifications: list[Reply]) -> None:
        if not isinstance(reply, dict):
            raise TypeError(f"a reply of type {type(reply).__name__}")
        request_id = reply.get("id")
        if request_id is None:
            result = reply.get("result")
            if isinstance(result, dict) and "action" in result:
                notifications.append(result)
                return
            # An error about a request that the server could not even read. With one request under way
            # it is that one's; with several nobody can tell, so each must find out on a new line.
            if reply.get("error") is not None:
                if len(self._pending) == 1:
                    request_id = next(iter(self._pending))
                else:
                    self._break(LineBroken(f"the server could not read a request: {reply['error']}"))
                    return
        waiting = self._pending.get(str(request_id))
        if waiting is not None:  # else: the late reply of a request that was given up
            waiting.reply = reply
            self._unanswered = 0
            if waiting.event is not None:
                waiting.event.set()

    def _flush(self, deadline: float | None) -> None:
        """Send what the protocol has to send, in its order. Called with the lock held.

        :param deadline: when all must be sent; None sends what goes at once and leaves the rest to the next.
        """
        for data in self._protocol.data_to_send():
            if data:
                self._outgoing.append(memoryview(data))
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing[0])
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                write = True
            except ssl.SSLWantReadError:
                write = False
            else:
                rest = self._outgoing[0][sent:]
                if rest:
                    self._outgoing[0] = rest
                else:
                    self._outgoing.popleft()
                continue
            if deadline is None:
                return
            # A long message fills the socket while the server waits to send: others read on meanwhile,
            # and what they send goes behind this message.
            if not self._wait_unlocked(deadline, write=write):
                raise TimeoutError("the server does not take what is sent to it")
            if self._broken is not None:
                raise LineBroken(str(self._broken))

    # -- the end ----------------------------------------------------------------------------------

    def _break(self, error: LineBroken, said: Close | None = None) -> None:
        """The line is of no use any more. Called with the lock held.

        :param said: what the server closed it with. Where that was too large a message, it was the largest one.
        """
        if self._broken is None:
            self._broken = error
        largest = None
        if said is not None and said.code == CloseCode.MESSAGE_TOO_BIG:
            largest = max(self._pending.values(), key=lambda one: one.size, default=None)
        for waiting in self._pending.values():
            if waiting is largest:
                waiting.error = MessageTooLarge(f"{waiting.size} bytes are larger than the server takes")
            else:
                waiting.error = waiting.error or self._broken
            if waiting.event is not None:
                waiting.event.set()
        with contextlib.suppress(OSError, ValueError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for the socket; closing does not
        if not self._waiting_for_socket:
            self._socket.close()

    def close(self) -> None:
        """Say good-bye to the server, as far as that needs no waiting, and close the socket."""
        with self._lock:
            if self._broken is None:
                try:
                    self._protocol.send_close(1000)
                    for data in self._protocol.data_to_send():
                        if data:
                            self._socket.send(data)
                except (OSError, WebSocketException, ValueError):
                    pass
            self._break(LineBroken("the connection was closed", sent=False))

    def abandon(self) -> None:
        """Close this process's copy of the socket without a word: after a fork it is the parent's."""
        self._broken = self._broken or LineBroken("the connection belongs to the parent process", sent=False)
        self._socket.close()

    def __del__(self) -> None:
        # Celery drops backends without closing them: those that were unpickled with a result, above all.
        sock = getattr(self, "_socket", None)
        if sock is not None:
            sock.close()


def _remaining(deadline: float) -> float:
    """Seconds until then, for a socket's timeout."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the time for connecting is over")
    return remaining


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    """A TCP connection to the first of a host's addresses that answers.

    ``socket.create_connection`` would give each of them all the time there is.
    """
    addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        try:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_remaining(deadline) / left)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(_remaining(deadline))
            except BaseException:
                sock.close()
                raise
        except OSError:
            if left == 1:
                raise
        else:
            return sock
    raise OSError(f"{host} has no address")


def _wait(sock: socket.socket, timeout: float, *, write: bool = False) -> bool:
    """Wait until a socket is readable (or writable); False when the time is over.

    ``select`` is looked at when called, not when imported: gevent and eventlet replace what is in it
    (and eventlet takes ``poll`` away).
    """
    fd = sock.fileno()
    if fd < 0:
        raise OSError("the socket was closed")
    poll = getattr(select, "poll", None)
    if poll is None:
        readable, writable, _ = select.select(*(([], [fd], []) if write else ([fd], [], [])), timeout)
        return bool(readable or writable)
    poller = poll()
    poller.register(fd, select.POLLOUT if write else select.POLLIN)
    return bool(poller.poll(max(1, int(timeout * 1000))))


def _http_adapter() -> HTTPAdapter:
    """Connections that keep to a request's time: else each address, and each byte of an answer's head, has it anew."""
    from http.client import HTTPResponse

    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    class Response(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            # urllib3 has just given the socket what is left of the time.
            deadline = time.monotonic() + (sock.gettimeout() or 0.0)
            self.fp = io.BufferedReader(_ReadInTime(self.fp.detach(), sock, deadline))

    def new_conn(self: HTTPConnection) -> socket.socket:
        try:
            return _connected(self._dns_host, self.port or 80, time.monotonic() + float(self.timeout or 0.0))
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, f"no connection to {self.host} in time") from exc
        except OSError as exc:
            raise NewConnectionError(self, f"no connection: {exc}") from exc

    def in_time(pool: Any, connection: Any) -> Any:
        made = type(connection.__name__, (connection,), {"response_class": Response, "_new_conn": new_conn})
        return type(pool.__name__, (pool,), {"ConnectionCls": made})

    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = {
        "http": in_time(HTTPConnectionPool, HTTPConnection),
        "https": in_time(HTTPSConnectionPool, HTTPSConnection),
    }
    return adapter


class _ReadInTime(io.RawIOBase):
    """What a socket receives until a deadline, however slowly it comes."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_remaining(self._deadline))
        return self._raw.readinto(buffer)

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        super().close()
        self._raw.close()


class HttpLine:
    """Requests over HTTP, on pooled connections.

    HTTP has no session: namespace, database and token travel with each request. There are no LIVE
    queries.

    :param url: ``http://…/rpc`` or ``https://…/rpc``.
    """

    live = False

    def __init__(self, url: str, *, verify: bool | str, cert: str | tuple[str, str] | None) -> None:
        import requests
        from urllib3 import Timeout

        self._time = Timeout
        self._url = url
        self._session = requests.Session()
        self._adapter = _http_adapter()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        self._session.trust_env = False  # a proxy in the environment is not for a database
        self._session.verify = verify
        self._session.cert = cert
        self._session.headers.update({"Accept": "application/cbor", "Content-Type": "application/cbor"})
        self._open = True

    @property
    def usable(self) -> bool:
        """See :class:`Line`."""
        return self._open

    def look(self) -> None:
        """Nothing to see: ``requests`` drops a connection that was closed before it sends."""

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """See :class:`Line`. ``use`` and ``authenticate`` are kept for the requests that follow."""
        headers = self._session.headers
        if method == "use":
            headers["Surreal-NS"], headers["Surreal-DB"] = params
            return {"result": None}
        if method == "authenticate":
            headers["Authorization"] = f"Bearer {params[0]}"
            method, params = "ping", []  # shows whether the server takes the token
        status, content = self._post(encode({"id": "1", "method": method, "params": params}), timeout)
        try:
            reply = decode(content)
        except MAKES_NO_SENSE:
            reply = None
        if not isinstance(reply, dict) or not ("result" in reply or "error" in reply):
            text = content[:200].decode(errors="replace").strip()
            if status == 401 and "Authorization" in headers:
                return {"error": {"message": f"The token has expired or is not accepted: HTTP status 401: {text}"}}
            if status == 413:
                return {"error": {"message": f"The request is too large: HTTP status 413: {text}"}}
            if status in (401, 403):
                return {"error": {"message": f"Not enough permissions: HTTP status {status}: {text}"}}
            raise LineBroken(f"HTTP status {status} instead of SurrealDB's protocol: {text}")
        if method == "signin" and "result" in reply:
            result = reply["result"]
            token = result.get("access") or result.get("token") if isinstance(result, dict) else result
            headers["Authorization"] = f"Bearer {token}"
        return reply

    def _post(self, data: bytes, timeout: float) -> tuple[int, bytes]:
        """The status and the body of an answer that must be complete in time, however slowly it comes."""
        deadline = time.monotonic() + timeout
        content = bytearray()
        # The types of requests do not know that it takes one of urllib3's.
        whole: Any = self._time(total=timeout)
        with self._session.post(self._url, data=data, timeout=whole, stream=True) as response:
            # What has arrived, not what fills the buffer: urllib3 2 can tell.
            read = getattr(response.raw, "read1", response.raw.read)
            while chunk := read(READ_SIZE, decode_content=True):
                content += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no complete answer within {timeout:g} s")
            return response.status_code, bytes(content)

    def close(self) -> None:
        """See :class:`Line`."""
        self._open = False
        self._session.close()

    def abandon(self) -> None:
        """See :class:`Line`. Threads that are not here may hold urllib3's locks: the sockets are closed past them."""
        self._open = False
        pools: Any = getattr(self._adapter.poolmanager.pools, "_container", {})
        for pool in list(pools.values()):
            for connection in list(pool.pool.queue):
                if connection is not None and connection.sock is not None:
                    connection.sock.close()


class Engine:
    """The engine inside this process, behind the SDK's own blocking connection, which serialises its calls.

    :param url: ``mem://``, ``surrealkv://DIR`` or whatever else the installed engine takes.
    :raises Exception: whatever the engine raises; ``connection`` gives it a meaning.
    """

    def __init__(self, url: str) -> None:
        from surrealdb import Surreal

        self._directory_lock = _lock_directory(url)
        try:
            connection: Any = Surreal(url)
            connection.connect()
        except BaseException:
            self.forget_directory()
            raise
        self._connection = connection
        self._lock = threading.Lock()
        self._used: list[str] | None = None
        self.usable = True

    def query(self, database: list[str], params: list[Any]) -> Reply:
        """Run statements in a database; the engine has one session, so it is switched where it must be."""
        with self._lock:
            if not self.usable:
                raise LineBroken("the embedded engine was closed", sent=False)
            try:
                if self._used != database:
                    self._connection.use(*database)
                    self._used = database
                reply = _from_sdk(self._connection.query_raw(*_to_sdk(params)))
            except RuntimeError as exc:  # SDK 2's engine raises what a server would answer
                return {"error": {"message": str(exc)}}
            return reply if isinstance(reply, dict) else {"result": reply}

    def close(self) -> None:
        """Shut the engine down and release its directory."""
        with self._lock:
            if self.usable:
                self.usable = False
                self._connection.close()
                self.forget_directory()

    def forget_directory(self) -> None:
        """Close this process's hold on the directory; where a fork has another, that one stays."""
        fd, self._directory_lock = self._directory_lock, None
        if fd is not None:
            os.close(fd)


def _lock_directory(url: str) -> int | None:
    """Take the directory of an engine for this process.

    :return: the file descriptor that holds the lock; None for an engine without directory.
    :raises BlockingIOError: another process has it.
    :raises OSError: the directory cannot be made or written to.
    """
    scheme, _, path = url.partition("://")
    if scheme in ("mem", "memory") or not path:
        return None
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise BlockingIOError(f"{directory} is locked by another process") from None
    return fd


def _to_sdk(value: Any) -> Any:
    """The same value with the SDK's types, which its connections want."""
    from surrealdb.data.cbor import decode as decode_with_sdk

    return decode_with_sdk(encode(value))


def _from_sdk(value: Any) -> Any:
    from surrealdb.data.cbor import encode as encode_with_sdk

    return decode(encode_with_sdk(value))


class EmbeddedLine:
    """One connection's share of an :class:`Engine`: its namespace and database."""

    live = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database: list[str] = []
        self._mine = True

    @property
    def usable(self) -> bool:
        """False once the engine was closed, or this process is a fork of the one that has it."""
        return self._mine and self._engine.usable

    def look(self) -> None:
        """Nothing to see: the engine is in this process."""

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """See :class:`Line`. An embedded engine needs no sign-in."""
        if method == "use":
            self._database = params
            return {"result": None}
        if method != "query":
            raise ValueError(f"an embedded engine needs no {method}")
        return self._engine.query(self._database, params)

    def close(self) -> None:
        """The engine stays: other connections of the process use it."""
        self._mine = False

    abandon = close
