"""Sessions on an engine that has one session for all connections (SurrealDB 2)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from surrealdb.data.cbor import decode, encode

from .engine import Engine
from .messages import NONE, NULL, PARAMS, Request, RpcError, array, head, mapping, pairs
from .sessions import Client

#: Methods that a SurrealDB server answers before sign-in.
_OPEN_METHODS: Final = frozenset({"ping", "version"})

#: `LIVE` at the beginning of a statement. The 2.x engine accepts such a statement and notifies nobody.
_LIVE_STATEMENT: Final = re.compile(r"(?:^|[;{])\s*LIVE\s+SELECT\b", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class _Identity:
    """A verified sign-in, and how to repeat it when the engine's session was somebody else's in between."""

    is_root_owner: bool
    token: str
    signin: Request | None


@dataclass(frozen=True)
class _Context:
    """The namespace, database and user that the 2.x engine's only session needs for a request."""

    identity: _Identity
    namespace: str | None
    database: str | None


class SharedSession:
    """Lets requests of one context into the 2.x engine together, and those of different contexts in turn.

    First come, first served: a crowd in one database cannot starve a request for another.
    """

    def __init__(self, engine: Engine) -> None:
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
                await self._engine.execute(Request.of("invalidate"))
            else:
                await self._sign_in_again(identity)
        await self.use(context.namespace, context.database)
        self._context = context

    async def _sign_in_again(self, identity: _Identity) -> None:
        try:
            await self._engine.execute(Request.of("authenticate", encode(identity.token)))
        except RpcError:
            # A token ends after an hour, a server's session does not.
            if identity.signin is None:
                raise
            await self._engine.execute(identity.signin)

    async def use(self, namespace: str | None, database: str | None) -> None:
        """Set the engine's namespace and database; the caller is alone."""
        names = [NULL if name is None else encode(name) for name in (namespace, database)]
        await self._engine.execute(Request.of("use", *names))


class SharedSessionClient(Client):
    """A connection to the engine that has one session for all (2.x): what is the connection's is kept here."""

    def __init__(self, engine: Engine, shared: SharedSession, username: str) -> None:
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

    async def execute(self, request: Request) -> bytes:
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
            raise RpcError(
                -32000,
                "There was a problem with the database: IAM error: Not enough permissions to perform this action",
            )
        async with self._shared.entered(_Context(self._identity, self._namespace, self._database)):
            return await self._engine.execute(request)

    _OWN: Final = frozenset(
        {"version", "use", "signin", "signup", "authenticate", "invalidate", "reset", "let", "set", "unset", "live"}
    )

    async def _version(self, request: Request) -> bytes:
        return request.reply(encode(f"surrealdb-{self._engine.version}"))

    async def _use(self, request: Request) -> bytes:
        params = [*request.params, NONE, NONE]
        if params[0] != NONE:
            self._namespace = None if params[0] == NULL else request.text(0)
        if params[1] != NONE:
            self._database = None if params[1] == NULL else request.text(1)
        return request.reply()

    async def _signin(self, request: Request) -> bytes:
        return await self._sign(request)

    async def _signup(self, request: Request) -> bytes:
        return await self._sign(request)

    async def _authenticate(self, request: Request) -> bytes:
        return await self._sign(request)

    async def _sign(self, request: Request) -> bytes:
        """Let the engine verify the user, and remember the user for this connection only."""
        async with self._shared.entered(None):
            await self._engine.execute(Request.of("invalidate"))
            await self._shared.use(self._namespace, self._database)
            reply = await self._engine.execute(request)
            # A sign-in below root chooses namespace and database, so the session is asked, not the request.
            text = "RETURN [session::ns(), session::db(), $session.tk]"
            session = decode(await self._engine.execute(Request.of("query", encode(text), encode({}))))
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

    async def _invalidate(self, request: Request) -> bytes:
        self._identity = None
        return request.reply()

    async def _reset(self, request: Request) -> bytes:
        # Must not reach the 2.x engine: it aborts the process there.
        self._forget()
        return request.reply()

    async def _let(self, request: Request) -> bytes:
        if request.text(0) is None or len(request.params) != 2:
            raise RpcError(-32602, "Invalid params")
        name, value = request.params
        self._variables[encode(str(decode(name)).removeprefix("$"))] = value
        return request.reply()

    _set = _let

    async def _unset(self, request: Request) -> bytes:
        name = request.text(0)
        if name is None:
            raise RpcError(-32602, "Invalid params")
        self._variables.pop(encode(name.removeprefix("$")), None)
        return request.reply()

    async def _live(self, request: Request) -> bytes:
        raise RpcError(-32000, "Unable to perform the realtime query")

    def _refuse_live(self, text: str | None) -> None:
        if text is not None and _LIVE_STATEMENT.search(text):
            raise RpcError(-32000, "Unable to perform the realtime query")

    def _with_variables(self, request: Request) -> Request:
        if not self._variables:
            return request
        params = request.params
        given = pairs(params[1]) if len(params) > 1 and head(params[1], 0)[0] == 5 else {}
        request.pairs[PARAMS] = array([params[0], mapping({**self._variables, **given})])
        return request
