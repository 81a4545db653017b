"""Whole messages beside `websockets`: what one side makes, the other understands, however it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol

from surrealdb_celery_backend.client.frames import FrameSplitter, whole_message
from surrealdb_celery_backend.client.transport import MAX_MESSAGE

pytestmark = pytest.mark.unit

#: How long an example takes is the machine's business.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: Around the sizes where the length takes more bytes.
SIZES = some.sampled_from([0, 1, 2, 125, 126, 127, 300, 65_535, 65_536, 70_000])
#: What a server may send: opcode, whether it is the end of its message, size of the payload.
FRAMES = some.lists(
    some.one_of(
        some.tuples(some.just(Opcode.BINARY), some.just(True), SIZES),
        some.tuples(some.sampled_from([Opcode.PING, Opcode.PONG]), some.just(True), some.integers(0, 125)),
        some.tuples(some.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]), some.booleans(), SIZES),
    ),
    max_size=6,
)


def served(opcode: Opcode, size: int, *, fin: bool) -> bytes:
    """A frame of a server."""
    payload = bytes(number % 251 for number in range(size))
    return Frame(opcode, payload, fin).serialize(mask=False)


@unhurried
@given(size=SIZES)
def test_websockets_understands_our_messages(size: int) -> None:
    """A server made of websockets takes what we send as one whole binary message."""
    data = bytes(number % 251 for number in range(size))
    server = Protocol(SERVER)
    server.receive_data(whole_message(data))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.BINARY, True, data)


@unhurried
@given(frames=FRAMES, cuts=some.lists(some.integers(0, 200_000), max_size=8))
def test_however_the_bytes_are_cut(frames: list[tuple[Opcode, bool, int]], cuts: list[int]) -> None:
    """Each frame comes out once, in its order: whole binary messages as such, up to the first other frame."""
    sent = [served(opcode, size, fin=fin) for opcode, fin, size in frames]
    stream = b"".join(sent)
    whole = [fin and opcode is Opcode.BINARY for opcode, fin, _ in frames]
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    splitter = FrameSplitter(MAX_MESSAGE)
    passed = rest = b""
    for start, end in itertools.pairwise(places):
        messages, others = splitter.split(stream[start:end])
        # As they are handed out: websockets' come behind the whole ones.
        passed += b"".join(Frame(Opcode.BINARY, message).serialize(mask=False) for message in messages) + others
        rest += others
    assert passed == stream
    assert not all(whole) or not rest


@unhurried
@given(first=some.integers(0, 255), second=some.integers(0, 255))
def test_what_no_server_sends(first: int, second: int) -> None:
    """Bytes that begin no frame of a server go to websockets at once: it says what is wrong with them."""
    known = first in {0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A}
    messages, rest = FrameSplitter(MAX_MESSAGE).split(bytes((first, second)) + b"x")
    if not known or second & 0x80:
        assert (messages, rest) == ([], bytes((first, second)) + b"x")
    elif second > 1:
        assert (messages, rest) == ([], b""), "not complete"
