"""The life of the connection: opened when first used, shared by all threads, renewed when lost.

One :class:`Connection` is one session on one SurrealDB. It is opened by the first statement; every
thread and greenlet of the process shares it without waiting for the others' round trips; a forked child
opens its own. A lost line, an ended session or a write conflict is dealt with inside one call where that
is safe; :mod:`~surrealdb_celery_backend.failures` says when it is.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Mapping
from enum import Enum
from typing import Any

from billiard.process import current_process
from celery import signals
from celery.utils.log import get_logger

from . import errors, statements
from .failures import Failure, Remedy, understand, understand_exception
from .settings import Settings
from .wire import EmbeddedLine, Engine, HttpLine, Line, LineBroken, OnNotification, Reply, WebSocketLine

logger = get_logger(__name__)

#: How often a statement that met a write conflict is sent again within one call.
CONFLICT_RETRIES = 60
#: The longest pause before the first such retry, in seconds; it grows up to the last.
CONFLICT_PAUSE_FIRST, CONFLICT_PAUSE_LAST = 0.002, 0.1
#: How often a repeatable request is sent again on a new connection within one call. Longer outages are
#: the business of Celery's retry settings, which sleep in between.
RECONNECTS = 1
#: How long a refused sign-in is not tried again, in seconds: a worker full of tasks must not become a storm
#: of them, each of which costs the server a password hash.
REFUSAL_REMEMBERED = 1.0
#: The oldest server that has what the statements use.
OLDEST_SERVER = (2, 0)


class State(Enum):
    """Where a connection is in its life."""

    #: Not used yet, in this process; or lost, to be opened again by the next statement.
    UNOPENED = "unopened"
    #: Signed in, with namespace and database chosen.
    OPEN = "open"
    #: Closed by its owner: a statement raises instead of connecting again.
    CLOSED = "closed"


class Connection:
    """A session on SurrealDB.

    :param settings: where to, as whom.
    :param define: run what creates tables and indexes when the session opens; the push connection,
        which is a second session of the same process, leaves that to the first.
    :param on_notification: called with each notification of a LIVE query, by the thread that reads.
    """

    def __init__(
        self, settings: Settings, *, define: bool = True, on_notification: OnNotification | None = None
    ) -> None:
        self.settings = settings
        #: Round trips made so far, the ones of opening included.
        self.request_count = 0
        self._define = define and settings.define_schema
        self._on_notification = on_notification
        self._closed = False
        self._line: Line | None = None
        #: Guards the fields here; never held during a round trip.
        self._lock = threading.Lock()
        self._opening: _Opening | None = None
        #: The last sign-in was refused, with this message, until when nobody asks again.
        self._refused: tuple[str, float] | None = None
        self._embedded_in_parent = False
        _connections.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.uri()} {self.state.value}>"

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        if self._closed:
            return State.CLOSED
        line = self._line
        return State.OPEN if line is not None and line.usable else State.UNOPENED

    @property
    def line(self) -> Line:
        """The open line, opened now if it was not."""
        return self._open(self._deadline())

    def _deadline(self) -> float:
        """When a call that begins now has to end: all its round trips and retries share surrealdb_timeout."""
        return time.monotonic() + self.settings.timeout

    # -- statements -------------------------------------------------------------------------------

    def run(self, text: str, /, *, deadline: float | None = None, **variables: Any) -> Any:
        """Run one or more statements in one round trip.

        :param text: SurrealQL, from :mod:`~surrealdb_celery_backend.statements`.
        :param deadline: when the call has to end, by the monotonic clock; ``surrealdb_timeout`` from now if None.
        :param variables: its parameters.
        :return: the value of the last statement; None for a read of a table that does not exist.
        :raises SurrealDBBackendError: any statement failed.
        """
        return self.run_all(text, deadline=deadline, **variables)[-1]

    def run_all(
        self, text: str, /, *, repeatable: bool = True, deadline: float | None = None, **variables: Any
    ) -> list[Any]:
        """Run statements in one round trip and return the value of each.

        :param repeatable: whether running the statements twice does what running them once does. Only
            then are they sent again after the line broke with the reply outstanding.
        :return: a value per statement; None for a read of a table that does not exist.
        :raises SurrealDBBackendError: the first statement that failed, whatever its place.
        """
        outcomes = self.attempt(text, repeatable=repeatable, deadline=deadline, **variables)
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                raise outcome.exception()
        return outcomes

    def attempt(
        self, text: str, /, *, repeatable: bool = True, deadline: float | None = None, **variables: Any
    ) -> list[Any]:
        """Like :meth:`run_all`, but a statement's failure is returned in its place, not raised.

        Write conflicts are retried here: all statements are sent again, so a text must either be one
        statement or one whose statements may be repeated once they took effect.
        """
        conflicts = 0
        deadline = self._deadline() if deadline is None else deadline
        while True:
            reply = self._exchange("query", [text, variables], deadline, repeatable=repeatable)
            outcomes: list[Any] = []
            conflict = None
            for statement in reply:
                if statement.get("status") == "OK":
                    outcomes.append(statement.get("result"))
                    continue
                failure = understand(statement)
                if failure.remedy is Remedy.NOTHING_THERE:
                    outcomes.append(None)
                    continue
                if failure.remedy is Remedy.RETRY_NOW:
                    conflict = failure
                outcomes.append(failure)
            if conflict is None or conflicts >= CONFLICT_RETRIES or time.monotonic() >= deadline:
                if conflicts:
                    logger.debug("%d write conflicts in one call were retried", conflicts)
                return outcomes
            conflicts += 1
            _let_others_write(conflicts)

    def _exchange(self, method: str, params: list[Any], deadline: float, *, repeatable: bool) -> Any:
        """One request, with the line renewed or the sign-in repeated where that helps."""
        reconnects = sign_ins = 0
        while True:
            line = self._open(deadline)
            if not repeatable:
                line.look()
                if not line.usable:
                    continue
            try:
                return self._request(line, method, params, deadline)
            except _RequestFailed as failed:
                failure, sent = failed.failure, failed.sent
            # An open session whose user is refused: the user was changed since.
            ended = failure.remedy is Remedy.SIGN_IN or failure.error is errors.SignInRefused
            if ended and sign_ins == 0:
                sign_ins += 1
                self._drop(line)
                continue
            # Out of time: nothing can be repeated. The line may well be good, and others wait on it;
            # where it is not, it knows that itself.
            if failure.remedy is Remedy.RECONNECT and failure.error is not errors.RequestTimedOut:
                self._drop(line)
                if (repeatable or not sent) and reconnects < RECONNECTS:
                    reconnects += 1
                    continue
            raise self._error(failure)

    def _request(self, line: Line, method: str, params: list[Any], deadline: float) -> Any:
        """One request.

        A conflict is retried here where it is the whole request's: of ``use``, which creates the database
        on SurrealDB 3, or of a sign-in, when many processes connect at once.
        """
        conflicts = 0
        failure = Failure(Remedy.RECONNECT, errors.RequestTimedOut, f"no time was left for {method}")
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise _RequestFailed(failure, sent=False)
            self.request_count += 1
            try:
                reply = line.request(method, params, remaining)
            except Exception as exc:
                failed = _understood(self.settings, exc)
                if failed is exc:
                    raise
                raise failed from exc
            if reply.get("error") is None:
                return reply.get("result")
            failure = understand(reply["error"])
            if failure.remedy is not Remedy.RETRY_NOW or conflicts >= CONFLICT_RETRIES:
                raise _RequestFailed(failure, sent=True)
            conflicts += 1
            _let_others_write(conflicts)

    def _error(self, failure: Failure) -> errors.SurrealDBBackendError:
        where = self.settings.uri()
        if failure.error is errors.RequestTimedOut:
            return errors.RequestTimedOut(
                f"{where} did not answer within surrealdb_timeout={self.settings.timeout:g} s ({failure.message})"
            )
        if failure.error is errors.ConnectionFailed:
            return errors.ConnectionFailed(
                f"{where} cannot be reached or dropped the connection ({failure.message}); "
                "check surrealdb_url and that the server runs"
            )
        if failure.error is errors.InsecureConnection:
            return errors.InsecureConnection(
                f"{where}: the TLS handshake failed ({failure.message}); check surrealdb_tls (ca_file, cert_file, "
                "key_file), and that surrealdb_url has the host name of the server's certificate"
            )
        return failure.exception()

    # -- opening and closing ----------------------------------------------------------------------

    def _open(self, deadline: float) -> Line:
        while True:
            line = self._line
            if line is not None and line.usable:
                return line
            mine = _Opening(deadline)
            try:
                with self._lock:
                    self._check_usable()
                    line, opening = self._line, self._opening
                    if line is not None and line.usable:
                        return line
                    if opening is None:
                        self._opening = mine
                if opening is None:
                    return self._open_for_all(mine, deadline)
            finally:
                # Wherever this thread is interrupted: else nobody could ever open again.
                if self._opening is mine:
                    self._opening = None
                mine.done.set()
            # Another thread opens: its outcome is ours, or a dead server would cost each thread the
            # timeouts of all before it. But for one that had little time left, which says nothing.
            if not opening.done.wait(max(0.0, deadline - time.monotonic())):
                raise self._error(Failure(Remedy.RECONNECT, errors.RequestTimedOut, "no connection yet"))
            hasty = 2 * opening.time < deadline - time.monotonic()
            if isinstance(opening.error, errors.RequestTimedOut) and hasty:
                continue
            if isinstance(opening.error, errors.SurrealDBBackendError):
                raise type(opening.error)(str(opening.error))

    def _open_for_all(self, mine: _Opening, deadline: float) -> Line:
        line = None
        try:
            line = self._opened(deadline)
        except BaseException as exc:
            mine.error = exc
            raise
        finally:
            with self._lock:
                closed = self._closed
                self._opening = None
                self._line = None if closed else line
                if isinstance(mine.error, errors.SignInRefused):
                    self._refused = (str(mine.error), time.monotonic() + REFUSAL_REMEMBERED)
            mine.done.set()
        if closed:
            line.close()
            raise errors.ConnectionClosed
        return line

    def _check_usable(self) -> None:
        """Whether it makes sense to open a line now. Called with the lock held."""
        if self._closed:
            raise errors.ConnectionClosed
        if _of_a_pool and self.settings.scheme in ("mem", "memory"):
            raise errors.EngineInUse(
                f"surrealdb_url {self.settings.endpoint!r} is an engine in the memory of each process, and nobody "
                "would see the results of a process of the worker's pool; run the worker with --pool threads or solo, "
                "or serve the database with `python -m surrealdb_celery_backend.devserver` or `surreal start`"
            )
        if self._embedded_in_parent:
            raise errors.EngineInUse(
                f"surrealdb_url {self.settings.endpoint!r} is an engine inside the parent process, which a "
                "forked child cannot use; run the worker with --pool threads or solo, or serve the database "
                "with `python -m surrealdb_celery_backend.devserver` or `surreal start`"
            )
        if self._refused is not None:
            message, until = self._refused
            if time.monotonic() < until:
                raise errors.SignInRefused(message)
            self._refused = None

    def _opened(self, deadline: float) -> Line:
        try:
            line = self._connect(deadline - time.monotonic())
        except Exception as exc:
            failed = _understood(self.settings, exc)
            if not isinstance(failed, _RequestFailed):
                raise
            raise self._error(failed.failure) from exc
        try:
            self._prepare(line, deadline)
        except _RequestFailed as failed:
            line.close()
            raise self._error(failed.failure) from failed.__cause__
        except BaseException:
            line.close()
            raise
        logger.debug("connected to %s", self.settings.uri())
        return line

    def _connect(self, timeout: float) -> Line:
        settings = self.settings
        if settings.embedded:
            return EmbeddedLine(_engine(settings))
        if settings.scheme in ("http", "https"):
            tls = settings.tls
            if tls is not None:
                tls.context()  # bad files: a clear error now, not one of the library's later
            verify: bool | str = True if tls is None else (tls.verify and (tls.ca_file or True))
            cert = None
            if tls is not None and tls.cert_file:
                cert = (tls.cert_file, tls.key_file) if tls.key_file else tls.cert_file
            return HttpLine(settings.endpoint, verify=verify, cert=cert)
        context = settings.tls.context() if settings.tls else None
        return WebSocketLine(settings.endpoint, tls=context, timeout=timeout, on_notification=self._on_notification)

    def _prepare(self, line: Line, deadline: float) -> None:
        settings = self.settings
        if not settings.embedded:
            self._sign_in(line, deadline)
            self._check_version(line, deadline)
        use = [settings.namespace, settings.database]
        try:
            self._request(line, "use", use, deadline)
        except _RequestFailed as failed:
            if failed.failure.error is not errors.DatabaseMissing:
                raise
            self._define_database(line, deadline)
            self._request(line, "use", use, deadline)
        if self._define:
            self._define_schema(line, deadline)

    def _sign_in(self, line: Line, deadline: float) -> None:
        settings = self.settings
        if settings.auth_level == "anonymous":
            return
        if settings.token:
            method = "authenticate"
            params: list[Any] = [settings.token]
            who = "surrealdb_token"
        else:
            credentials: dict[str, Any] = {}
            if settings.access or settings.auth_level in ("namespace", "database"):
                credentials["NS"] = settings.namespace
            if settings.access or settings.auth_level == "database":
                credentials["DB"] = settings.database
            if settings.access:
                credentials["AC"] = settings.access
                variables = settings.access_variables
                if variables is None:
                    variables = {"username": settings.username, "password": settings.password}
                credentials.update(variables)
                who = f"surrealdb_access {settings.access!r}"
            else:
                credentials |= {"user": settings.username or "", "pass": settings.password or ""}
                who = f"surrealdb_username {settings.username!r} at surrealdb_auth_level {settings.auth_level!r}"
            method, params = "signin", [credentials]
        try:
            self._request(line, method, params, deadline)
        except _RequestFailed as failed:
            failure = failed.failure
            passes = failure.remedy in (Remedy.RECONNECT, Remedy.RETRY_NOW, Remedy.LATER)
            if passes or failure.error is errors.InsecureConnection:
                raise
            raise errors.SignInRefused(
                f"{settings.uri()} refused the sign-in of {who}: {failure.message}; check the name, "
                "the password or token, and surrealdb_auth_level"
            ) from None  # the request held the password

    def _check_version(self, line: Line, deadline: float) -> None:
        try:
            answer = self._request(line, "version", [], deadline)
        except _RequestFailed as failed:
            if failed.failure.remedy is Remedy.RECONNECT:
                raise
            return  # capabilities can forbid asking
        text = answer.get("version", "") if isinstance(answer, Mapping) else str(answer)
        numbers = text.removeprefix("surrealdb-").split(".")
        try:
            version = (int(numbers[0]), int(numbers[1]))
        except (ValueError, IndexError):
            return
        if version < OLDEST_SERVER:
            raise errors.UnsupportedServer(
                f"{self.settings.uri()} runs SurrealDB {text}; 2.0 or newer is needed: update the server"
            )

    def _define_database(self, line: Line, deadline: float) -> None:
        settings = self.settings
        if not settings.define_schema:
            raise errors.DatabaseMissing(
                f"surrealdb_namespace {settings.namespace!r} or surrealdb_database {settings.database!r} does not "
                "exist and surrealdb_define_schema is False: create them, or set it to True"
            )
        text = statements.define_database(settings.namespace, settings.database)
        self._run_definitions(line, text, deadline)

    def _define_schema(self, line: Line, deadline: float) -> None:
        self._run_definitions(line, statements.define_schema(self.settings.prefix), deadline)

    def _run_definitions(self, line: Line, text: str, deadline: float) -> None:
        """Define what is missing. Several processes start at once, so a conflict is the usual case."""
        for _ in range(CONFLICT_RETRIES):
            refused = None
            conflict = False
            for statement in self._request(line, "query", [text, {}], deadline):
                if statement.get("status") == "OK":
                    continue
                failure = understand(statement)
                if failure.remedy is Remedy.RETRY_NOW:
                    conflict = True
                elif failure.error is errors.DatabaseMissing:
                    self._define_database(line, deadline)
                    conflict = True
                elif "already exists" in failure.message:
                    continue
                else:
                    refused = refused or failure
            if refused is not None:
                if refused.error is not errors.NotPermitted:
                    raise refused.exception("creating the tables")
                # Right where the tables exist and the user may only use them.
                logger.warning(
                    "the database user may not define tables and indexes (%s): create them once with a user who "
                    "may, and set surrealdb_define_schema to False",
                    refused.message,
                )
                self._define = False
                return
            if not conflict:
                self._define = False  # once is enough for this process
                return
            _let_others_write(CONFLICT_RETRIES)
        raise errors.WriteConflict("the tables could not be created: other processes kept changing the schema")

    def _drop(self, line: Line) -> None:
        """The line is of no use: the next statement opens another. Another thread may already have."""
        with self._lock:
            if self._line is line:
                self._line = None
        line.close()

    def disconnect(self) -> None:
        """Give up the line but not the connection: the next statement opens another."""
        line = self._line
        if line is not None:
            self._drop(line)

    def close(self) -> None:
        """End the session. A statement run afterwards raises :class:`~.errors.ConnectionClosed`."""
        with self._lock:
            self._closed = True
            line, self._line = self._line, None
        if line is not None:
            line.close()

    def _after_fork(self) -> None:
        """In the child: what the parent has open is the parent's, and so may be its locks."""
        self._lock = threading.Lock()
        self._opening = None
        line, self._line = self._line, None
        if line is not None:
            line.abandon()
            self._embedded_in_parent = isinstance(line, EmbeddedLine) or self._embedded_in_parent
            if not isinstance(line, WebSocketLine):
                _of_the_parent.append(line)


def _let_others_write(conflicts: int) -> None:
    """Pause before a retry: the longer, the more often it was in vain, and never as long as another's pause."""
    ceiling = min(CONFLICT_PAUSE_FIRST * 1.3**conflicts, CONFLICT_PAUSE_LAST)
    time.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret


class _Opening:
    """One attempt to open the line, whose outcome is that of all who wait for it."""

    def __init__(self, deadline: float) -> None:
        #: How much time it has, in seconds.
        self.time = deadline - time.monotonic()
        self.done = threading.Event()
        self.error: BaseException | None = None


class _RequestFailed(Exception):
    def __init__(self, failure: Failure, *, sent: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.sent = sent


def _understood(settings: Settings, exc: Exception) -> Exception:
    """What to raise for what the line, the driver or an engine raised: a failure, or the exception itself."""
    if isinstance(exc, (errors.SurrealDBBackendError, _RequestFailed)):
        return exc
    # Of an engine in this process first: what would be a lost line elsewhere cannot be waited for here.
    failure = _engine_failure(settings, exc) if settings.embedded else None
    failure = failure or understand_exception(exc)
    if failure is None:
        return exc
    return _RequestFailed(failure, sent=getattr(exc, "sent", True))


def _engine_failure(settings: Settings, exc: Exception) -> Failure | None:
    text = str(exc)
    missing = isinstance(exc, ImportError) or "surrealdb[embedded]" in text or "surrealdb-embedded" in text
    if "UrlScheme" in text or (missing and settings.scheme not in ("mem", "memory", "surrealkv")):
        return Failure(
            Remedy.GIVE_UP,
            errors.SettingsError,
            f"surrealdb_url {settings.endpoint!r} needs an embedded engine that has {settings.scheme}://, and what is "
            "installed has not; use surrealkv://DIR, or serve the database with `surreal start`",
        )
    if missing:
        return Failure(
            Remedy.GIVE_UP,
            errors.SettingsError,
            f"surrealdb_url {settings.endpoint!r} needs the embedded engine, which is not installed: "
            "pip install 'surrealdb-celery-backend[embedded]'",
        )
    if "lock" in text.lower():
        return Failure(
            Remedy.GIVE_UP,
            errors.EngineInUse,
            f"surrealdb_url {settings.endpoint!r} is in use by another process, and an embedded engine serves one "
            "process only; share it with `python -m surrealdb_celery_backend.devserver --path DIR` or `surreal start`",
        )
    if "Failed to create datastore" in text or (isinstance(exc, OSError) and not isinstance(exc, LineBroken)):
        return Failure(
            Remedy.GIVE_UP,
            errors.SettingsError,
            f"surrealdb_url {settings.endpoint!r} cannot be opened ({exc}); name a directory that can be written to, "
            "and that no engine of another version wrote",
        )
    return understand(text) if isinstance(exc, RuntimeError) else None


# -- the engines inside this process, one per URL, shared by all connections -------------------------

_engines: dict[str, Engine] = {}
#: In a forked child, what the parent opened. Kept, because dropping an engine waits for its threads, which
#: are not there, and dropping urllib3's connections for locks that such threads may hold.
_of_the_parent: list[Engine | Line] = []
_engines_lock = threading.Lock()


def _engine(settings: Settings) -> Engine:
    with _engines_lock:
        engine = _engines.get(settings.endpoint)
        if engine is None or not engine.usable:
            engine = _engines[settings.endpoint] = Engine(settings.endpoint)
        return engine


def close_engines() -> None:
    """Close the engines inside this process, so that another process may open their directories."""
    with _engines_lock:
        for engine in _engines.values():
            engine.close()
        _engines.clear()


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
#: Whether this is a process of a prefork pool.
_of_a_pool = False


@signals.worker_process_init.connect
def _begin_in_pool(**_: Any) -> None:
    global _of_a_pool  # noqa: PLW0603
    # The signal is sent by a pool that has no processes, too (solo). A pool's own are daemons.
    _of_a_pool = bool(current_process().daemon)


def _after_fork_in_child() -> None:
    global _engines_lock  # noqa: PLW0603 - the parent may have held the old one
    _engines_lock = threading.Lock()
    for engine in _engines.values():
        engine.forget_directory()
        _of_the_parent.append(engine)
    _engines.clear()
    for connection in list(_connections):
        connection._after_fork()


# os.fork, multiprocessing and billiard all come through here.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["Connection", "LineBroken", "Reply", "State", "close_engines"]
