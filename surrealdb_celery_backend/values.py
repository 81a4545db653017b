"""Values as they travel: CBOR with SurrealDB's tags, and the one type of value that is not Python's own.

``cbor2`` encodes and decodes here instead of the SDK's ``surrealdb.data.cbor``, which is written in
Python, for two measured reasons (SDK 3.0.0b10, cbor2 6.2, Python 3.11):

* a store's request is encoded in 12 instead of 31 µs, a fetched result decoded in 7 instead of 21 µs;
* importing any part of the SDK imports all of it, with aiohttp, requests and pydantic-core: 26 MiB in
  every worker process, against 1 MiB.

So nothing on the way of a result imports the SDK. Values of its types are still taken, and what the
engine sends that is not one of ours (durations, geometries, …) is decoded to them: the SDK is imported then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import cbor2

#: SurrealDB's tags of the values that Celery's results have.
_NONE, _RECORD_ID, _DATETIME = 6, 8, 12
#: What tag 6 looks like in bytes; what it holds is of no meaning.
_ENCODED_NONE = b"\xc6\xf6"
#: Where SurrealDB's datetimes count from.
BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: The first and the last that Python has.
FIRST, LAST = datetime.min.replace(tzinfo=timezone.utc), datetime.max.replace(tzinfo=timezone.utc)
#: What bytes that make no sense lead to. Whatever else is raised while they are decoded interrupts this thread.
MAKES_NO_SENSE = (
    ArithmeticError,
    AttributeError,
    BufferError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
#: What fits SurrealDB's integers: a larger one would be stored as another number.
INTEGERS = range(-(2**63), 2**63)


class RecordID:
    """The id of a record, with the attributes of the SDK's class of this name.

    :param table_name: the table.
    :param identifier: text, number, UUID, array or object.
    """

    __slots__ = ("id", "table_name")

    def __init__(self, table_name: str, identifier: Any) -> None:
        self.table_name = table_name
        self.id = identifier

    def __repr__(self) -> str:
        return f"RecordID({self.table_name!r}, {self.id!r})"

    def __str__(self) -> str:
        # A text in brackets, so that 1 and "1" differ.
        return f"{self.table_name}:⟨{self.id}⟩" if isinstance(self.id, str) else f"{self.table_name}:{self.id}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordID):
            return NotImplemented
        return self.table_name == other.table_name and self.id == other.id

    def __hash__(self) -> int:
        # An array or an object has no hash of its own.
        return hash((self.table_name, str(self.id)))


def _encode_none(encoder: cbor2.CBOREncoder, _: None) -> None:
    # NONE, not NULL: a field that is None is one that is not there.
    encoder.write(_ENCODED_NONE)


def _encode_record_id(encoder: cbor2.CBOREncoder, record: RecordID) -> None:
    encoder.encode(cbor2.CBORTag(_RECORD_ID, [record.table_name, record.id]))


def _encode_int(encoder: cbor2.CBOREncoder, number: int) -> None:
    if number not in INTEGERS:
        raise ValueError(f"{number} does not fit SurrealDB's integers of 64 bits")
    encoder.encode_int(number)


def _encode_other(encoder: cbor2.CBOREncoder, value: Any) -> None:
    """A value that the SDK has a type or an encoding of its own for."""
    from surrealdb.data.cbor import encode as encode_with_sdk

    try:
        encoded = encode_with_sdk(value)
    except BufferError:
        raise TypeError(f"SurrealDB has no type for {type(value).__qualname__}") from None
    encoder.write(encoded)


_ENCODERS: dict[type, Callable[[Any, Any], Any]] = {
    type(None): _encode_none,
    RecordID: _encode_record_id,
    int: _encode_int,
    # cbor2's own tags for these are not SurrealDB's.
    set: _encode_other,
    frozenset: _encode_other,
    Decimal: _encode_other,
}


def _decode_none(_: Any, immutable: bool) -> None:
    return None


def _decode_record_id(value: Any, immutable: bool) -> RecordID:
    return RecordID(value[0], value[1])


def _decode_datetime(value: Any, immutable: bool) -> datetime:
    # Seconds and nanoseconds; what is zero at the end is left out.
    seconds, nanoseconds = (*value, 0, 0)[:2]
    try:
        return BEGINNING + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        # SurrealDB's calendar is longer than Python's: as far off as can be. One such field, which only a person
        # writes, must not make the whole reply unreadable.
        return LAST if seconds > 0 else FIRST


def _decode_other(tag: cbor2.CBORTag, immutable: bool) -> Any:
    from surrealdb.data.cbor import tag_decoder

    # It looks at the tag's number and value only.
    return tag_decoder(None, tag)  # type: ignore[arg-type]


_DECODERS: dict[int, Callable[[Any, bool], Any]] = {
    _NONE: _decode_none,
    _RECORD_ID: _decode_record_id,
    _DATETIME: _decode_datetime,
}


def encode(value: Any) -> bytes:
    """A value as SurrealDB's CBOR.

    :raises ValueError: an integer beyond 64 bits.
    :raises TypeError: a value that SurrealDB has no type for.
    """
    return cbor2.dumps(value, encoders=_ENCODERS, default=_encode_other, timezone=timezone.utc)


def decode(data: bytes) -> Any:
    """SurrealDB's CBOR as a value; NONE and NULL are both None.

    :raises ValueError: it is not CBOR.
    """
    try:
        return cbor2.loads(data, semantic_decoders=_DECODERS, tag_hook=_decode_other)
    except cbor2.CBORDecodeError as exc:
        # cbor2 wraps all that is raised in a decoder of ours, a KeyboardInterrupt or Celery's time limit too.
        cause: BaseException = exc
        while isinstance(cause, cbor2.CBORDecodeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, (cbor2.CBORDecodeError, *MAKES_NO_SENSE)):
            raise cause from None
        raise ValueError(f"not SurrealDB's CBOR: {exc}") from exc
