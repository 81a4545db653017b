"""Celery's result meta as a SurrealDB record, and back, without loss.

A record has two kinds of fields. What people ask for (status, name, worker, dates…) is native, so that
SurrealQL can filter by it. What must come back exactly as Celery gave it (result, args, kwargs, children)
holds what Celery's serializer made of it: text for json and yaml, bytes for pickle, msgpack and anything
compressed, with ``encoding`` (the content type) beside it, so that a record is readable after
``result_serializer`` changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import Any, Protocol
from uuid import UUID

from kombu.utils.encoding import bytes_to_str

from .errors import UnstorableValue
from .values import INTEGERS, RecordID

#: Fields of Celery's extended meta (``result_extended``), besides the stamps.
EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")
#: What a meta holds besides the stamps, which Celery puts beside the rest.
_META_KEYS = frozenset(
    {"status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id", *EXTENDED}
)
#: Fields that hold an encoded value.
_ENCODED = frozenset({"args", "kwargs"})


class Codec(Protocol):
    """How Celery's backend turns values into text or bytes."""

    #: The content type of what :meth:`encode` makes.
    content_type: str

    def encode(self, data: Any) -> str | bytes:
        """Serialise, and compress where that is set."""
        ...  # pragma: no cover

    def decode_as(self, payload: str | bytes, content_type: str) -> Any:
        """Undo :meth:`encode`, whatever the serializer was then."""
        ...  # pragma: no cover


def identifier(what: str, value: Any) -> str:
    """An id as the text that stands in a record id.

    :param what: what the id is of, for the message: ``task_id``, ``group_id``.
    :raises ValueError: it is empty.
    :raises UnstorableValue: it holds what SurrealDB 2 cannot read back (NUL) or UTF-8 cannot hold.
    """
    if not value:
        raise ValueError(f"{what} must not be empty. Got {value} instead.")
    text = str(value) if isinstance(value, UUID) else bytes_to_str(value)
    if not isinstance(text, str):
        text = str(text)
    if not _plain(text):
        raise UnstorableValue(f"{what} {text!r} holds a NUL byte or half a surrogate pair; use another id")
    return text


def _plain(text: str) -> bool:
    """Whether every engine stores this text and gives it back (DESIGN 4.7)."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class TaskRecords:
    """Builds and reads the records of the task table.

    :param codec: the backend.
    :param table: the table's name, prefix included.
    :param zone: the app's time zone, in which Celery gives ``date_done``.
    """

    codec: Codec
    table: str
    zone: tzinfo

    def record_id(self, task_id: Any) -> RecordID:
        """The record id of a task."""
        return RecordID(self.table, identifier("task_id", task_id))

    def from_meta(
        self, task_id: Any, meta: Mapping[str, Any], *, request: Any = None, expires_at: datetime | None = None
    ) -> dict[str, Any]:
        """The record of one result.

        :param meta: Celery's meta, its ``result`` already through ``encode_result``, ``date_done`` a datetime.
        :param request: the task's request, for what the meta leaves out.
        :param expires_at: when the result may be forgotten; None for never.
        """
        codec = self.codec
        record: dict[str, Any] = {
            "task_id": identifier("task_id", task_id),
            "status": meta["status"],
            "result": codec.encode(meta["result"]),
            "encoding": codec.content_type,
        }
        children = meta.get("children")
        if children is not None:
            # The usual empty list needs no serializer.
            record["children"] = codec.encode(children) if children else []
        if isinstance(meta.get("date_done"), datetime):
            record["date_done"] = meta["date_done"].astimezone(timezone.utc)
        if expires_at is not None:
            record["expires_at"] = expires_at
        for field in ("traceback", "group_id", "parent_id"):
            if meta.get(field) is not None:
                record[field] = self._native(meta[field])
        if "retries" in meta:
            record["extended"] = True
            for field in EXTENDED:
                value = meta.get(field)
                if field in _ENCODED:
                    record[field] = codec.encode(value)
                elif value is not None:
                    record[field] = self._native(value)
            stamps = {key: value for key, value in meta.items() if key not in _META_KEYS}
            if stamps:
                record["stamps"] = codec.encode(stamps)
        if request is not None:
            for field in ("root_id", "reply_to"):
                value = getattr(request, field, None)
                # Not of Celery's meta: whatever is there, a store does not fail for it.
                if isinstance(value, (str, UUID)) and _plain(str(value)):
                    record[field] = str(value)
        return record

    def to_meta(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Celery's meta from a record, with the result decoded but not yet an exception.

        :param fields: :data:`~.statements.TASK_FIELDS`; those that are NONE may be missing.
        """
        decode = self.codec.decode_as
        encoding = fields["encoding"]
        children = fields.get("children")
        done = fields.get("date_done")
        meta: dict[str, Any] = {
            "status": fields.get("status"),
            "result": decode(fields["result"], encoding),
            "traceback": self._python(fields.get("traceback"), encoding),
            "children": decode(children, encoding) if isinstance(children, (str, bytes)) else children,
            "date_done": done.astimezone(self.zone).isoformat() if done else None,
            "task_id": fields["task_id"],
        }
        for field in ("group_id", "parent_id"):
            value = self._python(fields.get(field), encoding)
            if value is not None:
                meta[field] = value
        if fields.get("extended"):
            for field in EXTENDED:
                value = fields.get(field)
                if field in _ENCODED:
                    meta[field] = decode(value, encoding) if isinstance(value, (str, bytes)) else None
                else:
                    meta[field] = self._python(value, encoding)
            if fields.get("stamps"):
                meta.update(decode(fields["stamps"], encoding))
        return meta

    def _native(self, value: Any) -> Any:
        """A value as a native field where that is lossless, else encoded and in a list of one."""
        if isinstance(value, str) and type(value) is str and _plain(value):
            return value
        if type(value) is int and value in INTEGERS:
            return value
        if isinstance(value, str) and _plain(value):
            return str(value)  # a lazy or marked-up text
        return [self.codec.encode(value)]

    def _python(self, value: Any, encoding: str) -> Any:
        if isinstance(value, list):
            return self.codec.decode_as(value[0], encoding)
        return value
