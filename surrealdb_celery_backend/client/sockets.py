"""Sockets with deadlines: connecting within a time, waiting, and reading however slowly bytes come."""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from typing import Any


def remaining(deadline: float) -> float:
    """The time left, for a socket's timeout.

    Args:
        deadline: By the monotonic clock.

    Returns:
        Seconds, above 0.

    Raises:
        TimeoutError: It is over.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is over")
    return left


def connected(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first of a host's addresses that answers.

    `socket.create_connection` would give each of them all the time there is.

    Args:
        host: Name or address.
        port: The TCP port.
        deadline: By the monotonic clock, for all addresses together.

    Returns:
        A socket with TCP_NODELAY and keep-alive.

    Raises:
        OSError: None of them can be reached in time.
    """
    addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        try:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(remaining(deadline) / left)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.settimeout(remaining(deadline))
            except BaseException:
                sock.close()
                raise
        except OSError:
            if left == 1:
                raise
        else:
            return sock
    raise OSError(f"{host} has no address")


def secured(sock: socket.socket, host: str, tls: ssl.SSLContext | None, deadline: float) -> ssl.SSLSocket:
    """Make the TLS handshake.

    Args:
        sock: A connected socket; closed where the handshake fails.
        host: The name that the server's certificate must have.
        tls: How the server is verified; by the system's rules when None.
        deadline: By the monotonic clock.

    Returns:
        The socket to use from now on.

    Raises:
        OSError: The handshake failed, or took too long.
    """
    try:
        sock.settimeout(remaining(deadline))
        return (tls or ssl.create_default_context()).wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def wait(sock: socket.socket, timeout: float, *, write: bool = False) -> bool:
    """Wait until a socket is readable or writable.

    `select` is looked at when called, not when imported: gevent and eventlet replace what is in it, and eventlet
    takes `poll` away.

    Args:
        sock: The socket.
        timeout: Seconds; 0 looks once.
        write: Wait until it is writable.

    Returns:
        False when the time is over.

    Raises:
        OSError: The socket was closed.
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
    return bool(poller.poll(max(1, int(timeout * 1000)) if timeout else 0))


class DeadlineSocket:
    """A blocking socket all of whose calls together end by a deadline, which each request sets anew.

    It has what `http.client` needs of a socket.

    Args:
        sock: A connected socket, plain or with TLS.
        deadline: By the monotonic clock.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.deadline = deadline
        self._sock = sock

    @property
    def idle(self) -> bool:
        """Whether nothing came and nothing ended while nobody used it: bytes or an end would be of no request."""
        try:
            buffered = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()
            return not buffered and not wait(self._sock, 0)
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """The file descriptor; -1 once closed."""
        return self._sock.fileno()

    def sendall(self, data: Any) -> None:
        """Send all bytes, within the time."""
        view = memoryview(data).cast("B")
        while view:
            self._sock.settimeout(remaining(self.deadline))
            view = view[self._sock.send(view) :]

    def recv_into(self, buffer: Any) -> int:
        """Receive what there is, within the time."""
        self._sock.settimeout(remaining(self.deadline))
        return self._sock.recv_into(buffer)

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """The received bytes of the socket, as a file."""
        return io.BufferedReader(_Received(self))

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class _Received(io.RawIOBase):
    """The received bytes of a socket. Closing it leaves the socket open, for the next answer."""

    def __init__(self, sock: DeadlineSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._sock.recv_into(buffer)
