"""The key/value interface of Celery's base class, which other code of Celery's world may call.

Celery's own code does not come here: the backend replaces its callers. The key of a task or a group leads to its
record, any other to the table `key`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain
from typing import Any, Protocol

from celery import states
from celery.utils.log import get_logger
from kombu.utils.encoding import bytes_to_str

from ..client.connection import Connection
from ..client.unreadable import readable
from ..client.values import RecordID
from ..errors import UnreadableRecord, UnreadableResult
from . import statements
from .expiry import lifetime
from .records import Codec, TaskRecords, identifier
from .replies import check_deleted, check_stored, check_updated
from .retention import Retention

logger = get_logger(__name__)

#: A record of a table, and the value that it is of a key.
_Read = Callable[[Any], tuple[str, Any]]


class KeyCodec(Codec, Protocol):
    """Encodes and decodes values."""

    def decode(self, payload: Any) -> Any:
        """Undo `encode`.

        Args:
            payload: The encoded value.
        """
        ...  # pragma: no cover


@dataclass(frozen=True)
class KeyKind:
    """Keys of one kind.

    Attributes:
        name: The name of their table, without the tables' prefix: `task`, `group` or `key`.
        table: The table's full name.
        prefix: How they begin; empty for `key`, which has all others.
    """

    name: str
    table: str
    prefix: str = ""


class KeyValueStore:
    """Keys and values.

    Args:
        connection: Where they are.
        kinds: The keys of tasks and of groups, and at last all others.
        codec: Encodes and decodes values.
        tasks: Builds and reads the records of tasks.
        retention: How long records are kept.
    """

    def __init__(
        self,
        connection: Connection,
        kinds: Iterable[KeyKind],
        codec: KeyCodec,
        tasks: TaskRecords,
        retention: Retention,
    ) -> None:
        self._connection = connection
        self._kinds = tuple(kinds)
        self._codec = codec
        self._tasks = tasks
        self._retention = retention
        self._readers: dict[str, tuple[str, _Read]] = {
            statements.TASK: (statements.FETCH_TASKS, self._read_task),
            statements.GROUP: (statements.FETCH_GROUPS, self._read_group),
            statements.KEY: (statements.FETCH_KEYS, tuple),
        }

    def _read_task(self, fields: Any) -> tuple[str, Any]:
        return fields["task_id"], self._codec.encode(self._tasks.to_meta(fields))

    def _read_group(self, values: Any) -> tuple[str, Any]:
        group_id, shape, encoding = values
        return group_id, self._codec.encode({"result": self._codec.decode_as(shape, encoding)})

    def _places_of(self, key: Any) -> list[tuple[str, RecordID]]:
        """Where a key's value may be: its task or group, and the table of plain keys, which comes last."""
        text = bytes_to_str(key)
        return [
            (kind.name, RecordID(kind.table, identifier("key", text.removeprefix(kind.prefix))))
            for kind in self._kinds
            if text.startswith(kind.prefix) and text != kind.prefix
        ]

    def mget(self, keys: Iterable[Any]) -> list[Any]:
        """Read the values of keys, in one round trip a table.

        Args:
            keys: Texts or bytes.

        Returns:
            The values in the keys' order; None where there is none, and, with a line in the log, where one of several
            cannot be read.

        Raises:
            UnreadableRecord: The server cannot send the value of the only key.
            UnreadableResult: It cannot be decoded.
        """
        places = [self._places_of(key) for key in keys]
        alone = len(places) == 1
        by_kind: dict[str, list[RecordID]] = {}
        for kind, record in (place for of_one_key in places for place in of_one_key):
            by_kind.setdefault(kind, []).append(record)
        found: dict[tuple[str, str], Any] = {}
        for kind, records in by_kind.items():
            found.update(((kind, name), value) for name, value in self._values(kind, records, alone=alone))
        return [
            next((found[kind, str(record.id)] for kind, record in of_one_key if (kind, str(record.id)) in found), None)
            for of_one_key in places
        ]

    def _values(self, kind: str, records: Sequence[RecordID], *, alone: bool) -> Iterator[tuple[str, Any]]:
        """Read records of one table. What somebody wrote into one by hand does not concern the others."""
        text, read = self._readers[kind]

        def ask(some: Sequence[RecordID]) -> Any:
            return self._connection.run(text, records=some) or ()

        def leave_out(record: RecordID, error: UnreadableRecord) -> None:
            if alone:
                raise UnreadableRecord(f"the value of key {record.id!r} cannot be read: {error}") from error
            logger.warning("key %r is left out: %s", record.id, error)

        for stored in chain.from_iterable(readable(ask, records, leave_out)):
            try:
                name, value = read(stored)
            except UnreadableResult as exc:
                if alone:
                    raise
                logger.warning("a key is left out: %s", exc)
            else:
                if isinstance(name, str):
                    yield name, value

    def set(self, key: Any, value: Any) -> None:
        """Set the value of a key, or replace it. An encoded task or group becomes its record.

        Args:
            key: Text or bytes.
            value: Text, bytes or a number.

        Raises:
            PermissionDenied: The user may not.
        """
        *special, (_, plain) = self._places_of(key)
        decoded = self._decoded(value) if special else {}
        for kind, record in special:
            if kind == statements.TASK and "status" in decoded:
                self._replace_task(record, decoded)
                return
            if kind == statements.GROUP and "result" in decoded:
                fields = {"group_id": record.id, "result": self._codec.encode(decoded["result"])}
                self._store(record, fields | {"encoding": self._codec.content_type})
                return
        self._store(plain, {"key": plain.id, "value": value})

    def _replace_task(self, record: RecordID, meta: dict[str, Any]) -> None:
        done = meta.get("date_done")
        done = datetime.fromisoformat(done) if isinstance(done, str) else done
        kept = self._retention.lifetime(meta["status"])
        task = self._tasks.from_meta(record.id, {"result": None, **meta, "date_done": done}, kept=kept)
        if done:
            task.fields["date_done"] = done.astimezone(timezone.utc)
        check_stored(
            self._connection.run(statements.replace_task(tuple(task.more)), **task.parameters), record.table_name
        )

    def _store(self, record: RecordID, fields: dict[str, Any]) -> None:
        seconds = self._retention.lifetime(states.SUCCESS).seconds
        stored = self._connection.run(statements.STORE, record=record, fields=fields, lifetime=lifetime(seconds))
        check_stored(stored, record.table_name)

    def _decoded(self, value: Any) -> dict[str, Any]:
        """Return the content of an encoded value; nothing where it is not one of ours."""
        try:
            decoded = self._codec.decode(value)
        except Exception:  # a plain value: any text
            return {}
        return decoded if isinstance(decoded, dict) else {}

    def delete(self, key: Any) -> None:
        """Delete a key, if it is there.

        Args:
            key: Text or bytes.

        Raises:
            PermissionDenied: The user may not.
        """
        records = [record for _, record in self._places_of(key)]
        check_deleted(self._connection.run(statements.DELETE, records=records), records[0].table_name)

    def increment(self, key: Any) -> int:
        """Add one to a key's value.

        Args:
            key: Text or bytes.

        Returns:
            The new value.

        Raises:
            PermissionDenied: The user may not.
        """
        record = self._places_of(key)[-1][1]
        text = statements.INCREMENT
        [values] = self._connection.run_all(text, record=record, key=record.id, repeatable=False)
        check_stored(values, record.table_name)
        return int(values[0])

    def expire(self, key: Any, seconds: float | None) -> None:
        """Let a key end, if it is there.

        Args:
            key: Text or bytes.
            seconds: In how many seconds; None or 0 for never.

        Raises:
            PermissionDenied: The user may not.
        """
        records = [record for _, record in self._places_of(key)]
        text = statements.EXPIRE if seconds else statements.UNEXPIRE
        reply = self._connection.run(text, records=records, lifetime=lifetime(seconds and float(seconds)))
        check_updated(reply, records[0].table_name)


class KeyValueMixin:
    """Celery's names for what a `KeyValueStore` does."""

    keys: KeyValueStore

    def get(self, key: Any) -> Any:
        """Read the value of a key; None where there is none.

        Args:
            key: The key.
        """
        return self.keys.mget([key])[0]

    def mget(self, keys: Iterable[Any]) -> list[Any]:
        """Read the values of keys, in their order; None where there is none.

        Args:
            keys: The keys.
        """
        return self.keys.mget(keys)

    def set(self, key: Any, value: Any) -> None:
        """Set the value of a key."""
        self.keys.set(key, value)

    def delete(self, key: Any) -> None:
        """Delete a key.

        Args:
            key: The key.
        """
        self.keys.delete(key)

    def incr(self, key: Any) -> int:
        """Add one to a key's value and return it.

        Args:
            key: The key.
        """
        return self.keys.increment(key)

    def expire(self, key: Any, value: float | None) -> None:
        """Let a key end that many seconds from now; None or 0 for never."""
        self.keys.expire(key, value)
