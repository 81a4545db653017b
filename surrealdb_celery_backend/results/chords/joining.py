"""From the parts of a complete header to what its body is called with: the results in order and shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from celery import states
from celery.exceptions import ChordError
from celery.result import GroupResult, result_from_tuple

from .host import Host
from .records import MAX_SLICE, Header, PartResult

#: States in which a part's result is an exception, and so its chord's failure.
_FAILED = states.PROPAGATE_STATES


def chord_error(message: str, cause: Any) -> ChordError:
    """Return a failure of a chord.

    Args:
        message: The error in one sentence.
        cause: The exception behind it.
    """
    error = ChordError(message)
    if isinstance(cause, Exception):
        error.__cause__ = cause
    return error


def leaves(result: Any) -> Iterator[str]:
    """Yield the ids of the tasks whose results are in a result of any shape.

    Args:
        result: An `AsyncResult`, or a `GroupResult` of such or of groups.
    """
    if isinstance(result, GroupResult):
        for member in result.results:
            yield from leaves(member)
    else:
        yield result.id


class Joiner:
    """Decodes parts.

    Args:
        host: The backend.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def flat(self, slices: Iterable[list[PartResult]]) -> list[Any]:
        """Return the results of a flat header, in its order.

        Args:
            slices: The parts.

        Raises:
            ChordError: The first part that failed.
        """
        values = []
        for parts in slices:
            for part in parts:
                value = self._value(part)
                if part.status in _FAILED:
                    raise chord_error(f"Dependency {part.task_id} raised {value!r}", value)
                values.append(value)
        return values

    def nested(self, slices: Iterable[list[PartResult]], header: Header) -> list[Any]:
        """Return the results of a header with groups in it, in its shape.

        What is not among the parts is looked for among the results: Celery may count another task for one of the
        header's.

        Args:
            slices: The parts.
            header: The kept facts about the header.

        Raises:
            ChordError: A header task has no result although Celery counts the header as complete.
            Exception: The exception of the first part that failed, which is no subclass of `ChordError`.
        """
        host = self._host
        encoding = header.shape_encoding or host.content_type
        shape = result_from_tuple(host.decode_as(header.shape, encoding), app=host.app)
        found = {part.task_id: (part.status, self._value(part)) for parts in slices for part in parts}
        missing = [task_id for task_id in leaves(shape) if task_id not in found]
        for start in range(0, len(missing), MAX_SLICE):
            ids = missing[start : start + MAX_SLICE]
            for task_id, meta in host.retry(host.fetch, ids, only_ready=True):
                found[task_id] = meta["status"], meta["result"]
        return self._shaped(shape, found)

    def _shaped(self, group: GroupResult, found: dict[str, tuple[str, Any]]) -> list[Any]:
        values = []
        for member in group.results:
            if isinstance(member, GroupResult):
                values.append(self._shaped(member, found))
                continue
            if member.id not in found:
                raise ChordError(
                    f"Header task {member.id} has no result although all parts of chord {group.id} that Celery "
                    "announced are there: upgrade to Celery 5.7, or make the header of tasks, not of chains that end in groups"
                )
            status, value = found[member.id]
            if status in _FAILED and isinstance(value, BaseException):
                raise value
            values.append(value)
        return values

    def _value(self, part: PartResult) -> Any:
        value = self._host.decode_as(part.result, part.encoding)
        return self._host.exception_to_python(value) if part.status in states.EXCEPTION_STATES else value
