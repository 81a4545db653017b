"""A way to one engine: the interface of every transport, and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

#: `{id, result}` or `{id, error}`, as the engine sent it.
Reply = dict[str, Any]
#: Called with `{id, action, result, …}` of a LIVE query, by the thread that reads.
OnNotification = Callable[[Reply], None]

#: The largest message or HTTP body that is taken, in bytes: twice what a SurrealDB server takes (128 MiB).
MAX_MESSAGE = 256 * 1024 * 1024
#: The largest head of a handshake or an HTTP answer, in bytes.
MAX_HEAD = 64 * 1024
#: Bytes asked of a socket at once.
READ_SIZE = 262_144


class Transport(Protocol):
    """A way to one engine."""

    #: Whether notifications of LIVE queries can arrive on it.
    live: bool
    #: Whether a forked child can open another one to the same engine.
    forkable: bool

    @property
    def usable(self) -> bool:
        """False once it broke or was closed."""
        ...  # pragma: no cover

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """Send one request and wait for its reply.

        Args:
            method: A method of SurrealDB's RPC protocol.
            params: Its parameters.
            timeout: Seconds until the reply must have arrived.

        Returns:
            `{result: …}` or `{error: …}`, as the engine sent it.

        Raises:
            OSError: The transport is down (`TransportError`), or the time is over (`TimeoutError`).
        """
        ...  # pragma: no cover

    def listen(self, timeout: float) -> bool:
        """Read notifications of LIVE queries for a while, where no thread waits for a reply.

        Args:
            timeout: Seconds to wait for something to read.

        Returns:
            Whether something arrived.

        Raises:
            TransportError: The transport is down.
            LiveNotSupported: It has no LIVE queries.
        """
        ...  # pragma: no cover

    def check_alive(self) -> None:
        """See whether the server closed the connection meanwhile, without waiting; `usable` is right then."""
        ...  # pragma: no cover

    def close(self) -> None:
        """End the transport; requests under way end with an error."""
        ...  # pragma: no cover

    def detach(self) -> None:
        """After a fork, in the child: forget the connection without a word to the server. It is the parent's."""
        ...  # pragma: no cover


class TransportError(ConnectionError):
    """The connection to the server broke.

    Args:
        message: The event in one sentence.
        sent: False where the request certainly never reached the server.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class MessageTooLarge(TransportError):
    """The server closed the connection because of the size of what was sent."""


class ReplyTooLarge(TransportError):
    """The server's reply is larger than this client takes."""


def too_large(size: int) -> ReplyTooLarge:
    """The error for a reply that is too large.

    Args:
        size: Its size in bytes, as far as known.

    Returns:
        The error.
    """
    return ReplyTooLarge(f"the reply has {size:,} bytes or more, and {MAX_MESSAGE:,} is the most that is taken")
