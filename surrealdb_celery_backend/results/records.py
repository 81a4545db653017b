"""Celery's result meta as a SurrealDB record, and back, without loss.

A record has two kinds of fields. Fields to search by (status, name, worker, dates…) are native, so that
SurrealQL can filter by them. Values that must come back exactly as Celery gave them (result, args, kwargs, children)
holds what Celery's serializer made of it: text for json and yaml, bytes for pickle, msgpack and anything
compressed, with ``encoding`` (the content type) beside it, so that a record is readable after
``result_serializer`` changed. Where ``encoding`` begins with ``native``, these are native too (native.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Protocol
from uuid import UUID

from celery import states
from kombu.utils.encoding import bytes_to_str

from ..client.values import INTEGERS, ForeignValue, Pairs, RecordID
from ..errors import UnreadableRecord, UnreadableResult, UnstorableValue
from .addresses import address_of
from .life import add_life
from .native import is_native, plain
from .retention import Lifetime
from .runs import run_of

#: Fields of Celery's extended meta (``result_extended``), besides the stamps.
EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")
#: The fields of a meta besides the stamps, which Celery puts beside the rest.
_META_KEYS = frozenset(
    {"status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id", *EXTENDED}
)
#: Fields of a meta that are native where that is lossless, and left out where they are None.
_NATIVE = ("traceback", "group_id", "parent_id")
#: Fields that hold an encoded value.
_ENCODED = frozenset({"args", "kwargs"})
#: Fields that can be large, and up to how many characters or bytes all of them together are small. A larger record
#: says how large it is, so that a reader can ask for no more at once than it can take.
_HEAVY = ("result", "traceback", "args", "kwargs", "children", "stamps")
SMALL = 4096
#: Fields without which there is no meta, or that must be of one kind, whatever else a person wrote into the record.
_KINDS: tuple[tuple[str, Any], ...] = (
    ("task_id", str),
    ("status", (str, type(None))),  # store_result() takes a state of None
    ("encoding", str),
    ("date_done", (datetime, type(None))),
)


class UnsentRecord(dict[str, Any]):
    """Stands for the record of a task that the server cannot send: whoever decodes it is told so.

    Nothing is known of the task but that it is not read by waiting longer, so it counts as ended.

    Args:
        task_id: The task's id.
        error: The exception that says why.
    """

    def __init__(self, task_id: str, error: UnreadableRecord) -> None:
        super().__init__(task_id=task_id, status=states.FAILURE)
        self.error = error


class Codec(Protocol):
    """How Celery's backend turns values into text or bytes."""

    #: The content type of what :meth:`encode` makes.
    content_type: str

    def encode(self, data: Any) -> str | bytes:
        """Serialise, and compress where that is set."""
        ...  # pragma: no cover

    def decode_as(self, payload: str | bytes, content_type: str) -> Any:
        """Undo :meth:`encode`, whatever the serializer was then.

        Args:
            payload: The encoded value.
            content_type: The content type stored beside it.
        """
        ...  # pragma: no cover


def identifier(what: str, value: Any) -> str:
    """An id as the text that stands in a record id.

    Args:
        what: The kind of id, for the message: `task_id`, `group_id`.
        value: The id as Celery passes it: text, bytes or a UUID.

    Returns:
        The id as text.

    Raises:
        ValueError: The id is empty.
        UnstorableValue: The id holds NUL, which SurrealDB 2 cannot read back, or half a surrogate pair, which UTF-8
            cannot hold.
    """
    if type(value) is str and value and value.isascii() and "\x00" not in value:
        return value
    if not value:
        raise ValueError(f"{what} must not be empty. Got {value} instead.")
    text = str(value) if isinstance(value, UUID) else bytes_to_str(value)
    if not isinstance(text, str):
        text = str(text)
    if not plain(text):
        raise UnstorableValue(f"{what} {text!r} holds a NUL byte or half a surrogate pair; use another id")
    return text


@dataclass
class TaskRecord:
    """A task's record on its way into the database.

    Attributes:
        id: Where it goes.
        fields: Its fields, without those that the database adds.
        more: What it adds them from, by the names of the parameters of `statements.store_task`: durations that it
            counts from its own time above all.
    """

    id: RecordID
    fields: dict[str, Any]
    more: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements that store a task."""
        return {"r": self.id, "t": Pairs(self.fields), **self.more}


@dataclass(frozen=True)
class TaskRecords:
    """Builds and reads the records of the task table.

    Attributes:
        codec: The backend, which encodes and decodes values.
        table: The table's name, prefix included.
        zone: The app's time zone, in which Celery gives `date_done`.
    """

    codec: Codec
    table: str
    zone: tzinfo

    def record_id(self, task_id: Any) -> RecordID:
        """The record id of a task.

        Args:
            task_id: The task's id.
        """
        return RecordID(self.table, identifier("task_id", task_id))

    def from_meta(
        self,
        task_id: Any,
        meta: Mapping[str, Any],
        *,
        request: Any = None,
        kept: Lifetime = Lifetime(None),
        ended: timedelta | None = None,
        at: float | None = None,
        redacted: bool = False,
        message: str | None = None,
    ) -> TaskRecord:
        """Build the record of one result.

        Args:
            task_id: The task's id.
            meta: Celery's meta, its `result` already through `encode_result`. Its date is left out.
            request: The task's request, for what the meta leaves out.
            kept: How long.
            ended: How long ago the task ended; None where it has not, or ends now.
            at: When the task came to this state, by the monotonic clock; now if None.
            redacted: Whether the meta's arguments are not those that the task was called with.
            message: What the task's exception says of itself, where that is known.
        """
        codec = self.codec
        record_id = self.record_id(task_id)
        status: str = meta["status"]
        record: dict[str, Any] = {
            "task_id": record_id.id,
            "status": status,
            "result": codec.encode(meta["result"]),
            "encoding": codec.content_type,
        }
        more: dict[str, Any] = {}
        children = meta.get("children")
        if children is not None:
            # The usual empty list needs no serializer.
            record["children"] = codec.encode(children) if children else []
        self._add_native(record, meta)
        if request is not None:
            _add_origin(record, request)
        run = None if status == states.SUCCESS else run_of(request)
        if run is not None:
            more["u"] = run
        _add_size(record)
        if redacted:
            record["args_redacted"] = True
        if kept.own:
            record["own_expires"] = True
        if kept.name is not None:
            record["name"] = kept.name
        add_life(record, more, request, status, meta["result"], at, message)
        if kept.duration is not None:
            more["l"] = kept.duration
        if ended:
            more["e"] = ended
        return TaskRecord(record_id, record, more)

    def _add_native(self, record: dict[str, Any], meta: Mapping[str, Any]) -> None:
        for field in _NATIVE:
            value = meta.get(field)
            if value is not None:
                record[field] = self._native(value)
        if "retries" in meta:
            self._add_extended(record, meta)

    def _add_extended(self, record: dict[str, Any], meta: Mapping[str, Any]) -> None:
        """Add the fields of `result_extended` to a record: the task's name, its arguments and its stamps."""
        record["extended"] = True
        for field in EXTENDED:
            value = meta.get(field)
            if field in _ENCODED:
                record[field] = self.codec.encode(value)
            elif value is not None:
                record[field] = self._native(value)
        stamps = {key: value for key, value in meta.items() if key not in _META_KEYS}
        if stamps:
            record["stamps"] = self.codec.encode(stamps)

    def to_meta(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Celery's meta from a record, with the result decoded but not yet an exception.

        Args:
            fields: The record, with any other fields; those that are NONE may be missing.

        Returns:
            The meta.

        Raises:
            UnreadableResult: Version 0.3.0 wrote it, or somebody wrote a value into it that no result has.
            UnreadableRecord: Somebody wrote a value into it that the server cannot send.
        """
        _check_kinds(fields)
        decode = self.codec.decode_as
        encoding = fields["encoding"]
        children = fields.get("children")
        done = fields.get("date_done")
        traceback = fields.get("traceback")
        meta: dict[str, Any] = {
            "status": fields.get("status"),
            "result": decode(fields["result"], encoding),
            "traceback": traceback if traceback is None else self._python(traceback, encoding),
            "children": decode(children, encoding) if isinstance(children, (str, bytes)) else children,
            "date_done": done.astimezone(self.zone).isoformat() if done else None,
            "task_id": fields["task_id"],
        }
        for field in ("group_id", "parent_id"):
            value = fields.get(field)
            if value is not None:
                meta[field] = self._python(value, encoding)
        if fields.get("extended"):
            for field in EXTENDED:
                value = fields.get(field)
                if field in _ENCODED:
                    kept: Any = value if isinstance(value, (str, bytes)) or is_native(encoding) else None
                    meta[field] = None if kept is None else decode(kept, encoding)
                else:
                    meta[field] = self._python(value, encoding)
            if fields.get("stamps"):
                meta.update(decode(fields["stamps"], encoding))
        return meta

    def _native(self, value: Any) -> Any:
        """A value as a native field where that is lossless, else encoded and in a list of one."""
        if isinstance(value, str) and type(value) is str and plain(value):
            return value
        if type(value) is int and value in INTEGERS:
            return value
        if isinstance(value, str) and plain(value):
            return str(value)  # a lazy or marked-up text
        return [self.codec.encode(value)]

    def _python(self, value: Any, encoding: str) -> Any:
        if isinstance(value, list):
            return self.codec.decode_as(value[0], encoding)
        return value


def _check_kinds(fields: Mapping[str, Any]) -> None:
    """Raise if Celery's meta cannot be made of a record, because of what a person wrote into it or an old version."""
    if type(fields) is UnsentRecord:
        raise UnreadableRecord(str(fields.error)) from fields.error  # several threads may decode it
    for name, value in fields.items():
        if type(value) is ForeignValue:
            raise _by_hand(fields, name, f"a SurrealDB {value.kind}")
    if fields.get("encoding") is None:
        raise UnreadableResult(
            "the record of this task was written by version 0.3.0 of this package, or by hand: migrate such records "
            "with celery surrealdb schema --apply"
        )
    for name, kind in _KINDS:
        value = fields.get(name)
        if not isinstance(value, kind):
            raise _by_hand(fields, name, "nothing" if value is None else f"a value of type {type(value).__name__}")
    if "result" not in fields:
        raise _by_hand(fields, "result", "nothing")


def _by_hand(fields: Mapping[str, Any], name: str, what: str) -> UnreadableResult:
    return UnreadableResult(
        f"the record of task {fields.get('task_id')!r} has {what} in its field {name!r}, "
        "which no result has: somebody wrote it by hand; forget the result, or set the field again"
    )


def _add_size(record: dict[str, Any]) -> None:
    size = 0
    for field in _HEAVY:
        value = record.get(field)
        if isinstance(value, (str, bytes)):
            size += len(value)
    if size > SMALL:
        record["size"] = size


def _add_origin(record: dict[str, Any], request: Any) -> None:
    """Add what Celery's meta leaves out: the id of the workflow's root, and the address that the result is for."""
    for field, value in (("root_id", getattr(request, "root_id", None)), ("reply_to", address_of(request))):
        # No part of Celery's meta: a store never fails for them.
        if type(value) is str and value.isascii() and "\x00" not in value:
            record[field] = value
        elif isinstance(value, (str, UUID)) and plain(str(value)):
            record[field] = str(value)
