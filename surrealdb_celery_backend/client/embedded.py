"""The embedded transport: the engine inside this process, one per URL, shared by all connections."""

from __future__ import annotations

import threading
from typing import Any

from .. import errors
from . import forks
from .directory_lock import DirectoryLock
from .failures import Failure, Remedy, classify
from .options import IN_MEMORY, Options
from .transport import Reply, TransportError
from .values import TAG_DURATION, decode, encode


class Engine:
    """The engine inside this process, behind the SDK's own blocking connection, which serialises its calls.

    Args:
        url: `mem://`, `surrealkv://DIR` or another URL that the installed engine takes.

    Raises:
        Exception: Any exception of the engine; `engine_failure` classifies it.
    """

    def __init__(self, url: str) -> None:
        from surrealdb import Surreal

        scheme, _, path = url.partition("://")
        self._directory = DirectoryLock(path) if path and scheme not in IN_MEMORY else None
        try:
            connection: Any = Surreal(url)
            connection.connect()
        except BaseException:
            self.forget_directory()
            raise
        self._connection = connection
        self._lock = threading.Lock()
        self._used: list[str] | None = None
        self.usable = True

    def query(self, database: list[str], params: list[Any]) -> Reply:
        """Run statements in a database; the engine has one session, so it is switched where it must be.

        Args:
            database: Namespace and database.
            params: Text and variables.

        Returns:
            `{result: …}` or `{error: …}`.

        Raises:
            TransportError: The engine was closed.
        """
        with self._lock:
            if not self.usable:
                raise TransportError("the embedded engine was closed", sent=False)
            try:
                if self._used != database:
                    self._connection.use(*database)
                    self._used = database
                reply = _from_sdk(self._connection.query_raw(*_to_sdk(params)))
            except RuntimeError as exc:  # SDK 2's engine raises what a server would answer
                return {"error": {"message": str(exc)}}
            return reply if isinstance(reply, dict) else {"result": reply}

    def close(self) -> None:
        """Shut the engine down and release its directory."""
        with self._lock:
            if self.usable:
                self.usable = False
                self._connection.close()
                self.forget_directory()

    def forget_directory(self) -> None:
        """Close this process's hold on the directory; where a fork has another, that one stays."""
        if self._directory is not None:
            self._directory.release()


def _to_sdk(value: Any) -> Any:
    """The same value with the SDK's types, which its connections want."""
    from surrealdb.data.cbor import decode as decode_with_sdk

    return _with_durations(decode_with_sdk(encode(value)))


def _with_durations(value: Any) -> Any:
    """The same value with durations as the engine reads them: SDK 2 encodes its own under the tag of their text."""
    from surrealdb import Duration
    from surrealdb.cbor import CBORTag

    if isinstance(value, Duration):
        return CBORTag(TAG_DURATION, list(divmod(value.elapsed, 10**9)))
    if isinstance(value, dict):
        return {key: _with_durations(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_durations(part) for part in value]
    return value


def _from_sdk(value: Any) -> Any:
    from surrealdb.data.cbor import encode as encode_with_sdk

    return decode(encode_with_sdk(value))


class EmbeddedTransport:
    """See `Transport`: one connection's share of an `Engine`, its namespace and database.

    Args:
        engine: The engine.
    """

    live = False
    forkable = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database: list[str] = []
        self._mine = True

    @property
    def usable(self) -> bool:
        """See `Transport`. False also where this process is a fork of the one that has the engine."""
        return self._mine and self._engine.usable

    def check_alive(self) -> None:
        """See `Transport`. Nothing to see: the engine is in this process."""

    def listen(self, timeout: float) -> bool:
        """See `Transport`."""
        raise errors.LiveNotSupported("an engine inside the process has no LIVE queries")

    def request(self, method: str, params: list[Any], timeout: float) -> Reply:
        """See `Transport`. An embedded engine needs no sign-in."""
        if method == "use":
            self._database = params
            return {"result": None}
        if method != "query":
            raise ValueError(f"an embedded engine needs no {method}")
        return self._engine.query(self._database, params)

    def close(self) -> None:
        """See `Transport`. The engine stays: other connections of the process use it."""
        self._mine = False

    detach = close


_engines: dict[str, Engine] = {}
#: Engines of the parent process. Kept: dropping an engine waits for its threads, which are not in this process.
_of_the_parent: list[Engine] = []
_lock = threading.Lock()
#: Why this process may have no engine in its memory; None where it may.
_refusal: str | None = None


def open_engine(url: str) -> EmbeddedTransport:
    """A share of the process's engine for a URL, which is started if it does not run.

    Args:
        url: The endpoint.

    Returns:
        A transport.

    Raises:
        Exception: Any exception of the engine; `engine_failure` classifies it.
    """
    with _lock:
        engine = _engines.get(url)
        if engine is None or not engine.usable:
            engine = _engines[url] = Engine(url)
        return EmbeddedTransport(engine)


def close_engines() -> None:
    """Close the engines inside this process, so that another process may open their directories."""
    with _lock:
        for engine in _engines.values():
            engine.close()
        _engines.clear()


def refuse_in_memory(reason: str) -> None:
    """Refuse engines in the memory of this process from now on: nobody else would see what is stored.

    Args:
        reason: The kind of process, and the remedy.
    """
    global _refusal  # noqa: PLW0603 - of the process
    _refusal = reason


def check_allowed(options: Options, *, opened_by_parent: bool) -> None:
    """Refuse an engine that is of no use in this process.

    Args:
        options: The endpoint.
        opened_by_parent: Whether the parent process used this connection before the fork.

    Raises:
        EngineInUse: The engine would be, or is, another process's.
    """
    if _refusal is not None and options.scheme in IN_MEMORY:
        raise errors.EngineInUse(f"surrealdb_url {options.endpoint!r} {_refusal}")
    if opened_by_parent:
        raise errors.EngineInUse(
            f"surrealdb_url {options.endpoint!r} is an engine inside the parent process, which a "
            "forked child cannot use; run the worker with --pool threads or solo, or serve the database "
            "with `python -m surrealdb_celery_backend.devserver` or `surreal start`"
        )


def engine_failure(options: Options, exc: Exception) -> Failure | None:
    """Classify an exception of an embedded engine, which elsewhere would be a lost connection.

    Args:
        options: The endpoint.
        exc: The exception.

    Returns:
        The failure; None where the exception is not the engine's.
    """
    text = str(exc)
    url = f"surrealdb_url {options.endpoint!r}"
    missing = isinstance(exc, ImportError) or "surrealdb[embedded]" in text or "surrealdb-embedded" in text
    if "UrlScheme" in text or (missing and options.scheme not in ("mem", "memory", "surrealkv")):
        return Failure(
            Remedy.GIVE_UP,
            errors.SettingsError,
            f"{url} needs an embedded engine that has {options.scheme}://, and what is "
            "installed has not; use surrealkv://DIR, or serve the database with `surreal start`",
        )
    if missing:
        return Failure(
            Remedy.GIVE_UP,
            errors.SettingsError,
            f"{url} needs the embedded engine, which is not installed: pip install 'surrealdb-celery-backend[embedded]'",
        )
    if "lock" in text.lower():
        return Failure(
            Remedy.GIVE_UP,
            errors.EngineInUse,
            f"{url} is in use by another process, and an embedded engine serves one "
            "process only; share it with `python -m surrealdb_celery_backend.devserver --path DIR` or `surreal start`",
        )
    if "Failed to create datastore" in text or (isinstance(exc, OSError) and not isinstance(exc, TransportError)):
        return Failure(
            Remedy.GIVE_UP,
            errors.SettingsError,
            f"{url} cannot be opened ({exc}); name a directory that can be written to, "
            "and that no engine of another version wrote",
        )
    return classify(text) if isinstance(exc, RuntimeError) else None


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - the parent may have held the old one
    _lock = threading.Lock()
    for engine in _engines.values():
        engine.forget_directory()
        _of_the_parent.append(engine)
    _engines.clear()


forks.register(_after_fork)
