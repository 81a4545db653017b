"""The life of the development server: its directory, its engine, its port, in a thread or in the caller's loop."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from ..client.directory_lock import DirectoryLock
from .application import Application, is_loopback
from .engine import DevServerError, Engine, engine_class
from .messages import RpcError
from .one_session import SharedSession, SharedSessionClient
from .sessions import Client, SessionClient

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_PORT: Final = 8000

#: How long a request that is being answered may delay the end of the server, in seconds.
SHUTDOWN_TIMEOUT: Final = 5.0


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
        allow_origins: Origins of web pages that may connect, such as ``http://localhost:3000``; none by default.

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
        allow_origins: Collection[str] = (),
    ) -> None:
        store = store or ("mem" if path is None else "surrealkv")
        _check(path=path, host=host, port=port, username=username, store=store)
        self.path = None if path is None else Path(path)
        self.host = host
        #: The port that is listened on, once started.
        self.port = port
        self.username = username
        self.password = password
        self.store = store
        #: The engine's version, such as ``3.2.4``, once started.
        self.version = ""
        self._origins = tuple(allow_origins)
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
        """Serve until `request_stop`.

        Args:
            ready: Called once connections are answered.

        Raises:
            DevServerError: Port in use, directory in use, no embedded engine, or another reason in one sentence.
        """
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        with self._directory() as engine_url:
            try:
                engine = Engine(engine_class()(engine_url), self.store)
                await engine.open(self.username, self.password)
            except (RuntimeError, RpcError) as error:
                raise DevServerError(self._why_not_opened(error)) from error
            self.version = engine.version
            try:
                async with self._listening(engine):
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
            lock = DirectoryLock(self.path)
        except BlockingIOError as error:
            raise DevServerError(self._in_use()) from error
        except OSError as error:
            raise DevServerError(f"--path is {str(self.path)!r}, which cannot be used: {error.strerror}") from error
        try:
            yield f"surrealkv://{self.path.resolve()}"
        finally:
            lock.release()

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
    async def _listening(self, engine: Engine) -> AsyncIterator[None]:
        shared = SharedSession(engine)

        def client() -> Client:
            return SessionClient(engine) if engine.has_sessions else SharedSessionClient(engine, shared, self.username)

        application = Application(client, engine.version, self._origins).make()
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


def _check(*, path: str | os.PathLike[str] | None, host: str, port: int, username: str, store: str) -> None:
    """Refuse arguments that cannot be, in one sentence each."""
    if store not in ("mem", "surrealkv"):
        raise DevServerError(f"--store is {store!r}: choose mem or surrealkv")
    if store == "mem" and path is not None:
        raise DevServerError("--store mem keeps nothing: leave out --path or choose --store surrealkv")
    if store == "surrealkv" and path is None:
        raise DevServerError("--store surrealkv needs a directory: add --path DIR")
    if not is_loopback(host):
        raise DevServerError(
            f"--host is {host!r}, but this server is for development and listens on loopback only: use 127.0.0.1"
        )
    if path is not None and not os.fspath(path):
        raise DevServerError("--path is empty: give a directory, or leave it out to keep everything in memory")
    if not username:
        raise DevServerError("--username is empty: choose one")
    if not 0 <= port <= 65535:
        raise DevServerError(f"--port is {port}: choose one from 1 to 65535, or 0 for a free one")


def _let_engine_threads_return() -> None:
    # An engine thread hands over its last result and then still needs the interpreter for a moment. Before
    # Python 3.12 the process aborts if the interpreter ends just then, and nothing tells when it is over.
    time.sleep(0.1)
