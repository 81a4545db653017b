"""The life of a task, as native fields of its record: when it was sent and started, how long it took, what failed.

Whose clock a time is from:

- `sent_at` and `eta` are the sender's;
- `started_at` and `date_done` are the database's: the worker says how long ago that was;
- `runtime` is measured by the worker, and no clock that may be set counts;
- `queue_time` lies between the sender's clock and the worker's. Where the two differ by more than the task waited it
  would be negative: then it is 0, and `clock_skew` says by how many seconds the sender's clock is ahead at least.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

from celery import signals, states
from celery.utils.log import get_logger

from .. import celery_compat
from ..client.values import INTEGERS, Pairs
from . import retention
from .native import DEEPEST, native

logger = get_logger(__name__)

#: The headers that the sender's app adds: when the task was first sent, and this time where it is sent again, in
#: seconds since 1970.
SENT_AT, QUEUED_AT = "sent_at", "queued_at"
#: The headers of a task that its retries have, too, and the task that replaces it.
_KEPT = (SENT_AT, "periodic_task_name", "retry_of", "tags", "meta", *retention.HEADERS)
#: Where the start of a task is kept in its request: by the monotonic clock, and by the host's.
_STARTED = "_surrealdb_started"
#: Fields that this module adds; Celery's meta has none of them.
FIELDS = (
    "sent_at",
    "started_at",
    "runtime",
    "queue_time",
    "clock_skew",
    "error",
    "attempts",
    "progress",
    "periodic_task_name",
    "retry_of",
    "eta",
    "priority",
    "tags",
    "meta",
)
#: States of a run that failed.
_FAILED = frozenset({states.FAILURE, states.RETRY})
#: The longest text of a native field, in characters.
LONGEST = 2_000

_sending = threading.local()


#: Takes headers and properties of a message that was sent, and the queue.
OnSent = Callable[[Mapping[str, Any], Mapping[str, Any], "str | None"], Any]


def about_to_send(task_id: str, on_sent: OnSent | None = None) -> None:
    """Note that a task of an app with this backend is sent next by this thread.

    Args:
        task_id: The task's id.
        on_sent: Called once it was sent.
    """
    _sending.task_id, _sending.on_sent = task_id, on_sent


def _before_publish(headers: Any = None, properties: Any = None, body: Any = None, **_: Any) -> None:
    if not isinstance(headers, dict):
        return
    facts = celery_compat.message_facts(headers, body)
    # The signal is of every app of the process; on_task_call says whose message it is.
    if facts.get("id") != getattr(_sending, "task_id", None):
        return
    now = time.time()
    # Who sends others along with the headers of the task that runs (`headers=self.request.headers`) gives them times
    # that are not theirs.
    if (_keep_headers(headers, facts) or facts.get("retries")) and SENT_AT in headers:
        headers[QUEUED_AT] = now
    else:
        headers[SENT_AT] = now
        headers.pop(QUEUED_AT, None)
    if facts is not headers and facts.get("group_index") is not None:
        # A worker does not look into the body of protocol 1 for it, and a chord's results would be in no order.
        headers["group_index"] = facts["group_index"]
    _sending.properties = properties


def _keep_headers(headers: dict[str, Any], facts: Mapping[str, Any]) -> bool:
    """Give a task that is sent again by itself, as a retry or in its own place, the headers that it came to lack.

    Celery sends a retry with the headers that are not its own. Tracers such as those of Sentry and Datadog add a
    header named ``headers``, which Celery then takes for all there are
    (https://github.com/celery/celery/issues/4875). A task that replaces another has those of its signature alone,
    and its result is the result of the first.

    Returns:
        Whether it is one.
    """
    running = celery_compat.running_task()
    request = None if running is None else running.request
    if request is None or request.id != facts.get("id"):
        return False
    given = celery_compat.request_fields(request)
    for name in _KEPT:
        if name not in headers and name in given:
            headers[name] = given[name]
    return True


def _after_publish(headers: Any = None, routing_key: Any = None, body: Any = None, **_: Any) -> None:
    on_sent = getattr(_sending, "on_sent", None)
    if on_sent is None or not isinstance(headers, dict):
        return
    facts = celery_compat.message_facts(headers, body)
    if facts.get("id") != _sending.task_id:
        return
    _sending.on_sent = None
    try:
        on_sent(facts, getattr(_sending, "properties", None) or {}, routing_key)
    except Exception:
        logger.exception("task %s was sent, but not stored as PENDING", facts.get("id"))


def _started(task: Any = None, **_: Any) -> None:
    request = getattr(task, "request", None)
    if request is not None:
        request.__dict__[_STARTED] = (time.monotonic(), time.time())


def note_start(request: Any) -> None:
    """Note when a task started whose end the worker's main process stores: the pool's process was killed, or lost.

    Args:
        request: The task's request, as the main process has it; None where there is none.
    """
    given = celery_compat.request_fields(request)
    started = celery_compat.accepted_at(given.get("id", "")) if _STARTED not in given else None
    if started is not None:
        request.__dict__[_STARTED] = (time.monotonic() - (time.time() - started), started)


signals.before_task_publish.connect(_before_publish, weak=False, dispatch_uid="surrealdb.sent_at")
signals.after_task_publish.connect(_after_publish, weak=False, dispatch_uid="surrealdb.track_sent")
signals.task_prerun.connect(_started, weak=False, dispatch_uid="surrealdb.started_at")


def add_life(
    fields: dict[str, Any],
    more: dict[str, Any],
    request: Any,
    status: str,
    result: Any,
    at: float | None = None,
    message: str | None = None,
) -> None:
    """Add the life of a task to its record. What is not known is left out; nothing wrong in a request makes a store fail.

    Args:
        fields: The record's fields.
        more: Parameters of the statement that stores it, see `statements.store_task`.
        request: The task's request; None where a state is stored without one.
        status: Its state.
        result: Its result, as `encode_result` made it.
        at: When it came to this state, by the monotonic clock; now if None.
        message: What its exception says of itself, where that is known.
    """
    error = None
    if status in _FAILED:
        error = error_of(result)
        if error is not None:
            if message is not None:
                error["message"] = _short(message)
            fields["error"] = error
    elif status not in states.READY_STATES and isinstance(result, Mapping):
        progress = progress_of(result)
        if progress is not None:
            fields["progress"] = progress
    given = celery_compat.request_fields(request)
    if not given:
        return
    _add_times(fields, more, given, status, at)
    _add_labels(fields, given)
    retries = given.get("retries")
    if status == states.RETRY:
        attempt = {"error": error, "worker": given.get("hostname"), "retries": retries}
        more["a"] = Pairs({name: _short(value) for name, value in attempt.items() if value is not None})
    elif retries and isinstance(retries, int) and retries > 0:
        more["k"] = True


def _add_times(
    fields: dict[str, Any], more: dict[str, Any], given: Mapping[str, Any], status: str, at: float | None
) -> None:
    # What runs eagerly was not sent; the header is that of the task that called it.
    sent = due = None if given.get("is_eager") else _seconds(given.get(SENT_AT))
    if sent is not None:
        fields["sent_at"] = datetime.fromtimestamp(sent, timezone.utc)
    queued = given.get(QUEUED_AT)
    if queued is not None and sent is not None:
        due = _seconds(queued) or sent
    eta = given.get("eta")
    if eta is not None:
        eta = _time(eta)
        if eta is not None:
            fields["eta"] = eta
            due = max(due or 0.0, eta.timestamp())
    started = given.get(_STARTED)
    if started is None:
        return
    monotonic, clock = started
    now = time.monotonic()
    more["s"] = timedelta(seconds=max(now - monotonic, 1e-6))
    if status in states.READY_STATES:
        fields["runtime"] = (now if at is None else at) - monotonic
    if due is not None:
        waited = clock - due
        fields["queue_time"] = max(waited, 0.0)
        if waited < 0 and (eta is None or waited < -1):
            fields["clock_skew"] = -waited


def _add_labels(fields: dict[str, Any], given: Mapping[str, Any]) -> None:
    # A dict first: whether something is a Mapping takes a call.
    delivery = given.get("delivery_info")
    priority = delivery.get("priority") if isinstance(delivery, (dict, Mapping)) else None
    if isinstance(priority, int) and priority in INTEGERS:
        fields["priority"] = priority
    name = given.get("periodic_task_name")
    if name is None:
        properties = given.get("properties")
        if properties and isinstance(properties, (dict, Mapping)):
            name = properties.get("periodic_task_name")  # django-celery-beat's
    if isinstance(name, str):
        fields["periodic_task_name"] = _short(name)
    retry_of = given.get("retry_of")
    if isinstance(retry_of, str):
        fields["retry_of"] = _short(retry_of)
    tags = given.get("tags")
    if isinstance(tags, str):
        fields["tags"] = [_short(tags)]
    elif isinstance(tags, (list, tuple, set)):
        fields["tags"] = [_short(tag) for tag in tags if isinstance(tag, str)]
    meta = given.get("meta")
    if meta is not None:
        kept = native(meta)
        if kept is None:
            kept = native(_as_texts(meta))
        if kept is not None:
            fields["meta"] = kept


def error_of(result: Any) -> dict[str, str] | None:
    """Name an error as `type`, `module` and `message`.

    Args:
        result: An exception as `encode_result` returned it: a dict, or the exception itself.
    """
    if isinstance(result, Mapping) and "exc_type" in result:
        kind, module, args = result.get("exc_type"), result.get("exc_module"), result.get("exc_message")
        message = _of_arguments(args) if isinstance(args, (list, tuple)) else str(args)
        return {"type": _short(str(kind)), "module": _short(str(module or "")), "message": _short(message)}
    if isinstance(result, BaseException):
        kind = getattr(result, "exc_cls_name", None) or type(result).__qualname__
        module = getattr(result, "exc_module", None) or type(result).__module__
        said = message_of(result, states.FAILURE)
        said = _of_arguments(result.args) if said is None else said
        return {"type": _short(str(kind)), "module": _short(str(module)), "message": _short(said)}
    return None


def _of_arguments(args: Any) -> str:
    # As most exceptions say it.
    return str(args[0]) if len(args) == 1 else str(tuple(args)) if args else ""


def message_of(result: Any, status: str) -> str | None:
    """Return what an exception says of itself, which its arguments alone do not tell: `[Errno 2] No such file`.

    Args:
        result: What a task returned or raised.
        status: Its state.

    Returns:
        None where it is no failure, or cannot say it.
    """
    if status not in _FAILED or not isinstance(result, BaseException):
        return None
    try:
        said = str(result)
    except Exception:  # somebody's own __str__
        return None
    # Some say their name and arguments, such as Celery's time limits.
    return None if said.startswith(f"{type(result).__name__}(") else said


def progress_of(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Tell how far a task is, by the convention of `current`, `total` and `message`.

    Args:
        meta: The meta given to `update_state`.
    """
    found: dict[str, Any] = {}
    for name in ("current", "total"):
        value = meta.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and native(value) is not None:
            found[name] = value
    if "current" not in found:
        return None
    if isinstance(meta.get("message"), str):
        found["message"] = _short(meta["message"])
    return found


def _as_texts(value: Any, depth: int = DEEPEST) -> Any:
    """A sender's value with texts for what is no value of JSON's types; what is no plain value stays.

    Args:
        value: The value.
        depth: How many levels of containers are looked into.
    """
    if isinstance(value, (datetime, date, time_of_day)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)) or (isinstance(value, (int, float)) and native(value) is None):
        return str(value)
    if isinstance(value, str):
        return _clean(value)
    if depth and isinstance(value, Mapping):
        return {_clean(str(key)): _as_texts(member, depth - 1) for key, member in value.items()}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_as_texts(item, depth - 1) for item in value]
    return value


def _short(value: Any) -> Any:
    return _clean(value)[:LONGEST] if isinstance(value, str) else value


def _clean(text: str) -> str:
    # SurrealDB 2 cannot read a NUL byte again, and UTF-8 has no half of a surrogate pair.
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _seconds(value: Any) -> float | None:
    # Within Python's and SurrealDB's calendars.
    return float(value) if type(value) in (int, float) and 0 < value < 2e11 else None


def _time(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
