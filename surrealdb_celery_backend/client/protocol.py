"""SurrealDB's RPC protocol over a WebSocket, without I/O: request ids, pending requests, frames, dispatch.

Bytes go in, replies go to the pending requests they answer, notifications come out. `websockets` does the WebSocket
part through its Sans-I/O interface (RFC 6455); only whole messages do not pass through it (`frames`). Nothing that a
server sends raises an exception: what is not the protocol breaks it, and `broken` says why.
"""

from __future__ import annotations

import itertools
import re
import threading
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .frames import FrameSplitter, FrameTooLarge, whole_message
from .transport import MAX_HEAD, MAX_MESSAGE, MessageTooLarge, Reply, TransportError, too_large
from .values import MALFORMED, decode, encode

#: After how many requests in a row without an answer a connection is given up although the server is heard on it.
UNANSWERED = 3
#: Exceptions of `websockets` for bytes that are no WebSocket's.
_NO_WEBSOCKET = (WebSocketException, OSError, EOFError, AssertionError, *MALFORMED)
#: How a reply begins whose first field is its id: a map of 2 to 7 fields, "id", a text of up to 23 bytes.
_ID_FIRST = re.compile(rb"[\xa2-\xa7]bid[\x61-\x77](\d+)")


class Pending:
    """One request under way.

    Args:
        request_id: Its id.
        data: The encoded request.
    """

    __slots__ = ("error", "event", "frame", "reads", "reply", "request_id", "size")

    def __init__(self, request_id: str, data: bytes) -> None:
        self.request_id = request_id
        #: Bytes of the request.
        self.size = len(data)
        #: The bytes for the wire; masked, so that no local variable shows the password of a sign-in.
        self.frame = whole_message(data)
        self.reply: Reply | None = None
        self.error: TransportError | None = None
        #: Its thread is the one that reads.
        self.reads = False
        #: Set when there is something to see; made only by a thread that has to wait for another.
        self.event: threading.Event | None = None

    @property
    def done(self) -> bool:
        """Whether there is a reply, or never will be."""
        return self.reply is not None or self.error is not None

    def wake(self) -> None:
        """Wake the thread that waits for it."""
        if self.event is not None:
            self.event.set()


class RPCProtocol:
    """The client's side of one connection. Its caller holds a lock around all of it.

    Args:
        url: `ws://…/rpc` or `wss://…/rpc`.
    """

    def __init__(self, url: str) -> None:
        #: Why the connection is of no use any more; None while it is.
        self.broken: TransportError | None = None
        #: The requests under way, by id.
        self.pending: dict[str, Pending] = {}
        self._websocket = ClientProtocol(
            # No extension: permessage-deflate costs more than the bytes it saves (docs/architecture.md).
            parse_uri(url),
            subprotocols=[Subprotocol("cbor")],
            max_size=None,  # frames and fragments are limited here, with an error that says so
        )
        self._ids = itertools.count(1)
        self._splitter = FrameSplitter(MAX_MESSAGE)
        #: The frames of a message that is not complete yet, and their bytes.
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        #: The head of the handshake's answer so far; and how many bytes the whole of it has.
        self._head = b""
        self._handshake_size = 0
        #: How many requests in a row were given up.
        self._unanswered = 0
        #: Whether `data_to_send` may have something.
        self.talks = False

    # -- handshake ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Prepare the handshake's request, which `data_to_send` gives."""
        self._websocket.send_request(self._websocket.connect())
        self.talks = True

    @property
    def handshaking(self) -> bool:
        """Whether the handshake is under way."""
        return self.broken is None and self._websocket.state is State.CONNECTING

    def feed_handshake(self, chunk: bytes) -> bytes:
        """Take bytes while the handshake is under way.

        Args:
            chunk: The bytes that arrived; empty at the end.

        Returns:
            The bytes behind the handshake, for `feed`.
        """
        rest = b""
        self._handshake_size += len(chunk)
        try:
            if not chunk:
                self.fail(TransportError("the server closed the connection during the WebSocket handshake", sent=False))
            elif self._handshake_size > MAX_HEAD:
                self.fail(
                    TransportError(
                        f"the server's answer to the WebSocket handshake is longer than {MAX_HEAD} bytes", sent=False
                    )
                )
            else:
                self._head += chunk
                head, blank_line, rest = self._head.partition(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 101"):
                    # websockets knows what is wrong with it.
                    self._websocket.receive_data(self._head)
                    self._head = rest = b""
                elif blank_line:
                    self._websocket.receive_data(head + blank_line)
        except _NO_WEBSOCKET as exc:
            self.fail(TransportError(f"no WebSocket there: {exc}", sent=False))
        if self._websocket.handshake_exc is not None:
            self.fail(TransportError(f"no WebSocket there: {self._websocket.handshake_exc}", sent=False))
        return rest if self.broken is None else b""

    # -- requests -----------------------------------------------------------------------------------

    def encode(self, method: str, params: list[Any]) -> Pending:
        """Make a request, which `add` puts under way. The one method that needs no lock.

        Args:
            method: A method of SurrealDB's RPC protocol.
            params: Its parameters.

        Returns:
            The request.
        """
        request_id = str(next(self._ids))
        return Pending(request_id, encode({"id": request_id, "method": method, "params": params}))

    def add(self, pending: Pending) -> None:
        """Put a request under way: its reply is awaited from now on.

        Args:
            pending: The request.
        """
        self.pending[pending.request_id] = pending

    def remove(self, pending: Pending) -> None:
        """Nobody waits for this request's reply any more.

        Args:
            pending: The request.
        """
        self.pending.pop(pending.request_id, None)

    def promote(self) -> None:
        """Wake one of the waiting threads, so that it reads on."""
        for pending in self.pending.values():
            if pending.event is not None and not pending.done:
                pending.event.set()
                break

    def give_up(self, timeout: float, *, heard: bool) -> None:
        """A request was not answered in time.

        Args:
            timeout: The time it had, in seconds.
            heard: Whether anything came from the server since it was sent.
        """
        self._unanswered += 1
        if not heard or self._unanswered >= UNANSWERED:
            # Not a word since the request was sent, or nothing but pings: this connection is of no use.
            self.fail(TransportError(f"the server was silent for {timeout:g} s"))

    # -- bytes --------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> list[Reply]:
        """Take bytes; replies go to the requests they answer.

        Args:
            chunk: The bytes that arrived; empty at the end.

        Returns:
            The notifications of LIVE queries among them.
        """
        notifications: list[Reply] = []
        others = not chunk
        try:
            messages, rest = self._splitter.split(chunk)
            if rest or not chunk:
                others = True
                messages += self._others(rest, end=not chunk)
            for message in messages:
                self._dispatch(decode(message), notifications)
        except FrameTooLarge as exc:
            self._refuse(exc.size, exc.beginning)
        except _NO_WEBSOCKET as exc:
            self.fail(TransportError(f"the server sent something that is not SurrealDB's protocol: {exc}"))
        if others and self.broken is None and (not chunk or self._websocket.state is not State.OPEN):
            self._closed()
        return notifications

    @property
    def incoming(self) -> int:
        """How many bytes came of a message that is not complete."""
        return self._splitter.incomplete + self._fragments_size

    def data_to_send(self) -> list[bytes]:
        """Return the protocol's own bytes to send: the handshake, pongs, the answer to a close frame."""
        self.talks = False
        return [data for data in self._websocket.data_to_send() if data]

    def close(self) -> list[bytes]:
        """Say good-bye.

        Returns:
            The bytes to send; none where the server closed first.
        """
        try:
            self._websocket.send_close(CloseCode.NORMAL_CLOSURE)
        except WebSocketException:
            return []
        return self.data_to_send()

    def fail(self, error: TransportError) -> None:
        """The connection is of no use any more; all requests under way end.

        Args:
            error: Why; that of the first time stays.
        """
        if self.broken is None:
            self.broken = error
        for pending in self.pending.values():
            pending.error = pending.error or self.broken
            pending.wake()

    def _others(self, rest: bytes, *, end: bool) -> list[bytes]:
        """Complete messages of what is not a whole message in one frame, which is `websockets`' to read."""
        self.talks = True
        if rest:
            self._websocket.receive_data(rest)
        if end:
            self._websocket.receive_eof()
        messages = []
        for event in self._websocket.events_received():
            if not isinstance(event, Frame) or event.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                continue
            self._fragments.append(bytes(event.data))
            self._fragments_size += len(event.data)
            if self._fragments_size > MAX_MESSAGE:
                raise FrameTooLarge(self._fragments_size, self._fragments[0][:64])
            if event.fin:
                messages.append(self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments))
                self._fragments, self._fragments_size = [], 0
        return messages

    def _dispatch(self, reply: Any, notifications: list[Reply]) -> None:
        if not isinstance(reply, dict):
            raise TypeError(f"a reply of type {type(reply).__name__}")
        request_id = reply.get("id")
        if request_id is None:
            result = reply.get("result")
            if isinstance(result, dict) and "action" in result:
                notifications.append(result)
                return
            # A reply to a request that the server could not even read. With one request under way it is that
            # one's; with several nobody can tell, so each must find out on a new connection.
            if len(self.pending) != 1 or reply.get("error") is None:
                self.fail(TransportError(f"the server sent a reply without id: {reply.get('error') or 'no error'}"))
                return
            request_id = next(iter(self.pending))
        pending = self.pending.get(request_id) if isinstance(request_id, str) else None
        if pending is not None:  # else: the late reply of a request that was given up
            pending.reply = reply
            self._unanswered = 0
            if pending.event is not None:
                pending.event.set()

    def _refuse(self, size: int, beginning: bytes) -> None:
        """A reply is too large: its own request ends with that error, where it can be told, the others go on elsewhere.

        Args:
            size: Its length in bytes.
            beginning: Its first bytes, in which the id of the request is.
        """
        found = _ID_FIRST.match(beginning)
        pending = self.pending.get(found[1].decode()) if found else None
        if pending is None and len(self.pending) == 1:
            (pending,) = self.pending.values()
        if pending is not None:
            pending.error = too_large(size)
        self.fail(TransportError(str(too_large(size))))

    def _closed(self) -> None:
        said = self._websocket.close_rcvd
        if said is not None and said.code == CloseCode.MESSAGE_TOO_BIG and self.pending:
            # It was the largest one.
            largest = max(self.pending.values(), key=lambda one: one.size)
            largest.error = MessageTooLarge(f"{largest.size} bytes are larger than the server takes")
        self.fail(TransportError("the server closed the connection"))
