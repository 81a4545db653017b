"""Records of the task table as the typed API's dataclasses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from celery import states

from ..native import decoded, is_native
from ..redaction import shows_redaction
from .model import Attempt, Progress, TaskDetail, TaskError, TaskSummary

#: Where records of older versions have the class and the text of an exception: in the encoded result.
_OLD_TYPE = re.compile(r'"exc_type": "([^"\\]{1,200})"')
_OLD_MODULE = re.compile(r'"exc_module": "([^"\\]{1,200})"')
_OLD_MESSAGE = re.compile(r'"exc_message": (?:\[)?"((?:[^"\\]|\\.)*)')
#: States with an exception.
_WITH_ERROR = frozenset({states.FAILURE, states.RETRY})


class Decoder(Protocol):
    """Celery's backend, which decodes encoded fields."""

    def decode_as(self, payload: str | bytes, content_type: str) -> Any:
        """Decode what was encoded with a serializer.

        Args:
            payload: The encoded value.
            content_type: The content type stored beside it.
        """
        ...  # pragma: no cover


def summary(fields: Mapping[str, Any]) -> TaskSummary:
    """Make a summary of the fields that a list has.

    Args:
        fields: Those of :data:`~.statements.SUMMARY_FIELDS` and the beginnings of the encoded ones.
    """
    return TaskSummary(**_native(fields), **_previews(fields), error=_error(fields))


def detail(fields: Mapping[str, Any], decoder: Decoder) -> TaskDetail:
    """Make all that is known of a task from its record.

    Args:
        fields: The record's fields, by name.
        decoder: Decodes encoded fields.
    """
    encoding = fields.get("encoding") or ""
    unreadable: dict[str, str] = {}

    def decode(field: str) -> Any:
        value: Any = fields.get(field)
        if value is None or not (isinstance(value, (str, bytes)) or is_native(encoding)):
            return value
        try:
            return decoder.decode_as(value, encoding)
        except Exception as exc:  # a serializer may raise anything: the other fields can be read
            unreadable[field] = f"{type(exc).__name__}: {exc}"
            return None

    args, kwargs, result = decode("args"), decode("kwargs"), decode("result")
    redacted = fields.get("args_redacted") is True or shows_redaction(args) or shows_redaction(kwargs)
    stamps, children = decode("stamps"), decode("children")
    state = str(fields.get("status"))
    known = {**_native(fields), **_previews(fields), "error": _error(fields)}
    if known["error"] is None and state in _WITH_ERROR and isinstance(result, Mapping):
        known["error"] = _error_of_result(result)
    ready = state in states.READY_STATES
    meta = None
    if not ready or state in _WITH_ERROR:
        meta, result = (None if state in _WITH_ERROR else result), None
    if fields.get("meta") is not None:
        meta = fields["meta"]
    if known["progress"] is None and not ready:
        known["progress"] = _progress(meta)
    return TaskDetail(
        **known,
        args=args,
        kwargs=kwargs,
        args_kept=not redacted and _args_kept(fields, args, kwargs, unreadable),
        args_redacted=redacted,
        result=result,
        traceback=_traceback(fields, decoder),
        attempts=tuple(_attempts(fields.get("attempts"))),
        children=tuple(dict.fromkeys(ids_in(children))),
        meta=meta,
        stamps=stamps if isinstance(stamps, Mapping) else {},
        unreadable=unreadable,
        expires_in=_seconds_left(fields),
    )


def ids_in(children: Any) -> Iterator[str]:
    """The ids of the tasks in what Celery keeps of a task's children: results as nested tuples."""
    for own, members in _results(children):
        if members is not None:
            yield from ids_in(members)
        elif own is not None:
            yield own


def groups_in(children: Any) -> Iterator[str]:
    """The ids of the groups in what Celery keeps of a task's children."""
    for own, members in _results(children):
        if members is not None:
            if own is not None:
                yield own
            yield from groups_in(members)


def _results(children: Any) -> Iterator[tuple[str | None, Any]]:
    """The id of each result, and the members of a group; None of a task."""
    if not isinstance(children, (list, tuple)):
        return
    for child in children:
        # ((id, parent), None) of a task, ((id, parent), [results]) of a group.
        if not isinstance(child, (list, tuple)) or len(child) != 2 or not isinstance(child[0], (list, tuple)):
            continue
        own, members = child
        name = own[0] if own and isinstance(own[0], str) else None
        yield name, members if isinstance(members, (list, tuple)) else None


def _native(fields: Mapping[str, Any]) -> dict[str, Any]:
    get = fields.get
    return {
        "id": str(get("task_id")),
        "state": str(get("status")),
        "name": _text(get("name")),
        "worker": _text(get("worker")),
        "queue": _text(get("queue")),
        "retries": _of_type(get("retries"), int),
        "sent_at": _of_type(get("sent_at"), datetime),
        "started_at": _of_type(get("started_at"), datetime),
        "date_done": _of_type(get("date_done"), datetime),
        "eta": _of_type(get("eta"), datetime),
        "expires_at": _of_type(get("expires_at"), datetime),
        "runtime": _number(get("runtime")),
        "queue_time": _number(get("queue_time")),
        "clock_skew": _number(get("clock_skew")),
        "progress": _progress(get("progress")),
        "group_id": _text(get("group_id")),
        "parent_id": _text(get("parent_id")),
        "root_id": _text(get("root_id")),
        "retry_of": _text(get("retry_of")),
        "periodic_task_name": _text(get("periodic_task_name")),
        "priority": _of_type(get("priority"), int),
        "tags": tuple(str(tag) for tag in _of_type(get("tags"), list) or ()),
    }


def _previews(fields: Mapping[str, Any]) -> dict[str, Any]:
    previews: dict[str, Any] = {}
    for field in ("args", "kwargs", "result"):
        value = fields.get(field)
        encoding = fields.get("encoding") or ""
        if is_native(encoding) and (value is not None or field == "result"):
            # Of a large record the database gives the beginning of a list or an object, as its own text.
            cut = isinstance(value, str) and value[:1] in "{[" and fields.get("size")
            value = value if cut else json.dumps(decoded(value, encoding), ensure_ascii=False, default=str)
        previews[f"{field}_text"] = value[:200] if isinstance(value, str) else None
    return previews


def _error(fields: Mapping[str, Any]) -> TaskError | None:
    error = fields.get("error")
    if isinstance(error, Mapping):
        return _error_of(error.get("type"), error.get("module"), error.get("message"))
    result = fields.get("result")
    if str(fields.get("status")) in _WITH_ERROR and isinstance(result, str):
        found, module, message = (each.search(result) for each in (_OLD_TYPE, _OLD_MODULE, _OLD_MESSAGE))
        return _error_of(found and found[1], module and module[1], message and message[1])
    return None


def _error_of_result(result: Mapping[str, Any]) -> TaskError | None:
    message = result.get("exc_message")
    if isinstance(message, (list, tuple)):
        message = message[0] if len(message) == 1 else ", ".join(map(str, message))
    return _error_of(result.get("exc_type"), result.get("exc_module"), message)


def _error_of(name: Any, module: Any, message: Any) -> TaskError | None:
    return TaskError(str(name), str(module or ""), "" if message is None else str(message)) if name else None


def _progress(value: Any) -> Progress | None:
    if not isinstance(value, Mapping) or not {"current", "total"} & set(value):
        return None
    return Progress(_number(value.get("current")), _number(value.get("total")), _text(value.get("message")))


def _attempts(value: Any) -> Iterator[Attempt]:
    stored = [each for each in value if isinstance(each, Mapping)] if isinstance(value, (list, tuple)) else []
    # A retry is sent before its state is stored: on a busy host the next run may be stored first.
    for each in sorted(stored, key=lambda attempt: _number(attempt.get("retries")) or 0):
        error = each.get("error")
        known = (
            _error_of(error.get("type"), error.get("module"), error.get("message"))
            if isinstance(error, Mapping)
            else None
        )
        yield Attempt(_of_type(each.get("at"), datetime), known, _text(each.get("worker")))


def _args_kept(fields: Mapping[str, Any], args: Any, kwargs: Any, unreadable: Mapping[str, str]) -> bool:
    if fields.get("args") is None or fields.get("kwargs") is None:
        return False
    # Text is what a sender without the arguments themselves has stored of them.
    if isinstance(args, str) or isinstance(kwargs, str):
        return False
    return not {"args", "kwargs"} & set(unreadable)


def _traceback(fields: Mapping[str, Any], decoder: Decoder) -> str | None:
    value = fields.get("traceback")
    if isinstance(value, list) and value:
        # A text that SurrealDB has no form for is kept encoded, in a list of one.
        try:
            value = decoder.decode_as(value[0], fields.get("encoding") or "")
        except Exception:  # a serializer may raise anything
            return None
    return None if value is None else str(value)


def _seconds_left(fields: Mapping[str, Any]) -> float | None:
    if fields.get("expires_at") is None or not isinstance(fields.get("micros_left"), int):
        return None
    return float(fields["micros_left"]) / 1e6


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError):
        return None


def _of_type(value: Any, kind: Callable[..., Any]) -> Any:
    return value if isinstance(kind, type) and isinstance(value, kind) else None
