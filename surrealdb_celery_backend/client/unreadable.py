"""Records of which one has a value that the server cannot send, which spoils the reply of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ..errors import UnreadableRecord
from .values import RecordID

Reply = TypeVar("Reply")


def readable(
    ask: Callable[[Sequence[RecordID]], Reply],
    records: Sequence[RecordID],
    unreadable: Callable[[RecordID, UnreadableRecord], None],
) -> Iterator[Reply]:
    """Ask for records, and again in halves where the server refuses the reply.

    A regex or a closure, which only a person writes into a record, makes it refuse the reply as a whole.

    Args:
        ask: Asks for records by their ids.
        records: The ids.
        unreadable: Called with each record that cannot be sent, and the error that says why.

    Yields:
        The replies; together they have all records that can be sent.

    Raises:
        SurrealDBBackendError: The database cannot be asked.
    """
    try:
        reply = ask(records)
    except UnreadableRecord as error:
        if len(records) == 1:
            unreadable(records[0], error)
            return
    else:
        yield reply
        return
    middle = len(records) // 2
    for half in (records[:middle], records[middle:]):
        yield from readable(ask, half, unreadable)
