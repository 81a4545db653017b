"""The HTTP side of the development server: `/rpc` over WebSocket and POST, `/health` and `/version`.

A browser lets every page of the internet send requests to loopback, and a page whose name is made to point
to loopback even reads the replies. So a request has to name this machine in `Host`, and an `Origin`, which only
browsers send, has to be the server itself or one that was allowed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import ipaddress
import sys
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web
from surrealdb.data.cbor import decode, encode

from .messages import NONE, Request, RpcError, succeeded
from .sessions import Client

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, is this machine's loopback.

    Args:
        host: A host name or an address.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_own_origin(origin: str, host: str) -> bool:
    """Whether an `Origin` header names the server that the `Host` header names."""
    return origin.lower() == f"http://{host}".lower()


class Application:
    """Answers requests in sessions on the engine.

    Args:
        client: Makes the session of a new connection.
        version: The engine's version.
        origins: Origins of web pages that may connect, such as ``http://localhost:3000``.
    """

    def __init__(self, client: Callable[[], Client], version: str, origins: Collection[str]) -> None:
        self._client = client
        self._version = version
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._sockets: set[web.WebSocketResponse] = set()

    def make(self) -> web.Application:
        """The aiohttp application."""
        # Results may be of any size, and so may what stores them.
        application = web.Application(client_max_size=sys.maxsize, middlewares=[self._guard])
        application.router.add_get("/rpc", self._websocket)
        application.router.add_post("/rpc", self._post)
        application.router.add_get("/health", self._health)
        application.router.add_get("/version", self._say_version)
        application.on_shutdown.append(self._close_sockets)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = self._refusal(request)
        return await handler(request) if refusal is None else web.Response(status=403, text=refusal)

    def _refusal(self, request: web.Request) -> str | None:
        try:
            host = urlsplit(f"//{request.host}").hostname or ""
        except ValueError:
            host = ""
        if not is_loopback(host):
            return "this development server answers on loopback names only, such as 127.0.0.1 and localhost\n"
        origin = request.headers.get("Origin")
        if origin is None or is_own_origin(origin, request.host) or origin.lower() in self._origins:
            return None
        return "this development server answers no web page of another origin: start it with --allow-origin ORIGIN\n"

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        # No compression: on loopback it only costs time.
        socket = web.WebSocketResponse(protocols=("cbor",), max_msg_size=0, compress=False)
        if socket.can_prepare(request).protocol != "cbor":
            return web.Response(status=400, text="connect with a WebSocket that offers the subprotocol cbor\n")
        await socket.prepare(request)
        client = self._client()
        pending: set[asyncio.Task[None]] = set()

        async def answer(data: bytes) -> None:
            reply = await client.answer(data)
            # A client that left does not wait for its answer.
            with contextlib.suppress(ConnectionError):
                await socket.send_bytes(reply)

        self._sockets.add(socket)
        try:
            # Messages that come before the session exists wait in the socket's queue.
            await client.open()
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"send CBOR")
                    break
                task = asyncio.create_task(answer(message.data))
                pending.add(task)
                task.add_done_callback(pending.discard)
        finally:
            self._sockets.discard(socket)
            # Requests under way are finished: a lost connection does not take half a write back.
            await asyncio.gather(*pending, return_exceptions=True)
            with contextlib.suppress(RpcError):
                await client.close()
        return socket

    async def _post(self, request: web.Request) -> web.Response:
        """Answer one request in a session that lasts only for it, as a SurrealDB server does over HTTP."""
        body = await request.read()
        client = self._client()
        await client.open()
        try:
            try:
                await self._apply_headers(client, request)
            except RpcError as error:
                return web.Response(status=401, text=f"{error}\n")
            return web.Response(body=await client.answer(body), content_type="application/cbor")
        finally:
            with contextlib.suppress(RpcError):
                await client.close()

    async def _apply_headers(self, client: Client, request: web.Request) -> None:
        names = [request.headers.get(header) for header in ("Surreal-NS", "Surreal-DB")]
        if not all(name is None or name.isascii() for name in names):
            raise web.HTTPBadRequest(text="Surreal-NS and Surreal-DB have to be ASCII\n")
        requests = [Request.of("use", *(NONE if name is None else encode(name) for name in names))]
        if names == [None, None]:
            requests.pop()
        sign_in = _sign_in(request)
        for prepared in requests if sign_in is None else [sign_in, *requests]:
            reply = await client.execute(prepared)
            if not succeeded(reply):
                raise RpcError(-32000, str(decode(reply)["error"]["message"]))

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _say_version(self, request: web.Request) -> web.Response:
        return web.Response(text=f"surrealdb-{self._version}")

    async def _close_sockets(self, application: web.Application) -> None:
        await asyncio.gather(
            *(socket.close(code=WSCloseCode.GOING_AWAY, message=b"stopped") for socket in tuple(self._sockets)),
            return_exceptions=True,
        )


def _sign_in(request: web.Request) -> Request | None:
    """The sign-in that the headers of a POST ask for.

    Raises:
        RpcError: The header is malformed.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Request.of("authenticate", encode(credentials))
    if scheme.lower() != "basic":
        return None
    try:
        username, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise RpcError(-32000, "There was a problem with authentication") from None
    level = {
        key: request.headers[header]
        for key, header in (("ns", "Surreal-Auth-NS"), ("db", "Surreal-Auth-DB"))
        if header in request.headers
    }
    return Request.of("signin", encode({**level, "user": username, "pass": password}))
