"""The HTTP transport: `http.client` over sockets of our own, with a deadline for each request.

HTTP has no session: namespace, database and token travel with each request. There are no LIVE queries. Redirects are
not followed: they would take the password to another place. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ssl
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from ..errors import LiveNotSupported
from . import sockets
from .options import DEFAULT_PORTS
from .secret import Secret
from .transport import MAX_MESSAGE, READ_SIZE, Reply, TransportError, too_large
from .values import MALFORMED, decode, encode

#: How many connections are kept open that no request uses.
MAX_IDLE = 16
#: Exceptions for a server that speaks no HTTP, or stops in the middle.
_BROKEN = (OSError, http.client.HTTPException, *MALFORMED)
#: The meaning of a status without a body of SurrealDB's, in words that `failures` knows.
_REFUSALS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Not enough permissions",
    HTTPStatus.FORBIDDEN: "Not enough permissions",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too large",
}


class _Connection:
    """One connection to the server, used by one request at a time.

    Args:
        address: Host and port.
        tls: How the server is verified; None for plain HTTP.
        deadline: When it must be there, by the monotonic clock.
    """

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, deadline: float) -> None:
        host, port = address
        sock = sockets.connected(host, port, deadline)
        if tls is not None:
            sock = sockets.secured(sock, host, tls, deadline)
        self.socket = sockets.DeadlineSocket(sock, deadline)
        self._client = http.client.HTTPConnection(host, port)
        # Any object with a socket's methods; the class has no other way to be given one.
        self._client.sock = self.socket

    def post(self, path: str, headers: dict[str, str | Secret], content: memoryview) -> tuple[int, bytes, bool]:
        """Send a request and read the answer, within the socket's deadline.

        Args:
            path: The path.
            headers: The headers; secrets among them are revealed only here.
            content: The body. A memoryview: its repr in a traceback shows nothing.

        Returns:
            The status, the body (for a redirect: the place it leads to), and whether another request may follow.

        Raises:
            ReplyTooLarge: The body is too large.
            OSError: The connection broke or took too long.
            http.client.HTTPException: It is no HTTP.
        """
        client = self._client
        client.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in headers.items():
            client.putheader(name, value.reveal() if isinstance(value, Secret) else value)
        client.putheader("Content-Length", str(len(content)))
        client.endheaders(content)
        response = client.getresponse()
        announced = response.getheader("Content-Length") or ""
        if announced.isdecimal() and int(announced) > MAX_MESSAGE:
            raise too_large(int(announced))
        body = bytearray()
        while chunk := response.read(READ_SIZE):
            body += chunk
            if len(body) > MAX_MESSAGE:
                raise too_large(len(body))
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            body = bytearray(response.getheader("Location", "").encode())
        return response.status, bytes(body), not response.will_close

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class HTTPTransport:
    """See `Transport`. Each request under way has a connection; those that are free are kept.

    Args:
        url: `http://…/rpc` or `https://…/rpc`.
        tls: How the server is verified, for `https`; by the system's rules when None.
    """

    live = False
    forkable = True

    def __init__(self, url: str, *, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._path = parts.path or "/rpc"
        self._address = parts.hostname or "localhost", parts.port or DEFAULT_PORTS[parts.scheme]
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._headers: dict[str, str | Secret] = {"Accept": "application/cbor", "Content-Type": "application/cbor"}
        #: All that are open, those of requests under way too: a forked child closes its copies of their sockets.
        self._connections: set[_Connection] = set()
        #: Connections that no request uses, the one used last at the end. Changed by single steps: no lock.
        self._idle: list[_Connection] = []
        self._open = True

    @property
    def usable(self) -> bool:
        """See `Transport`."""
        return self._open

    def listen(self, timeout: float) -> bool:
        """See `Transport`."""
        raise LiveNotSupported("LIVE queries need a ws:// or wss:// surrealdb_url")

    def check_alive(self) -> None:
        """See `Transport`. Nothing to see: a connection that was closed is found when it is to be used."""

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """See `Transport`. `use` and `authenticate` are kept for the requests that follow."""
        headers = self._headers
        if method == "use":
            self._headers = {**headers, "Surreal-NS": params[0], "Surreal-DB": params[1]}
            return {"result": None}
        if method == "authenticate":
            self._authorize(params[0].reveal())
            method, params = "ping", []  # shows whether the server takes the token
        content = memoryview(encode({"id": "1", "method": method, "params": params}))
        reply = self._reply(*self._post(content, time.monotonic() + timeout))
        if method == "signin" and reply.get("error") is None:
            result = reply.get("result")
            token = result.get("access") or result.get("token") if isinstance(result, dict) else result
            if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
                raise TransportError("the server's reply to the sign-in has no token")
            self._authorize(token)
        return reply

    def _authorize(self, token: str) -> None:
        self._headers = {**self._headers, "Authorization": Secret(f"Bearer {token}")}

    def _reply(self, status: int, content: bytes) -> Reply:
        """Take the reply from an answer. Statuses below 300 and above 399 can have a reply of the protocol in their body."""
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            place = urlsplit(content.decode(errors="replace"))
            raise TransportError(
                f"HTTP status {status}: a redirect to {place.scheme}://{place.hostname}, which is not followed, because "
                "it would be told the password; set surrealdb_url to the address of the server itself"
            )
        try:
            reply = decode(content)
        except MALFORMED:
            reply = None
        if isinstance(reply, dict) and ("result" in reply or "error" in reply):
            return reply
        text = content.decode(errors="replace").strip()
        said = _REFUSALS.get(status)
        if status == HTTPStatus.UNAUTHORIZED and "Authorization" in self._headers:
            said = "The token has expired or is not accepted"
        if said is not None:
            return {"error": {"message": f"{said}: HTTP status {status}: {text}"}}
        raise TransportError(f"HTTP status {status} instead of SurrealDB's protocol: {text}")

    def _post(self, content: memoryview, deadline: float) -> tuple[int, bytes]:
        """Send a request on a free connection, or on a new one, and read the answer."""
        connection = self._take(deadline)
        try:
            status, body, goes_on = connection.post(self._path, self._headers, content)
        except _BROKEN as exc:
            self._drop(connection)
            # The frames of http.client have the token and the password in their local variables.
            cause = exc.with_traceback(None)
            if isinstance(exc, (TimeoutError, TransportError)):
                raise cause from None
            raise TransportError(f"the connection broke: {type(exc).__name__}: {exc}") from cause
        except BaseException as exc:
            self._drop(connection)
            raise exc.with_traceback(None) from None
        if goes_on and self._open and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            self._drop(connection)
        return status, body

    def _take(self, deadline: float) -> _Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if connection.socket.idle:
                connection.socket.deadline = deadline
                return connection
            self._drop(connection)
        try:
            connection = _Connection(self._address, self._tls, deadline)
        except (TimeoutError, ssl.SSLError):
            raise
        except OSError as exc:
            raise TransportError(f"no connection: {exc}", sent=False) from exc
        self._connections.add(connection)
        return connection

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        connection.close()

    def close(self) -> None:
        """See `Transport`. Requests under way end by themselves."""
        self._open = False
        idle, self._idle = self._idle, []
        for connection in idle:
            self._drop(connection)

    def detach(self) -> None:
        """See `Transport`."""
        self._open = False
        self._idle = []
        for connection in list(self._connections):
            self._drop(connection)
