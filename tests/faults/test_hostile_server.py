"""A server that means harm: it gets no password, no memory, and no time beyond the call's."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.settings import Settings
from tests.support.settings import shown_by
from tests.support.states import MAX_WAIT

SECRET = "s3cr3tW0rd"
#: What a client may grow by while it is attacked, in MiB: the largest message that it takes, twice.
GROWTH = 600


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], Any]) -> Iterator[int]:
    """A server whose connections are each served by a function, in threads of their own."""
    threads: list[threading.Thread] = []
    clients: list[socket.socket] = []

    def run(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            serve(client)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                threads.append(threading.Thread(target=run, args=(client,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for client in clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def received(client: socket.socket) -> bytes:
    """What comes next; an error at the end."""
    data = client.recv(65536)
    if not data:
        raise ConnectionError
    return data


def request(client: socket.socket) -> bytes:
    """One HTTP request, whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(client)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += received(client)
    return head + body


def connection(url: str, timeout: float = MAX_WAIT, **more: Any) -> Connection:
    """A connection to it."""
    return Connection(Settings(endpoint=url, password=SECRET, timeout=timeout, **more).options)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_redirects_are_not_followed(status: int) -> None:
    """Over HTTP the password goes to the address that was set and to no other, whatever that one answers."""
    received: list[bytes] = []
    with listening(lambda client: received.append(request(client))) as elsewhere:

        def redirect(client: socket.socket) -> None:
            place = f"http://127.0.0.1:{elsewhere}/rpc"
            while request(client):
                client.sendall(f"HTTP/1.1 {status} Go\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())

        with listening(redirect) as port:
            made = connection(f"http://127.0.0.1:{port}/rpc")
            with pytest.raises(errors.ServerUnavailable, match=rf"status {status}: a redirect .* not followed"):
                made.run("RETURN 1")
            made.close()
    assert received == []


def handshake(client: socket.socket) -> None:
    """The WebSocket's."""
    protocol = ServerProtocol(subprotocols=["cbor"])  # type: ignore[list-item]
    protocol.receive_data(client.recv(65536))
    (asked,) = protocol.events_received()
    protocol.send_response(protocol.accept(asked))  # type: ignore[arg-type]
    client.sendall(b"".join(protocol.data_to_send()))


def flood(client: socket.socket, data: bytes) -> None:
    """Send it for ever."""
    while True:
        client.sendall(data)


def endless_frame(client: socket.socket) -> None:
    """One frame of a gigabyte."""
    handshake(client)
    client.sendall(b"\x82\x7f" + (2**30).to_bytes(8, "big"))
    flood(client, b"x" * 1_000_000)


def endless_fragments(client: socket.socket) -> None:
    """A message whose last frame never comes."""
    handshake(client)
    client.sendall(Frame(Opcode.BINARY, b"x" * 1_000_000, fin=False).serialize(mask=False))
    flood(client, Frame(Opcode.CONT, b"x" * 1_000_000, fin=False).serialize(mask=False))


def endless_handshake(client: socket.socket) -> None:
    """A handshake whose head has no end."""
    client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    flood(client, b"X-Header: " + b"x" * 1_000 + b"\r\n")


def endless_pings(client: socket.socket) -> None:
    """Pings, and nobody reads the pongs."""
    handshake(client)
    flood(client, Frame(Opcode.PING, b"x" * 125).serialize(mask=False) * 1000)


def endless_body(client: socket.socket) -> None:
    """An HTTP answer in chunks without end."""
    request(client)
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    flood(client, b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")


def large_body(client: socket.socket) -> None:
    """An HTTP answer of a gigabyte."""
    request(client)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    flood(client, b"x" * 1_000_000)


def endless_head(client: socket.socket) -> None:
    """An HTTP answer whose head has no end."""
    request(client)
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    flood(client, b"X-Header: " + b"x" * 1_000 + b"\r\n")


ATTACKS = [endless_frame, endless_fragments, endless_handshake, endless_pings]
HTTP_ATTACKS = [endless_body, large_body, endless_head]


@pytest.mark.parametrize("attack", ATTACKS + HTTP_ATTACKS, ids=lambda attack: attack.__name__)
def test_memory(attack: Callable[[socket.socket], None]) -> None:
    """However much it sends, the call ends with an error, and this process keeps a bounded part of it."""
    scheme = "http" if attack in HTTP_ATTACKS else "ws"
    timeout = 20.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with listening(attack) as port:
        made = connection(f"{scheme}://127.0.0.1:{port}/rpc", timeout)
        started = time.monotonic()
        with pytest.raises((errors.ServerUnavailable, errors.UnreadableRecord)):
            made.run("RETURN 1")
        assert time.monotonic() - started < timeout + MAX_WAIT
        made.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - before < GROWTH


ECHO = b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize(
    "options",
    [{}, {"token": SECRET}, {"access": "users", "access_variables": None}],
    ids=["password", "token", "access"],
)
def test_secrets_that_the_server_quotes(scheme: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """A server, or a proxy, that answers with what it was sent: no error, chain, log or frame shows the secret."""

    def quote(client: socket.socket) -> None:
        if scheme == "ws":
            handshake(client)
            client.recv(65536)
            return
        while asked := request(client):
            client.sendall(ECHO % (len(asked), asked))

    with listening(quote) as port:
        made = connection(f"{scheme}://127.0.0.1:{port}/rpc", **options)
        with pytest.raises(errors.SurrealDBBackendError) as caught:
            made.run("RETURN 1")
        made.close()
    shown = shown_by(caught.value) + caplog.text + repr(made) + "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
