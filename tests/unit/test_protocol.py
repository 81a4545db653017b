"""The protocol of a WebSocket, without any: what it does with whatever a server sends."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from surrealdb_celery_backend.client import protocol as module
from surrealdb_celery_backend.client.protocol import RPCProtocol
from surrealdb_celery_backend.client.transport import MAX_HEAD, MessageTooLarge, ReplyTooLarge
from surrealdb_celery_backend.client.values import encode

pytestmark = pytest.mark.unit

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def opened() -> tuple[RPCProtocol, ServerProtocol]:
    """A client's and a server's side after the handshake."""
    client, server = RPCProtocol("ws://h/rpc"), ServerProtocol(subprotocols=["cbor"])  # type: ignore[list-item]
    client.begin()
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]
    assert client.feed_handshake(b"".join(server.data_to_send())) == b""
    assert not client.handshaking
    return client, server


def asked(client: RPCProtocol, *texts: str) -> list[Any]:
    """Requests under way."""
    pending = [client.encode("query", [text, {}]) for text in texts]
    for one in pending:
        client.add(one)
    return pending


def frame(value: Any, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
    """A server's frame."""
    return Frame(opcode, value if isinstance(value, bytes) else encode(value), fin).serialize(mask=False)


@unhurried
@given(cuts=some.lists(some.integers(0, 600), max_size=8), order=some.permutations([0, 1, 2]))
def test_replies_reach_their_requests(cuts: list[int], order: list[int]) -> None:
    """However the bytes are cut and the replies ordered, each request gets its own, and notifications come out."""
    client, _ = opened()
    pending = asked(client, "a", "b", "c")
    notification = {"action": "CREATE", "id": "live", "result": {"n": 1}}
    stream = b"".join(frame({"id": pending[n].request_id, "result": n}) for n in order) + frame(
        {"result": notification}
    )
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    told = [one for start, end in itertools.pairwise(places) for one in client.feed(stream[start:end])]
    assert told == [notification]
    assert [one.reply["result"] for one in pending] == [0, 1, 2]
    assert client.broken is None


@unhurried
@given(data=some.binary(max_size=200), handshaken=some.booleans())
def test_no_bytes_raise(data: bytes, handshaken: bool) -> None:
    """Whatever comes, nothing is raised: either it is the protocol, or the protocol is broken and all requests end."""
    client = opened()[0] if handshaken else RPCProtocol("ws://h/rpc")
    pending = asked(client, "a")
    if handshaken:
        client.feed(data)
    else:
        client.begin()
        client.feed_handshake(data)
        client.feed_handshake(b"")
        assert client.broken is not None
    client.feed(b"")
    assert client.broken is not None
    assert all(one.done for one in pending)


@unhurried
@given(position=some.integers(0, 10_000), bit=some.integers(0, 7))
def test_damaged_replies_raise_nothing(position: int, bit: int) -> None:
    """One flipped bit of a reply: it is read, dropped, or breaks the protocol."""
    client, _ = opened()
    (pending,) = asked(client, "a")
    reply = bytearray(frame({"id": pending.request_id, "result": [{"status": "OK", "result": ["x"], "time": "1ms"}]}))
    reply[position % len(reply)] ^= 1 << bit
    client.feed(bytes(reply))
    assert client.broken is None or pending.error is not None


def test_messages_in_several_frames() -> None:
    """Fragments become one message, with a ping in between, which is answered."""
    client, _ = opened()
    (pending,) = asked(client, "a")
    data = encode({"id": pending.request_id, "result": "whole"})
    client.feed(frame(data[:5], fin=False) + frame(b"there?", Opcode.PING) + frame(data[5:], Opcode.CONT))
    assert pending.reply == {"id": pending.request_id, "result": "whole"}
    assert client.data_to_send()


def test_frame_that_is_too_large() -> None:
    """A frame that claims more than is taken is refused by its head: nothing of it is kept."""
    client, _ = opened()
    mine, other = asked(client, "mine", "other")
    beginning = encode({"id": mine.request_id, "result": "x" * 40})[:40]
    client.feed(b"\x82\x7f" + (10**12).to_bytes(8, "big") + beginning)
    assert isinstance(mine.error, ReplyTooLarge)
    assert other.error is not None
    assert not isinstance(other.error, ReplyTooLarge), "it may go on elsewhere"


def test_fragments_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fragments are taken up to the limit of a message, and not one byte more."""
    monkeypatch.setattr(module, "MAX_MESSAGE", 1_000_000)
    client, _ = opened()
    (pending,) = asked(client, "a")
    client.feed(frame(b"x" * 100_000, fin=False))
    sent = 100_000
    while client.broken is None:
        client.feed(frame(b"x" * 100_000, Opcode.CONT, fin=False))
        sent += 100_000
    assert sent <= 1_100_000
    assert isinstance(pending.error, ReplyTooLarge)


@pytest.mark.parametrize("begins", [b"HTTP/1.1 101 Switching Protocols\r\n", b"HTTP/1.1 200 OK\r\n", b""])
def test_handshake_without_end(begins: bytes) -> None:
    """A handshake whose answer never ends is given up."""
    client = RPCProtocol("ws://h/rpc")
    client.begin()
    client.feed_handshake(begins)
    sent = len(begins)
    while client.broken is None:
        client.feed_handshake(b"X-%06d: yes\r\n" % sent)
        sent += 14
    assert sent <= MAX_HEAD + 1_000


@pytest.mark.parametrize("reply", [{"result": 1}, {"id": None, "result": "token"}, {"error": {"code": -32700}}])
def test_replies_without_id(reply: dict[str, Any]) -> None:
    """An error is the one request's that is under way; anything else without an id breaks the connection."""
    client, _ = opened()
    (pending,) = asked(client, "a")
    client.feed(frame(reply))
    assert (pending.reply is not None) == ("error" in reply)
    assert (client.broken is None) == ("error" in reply)
    other, _ = opened()
    both = asked(other, "a", "b")
    other.feed(frame(reply))
    assert all(one.error is not None for one in both), "nobody can tell whose it is"


def test_largest_request_is_the_one_refused() -> None:
    """A server that closes with code 1009 found a message too large: that was the largest one."""
    client, server = opened()
    small, large = asked(client, "small", "x" * 1000)
    server.send_close(1009)
    client.feed(b"".join(server.data_to_send()))
    assert isinstance(large.error, MessageTooLarge)
    assert re.fullmatch("the server closed the connection", str(small.error))


def test_requests_given_up() -> None:
    """Three in a row without an answer, or one without a word, break the connection; an answer in between does not."""
    client, _ = opened()
    (pending,) = asked(client, "a")
    client.give_up(1.0, heard=True)
    client.give_up(1.0, heard=True)
    client.feed(frame({"id": pending.request_id, "result": 1}))
    client.give_up(1.0, heard=True)
    assert client.broken is None
    client.give_up(1.0, heard=False)
    assert client.broken is not None
