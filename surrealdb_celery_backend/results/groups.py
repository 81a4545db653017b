"""The shapes of groups: which results a `GroupResult` is made of, nested groups included."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ..client.connection import Connection
from ..client.values import RecordID
from . import statements
from .expiry import lifetime
from .records import Codec, identifier
from .replies import check_deleted, check_stored
from .statements import Statement


class GroupStore:
    """Stores shapes of groups.

    Args:
        connection: Where to.
        table: The table's full name.
        codec: Encodes and decodes shapes.
    """

    def __init__(self, connection: Connection, table: str, codec: Codec) -> None:
        self._connection = connection
        self._table = table
        self._codec = codec

    def _record(self, group_id: Any) -> RecordID:
        return RecordID(self._table, identifier("group_id", group_id))

    def save(self, group_id: Any, shape: Any, seconds: float | None) -> None:
        """Store a group's shape.

        Args:
            group_id: The group's id.
            shape: The return value of `GroupResult.as_tuple()`.
            seconds: For how long; None for ever.

        Raises:
            PermissionDenied: The user may not.
        """
        text, parameters, table = self.saving(group_id, self._codec.encode(shape), seconds)
        check_stored(self._connection.run(text, **parameters), table)

    def saving(self, group_id: Any, shape: str | bytes, seconds: float | None) -> Statement:
        """Return the statement that stores a group's shape. Its value is what `check_stored` looks at.

        Args:
            group_id: The group's id.
            shape: Its shape, encoded.
            seconds: For how long; None for ever.
        """
        record = self._record(group_id)
        fields = {
            "group_id": record.id,
            "result": shape,
            "encoding": self._codec.content_type,
            "date_done": datetime.now(timezone.utc),
        }
        parameters = {"record": record, "fields": fields, "lifetime": lifetime(seconds)}
        return Statement(statements.STORE, parameters, self._table)

    def expiring(self, group_id: Any, seconds: float | None) -> Statement:
        """Return the statement that lets a group's shape live for some time from now on.

        Args:
            group_id: The group's id.
            seconds: For how long; None for ever.
        """
        parameters = {"records": self._record(group_id), "lifetime": lifetime(seconds)}
        return Statement(statements.EXPIRE, parameters, self._table)

    def fetch(self, group_id: Any) -> Any:
        """Read a group's shape.

        Args:
            group_id: The group's id.

        Returns:
            The saved group, decoded; None where there is none.
        """
        found = self._connection.run(statements.FETCH_GROUPS, records=self._record(group_id))
        if not found:
            return None
        _, shape, encoding = found[0]
        return self._codec.decode_as(shape, encoding)

    def delete(self, group_id: Any) -> None:
        """Delete a group's shape, if there is one.

        Args:
            group_id: The group's id.

        Raises:
            PermissionDenied: The user may not.
        """
        check_deleted(self._connection.run(statements.DELETE, records=self._record(group_id)), self._table)
