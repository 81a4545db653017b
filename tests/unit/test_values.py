"""Values travel as SurrealDB's CBOR, as the SDK would encode and decode them, without the SDK."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
import surrealdb
from surrealdb.data.cbor import decode as decode_with_sdk
from surrealdb.data.cbor import encode as encode_with_sdk

from surrealdb_celery_backend.client.values import ForeignValue, RecordID, decode, encode

pytestmark = pytest.mark.unit

NOON = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [None, True, 1, -1, 1.5, "é", b"\x00\xff", {"a": None, "b": [{}]}],
        2**63 - 1,
        -(2**63),
        NOON,
        NOON.astimezone(timezone(timedelta(hours=2))),
        uuid.UUID(int=7),
        Decimal("1.50"),
        {1},
        surrealdb.Table("task"),
        surrealdb.Duration.parse("1h"),
        surrealdb.RecordID("task", ["a", 1]),
    ],
    ids=repr,
)
def test_engines_get_what_the_sdk_would_send(value):
    """Every value has the bytes that the SDK gives it."""
    if isinstance(value, set) and b"\xd8\x38" not in encode_with_sdk(value):
        pytest.skip("this SDK does not know SurrealDB's sets")
    assert encode(value) == encode_with_sdk(value)


def test_a_record_id_is_the_sdks_on_the_wire():
    """Our RecordID and the SDK's are the same bytes, and the same attributes on both sides."""
    ours, theirs = RecordID("task", ["a", 1]), surrealdb.RecordID("task", ["a", 1])
    assert encode(ours) == encode_with_sdk(theirs)
    back = decode_with_sdk(encode(ours))
    assert (back.table_name, back.id) == (ours.table_name, ours.id)


def test_record_ids_are_equal_by_table_and_id():
    """Also as keys of a dict, and a number is not its digits."""
    assert {RecordID("task", [1]): "found"}[RecordID("task", [1])] == "found"
    assert RecordID("task", "a") != RecordID("group", "a")
    assert RecordID("task", 1) != RecordID("task", "1")
    assert str(RecordID("task", 1)) != str(RecordID("task", "1"))
    assert RecordID("task", "a") != "task:a"


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"\xc6\xf6", None),
        (b"\xf6", None),
        (b"\xc8\x82\x64task\x81\x01", RecordID("task", [1])),
        (b"\xcc\x82\x1a\x69\xf4\x95\xc0\x1a\x07\x5b\xcd\x15", NOON.replace(microsecond=123456)),
        (b"\xcc\x81\x1a\x69\xf4\x95\xc0", NOON.replace(microsecond=0)),
        (b"\xc0\x78\x1e2026-05-01T12:00:00.123456789Z", NOON),
        (b"\xc0\x78\x192026-05-01T14:00:00+02:00", NOON.replace(microsecond=0)),
        (b"\xcc\x80", datetime(1970, 1, 1, tzinfo=timezone.utc)),
        # d'20000-01-01T00:00:00Z' and 10,000 years before Christ: there is no nearer datetime.
        (b"\xcc\x81\x1b" + (568_971_820_800).to_bytes(8, "big"), datetime.max.replace(tzinfo=timezone.utc)),
        (b"\xcc\x81\x3b" + (377_000_000_000).to_bytes(8, "big"), datetime.min.replace(tzinfo=timezone.utc)),
    ],
)
def test_what_engines_send_becomes_pythons_values(encoded, value):
    """NONE and NULL are None; datetimes are aware, also where the engine left out zeros."""
    decoded = decode(encoded)
    assert decoded == value
    assert type(decoded) is type(value)


def test_durations_of_the_sdk_come_back_as_pythons():
    """A duration is a timedelta, whether it was sent as one or as the SDK's."""
    for sent in (surrealdb.Duration.parse("90s"), timedelta(seconds=90)):
        assert decode(encode([sent])) == [timedelta(seconds=90)]


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (b"\xd8\x38\x82\x01\x02", "set"),
        (b"\xd8\x37\x82\x61b\x61k", "file"),
        (b"\xd8\x31\x82\xd8\x32\x01\xd8\x33\x05", "range"),
        (b"\xcf\x63now", "future"),
        (b"\xd8\x58\x82\xf9\x3c\x00\xf9\x40\x00", "point"),
        (b"\xc7\x61t", "table"),
        (b"\xc0\x63new", "datetime"),
        (b"\xcd\x621h", "duration"),
        (b"\xce\x81\x1b" + b"\x7f" + b"\xff" * 7, "duration"),
        (b"\xd9\x12\x34\xa0", "value of CBOR tag 4660"),
    ],
)
def test_what_python_has_no_type_for_says_what_it_is(encoded, kind):
    """A value of an unknown tag is a value like others: its neighbours are read, and it is sent back as it came."""
    value, neighbour = decode(b"\x82" + encoded + b"\x63yes")
    assert neighbour == "yes"
    assert isinstance(value, ForeignValue)
    assert value.kind == kind
    assert repr(value).startswith(f"<SurrealDB {kind}: ")
    assert decode(encode(value)) == value
    assert {value: 1}[decode(encoded)] == 1


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_an_integer_that_does_not_fit_is_refused(number):
    """It would be stored as another number."""
    with pytest.raises(ValueError, match="64 bits"):
        encode({"number": number})


def test_a_value_without_a_type_is_refused():
    """As the SDK does."""
    with pytest.raises((TypeError, BufferError)):
        encode(object())


def test_garbage_is_a_clear_error():
    """Not an exception class of the decoder."""
    with pytest.raises(ValueError, match="not SurrealDB's CBOR"):
        decode(b"\xa1")


def test_a_backend_imports_neither_the_sdk_nor_what_it_imports():
    """They are half of a worker's memory, and a backend over a WebSocket needs none of them."""
    program = (
        "import sys, surrealdb_celery_backend.results.backend;"
        "print([name for name in ('surrealdb', 'aiohttp', 'requests', 'pydantic_core') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
