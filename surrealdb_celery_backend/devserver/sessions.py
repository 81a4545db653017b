"""One connection's session on an engine that keeps sessions apart itself (SurrealDB 3)."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod

from surrealdb.data.cbor import decode, encode

from .engine import Engine
from .messages import NONE, NULL, SESSION, Request, RpcError, failure, succeeded


class Client(ABC):
    """One connection's view of the engine: its own namespace, database, sign-in and variables."""

    @abstractmethod
    async def open(self) -> None:
        """Make the session. Nothing is executed before this returned."""

    @abstractmethod
    async def execute(self, request: Request) -> bytes:
        """Answer *request*; may raise `RpcError`."""

    @abstractmethod
    async def close(self) -> None:
        """End the session."""

    async def answer(self, data: bytes) -> bytes:
        """Answer one message. Never raises: an error is an answer too."""
        request_id = NONE
        try:
            request = Request(data)
            request_id = request.id
            return await self.execute(request)
        except RpcError as error:
            return failure(request_id, error)


class SessionClient(Client):
    """A connection to an engine that keeps sessions apart itself (3.x)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._own = encode(str(uuid.uuid4()))
        # Sessions that the client attached on its own: on a server they live and end with its connection.
        self._attached: set[bytes] = set()

    async def open(self) -> None:
        await self._session("attach", self._own)

    async def execute(self, request: Request) -> bytes:
        session = request.pairs.get(SESSION, NONE)
        if session in (NONE, NULL):
            request.pairs[SESSION] = self._own
            return await self._engine.execute(request)
        # A client may send the same session as a text or as a UUID; one form makes them comparable.
        request.pairs[SESSION] = session = encode(str(decode(session)))
        if request.method != "attach" and session not in self._attached:
            raise RpcError(-32000, f"Session not found: {decode(session)}")
        reply = await self._engine.execute(request)
        if request.method == "attach" and succeeded(reply):
            self._attached.add(session)
        elif request.method == "detach":
            self._attached.discard(session)
        return reply

    async def close(self) -> None:
        for session in (self._own, *self._attached):
            await self._session("detach", session)

    async def _session(self, method: str, session: bytes) -> None:
        request = Request.of(method)
        request.pairs[SESSION] = session
        await self._engine.execute(request)
