"""Values as they travel: CBOR with SurrealDB's tags (docs: https://surrealdb.com/docs/surrealdb/integration/cbor).

`cbor2` encodes and decodes here instead of the SDK's `surrealdb.data.cbor`, which is written in Python, for two
measured reasons (SDK 3.0.0b10, cbor2 6.2, Python 3.11):

* a store's request is encoded in 12 instead of 31 µs, a fetched result decoded in 7 instead of 21 µs;
* importing any part of the SDK imports all of it, with aiohttp, requests and pydantic-core: 26 MiB in every worker
  process, against 1 MiB.

So nothing on the way of a result imports the SDK. Values of its types are still taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import cbor2

from .secret import Secret

#: SurrealDB's tags of the values that have a Python type here.
_NONE, _RECORD_ID, _UUID_TEXT, _DECIMAL, _DATETIME, TAG_DURATION = 6, 8, 9, 10, 12, 14
#: Its tags of a range and its bounds.
_RANGE, _INCLUDED, _EXCLUDED = 49, 50, 51
#: Its other tags, by what they are. In an engine, only a person writes such values into our tables.
KINDS = {
    0: "datetime",
    7: "table",
    13: "duration",
    14: "duration",
    15: "future",
    49: "range",
    50: "included bound",
    51: "excluded bound",
    55: "file",
    56: "set",
    88: "point",
    89: "line",
    90: "polygon",
    91: "multipoint",
    92: "multiline",
    93: "multipolygon",
    94: "collection",
}
#: Tag 6 in bytes; its content has no meaning.
_ENCODED_NONE = b"\xc6\xf6"
#: SurrealDB's NULL, a value that is there: None itself is sent as NONE, which is none.
NULL = cbor2.CBORSimpleValue(22)
#: Where SurrealDB's datetimes count from.
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: The first and the last that Python has.
FIRST, LAST = datetime.min.replace(tzinfo=timezone.utc), datetime.max.replace(tzinfo=timezone.utc)
#: Exceptions caused by malformed CBOR. Any other that is raised while decoding interrupts this thread.
MALFORMED = (
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
#: The range of SurrealDB's integers: a larger one would be stored as another number.
INTEGERS = range(-(2**63), 2**63)
#: Where the ids of a table begin and end: before every number, and behind every text, array and object.
FIRST_ID, LAST_ID = INTEGERS.start, {"\U0010ffff": True}
#: Seconds, their fraction (Python has six digits of up to nine), and the offset from UTC.
_DATE_TEXT = re.compile(r"(?P<date>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?(?P<offset>Z|[+-]\d\d:\d\d)")


class RecordID:
    """The id of a record, with the attributes of the SDK's class of this name.

    Args:
        table_name: The table.
        identifier: Text, number, UUID, array or object.
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


class Pairs:
    """An object that travels as an array of its pairs of name and value, for `object::from_entries`.

    Args:
        fields: The object.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields


@dataclass(frozen=True)
class ForeignValue:
    """A value of SurrealDB's that Python has no type for. It is sent back as it came.

    Attributes:
        tag: Its CBOR tag.
        content: The item behind the tag.
    """

    tag: int
    content: Any

    @property
    def kind(self) -> str:
        """The kind of value: `set`, `range`, `file`, …."""
        return KINDS.get(self.tag, f"value of CBOR tag {self.tag}")

    def __hash__(self) -> int:
        return hash((self.tag, repr(self.content)))

    def __repr__(self) -> str:
        return f"<SurrealDB {self.kind}: {self.content!r}>"


def records_between(table: str, first: Any, end: Any) -> RecordID:
    """The records whose ids lie in a range, as the parameter `range` of :data:`~.surrealql.RANGE`.

    Args:
        table: The table.
        first: The first id.
        end: What the ids end before.
    """
    return _records(table, ForeignValue(_INCLUDED, first), end)


def records_behind(table: str, last: Any) -> RecordID:
    """The records whose ids come behind one, likewise.

    Args:
        table: The table.
        last: The id, such as the last of a page.
    """
    return _records(table, ForeignValue(_EXCLUDED, last), LAST_ID)


def _records(table: str, begin: ForeignValue, end: Any) -> RecordID:
    # With an end: SDK 2 has no way to say that there is none.
    return RecordID(table, ForeignValue(_RANGE, [begin, ForeignValue(_EXCLUDED, end)]))


def _encode_none(encoder: cbor2.CBOREncoder, _: None) -> None:
    # NONE, not NULL: a field that is None is one that is not there.
    encoder.write(_ENCODED_NONE)


# Tags and arrays as bytes: cbor2 asks of each CBORTag, list and tuple whether it is a Mapping, which takes longer than
# the rest of a record id. Tables and fields are few.
@lru_cache(maxsize=256)
def _record_head(table: str) -> bytes:
    return b"\xc8\x82" + cbor2.dumps(table)


@lru_cache(maxsize=1024)
def _pair_head(name: str) -> bytes:
    return b"\x82" + cbor2.dumps(name)


def _encode_record_id(encoder: cbor2.CBOREncoder, record: RecordID) -> None:
    encoder.write(_record_head(record.table_name))
    encoder.encode(record.id)


def _encode_pairs(encoder: cbor2.CBOREncoder, pairs: Pairs) -> None:
    fields = pairs.fields
    encoder.write(b"\x99" + len(fields).to_bytes(2, "big"))
    for name, value in fields.items():
        encoder.write(_pair_head(name))
        encoder.encode(value)


def _encode_int(encoder: cbor2.CBOREncoder, number: int) -> None:
    if number not in INTEGERS:
        raise ValueError(f"{number} does not fit SurrealDB's integers of 64 bits")
    encoder.encode_int(number)


@lru_cache(maxsize=1024)
def _encoded_duration(duration: timedelta) -> bytes:
    # Lifetimes are few, and each is in every store.
    seconds = duration.days * 86400 + duration.seconds
    return cbor2.dumps(cbor2.CBORTag(TAG_DURATION, [seconds, duration.microseconds * 1000]))


def _encode_timedelta(encoder: cbor2.CBOREncoder, duration: timedelta) -> None:
    if duration.days < 0:
        raise ValueError(f"{duration!r} is negative; SurrealDB's durations are not")
    encoder.write(_encoded_duration(duration))


def _encode_other(encoder: cbor2.CBOREncoder, value: Any) -> None:
    """A value that the SDK has a type or an encoding of its own for."""
    from surrealdb.data.cbor import encode as encode_with_sdk

    try:
        encoded = encode_with_sdk(value)
    except BufferError:
        raise TypeError(f"SurrealDB has no type for {type(value).__qualname__}") from None
    encoder.write(encoded)


def _encode_decimal(encoder: cbor2.CBOREncoder, number: Decimal) -> None:
    encoder.encode(cbor2.CBORTag(_DECIMAL, str(number)))


def _encode_secret(encoder: cbor2.CBOREncoder, secret: Secret) -> None:
    encoder.encode(secret.reveal())


def _encode_foreign(encoder: cbor2.CBOREncoder, value: ForeignValue) -> None:
    encoder.encode(cbor2.CBORTag(value.tag, value.content))


_ENCODERS: dict[type, Callable[[Any, Any], Any]] = {
    type(None): _encode_none,
    RecordID: _encode_record_id,
    Pairs: _encode_pairs,
    int: _encode_int,
    Secret: _encode_secret,
    ForeignValue: _encode_foreign,
    timedelta: _encode_timedelta,
    # cbor2's own tags for these and for decimals are not SurrealDB's.
    set: _encode_other,
    frozenset: _encode_other,
    Decimal: _encode_decimal,
}


def _decode_none(_: Any, immutable: bool) -> None:
    return None


def _decode_record_id(value: Any, immutable: bool) -> RecordID:
    return RecordID(value[0], value[1])


def _decode_datetime(value: Any, immutable: bool) -> datetime:
    seconds, nanoseconds = _two_parts(value)
    try:
        return EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        # SurrealDB's calendar is longer than Python's: as far off as can be. One such field, which only a person
        # writes, must not make the whole reply unreadable.
        return LAST if seconds > 0 else FIRST


def _two_parts(value: Any) -> tuple[int, int]:
    """Seconds and nanoseconds; zeros at the end are left out."""
    seconds, nanoseconds = (*value, 0, 0)[:2]
    return seconds, nanoseconds


def _decode_duration(value: Any, immutable: bool) -> timedelta | ForeignValue:
    seconds, nanoseconds = _two_parts(value)
    try:
        return timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        return ForeignValue(TAG_DURATION, value)


def _decode_duration_text(value: Any, immutable: bool) -> timedelta | ForeignValue:
    # The tag of a text, under which SDK 2 sends the two numbers.
    return ForeignValue(13, value) if isinstance(value, str) else _decode_duration(value, immutable)


def _decode_decimal(value: Any, immutable: bool) -> Decimal:
    return Decimal(value)


def _decode_uuid(value: Any, immutable: bool) -> UUID:
    return UUID(value)


def _decode_date_text(value: Any, immutable: bool) -> datetime | ForeignValue:
    """A datetime as text (RFC 3339), as the SDK sends it; `cbor2` would raise where it is of another calendar."""
    found = _DATE_TEXT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return ForeignValue(0, value)
    try:
        moment = datetime.fromisoformat(found["date"] + (found["offset"].replace("Z", "+00:00")))
    except ValueError:
        return ForeignValue(0, value)
    return moment + timedelta(microseconds=int((found["fraction"] or "").ljust(6, "0")[:6]))


def _decode_other(tag: cbor2.CBORTag, immutable: bool) -> Any:
    # One such value, which only a person writes, must not make the whole reply unreadable.
    return ForeignValue(tag.tag, tag.value)


_DECODERS: dict[int, Callable[[Any, bool], Any]] = {
    _NONE: _decode_none,
    _RECORD_ID: _decode_record_id,
    _DATETIME: _decode_datetime,
    TAG_DURATION: _decode_duration,
    13: _decode_duration_text,
    _DECIMAL: _decode_decimal,
    _UUID_TEXT: _decode_uuid,
    0: _decode_date_text,
}


def encode(value: Any) -> bytes:
    """A value as SurrealDB's CBOR.

    Args:
        value: Of JSON's types, bytes, datetime, timedelta, Decimal, UUID, `RecordID`, or one of the SDK's.

    Returns:
        The bytes.

    Raises:
        ValueError: An integer beyond 64 bits, or a negative duration.
        TypeError: SurrealDB has no type for it.
    """
    return cbor2.dumps(value, encoders=_ENCODERS, default=_encode_other, timezone=timezone.utc)


def decode(data: bytes) -> Any:
    """SurrealDB's CBOR as a value.

    Args:
        data: The bytes.

    Returns:
        The value; NONE and NULL are both None, and what Python has no type for is a `ForeignValue`.

    Raises:
        ValueError: It is not CBOR.
    """
    try:
        return cbor2.loads(data, semantic_decoders=_DECODERS, tag_hook=_decode_other)
    except cbor2.CBORDecodeError as exc:
        # cbor2 wraps all that is raised in a decoder of ours, a KeyboardInterrupt or Celery's time limit too.
        cause: BaseException = exc
        while isinstance(cause, cbor2.CBORDecodeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, (cbor2.CBORDecodeError, *MALFORMED)):
            raise cause from None
        raise ValueError(f"not SurrealDB's CBOR: {exc}") from exc
