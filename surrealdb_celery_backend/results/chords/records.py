"""The records of a chord, and the decisions about them that need no database.

A chord is a header of tasks and a body that runs with all they returned. The header tasks' parts lie in buckets of
`BUCKET`: while its bucket is not full, a part knows that it does not complete the header, whatever its size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..native import length

#: Parts per bucket: what one part's request counts at most.
BUCKET = 64
#: Buckets that are counted together before all parts are.
NEIGHBOURS = 64
#: The index of a part whose message has none: behind all that have one, as in Celery's Redis backend.
NO_INDEX = 2**53
#: The bucket of parts without an index.
NO_BUCKET = -1
#: How many parts one request reads at most, and how many characters or bytes of results.
MAX_SLICE, MAX_SLICE_SIZE = 1000, 2 * 1024 * 1024
#: How many bytes the database itself reads at once, about, to say how large parts are, or to delete them.
MAX_READ = 32 * 1024 * 1024
#: How many parts are looked at first, before anything is known of their size.
FIRST_LOOK = BUCKET


@dataclass(frozen=True)
class PartKey:
    """Where a part stands in its header, and how large it is.

    Attributes:
        index: The header task's index; `NO_INDEX` without one.
        task_id: The header task.
        length: Bytes of its encoded result.
    """

    index: int
    task_id: str
    length: int

    @property
    def place(self) -> list[Any]:
        """The rest of the part's record id, behind the group and the kind."""
        return [bucket_of(self.index), self.index, self.task_id]


@dataclass(frozen=True)
class Header:
    """The kept facts about a header beside its size, for its last part and for reports.

    Attributes:
        tasks: The ids of the header tasks; empty where there are too many, or where they are not known before
            they are sent.
        shape: The results of a nested header as Celery writes them, encoded; None for a flat one.
        shape_encoding: How.
        body: The body's signature, encoded; None where that was not possible.
        body_encoding: How.
        body_id: The id of the body's result.
        body_name: The name of the body's task.
    """

    tasks: Sequence[str] = ()
    shape: str | bytes | None = None
    shape_encoding: str | None = None
    body: str | bytes | None = None
    body_encoding: str | None = None
    body_id: str | None = None
    body_name: str | None = None


@dataclass(frozen=True)
class HeaderPart:
    """The return value or exception of a header task.

    Attributes:
        group: The chord: the id of its header.
        task_id: The header task.
        index: Its index in the header; `NO_INDEX` where its message has none.
        status: Its state.
        result: The encoded return value or exception.
        encoding: How.
    """

    group: str
    task_id: str
    index: int
    status: str
    result: Any
    encoding: str

    @property
    def bucket(self) -> int:
        """The bucket of the part."""
        return bucket_of(self.index)

    @property
    def length(self) -> int:
        """Bytes of the encoded result."""
        return length(self.result)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `$task` that the statement takes which stores the part."""
        return {"task_id": self.task_id, "status": self.status, "result": self.result, "encoding": self.encoding}


@dataclass(frozen=True)
class HeaderState:
    """A header, as the request sees it that stores a part.

    Attributes:
        size: How many header tasks were announced; None before that, and after the chord is done.
        nested: Whether there are groups among the header's results.
        uneven: Whether header tasks share an index or have none: then a full bucket says nothing.
        done: Whether the body was published.
        life: For how many seconds more an unfinished chord is kept; None for ever.
    """

    size: int | None = None
    nested: bool = False
    uneven: bool = False
    done: bool = False
    life: float | None = None


@dataclass(frozen=True)
class StoredPart:
    """The outcome of storing a part.

    Attributes:
        task: The reply of the statement that stored the task's own result beside it.
        added: Whether the part was not there before; also False where it was sent again after its reply was lost.
        header: The header, read after the part was stored: of two that are stored at once, one sees both.
        uneven: Whether buckets say nothing here; more than `header.uneven` where this part is the first to see it.
        may_complete: Whether the header may be complete, so that all of it has to be counted.
    """

    task: Any
    added: bool
    header: HeaderState
    uneven: bool
    may_complete: bool


@dataclass(frozen=True)
class Claim:
    """The worker that publishes a chord's body.

    Attributes:
        holder: The claimant's name, a new one for each run.
        task_id: The header task that it ran.
        done: Whether the body was published.
        age: How long ago the claim was made or renewed, in seconds of the database's clock.
    """

    holder: str
    task_id: str | None
    done: bool
    age: float


@dataclass(frozen=True)
class Progress:
    """How far a header is.

    Attributes:
        size: How many parts are expected, with those added while it runs; 0 where that is not known.
        complete: Whether all are there.
        claim: The worker that publishes the body; None where none has claimed it.
        nested: Whether there are groups among the header's results.
        uneven: Whether header tasks share an index or have none.
        keys: The first parts with an index, `FIRST_LOOK` at most, where they were read.
    """

    size: int
    complete: bool
    claim: Claim | None
    nested: bool = False
    uneven: bool = False
    keys: tuple[PartKey, ...] = ()


@dataclass(frozen=True)
class PartResult:
    """One part's result, as it was stored.

    Attributes:
        task_id: The header task.
        status: Its state.
        result: The encoded return value or exception.
        encoding: How.
    """

    task_id: str
    status: str
    result: Any
    encoding: str


def bucket_of(index: int) -> int:
    """Return the bucket of a part with that index."""
    return NO_BUCKET if index == NO_INDEX else index // BUCKET


def is_uneven(part: HeaderPart, header: HeaderState, indexes: Collection[int]) -> bool:
    """Return whether a full bucket says nothing about this header.

    Args:
        part: A part of it.
        header: The known facts about it.
        indexes: The indexes of all parts in the part's bucket.
    """
    if header.uneven or part.bucket == NO_BUCKET:
        return True
    return sum(index == part.index for index in indexes) > 1


def may_complete(part: HeaderPart, header: HeaderState, indexes: Collection[int], *, uneven: bool) -> bool:
    """Return whether a header may be complete with this part: False only where it is certain that it is not.

    Args:
        part: The part that was stored last.
        header: The known facts about the header.
        indexes: The indexes of all parts in the part's bucket.
        uneven: Whether buckets say nothing here.
    """
    if header.done or not header.size:
        return False
    expected = min(BUCKET, header.size - part.bucket * BUCKET)
    return uneven or expected <= 0 or len(indexes) >= expected


@dataclass(frozen=True)
class Neighbours:
    """The buckets around a part's: while they are not full, not all parts have to be counted.

    Attributes:
        first: The first of the buckets.
        last: The last.
        near: How many parts they have in a complete header; 0 where that is not known, or no fewer than all.
    """

    first: int = 0
    last: int = 0
    near: int = 0


def neighbours(part: HeaderPart, stored: StoredPart) -> Neighbours:
    """Return which buckets to count before all parts.

    Args:
        part: A part that may complete its header.
        stored: The outcome of storing it.
    """
    size = stored.header.size or 0
    if stored.uneven or size <= NEIGHBOURS * BUCKET:
        return Neighbours()
    first = part.bucket // NEIGHBOURS * NEIGHBOURS
    expected = min(NEIGHBOURS * BUCKET, size - first * BUCKET)
    return Neighbours(first, first + NEIGHBOURS - 1, max(expected, 0))


def slice_of(keys: Collection[PartKey]) -> int:
    """Return how many of the next parts are read in one request: as many as fit, at least one.

    Args:
        keys: The next parts, in their order.
    """
    size = 0
    for number, key in enumerate(keys):
        size += key.length
        if number and (size > MAX_SLICE_SIZE or number >= MAX_SLICE):
            return number
    return len(keys)


def look_ahead(keys: Collection[PartKey]) -> int:
    """Return of how many further parts the sizes are asked for.

    Args:
        keys: The parts that were looked at last.
    """
    return batch_of(sum(key.length for key in keys) // len(keys)) if keys else FIRST_LOOK


def batch_of(mean_size: int) -> int:
    """Return how many parts the database is to read or delete at once.

    Args:
        mean_size: Bytes of a part, about.
    """
    return max(1, min(MAX_SLICE, MAX_READ // (mean_size + 1)))
