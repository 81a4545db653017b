"""Apps on our backend and on the reference, Celery's Redis backend, set up alike."""

from __future__ import annotations

import pprint
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import celery
import pytest
from celery import Celery
from celery.app.task import Context
from celery.result import AsyncResult, EagerResult, GroupResult, ResultBase

from tests.engines import Database
from tests.support.apps import tasks_contract

#: For what Celery's own Redis backend, with which ours is compared, does not do or does by chance before 5.7.
since_celery_5_7 = pytest.mark.skipif(
    tuple(map(int, celery.__version__.split(".")[:2])) < (5, 7), reason="Celery's Redis backend has this since 5.7"
)

#: What both apps are set to, so that only the backend differs.
COMMON = {
    "broker_url": "memory://",
    "broker_connection_retry_on_startup": True,
    "result_extended": True,
    "task_track_started": True,
    "result_accept_content": ["json", "pickle", "yaml", "msgpack"],
    "worker_hijack_root_logger": False,
    # The worker's own pings and clocks are of no interest here.
    "worker_send_task_events": False,
}
BACKEND = "surrealdb_celery_backend:SurrealDBBackend"
#: What the workers of the tests are called.
HOSTNAME = "contract@here"
#: The database of Redis that the reference uses.
REFERENCE_DATABASE = 5


def app_on(backend: str, **conf: Any) -> Celery:
    """An app with the tasks of the tests and a queue of its own."""
    app = Celery(f"contract-{uuid.uuid4().hex[:8]}", set_as_current=False)
    app.conf.update(COMMON, result_backend=backend, task_default_queue=f"contract-{uuid.uuid4().hex}")
    app.conf.update(conf)
    tasks_contract.register(app)
    return app


def ours(database: Database, **conf: Any) -> Celery:
    """An app whose results are in a SurrealDB database."""
    return app_on(BACKEND, **{**database.settings, **conf})


def reference(redis_url: str, **conf: Any) -> Celery:
    """An app whose results are in Redis; one per settings, which stays."""
    key = repr((redis_url, sorted(conf.items())))
    if key not in _references:
        _references[key] = app_on(urlunsplit(urlsplit(redis_url)._replace(path=f"/{REFERENCE_DATABASE}")), **conf)
    return _references[key]


#: Celery's Redis backend has no way to close all that it opens, so there are few and they live on.
_references: dict[str, Celery] = {}


def close(app: Celery) -> None:
    """End an app of ours and its backend's connections."""
    app.backend.close()
    app.close()


def request(task_id: Any, **fields: Any) -> Context:
    """What a worker knows of a task when it stores its result."""
    values: dict[str, Any] = {
        "id": task_id,
        "task": "contract.add",
        "args": [1, 2],
        "kwargs": {"z": None},
        "hostname": "worker@here",
        "retries": 0,
        "delivery_info": {"routing_key": "a queue"},
        "reply_to": "an address",
        "root_id": task_id,
        "children": [],
    }
    return Context({**values, **fields})


# -- what can be seen of a result --------------------------------------------------------------------


def described(value: Any) -> Any:
    """A value in a form that is equal exactly when both type and value are: NaN, exceptions, results too."""
    if isinstance(value, BaseException):
        return (
            "exception",
            type(value).__module__,
            type(value).__qualname__,
            described(value.args),
            described(value.__cause__),
        )
    if isinstance(value, ResultBase):
        return ("result", type(value).__name__, described(value.as_tuple()))
    if isinstance(value, dict):
        return ("dict", {key: described(inner) for key, inner in value.items()})
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [described(inner) for inner in value])
    return (type(value).__name__, repr(value))


def outcome(act: Callable[..., Any]) -> Any:
    """What a call gives, or the class and message of what it raises."""
    try:
        return ("gives", described(act()))
    except Exception as exc:
        return ("raises", described(exc))


def seen(result: AsyncResult | EagerResult) -> dict[str, Any]:
    """Every public attribute of a result, comparable between two backends for one task id."""
    queue = result.app.conf.task_default_queue
    done = result.date_done
    attributes = (
        "id",
        "state",
        "status",
        "result",
        "info",
        "traceback",
        "children",
        "parent",
        "name",
        "args",
        "kwargs",
        "worker",
        "retries",
        "queue",
    )
    values = {name: described(getattr(result, name)) for name in attributes}
    if result.queue == queue:
        values["queue"] = "the default queue"
    meta = dict(result._get_task_meta())
    if meta.get("queue") == queue:
        meta["queue"] = "the default queue"
    values["date_done"] = (type(done).__name__, done.utcoffset() if isinstance(done, datetime) else None)
    # Redis stores what date it has as text; its precision is that of datetime.
    values["meta date_done"] = type(meta.pop("date_done", None)).__name__
    values["meta"] = described(meta)
    for name in ("ready", "successful", "failed"):
        values[name] = getattr(result, name)()
    values["get"] = outcome(lambda: result.get(timeout=60, disable_sync_subtasks=False)) if result.ready() else None
    values["as_tuple"] = described(result.as_tuple())
    return values


_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def without_chance(value: Any) -> str:
    """What was seen as text, in which ids that Celery made up are numbered by their first appearance."""
    numbers: dict[str, str] = {}
    return _UUID.sub(lambda found: numbers.setdefault(found[0], f"id {len(numbers)}"), pprint.pformat(value, width=120))


def group_seen(result: GroupResult) -> dict[str, Any]:
    """Every public attribute of a group of results."""
    return {
        "id": result.id,
        "tuple": described(result.as_tuple()),
        "parent": described(result.parent),
        "members": [group_seen(r) if isinstance(r, GroupResult) else seen(r) for r in result.results],
        "ready": result.ready(),
        "successful": result.successful(),
        "failed": result.failed(),
        "waiting": result.waiting(),
        "completed": result.completed_count(),
        "length": len(result),
    }


class Both(NamedTuple):
    """Two apps that differ in nothing but where results go."""

    ours: Celery
    reference: Celery

    def same(self, act: Callable[[Celery], Any]) -> Any:
        """Do something with both apps; what it gives must be equal.

        Returns:
            What ours gave.
        """
        expected = act(self.reference)
        got = act(self.ours)
        assert got == expected
        return got
