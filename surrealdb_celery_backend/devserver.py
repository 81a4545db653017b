"""An embedded SurrealDB engine, served on loopback for development and tests.

``python -m surrealdb_celery_backend.devserver`` serves the engine that comes with the installed SDK the way
a SurrealDB server would: CBOR-RPC over WebSocket and HTTP at ``/rpc``. What answers is the real engine; this
module only carries its messages and gives every connection a session of its own.

Development only: one machine, one process, no TLS, no LIVE notifications (the embedded engines have none).

This module imports nothing else of the package, so that it also runs where only the SDK is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import base64
import binascii
import contextlib
import errno
import importlib
import ipaddress
import json
import mmap
import os
import re
import signal
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from aiohttp import WSCloseCode, WSMsgType, web
from surrealdb.data.cbor import decode, encode

if TYPE_CHECKING:
    from typing_extensions import Self

#: Held (``flock``) by whoever has the engine of this directory open. SurrealDB 2.3 does not notice a second
#: process on its directory, and both would then write over each other.
LOCK_FILE: Final = "celery-backend.lock"

DEFAULT_PORT: Final = 8000

#: How long a request that is being answered may delay the end of the server, in seconds.
SHUTDOWN_TIMEOUT: Final = 5.0

# Where the engine is: of its own package since SDK 3, inside the SDK's wheel before.
_ENGINE_MODULES: Final = ("surrealdb_embedded._ext", "surrealdb._surrealdb_ext")

# Methods that a SurrealDB server answers before sign-in.
_OPEN_METHODS: Final = frozenset({"ping", "version"})

# `LIVE` where a statement begins. Only the 2.x engine needs this: it accepts the statement and notifies nobody.
_LIVE_STATEMENT: Final = re.compile(r"(?:^|[;{])\s*LIVE\s+SELECT\b", re.IGNORECASE)

_NULL: Final = b"\xf6"
_NONE: Final = b"\xc6\xf6"


class DevServerError(Exception):
    """The development server cannot run as asked."""


class _RpcError(Exception):
    """An error to be answered in SurrealDB's own form."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# --- CBOR, as far as a pipe needs it -----------------------------------------------------------------------
#
# A request is read just deep enough to know its method and session, a reply not at all: what passes through
# keeps its bytes, so no value can be changed by being decoded and encoded on the way.


def _head(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Read one CBOR head: (major type, argument or None for indefinite length, where the content begins)."""
    try:
        major, info = data[at] >> 5, data[at] & 31
        if info < 24:
            return major, info, at + 1
        if info == 31:
            return major, None, at + 1
        size = 1 << (info - 24)
        if size > 8 or at + 1 + size > len(data):
            raise IndexError
        return major, int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size
    except IndexError:
        raise _RpcError(-32700, "Parse error") from None


def _skip(data: bytes, at: int) -> int:
    """Return where the CBOR item that begins at *at* ends."""
    open_items: list[int | None] = [1]  # items still to read on each level; None: until a break
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        major, argument, at = _head(data, at)
        if major == 7 and argument is None:
            if open_items.pop() is not None:
                raise _RpcError(-32700, "Parse error")
            continue
        if open_items[-1] is not None:
            open_items[-1] -= 1
        if major in (2, 3):
            if argument is None:
                open_items.append(None)
            else:
                at += argument
        elif major == 4:
            open_items.append(argument)
        elif major == 5:
            open_items.append(None if argument is None else 2 * argument)
        elif major == 6:
            open_items.append(1)
    if at > len(data):
        raise _RpcError(-32700, "Parse error")
    return at


def _items(data: bytes, major: int) -> list[bytes]:
    """Return the items of the array (*major* 4) or the keys and values of the map (5) as their bytes."""
    found, count, at = _head(data, 0)
    if found != major:
        raise _RpcError(-32600, "Invalid Request")
    items: list[bytes] = []
    wanted = None if count is None else count * (2 if major == 5 else 1)
    while len(items) != wanted:
        if wanted is None and data[at : at + 1] == b"\xff":
            break
        end = _skip(data, at)
        items.append(data[at:end])
        at = end
    return items


def _collection(major: int, count: int) -> bytes:
    """Return the head of an array (*major* 4) or a map (5) of *count* items or pairs."""
    if count < 24:
        return bytes([major << 5 | count])
    if count < 256:
        return bytes([major << 5 | 24, count])
    return bytes([major << 5 | 26]) + count.to_bytes(4, "big")


def _array(items: Sequence[bytes]) -> bytes:
    return _collection(4, len(items)) + b"".join(items)


def _map(pairs: dict[bytes, bytes]) -> bytes:
    return _collection(5, len(pairs)) + b"".join(key + value for key, value in pairs.items())


def _pairs(data: bytes) -> dict[bytes, bytes]:
    """Return a map's pairs, keys and values as their bytes."""
    items = _items(data, 5)
    return dict(zip(items[::2], items[1::2], strict=True))


_ID: Final = encode("id")
_METHOD: Final = encode("method")
_PARAMS: Final = encode("params")
_SESSION: Final = encode("session")
_RESULT: Final = encode("result")


class _Request:
    """One request: its method in clear, everything else as the bytes that came."""

    def __init__(self, data: bytes) -> None:
        self.pairs = _pairs(data)
        self.id = self.pairs.get(_ID, _NONE)
        method = self.pairs.get(_METHOD, _NONE)
        if _head(method, 0)[0] != 3:
            raise _RpcError(-32600, "Invalid Request")
        self.method = str(decode(method))

    @classmethod
    def of(cls, method: str, *params: bytes) -> _Request:
        """Make a request of our own; *params* are encoded already."""
        return cls(_map({_ID: encode(""), _METHOD: encode(method), _PARAMS: _array(params)}))

    @property
    def params(self) -> list[bytes]:
        """The parameters, each as its bytes."""
        return _items(self.pairs[_PARAMS], 4) if _PARAMS in self.pairs else []

    @property
    def data(self) -> bytes:
        """The whole request."""
        return _map(self.pairs)

    def text(self, position: int) -> str | None:
        """Return the parameter at *position* if it is a text."""
        params = self.params
        if position >= len(params) or _head(params[position], 0)[0] != 3:
            return None
        return str(decode(params[position]))

    def reply(self, result: bytes = _NONE) -> bytes:
        """Answer with *result*, encoded already."""
        return _map({_ID: self.id, _RESULT: result})


def _failure(request_id: bytes, error: _RpcError) -> bytes:
    body = encode({"code": error.code, "message": str(error)})
    return _map({_ID: request_id, encode("error"): body})


def _succeeded(reply: bytes) -> bool:
    return _RESULT in _pairs(reply)


# --- The engine --------------------------------------------------------------------------------------------


class _EmbeddedDB(Protocol):
    """What both SDKs' ``AsyncEmbeddedDB`` offers."""

    async def connect(self) -> None: ...
    async def close(self) -> None: ...
    async def execute(self, cbor_request: bytes) -> bytes: ...


def _engine_class() -> Callable[[str], _EmbeddedDB]:
    for name in _ENGINE_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        engine_class: Callable[[str], _EmbeddedDB] = module.AsyncEmbeddedDB
        return engine_class
    raise DevServerError(
        "the installed SurrealDB SDK has no embedded engine: pip install 'surrealdb-celery-backend[embedded]'"
    )


class _Engine:
    """The embedded engine: raw execution, and its errors as RPC errors."""

    def __init__(self, db: _EmbeddedDB) -> None:
        self._db = db
        self.version = ""
        #: The engine keeps sessions apart itself (3.x).
        self.has_sessions = False

    async def open(self, username: str, password: str) -> None:
        """Connect, find out what the engine is, and create the root user."""
        await self._db.connect()
        session = uuid.uuid4()
        probe = _Request.of("attach")
        probe.pairs[_SESSION] = encode(str(session))
        try:
            self.has_sessions = _succeeded(await self.execute(probe))
        except _RpcError:
            self.has_sessions = False
        self.version = await self._version()

        name = "`" + username.replace("\\", "\\\\").replace("`", "\\`") + "`"
        secret = json.dumps(password, ensure_ascii=False)
        statement = f"DEFINE USER IF NOT EXISTS {name} ON ROOT PASSWORD {secret} ROLES OWNER"
        reply = decode(await self.execute(_Request.of("query", encode(statement), encode({}))))
        if "result" not in reply or reply["result"][0]["status"] != "OK":
            raise DevServerError("the engine refused to create the root user: choose another --username")

        # The sign-in runs in the session made above where there are sessions: the engine's own must stay free.
        signin = _Request.of("signin", encode({"user": username, "pass": password}))
        if self.has_sessions:
            signin.pairs[_SESSION] = encode(str(session))
        try:
            signed_in = _succeeded(await self.execute(signin))
        except _RpcError:
            signed_in = False
        if not signed_in:
            raise DevServerError(
                f"--path already has a root user {username!r} with another password: give that one as --password"
            )
        end = _Request.of("detach" if self.has_sessions else "invalidate")
        if self.has_sessions:
            end.pairs[_SESSION] = encode(str(session))
        await self.execute(end)

    async def _version(self) -> str:
        answered = str(decode(await self.execute(_Request.of("version")))["result"]).removeprefix("surrealdb-")
        if self.has_sessions:
            return answered
        # The 2.x engine answers with the version of the SDK's package. Its own is only in the binary.
        found = _version_in(Path(str(importlib.import_module(_ENGINE_MODULES[1]).__file__)))
        return found or answered

    async def execute(self, request: _Request) -> bytes:
        """Run *request* in the engine and return its whole reply.

        Raises:
            _RpcError: The engine raised instead of replying.
        """
        try:
            return await self._db.execute(request.data)
        except (RuntimeError, ValueError) as error:
            message = str(error)
            codes = {"Method not found": -32601, "Invalid params": -32602, "Invalid request": -32600}
            raise _RpcError(codes.get(message, -32000), message) from error

    async def close(self) -> None:
        """Write everything down and end the engine."""
        await self._db.close()


def _version_in(binary: Path) -> str | None:
    """Return the version of SurrealDB that an extension module was built from, as its panic messages name it."""
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = re.search(rb"surrealdb-core-(\d+\.\d+\.\d+)", content)
        return found[1].decode() if found else None


class _Client(ABC):
    """One connection's view of the engine: its own namespace, database, sign-in and variables."""

    @abstractmethod
    async def open(self) -> None:
        """Make the session. Nothing is executed before this returned."""

    @abstractmethod
    async def execute(self, request: _Request) -> bytes:
        """Answer *request*; may raise `_RpcError`."""

    @abstractmethod
    async def close(self) -> None:
        """End the session."""

    async def answer(self, data: bytes) -> bytes:
        """Answer one message. Never raises: an error is an answer too."""
        request_id = _NONE
        try:
            request = _Request(data)
            request_id = request.id
            return await self.execute(request)
        except _RpcError as error:
            return _failure(request_id, error)


class _SessionClient(_Client):
    """A connection to an engine that keeps sessions apart itself (3.x)."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._own = encode(str(uuid.uuid4()))
        # Sessions that the client attached on its own: on a server they live and end with its connection.
        self._attached: set[bytes] = set()

    async def open(self) -> None:
        await self._session("attach", self._own)

    async def execute(self, request: _Request) -> bytes:
        session = request.pairs.get(_SESSION, _NONE)
        if session in (_NONE, _NULL):
            request.pairs[_SESSION] = self._own
            return await self._engine.execute(request)
        # A client may send the same session as a text or as a UUID; one form makes them comparable.
        request.pairs[_SESSION] = session = encode(str(decode(session)))
        if request.method != "attach" and session not in self._attached:
            raise _RpcError(-32000, f"Session not found: {decode(session)}")
        reply = await self._engine.execute(request)
        if request.method == "attach" and _succeeded(reply):
            self._attached.add(session)
        elif request.method == "detach":
            self._attached.discard(session)
        return reply

    async def close(self) -> None:
        for session in (self._own, *self._attached):
            await self._session("detach", session)

    async def _session(self, method: str, session: bytes) -> None:
        request = _Request.of(method)
        request.pairs[_SESSION] = session
        await self._engine.execute(request)


@dataclass(frozen=True, eq=False)
class _Identity:
    """A verified sign-in, and how to repeat it when the engine's session was somebody else's in between."""

    is_root_owner: bool
    token: str
    signin: _Request | None


@dataclass(frozen=True)
class _Context:
    """What the 2.x engine's only session has to be set to for a request."""

    identity: _Identity
    namespace: str | None
    database: str | None


class _SharedSession:
    """Lets requests of one context into the 2.x engine together, and those of different contexts in turn.

    First come, first served: a crowd in one database cannot starve a request for another.
    """

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._changed = asyncio.Condition()
        self._queue: deque[object] = deque()
        self._running = 0
        self._context: _Context | None = None

    @contextlib.asynccontextmanager
    async def entered(self, context: _Context | None) -> AsyncIterator[None]:
        """Hold the engine's session set to *context*; None: alone, and the caller leaves it as it likes."""
        ticket = object()
        async with self._changed:
            self._queue.append(ticket)
            try:
                await self._changed.wait_for(
                    lambda: (
                        self._queue[0] is ticket
                        and (self._running == 0 or (context is not None and context == self._context))
                    )
                )
                if context is None:
                    self._context = None
                elif context != self._context:
                    await self._switch(context)
                self._running += 1
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
            alone = context is None
            if alone:
                # The condition's lock is kept: nobody else can enter.
                try:
                    yield
                finally:
                    self._running -= 1
                    self._changed.notify_all()
                return
        try:
            yield
        finally:
            async with self._changed:
                self._running -= 1
                self._changed.notify_all()

    async def _switch(self, context: _Context) -> None:
        identity = context.identity
        before, self._context = self._context, None
        if before is None or before.identity is not identity:
            if identity.is_root_owner:
                # The engine's anonymous session may do everything, so the owner needs no password check here.
                await self._engine.execute(_Request.of("invalidate"))
            else:
                await self._sign_in_again(identity)
        await self.use(context.namespace, context.database)
        self._context = context

    async def _sign_in_again(self, identity: _Identity) -> None:
        try:
            await self._engine.execute(_Request.of("authenticate", encode(identity.token)))
        except _RpcError:
            # A token ends after an hour, a server's session does not.
            if identity.signin is None:
                raise
            await self._engine.execute(identity.signin)

    async def use(self, namespace: str | None, database: str | None) -> None:
        """Set the engine's namespace and database; the caller is alone."""
        names = [_NULL if name is None else encode(name) for name in (namespace, database)]
        await self._engine.execute(_Request.of("use", *names))


class _SharedSessionClient(_Client):
    """A connection to the engine that has one session for all (2.x): what is the connection's is kept here."""

    def __init__(self, engine: _Engine, shared: _SharedSession, username: str) -> None:
        self._engine = engine
        self._shared = shared
        self._username = username
        self._forget()

    def _forget(self) -> None:
        self._identity: _Identity | None = None
        self._namespace: str | None = None
        self._database: str | None = None
        self._variables: dict[bytes, bytes] = {}

    async def open(self) -> None:
        """Nothing to make: the session is the engine's."""

    async def close(self) -> None:
        self._forget()

    async def execute(self, request: _Request) -> bytes:
        handler = getattr(self, f"_{request.method}", None) if request.method in self._OWN else None
        if handler is not None:
            reply: bytes = await handler(request)
            return reply
        if request.method in _OPEN_METHODS:
            return await self._engine.execute(request)
        if request.method == "query":
            self._refuse_live(request.text(0))
            request = self._with_variables(request)
        if self._identity is None:
            raise _RpcError(
                -32000,
                "There was a problem with the database: IAM error: Not enough permissions to perform this action",
            )
        async with self._shared.entered(_Context(self._identity, self._namespace, self._database)):
            return await self._engine.execute(request)

    _OWN: Final = frozenset(
        {"version", "use", "signin", "signup", "authenticate", "invalidate", "reset", "let", "set", "unset", "live"}
    )

    async def _version(self, request: _Request) -> bytes:
        return request.reply(encode(f"surrealdb-{self._engine.version}"))

    async def _use(self, request: _Request) -> bytes:
        params = [*request.params, _NONE, _NONE]
        if params[0] != _NONE:
            self._namespace = None if params[0] == _NULL else request.text(0)
        if params[1] != _NONE:
            self._database = None if params[1] == _NULL else request.text(1)
        return request.reply()

    async def _signin(self, request: _Request) -> bytes:
        return await self._sign(request)

    async def _signup(self, request: _Request) -> bytes:
        return await self._sign(request)

    async def _authenticate(self, request: _Request) -> bytes:
        return await self._sign(request)

    async def _sign(self, request: _Request) -> bytes:
        """Let the engine verify who this is, and remember it for this connection only."""
        async with self._shared.entered(None):
            await self._engine.execute(_Request.of("invalidate"))
            await self._shared.use(self._namespace, self._database)
            reply = await self._engine.execute(request)
            # A sign-in below root chooses namespace and database, so the session is asked, not the request.
            text = "RETURN [session::ns(), session::db(), $session.tk]"
            session = decode(await self._engine.execute(_Request.of("query", encode(text), encode({}))))
        namespace, database, claims = session["result"][0]["result"]
        self._namespace = namespace if isinstance(namespace, str) else None
        self._database = database if isinstance(database, str) else None
        below_root = {"NS", "DB", "AC"} & set(claims)
        self._identity = _Identity(
            is_root_owner=not below_root and claims.get("ID") == self._username,
            token=request.text(0) or "" if request.method == "authenticate" else str(decode(reply)["result"]),
            signin=request if request.method == "signin" else None,
        )
        return reply

    async def _invalidate(self, request: _Request) -> bytes:
        self._identity = None
        return request.reply()

    async def _reset(self, request: _Request) -> bytes:
        # Must not reach the 2.x engine: it aborts the process there.
        self._forget()
        return request.reply()

    async def _let(self, request: _Request) -> bytes:
        if request.text(0) is None or len(request.params) != 2:
            raise _RpcError(-32602, "Invalid params")
        name, value = request.params
        self._variables[encode(str(decode(name)).removeprefix("$"))] = value
        return request.reply()

    _set = _let

    async def _unset(self, request: _Request) -> bytes:
        name = request.text(0)
        if name is None:
            raise _RpcError(-32602, "Invalid params")
        self._variables.pop(encode(name.removeprefix("$")), None)
        return request.reply()

    async def _live(self, request: _Request) -> bytes:
        raise _RpcError(-32000, "Unable to perform the realtime query")

    def _refuse_live(self, text: str | None) -> None:
        if text is not None and _LIVE_STATEMENT.search(text):
            raise _RpcError(-32000, "Unable to perform the realtime query")

    def _with_variables(self, request: _Request) -> _Request:
        if not self._variables:
            return request
        params = request.params
        given = _pairs(params[1]) if len(params) > 1 and _head(params[1], 0)[0] == 5 else {}
        request.pairs[_PARAMS] = _array([params[0], _map({**self._variables, **given})])
        return request


# --- The server --------------------------------------------------------------------------------------------


class DevServer:
    """An embedded SurrealDB engine served over WebSocket and HTTP on loopback.

    As a context manager it runs in a thread of its own and is ready inside the block::

        with DevServer(port=0) as server:
            app.conf.surrealdb_url = server.url

    Args:
        path: Directory to keep the data in (made when missing); None keeps it in memory.
        host: Loopback address or name to listen on.
        port: TCP port; 0 takes a free one, `port` then says which.
        username: The root user, created when the engine does not have it.
        password: The root user's password.
        store: ``mem`` or ``surrealkv``; follows from *path* when not given.

    Raises:
        DevServerError: The arguments contradict each other or the host is not loopback.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        username: str = "root",
        password: str = "root",
        store: str | None = None,
    ) -> None:
        store = store or ("mem" if path is None else "surrealkv")
        if store not in ("mem", "surrealkv"):
            raise DevServerError(f"--store is {store!r}: choose mem or surrealkv")
        if store == "mem" and path is not None:
            raise DevServerError("--store mem keeps nothing: leave out --path or choose --store surrealkv")
        if store == "surrealkv" and path is None:
            raise DevServerError("--store surrealkv needs a directory: add --path DIR")
        if not _is_loopback(host):
            raise DevServerError(
                f"--host is {host!r}, but this server is for development and listens on loopback only: use 127.0.0.1"
            )
        if path is not None and not os.fspath(path):
            raise DevServerError("--path is empty: give a directory, or leave it out to keep everything in memory")
        if not username:
            raise DevServerError("--username is empty: choose one")
        if not 0 <= port <= 65535:
            raise DevServerError(f"--port is {port}: choose one from 1 to 65535, or 0 for a free one")
        self.path = None if path is None else Path(path)
        self.host = host
        #: The port that is listened on, once started.
        self.port = port
        self.username = username
        self.password = password
        self.store = store
        #: The engine's version, such as ``3.2.4``, once started.
        self.version = ""
        self._engine: _Engine | None = None
        self._shared: _SharedSession | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The ``surrealdb_url`` to connect with."""
        return f"ws://{self._netloc}/rpc"

    @property
    def http_url(self) -> str:
        """The same server over HTTP, without ``/rpc``."""
        return f"http://{self._netloc}"

    @property
    def _netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    # In a thread, for tests and programs.

    def start(self) -> None:
        """Start serving in a thread; returns when connections are answered.

        Raises:
            DevServerError: Port in use, directory in use, no embedded engine, or another reason in one sentence.
        """
        if self._thread is not None:
            raise DevServerError("this DevServer is running already")
        outcome: list[BaseException | None] = []
        known = threading.Event()

        def ready() -> None:
            outcome.append(None)
            known.set()

        def run() -> None:
            try:
                asyncio.run(self.serve(ready))
            except BaseException as error:
                outcome.append(error)
                known.set()

        # Once, however often it is registered.
        atexit.unregister(_let_engine_threads_return)
        atexit.register(_let_engine_threads_return)
        self._thread = threading.Thread(target=run, name="surrealdb-devserver", daemon=True)
        self._thread.start()
        known.wait()
        if outcome[0] is not None:
            self._thread.join()
            self._thread = None
            raise outcome[0]

    def stop(self) -> None:
        """End the server: connections closed, data written, port and directory free when this returns."""
        if self._thread is None:
            return
        self.request_stop()
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # In the caller's event loop.

    def request_stop(self) -> None:
        """Ask `serve` to end. Callable from any thread and from a signal handler."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            # The loop is closed if it ended by itself in between.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stopping.set)

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `request_stop`, calling *ready* once connections are answered.

        Raises:
            DevServerError: Port in use, directory in use, no embedded engine, or another reason in one sentence.
        """
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        with self._directory() as engine_url:
            try:
                engine = _Engine(_engine_class()(engine_url))
                await engine.open(self.username, self.password)
            except (RuntimeError, _RpcError) as error:
                raise DevServerError(self._why_not_opened(error)) from error
            self._engine, self._shared, self.version = engine, _SharedSession(engine), engine.version
            try:
                async with self._listening():
                    ready()
                    await self._stopping.wait()
            finally:
                await engine.close()

    @contextlib.contextmanager
    def _directory(self) -> Iterator[str]:
        """Yield the engine's URL, with the directory locked for this process."""
        if self.path is None:
            yield "mem://"
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / LOCK_FILE).open("a")
        except OSError as error:
            raise DevServerError(f"--path is {str(self.path)!r}, which cannot be used: {error.strerror}") from error
        with file:
            if not _try_lock(file):
                raise DevServerError(self._in_use())
            yield f"surrealkv://{self.path.resolve()}"

    def _in_use(self) -> str:
        return (
            f"--path is {str(self.path)!r}, which another process has open: "
            "connect to that one, or give another directory"
        )

    def _why_not_opened(self, error: Exception) -> str:
        if "locked" in str(error):
            return self._in_use()
        return f"the engine could not open --path {str(self.path)!r}: {error}"

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        # Results may be of any size, and so may what stores them.
        application = web.Application(client_max_size=sys.maxsize)
        application.router.add_get("/rpc", self._websocket)
        application.router.add_post("/rpc", self._post)
        application.router.add_get("/health", self._health)
        application.router.add_get("/version", self._say_version)
        application.on_shutdown.append(self._close_sockets)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host, self.port)
            try:
                await site.start()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise DevServerError(f"cannot listen on {self._netloc}: {error.strerror}") from error
                raise DevServerError(
                    f"--port {self.port} is in use on {self.host}: choose another, or --port 0 for a free one"
                ) from error
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    def _client(self) -> _Client:
        assert self._engine is not None
        assert self._shared is not None
        if self._engine.has_sessions:
            return _SessionClient(self._engine)
        return _SharedSessionClient(self._engine, self._shared, self.username)

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
            # Messages that come before the session is there wait in the socket's queue.
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
            # What was begun is finished: a write that is half way is not taken back by a lost connection.
            await asyncio.gather(*pending, return_exceptions=True)
            with contextlib.suppress(_RpcError):
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
            except _RpcError as error:
                return web.Response(status=401, text=f"{error}\n")
            return web.Response(body=await client.answer(body), content_type="application/cbor")
        finally:
            with contextlib.suppress(_RpcError):
                await client.close()

    async def _apply_headers(self, client: _Client, request: web.Request) -> None:
        names = [request.headers.get(header) for header in ("Surreal-NS", "Surreal-DB")]
        if not all(name is None or name.isascii() for name in names):
            raise web.HTTPBadRequest(text="Surreal-NS and Surreal-DB have to be ASCII\n")
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        requests = [_Request.of("use", *(_NONE if name is None else encode(name) for name in names))]
        if scheme.lower() == "bearer":
            requests.insert(0, _Request.of("authenticate", encode(credentials)))
        elif scheme.lower() == "basic":
            try:
                username, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise _RpcError(-32000, "There was a problem with authentication") from None
            level = {
                key: request.headers[header]
                for key, header in (("ns", "Surreal-Auth-NS"), ("db", "Surreal-Auth-DB"))
                if header in request.headers
            }
            requests.insert(0, _Request.of("signin", encode({**level, "user": username, "pass": password})))
        if names == [None, None]:
            requests.pop()
        for prepared in requests:
            reply = await client.execute(prepared)
            if not _succeeded(reply):
                raise _RpcError(-32000, str(decode(reply)["error"]["message"]))

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _say_version(self, request: web.Request) -> web.Response:
        return web.Response(text=f"surrealdb-{self.version}")

    async def _close_sockets(self, application: web.Application) -> None:
        await asyncio.gather(
            *(socket.close(code=WSCloseCode.GOING_AWAY, message=b"stopped") for socket in tuple(self._sockets)),
            return_exceptions=True,
        )


def _let_engine_threads_return() -> None:
    # An engine thread hands over its last result and then still needs the interpreter for a moment. Before
    # Python 3.12 the process aborts if the interpreter ends just then, and nothing tells when it is over.
    time.sleep(0.1)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _try_lock(file: IO[str]) -> bool:
    """Take the lock on *file* for as long as it is open; False if another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# --- The command -------------------------------------------------------------------------------------------


def _introduction(server: DevServer) -> str:
    """What the reader needs to connect, ending in the line that says that the server is ready."""
    kept = "everything is lost when it stops" if server.path is None else f"kept in {server.path}"
    # A password that the reader chose is not repeated on the screen.
    password = server.password if server.password == "root" else "<your --password>"
    userinfo = f"{quote(server.username, safe='')}:{password if password == 'root' else '<your --password>'}"
    return "\n".join(
        [
            f"SurrealDB {server.version}, embedded, development only ({server.store}: {kept}). Stop it with Ctrl+C.",
            "",
            "In your Celery app:",
            '    app.conf.result_backend = "surrealdb_celery_backend:SurrealDBBackend"',
            f'    app.conf.surrealdb_url = "{server.url}"',
            f"    app.conf.surrealdb_username = {json.dumps(server.username, ensure_ascii=False)}",
            f'    app.conf.surrealdb_password = "{password}"',
            "or in its environment:",
            f"    CELERY_RESULT_BACKEND=surrealdb://{userinfo}@{server.url[5:-4]}/celery/results",
            "",
            f"ready: {server.url}",
        ]
    )


def _write_ready_file(path: Path, server: DevServer) -> None:
    """Write where the server is, whole or not at all."""
    content = {"url": server.url, "http_url": server.http_url, "pid": os.getpid(), "version": server.version}
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise DevServerError(f"--ready-file is {str(path)!r}, which cannot be written: {error.strerror}") from error


def _stop_at_end_of_input(server: DevServer) -> None:
    def wait() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        server.request_stop()

    threading.Thread(target=wait, name="end-of-input", daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status (0 after a signal, 1 with one sentence on stderr)."""
    parser = argparse.ArgumentParser(
        prog="python -m surrealdb_celery_backend.devserver",
        description="Serve the SurrealDB engine of the installed SDK on loopback. Development only.",
    )
    parser.add_argument("--path", metavar="DIR", help="keep the data in this directory (default: in memory)")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--username", default="root", help="root user to create (default: %(default)s)")
    parser.add_argument("--password", default="root", help="its password (default: %(default)s)")
    parser.add_argument("--store", choices=["mem", "surrealkv"], help="default: surrealkv with --path, else mem")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="write url and pid here once ready, as JSON")
    parser.add_argument("--stop-with-parent", action="store_true", help="also stop when standard input ends")
    options = parser.parse_args(arguments)

    async def run() -> None:
        server = DevServer(
            path=options.path,
            host=options.host,
            port=options.port,
            username=options.username,
            password=options.password,
            store=options.store,
        )

        def ready() -> None:
            if options.ready_file is not None:
                _write_ready_file(options.ready_file, server)
            print(_introduction(server), flush=True)

        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: server.request_stop())
        if options.stop_with_parent:
            _stop_at_end_of_input(server)
        await server.serve(ready)

    try:
        asyncio.run(run())
    except DevServerError as error:
        print(f"devserver: {error}", file=sys.stderr)
        return 1
    return 0


def _run() -> None:
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: an engine thread may still be returning (see _let_engine_threads_return). Everything is
    # closed and written by now.
    os._exit(status)


if __name__ == "__main__":
    _run()
