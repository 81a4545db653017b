"""The embedded engine: raw execution, its errors as RPC errors, its version and its root user."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import mmap
import re
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from surrealdb.data.cbor import decode, encode

from .messages import SESSION, Request, RpcError, head, pairs, succeeded

#: The modules of the engine: of a package of its own since SDK 3, inside the SDK's wheel before.
_ENGINE_MODULES: Final = ("surrealdb_embedded._ext", "surrealdb._surrealdb_ext")

#: What a text that only reads has nowhere, not even inside a string: it may go beside others.
_MAY_WRITE: Final = re.compile(
    r"\b(CREATE|INSERT|UPSERT|UPDATE|DELETE|RELATE|DEFINE|REMOVE|ALTER|REBUILD|ACCESS|BEGIN|USE|fn|sequence|api)\b",
    re.IGNORECASE,
)
#: Since this version two writers on surrealkv never both take effect (docs/stores.md).
_EXACT_SINCE: Final = (3, 2, 4)
#: Methods that do not write. Not `use`, which makes the namespace and the database on 3.x, nor `authenticate`, which may
#: run a clause of an access method.
_READING: Final = frozenset(
    {"attach", "detach", "info", "invalidate", "let", "ping", "select", "set", "unset", "version"}
)
#: What the sign-in of a user gives.
_OF_A_USER: Final = frozenset(encode(name) for name in ("ns", "NS", "db", "DB", "user", "pass"))


class DevServerError(Exception):
    """The development server cannot run as asked."""


class _EmbeddedDB(Protocol):
    """The common interface of both SDKs' `AsyncEmbeddedDB`."""

    async def connect(self) -> None: ...
    async def close(self) -> None: ...
    async def execute(self, cbor_request: bytes) -> bytes: ...


def engine_class() -> Callable[[str], _EmbeddedDB]:
    """The class of the installed SDK's engine.

    Raises:
        DevServerError: The SDK has none.
    """
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


def writes(request: Request) -> bool:
    """Whether a request may write: where that cannot be told, it may.

    Args:
        request: The request.
    """
    if request.method == "signin":
        return not _is_by_password(request)
    if request.method != "query":
        return request.method not in _READING
    text = request.text(0)
    return text is None or _MAY_WRITE.search(text) is not None


def _is_by_password(request: Request) -> bool:
    """Whether a sign-in only compares a user's password, which takes long. That by an access method may write."""
    given = request.params[:1]
    return bool(given) and head(given[0], 0)[0] == 5 and _OF_A_USER.issuperset(pairs(given[0]))


class Engine:
    """The embedded engine: raw execution, and its errors as RPC errors.

    Where the store is not exact, what writes goes one after the other. Of two transactions that change one record at the
    same moment such a store sometimes lets both take effect, the one from what it read before the other: the record of
    a task that was sent replaced its result in 13 of 3,000 races. Reads go beside everything. The price is measured in
    docs/stores.md.

    Args:
        db: The SDK's engine.
        store: ``mem`` or ``surrealkv``.
    """

    def __init__(self, db: _EmbeddedDB, store: str) -> None:
        self._db = db
        self._store = store
        self._writing = asyncio.Lock()
        self.version = ""
        #: The engine keeps sessions apart itself (3.x).
        self.has_sessions = False
        self._is_exact = False

    async def open(self, username: str, password: str) -> None:
        """Connect, find out what the engine is, and create the root user."""
        await self._db.connect()
        session = uuid.uuid4()
        probe = Request.of("attach")
        probe.pairs[SESSION] = encode(str(session))
        try:
            self.has_sessions = succeeded(await self.execute(probe))
        except RpcError:
            self.has_sessions = False
        self.version = await self._version()
        self._is_exact = self._store == "surrealkv" and _numbers(self.version) >= _EXACT_SINCE

        name = "`" + username.replace("\\", "\\\\").replace("`", "\\`") + "`"
        secret = json.dumps(password, ensure_ascii=False)
        statement = f"DEFINE USER IF NOT EXISTS {name} ON ROOT PASSWORD {secret} ROLES OWNER"
        reply = decode(await self.execute(Request.of("query", encode(statement), encode({}))))
        if "result" not in reply or reply["result"][0]["status"] != "OK":
            raise DevServerError("the engine refused to create the root user: choose another --username")

        # The sign-in runs in the session made above where there are sessions: the engine's own must stay free.
        signin = Request.of("signin", encode({"user": username, "pass": password}))
        if self.has_sessions:
            signin.pairs[SESSION] = encode(str(session))
        try:
            signed_in = succeeded(await self.execute(signin))
        except RpcError:
            signed_in = False
        if not signed_in:
            raise DevServerError(
                f"--path already has a root user {username!r} with another password: give that one as --password"
            )
        end = Request.of("detach" if self.has_sessions else "invalidate")
        if self.has_sessions:
            end.pairs[SESSION] = encode(str(session))
        await self.execute(end)

    async def _version(self) -> str:
        answered = str(decode(await self.execute(Request.of("version")))["result"]).removeprefix("surrealdb-")
        if self.has_sessions:
            return answered
        # The 2.x engine answers with the version of the SDK's package. Its own is only in the binary.
        found = _version_in(Path(str(importlib.import_module(_ENGINE_MODULES[1]).__file__)))
        return found or answered

    async def execute(self, request: Request) -> bytes:
        """Run *request* in the engine and return its whole reply.

        Raises:
            RpcError: The engine raised instead of replying.
        """
        alone = not self._is_exact and writes(request)
        turn: AbstractAsyncContextManager[None] = self._writing if alone else contextlib.nullcontext()
        try:
            async with turn:
                return await self._db.execute(request.data)
        except (RuntimeError, ValueError) as error:
            message = str(error)
            codes = {"Method not found": -32601, "Invalid params": -32602, "Invalid request": -32600}
            raise RpcError(codes.get(message, -32000), message) from error

    async def close(self) -> None:
        """Write everything down and end the engine."""
        await self._db.close()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _version_in(binary: Path) -> str | None:
    """Return the version of SurrealDB that an extension module was built from, as its panic messages name it."""
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = re.search(rb"surrealdb-core-(\d+\.\d+\.\d+)", content)
        return found[1].decode() if found else None
