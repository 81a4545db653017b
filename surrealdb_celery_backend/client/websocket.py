"""The WebSocket transport: one socket, shared by any number of threads or greenlets.

Why not the SDK's blocking WebSocket connection (measured with SDK 2.0.0 and 3.0.0b10, loopback):

* it handles one request at a time under a lock, so threads wait for each other's round trips; here any number of
  requests is in flight, and of the threads that wait one reads for all;
* 2.0.0 waits for a reply for ever, 3.x for a fixed 30 s; here each request has its own deadline, and the reply of an
  abandoned request is dropped, never handed to a later one;
* it runs a thread per connection and compresses every message.

`benchmarks/` has both beside each other: one thread stores and fetches a seventh more per second through this module,
with two thirds of the CPU (the engine's time is most of both); eight threads store three times as much, and fetch
twice as much.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from . import deadlines, sockets
from .options import DEFAULT_PORTS
from .protocol import Pending, RPCProtocol
from .transport import READ_SIZE, OnNotification, Reply, TransportError

#: A connection on which nothing was heard for so long, in seconds, may have been closed by the server meanwhile.
IDLE = 0.1
#: How fast a message has to arrive, in bytes a second, for the requests that wait behind it to wait on.
MIN_RATE = 100_000
#: How many frames may wait to be sent: a server that sends pings and reads no pongs must not fill the memory.
MAX_UNSENT = 10_000
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WebSocketTransport:
    """See `Transport`.

    There is no reader thread: of the threads that wait for a reply one reads, dispatches what it finds, and promotes
    another when its own reply has come. A process that does nothing costs nothing.

    Args:
        url: `ws://…/rpc` or `wss://…/rpc`.
        tls: How the server is verified, for `wss`.
        timeout: Seconds that connecting, the TLS and the WebSocket handshake may take together.
        on_notification: Called with each notification of a LIVE query.

    Raises:
        OSError: The server cannot be reached, or is no SurrealDB server.
    """

    live = True
    forkable = True

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None,
        timeout: float,
        on_notification: OnNotification | None = None,
    ) -> None:
        self._on_notification = on_notification
        #: Guards the protocol and the socket's calls (never its waits).
        self._lock = threading.Lock()
        self._protocol = RPCProtocol(url)
        self._reading = False
        #: Bytes were asked of the socket, and what came has not been dispatched yet.
        self._in_hand = False
        #: How many threads wait in `select` for the socket, which therefore stays open.
        self._waiting_for_socket = 0
        #: Held by the one of them that waits to send: eventlet takes no second one for a socket.
        self._turn_to_send = threading.Lock()
        #: Frames still to be sent: the head may be the rest of one.
        self._outgoing: deque[memoryview] = deque()
        #: When the server was last heard of, by the monotonic clock.
        self._heard = time.monotonic()
        deadline = time.monotonic() + timeout
        self._socket = self._connected(url, tls, deadline)
        #: Whether bytes that have arrived can be in TLS's buffer, where no wait for the socket sees them.
        self._buffered = isinstance(self._socket, ssl.SSLSocket)
        try:
            self._shake_hands(deadline)
        except BaseException:
            self._socket.close()
            raise

    @staticmethod
    def _connected(url: str, tls: ssl.SSLContext | None, deadline: float) -> socket.socket:
        parts = urlsplit(url)
        host = parts.hostname or "localhost"
        sock = sockets.connected(host, parts.port or DEFAULT_PORTS[parts.scheme], deadline)
        if parts.scheme == "wss":
            sock = sockets.secured(sock, host, tls, deadline)
        sock.settimeout(0)
        return sock

    def _shake_hands(self, deadline: float) -> None:
        protocol = self._protocol
        protocol.begin()
        with self._lock:
            self._flush(deadline)
        while protocol.handshaking:
            chunk = self._receive(deadline)
            if chunk is None:
                raise TimeoutError("the server did not answer the WebSocket handshake in time")
            rest = protocol.feed_handshake(chunk)
            if rest:
                with self._lock:
                    self._feed(rest)
        self._in_hand = False
        if protocol.broken is not None:
            raise protocol.broken

    @property
    def usable(self) -> bool:
        """See `Transport`."""
        return self._protocol.broken is None

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    # -- requests -----------------------------------------------------------------------------------

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """See `Transport`."""
        deadline = time.monotonic() + timeout
        protocol = self._protocol
        pending = protocol.encode(method, params)
        try:
            with self._lock:
                started = time.monotonic()
                if started - self._heard > IDLE:
                    self._read_what_is_there()
                if protocol.broken is not None:
                    raise TransportError(str(protocol.broken), sent=False)
                protocol.add(pending)
                self._send(pending, deadline)
            received = 0
            while not self._wait_or_read(pending, deadline):
                if time.monotonic() < deadline:
                    continue
                # A large message is on its way: what has arrived of it moves the deadline, or it would be asked for
                # again behind itself, for ever. A caller that may not wait has set a limit that nothing moves.
                before, received = received, protocol.incoming
                if received - before < MIN_RATE * timeout or deadlines.time_left() is not None:
                    return self._give_up(pending, started, timeout)
                deadline = time.monotonic() + timeout
        finally:
            try:
                self._end(pending)
            except BaseException:
                # Interrupted: others wait to be woken.
                self._end(pending)
                raise
        if pending.error is not None:
            raise type(pending.error)(str(pending.error)) from pending.error
        assert pending.reply is not None
        return pending.reply

    def _send(self, pending: Pending, deadline: float) -> None:
        """Send a request. Called with the lock held."""
        try:
            self._outgoing.append(memoryview(pending.frame))
            self._flush(deadline)
        except OSError as exc:
            self._protocol.remove(pending)
            error = TransportError(f"the connection broke while sending: {exc}")
            self._break(error)
            if isinstance(exc, TimeoutError):
                raise
            raise error from exc
        except BaseException:
            # This thread is interrupted, and nobody knows how much was sent.
            self._break(TransportError("sending was interrupted"))
            raise

    def _give_up(self, pending: Pending, started: float, timeout: float) -> Reply:
        with self._lock:
            if pending.reply is not None:
                return pending.reply
            if pending.error is not None:
                raise TransportError(str(pending.error))
            self._protocol.give_up(timeout, heard=self._heard >= started)
            self._close_if_broken()
        raise TimeoutError(f"no answer within {timeout:g} s")

    def _wait_or_read(self, pending: Pending, deadline: float) -> bool:
        """Wait until the reply is there, or the deadline is; True when there is something to see."""
        with self._lock:
            if pending.reply is not None or pending.error is not None:
                return True
            if self._protocol.broken is not None:
                pending.error = self._protocol.broken
                return True
            if not self._reading:
                pending.reads = self._reading = True
            elif not pending.reads:
                if pending.event is None:
                    pending.event = threading.Event()
                pending.event.clear()
                event = pending.event
        if not pending.reads:
            event.wait(max(0.0, deadline - time.monotonic()))
            return pending.done
        while pending.reply is None and pending.error is None:
            if not self._read(deadline):
                return False
        return True

    def _end(self, pending: Pending) -> None:
        """Nobody waits for this reply any more. Its thread may have been woken to read for the others."""
        with self._lock:
            self._protocol.remove(pending)
            if pending.reads:
                pending.reads = self._reading = False
            if not self._reading and self._protocol.pending:
                self._protocol.promote()

    def listen(self, timeout: float) -> bool:
        """See `Transport`."""
        with self._lock:
            if self._protocol.broken is not None:
                raise TransportError(str(self._protocol.broken))
            if self._reading:
                return False
            self._reading = True
        try:
            return self._read(time.monotonic() + timeout)
        finally:
            with self._lock:
                self._reading = False
                self._protocol.promote()

    # -- bytes --------------------------------------------------------------------------------------

    def _read(self, deadline: float) -> bool:
        """Take one chunk off the socket and dispatch what it completes; False when the time is over."""
        try:
            chunk = self._receive(deadline)
            if chunk is None:
                return False
            with self._lock:
                notifications = self._feed(chunk)
        except (OSError, ValueError) as exc:
            with self._lock:
                self._break(TransportError(f"the connection broke: {exc}"))
            return True
        except BaseException:
            # An interrupt while waiting harms no other thread; without bytes in hand the others cannot read on.
            if self._in_hand:
                with self._lock:
                    self._break(TransportError("reading was interrupted"))
            raise
        if notifications:
            self._notify(notifications)
        return True

    def _notify(self, notifications: list[Reply]) -> None:
        if self._on_notification is not None:
            for notification in notifications:
                self._on_notification(notification)

    def _receive(self, deadline: float) -> bytes | None:
        """Bytes from the server; empty at its end, None when the time is over."""
        with self._lock:
            if not self._buffered and not self._wait_unlocked(deadline, write=False):
                return None
            while True:
                if self._protocol.broken is not None:
                    raise TransportError(str(self._protocol.broken))
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

        The socket is not closed while anybody waits for it: its number would soon be that of another connection's,
        and the wait would be for that one.
        """
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        self._waiting_for_socket += 1
        try:
            self._lock.release()
            if not write:
                return sockets.wait(self._socket, remaining)
            if not self._turn_to_send.acquire(timeout=remaining):
                return False
            try:
                return sockets.wait(self._socket, max(0.001, deadline - time.monotonic()), write=True)
            finally:
                self._turn_to_send.release()
        finally:
            self._lock.acquire()
            self._waiting_for_socket -= 1
            if self._protocol.broken is not None and not self._waiting_for_socket:
                self._socket.close()

    def check_alive(self) -> None:
        """See `Transport`."""
        with self._lock:
            self._read_what_is_there()

    def _read_what_is_there(self) -> None:
        """Pings and, above all, the news that the server closed while this process was idle.

        Found before anything is sent, nothing needs to be sent twice. Called with the lock held.
        """
        while self._protocol.broken is None and not self._reading:
            try:
                self._in_hand = True
                notifications = self._feed(self._socket.recv(READ_SIZE))
            except _NOT_NOW:
                self._in_hand = False
                return
            except (OSError, ValueError) as exc:
                self._break(TransportError(f"the connection broke: {exc}"))
                return
            except BaseException:
                self._break(TransportError("reading was interrupted"))
                raise
            self._notify(notifications)

    def _feed(self, chunk: bytes) -> list[Reply]:
        """Feed the protocol; notifications are returned. Called with the lock held."""
        self._heard = time.monotonic()
        try:
            notifications = self._protocol.feed(chunk)
            if self._protocol.talks or self._outgoing:
                self._flush(None)  # pongs, and the answer to a close frame
        except OSError as exc:
            self._break(TransportError(f"the connection broke: {exc}"))
            notifications = []
        except BaseException:
            self._break(TransportError("reading was interrupted"))
            raise
        self._in_hand = False
        if self._protocol.broken is not None:
            self._close_if_broken()
        return notifications

    def _flush(self, deadline: float | None) -> None:
        """Send what there is to send, in its order. Called with the lock held.

        Args:
            deadline: When all must be sent; None sends what goes at once and leaves the rest to the next.
        """
        if self._protocol.talks:
            self._outgoing.extend(map(memoryview, self._protocol.data_to_send()))
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
                if len(self._outgoing) > MAX_UNSENT:
                    raise TransportError("the server does not take the answers to its pings")
                return
            # A long message fills the socket while the server waits to send: others read on meanwhile,
            # and what they send goes behind this message.
            if not self._wait_unlocked(deadline, write=write):
                raise TimeoutError("the server does not take what is sent to it")
            if self._protocol.broken is not None:
                raise TransportError(str(self._protocol.broken))

    # -- the end ------------------------------------------------------------------------------------

    def _break(self, error: TransportError) -> None:
        """The connection is of no use any more. Called with the lock held."""
        self._protocol.fail(error)
        self._close_if_broken()

    def _close_if_broken(self) -> None:
        if self._protocol.broken is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for the socket; closing does not
        if not self._waiting_for_socket:
            self._socket.close()

    def close(self) -> None:
        """See `Transport`. Says good-bye to the server, as far as that needs no waiting."""
        with self._lock:
            if self._protocol.broken is None:
                with contextlib.suppress(OSError, ValueError):
                    for data in self._protocol.close():
                        self._socket.send(data)
            self._break(TransportError("the connection was closed", sent=False))

    def detach(self) -> None:
        """See `Transport`: closes this process's copy of the socket."""
        self._protocol.broken = self._protocol.broken or TransportError(
            "the connection belongs to the parent process", sent=False
        )
        self._socket.close()

    def __del__(self) -> None:
        # Celery drops backends without closing them: those that were unpickled with a result, above all.
        sock = getattr(self, "_socket", None)
        if sock is not None:
            sock.close()
