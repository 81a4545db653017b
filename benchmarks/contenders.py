"""Who is measured: each a backend URL with its settings, and how a process uses it."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from celery import Celery, states
from celery.app.task import Context

from tests.engines import NotPossible

#: How long a run's results are kept, in seconds: they go by themselves.
KEPT = 3600


@dataclass(frozen=True)
class Contender:
    """A result backend with its settings.

    :param name: what rows and options call it.
    :param label: what the table calls it.
    :param backend: ``result_backend``.
    :param settings: further settings of ``app.conf``.
    :param celery: False where nobody can store a result through Celery.
    :param polled: True where ``get()`` looks for results in intervals.
    :param server_pid: the process of its server, where that is known: its CPU is counted.
    """

    name: str
    label: str
    backend: str
    settings: dict[str, Any] = field(default_factory=dict)
    celery: bool = True
    polled: bool = False
    server_pid: int | None = None

    @property
    def ours(self) -> bool:
        """Whether this is the backend that the benchmark is about."""
        return self.celery and self.backend.startswith("surrealdb")

    @property
    def stores(self) -> bool:
        """Whether there are results at all."""
        return self.backend != "disabled://"

    @property
    def port(self) -> int:
        """The server's port."""
        return urlsplit(self.backend).port or 0

    def at_port(self, port: int) -> Contender:
        """The same through another port of this machine."""
        parts = urlsplit(self.backend)
        netloc = parts.netloc.rpartition(":")[0] + f":{port}"
        return replace(self, backend=urlunsplit(parts._replace(netloc=netloc)))

    def client(self) -> Client:
        """Open a client."""
        return CeleryClient(self) if self.celery else RawClient(self)


def surrealdb(name: str, engine: Any) -> Contender:
    """Our backend on a running engine of tests/engines."""
    label = f"SurrealDB {engine.version} ({engine.store})"
    return Contender(name, label, engine.database().backend_url, server_pid=_pid(engine))


def raw(engine: Any) -> Contender:
    """The SDK's blocking connection on the same engine: what any backend on it pays at least."""
    return Contender("raw", "bare `query_raw`", engine.database().backend_url, celery=False, server_pid=_pid(engine))


def _pid(engine: Any) -> int | None:
    try:
        return int(engine.pid)
    except (AttributeError, NotPossible):
        return None  # a server that somebody else started


def redis(url: str, server_pid: int | None) -> Contender:
    """Celery's Redis backend."""
    return Contender("redis", "Redis backend", url, server_pid=server_pid)


def postgres(url: str) -> Contender:
    """Celery's SQLAlchemy backend on PostgreSQL."""
    if importlib.util.find_spec("sqlalchemy") is None or importlib.util.find_spec("psycopg") is None:
        raise ImportError("the SQLAlchemy backend needs sqlalchemy and psycopg: pip install --group bench")
    names = {"task": "bench_taskmeta", "group": "bench_groupmeta"}
    return Contender(
        "postgres",
        "SQLAlchemy on PostgreSQL",
        url.replace("postgresql://", "db+postgresql+psycopg://", 1),
        {"database_table_names": names},
        polled=True,
    )


def nothing() -> Contender:
    """Celery without results: what sending and running a task takes by itself."""
    return Contender("nothing", "no results", "disabled://", celery=False)


def request_of(task_id: str, reply_to: str = "") -> Context:
    """The request that a worker would store a result with."""
    return Context(
        id=task_id,
        root_id=task_id,
        reply_to=reply_to or uuid.uuid4().hex,
        task="bench.add",
        args=[],
        kwargs={},
        children=[],
        delivery_info={"routing_key": "celery"},
    )


def make_app(contender: Contender, broker: str = "memory://") -> Celery:
    """A Celery app on a contender's backend."""
    app = Celery("bench", backend=contender.backend, broker=broker, set_as_current=False)
    app.conf.update(result_expires=KEPT, **contender.settings)
    return app


class Client:
    """Stores and fetches results."""

    def store(self, task_id: str, payload: str, request: Context) -> None:
        """Store a result as a worker does."""
        raise NotImplementedError

    def fetch(self, task_id: str) -> Any:
        """Fetch a result that is there."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what was opened."""


class CeleryClient(Client):
    """Through a Celery backend, each thread with the backend that Celery gives it."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.app = make_app(contender)

    @property
    def backend(self) -> Any:
        """This thread's backend."""
        backend = self.app.backend
        if hasattr(backend, "session_manager"):
            # As in a worker's child, where the SQLAlchemy backend pools its connections.
            backend.session_manager.forked = True
        return backend

    def store(self, task_id: str, payload: str, request: Context) -> None:
        self.backend.store_result(task_id, payload, states.SUCCESS, request=request)

    def fetch(self, task_id: str) -> Any:
        return self.backend.get_task_meta(task_id, cache=False)["result"]

    def join(self, task_ids: Iterable[str]) -> list[Any]:
        """Fetch many results the way Celery's GroupResult does."""
        app = self.app
        group = app.GroupResult(uuid.uuid4().hex, [app.AsyncResult(task_id) for task_id in task_ids])
        values: list[Any] = group.get(timeout=600)
        return values

    def close(self) -> None:
        backend = self.backend
        if self.contender.ours:
            backend.close()
        elif hasattr(backend, "session_manager"):
            backend.session_manager.invalidate(backend.url)


class RawClient(Client):
    """``query_raw`` in a loop, with the statements of our backend and nothing around them."""

    def __init__(self, contender: Contender) -> None:
        from surrealdb import RecordID, Surreal

        from surrealdb_celery_backend.results import statements

        parts = urlsplit(contender.backend)
        _, namespace, database = parts.path.split("/")
        self._record_id = RecordID
        # The SDK's line 2 writes durations in a form that the engine does not read.
        self._store = statements.store_task(("l",), ready=True).replace("$l", "<duration>$l")
        self._fetch = statements.FETCH_TASKS
        self._connection = Surreal(f"ws://{parts.hostname}:{parts.port}/rpc")
        self._connection.signin({"username": parts.username, "password": parts.password})
        self._connection.query_raw(
            f"DEFINE NAMESPACE IF NOT EXISTS {namespace}; USE NS {namespace}; DEFINE DATABASE IF NOT EXISTS {database}",
            {},
        )
        self._connection.use(namespace, database)
        self._connection.query_raw(statements.define_schema(""), {})

    def store(self, task_id: str, payload: str, request: Context) -> None:
        task = {
            "task_id": task_id,
            "status": states.SUCCESS,
            "result": payload,
            "encoding": "application/json",
            "children": [],
            "root_id": request.root_id,
            "reply_to": request.reply_to,
        }
        pairs = [list(pair) for pair in task.items()]
        variables: Any = {"r": self._record_id("task", task_id), "t": pairs, "l": f"{KEPT}s"}
        _check(self._connection.query_raw(self._store, variables))

    def fetch(self, task_id: str) -> Any:
        (record,) = _check(self._connection.query_raw(self._fetch, {"records": self._record_id("task", task_id)}))
        return record["result"]

    def close(self) -> None:
        self._connection.close()


def _check(reply: dict[str, Any]) -> Any:
    (statement,) = reply["result"]
    if statement["status"] != "OK":
        raise RuntimeError(statement["result"])
    return statement["result"]
