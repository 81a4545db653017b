"""The file of an export: chunks that are compressed and checked one by one. No database here.

A file is a row of gzip members, so that any gzip program reads it as text: one JSON value a line.

- The first member has one line: what the file is, and what was asked for.
- Each chunk is a member: a line with the table, the number of records, the place in the table behind them and the
  SHA-256 of the lines that follow; then a line for each record.
- The last member has one line: how many records of each table there are, and the SHA-256 of the chunks' own.

A file without its last member is one whose export was interrupted: it goes on behind the last whole chunk.
"""

from __future__ import annotations

import base64
import codecs
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any

from ...client.values import INTEGERS, RecordID, decode, encode
from ...errors import InvalidArchive

#: The format that the first line of a file names.
FORMAT = "surrealdb-celery-backend export"
VERSION = 1
#: How many bytes are read from a file at once.
BLOCK = 1 << 20
#: The longest chunk that is taken for one, in bytes: what is longer was not written here.
CHUNK_MOST = 1 << 30
#: Values that JSON has no form for are an object with this key alone.
_DATETIME, _BYTES, _RECORD, _OBJECT, _OTHER = "$datetime", "$bytes", "$record", "$object", "$cbor"


@dataclass(frozen=True)
class Head:
    """The first line of a file.

    Attributes:
        tables: The tables, in their order, by their names without a prefix.
        wanted: The filters that tasks were chosen by, as they were given.
        created: When the export began.
    """

    tables: tuple[str, ...]
    wanted: Mapping[str, Any]
    created: str


@dataclass(frozen=True)
class Chunk:
    """Some records of one table.

    Attributes:
        table: The table's name, without a prefix.
        after: The id of the last record that was looked at.
        records: The records.
        end: Where the chunk ends in the file, in bytes.
    """

    table: str
    after: Any
    records: list[dict[str, Any]]
    end: int = 0


@dataclass
class Totals:
    """The records of a file, or those written so far."""

    counts: dict[str, int] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, table: str, records: int, digest: str) -> None:
        """Take in a chunk.

        Args:
            table: Its table.
            records: How many records it has.
            digest: Its checksum.
        """
        self.counts[table] = self.counts.get(table, 0) + records
        self.digest.update(digest.encode())


def head_bytes(head: Head) -> bytes:
    """The first member.

    Args:
        head: The content of the first member.
    """
    return _member(
        [{"format": FORMAT, "version": VERSION, "created": head.created, "tables": head.tables, "wanted": head.wanted}]
    )


def chunk_bytes(chunk: Chunk, totals: Totals) -> bytes:
    """The member of a chunk, which is counted.

    Args:
        chunk: The chunk.
        totals: The totals so far.
    """
    lines = b"".join(_line(to_json(record)) for record in chunk.records)
    digest = hashlib.sha256(lines).hexdigest()
    totals.add(chunk.table, len(chunk.records), digest)
    about = {"table": chunk.table, "records": len(chunk.records), "after": to_json(chunk.after), "sha256": digest}
    return gzip.compress(_line(about) + lines, compresslevel=6, mtime=0)


def end_bytes(totals: Totals) -> bytes:
    """The last member.

    Args:
        totals: The totals so far.
    """
    return _member([{"end": True, "records": totals.counts, "sha256": totals.digest.hexdigest()}])


class Reader:
    """Reads a file, chunk by chunk, and checks each.

    Args:
        file: The file, opened for reading bytes.
        name: Its name in errors.

    Raises:
        InvalidArchive: It is no export, or of a newer version.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._name = name
        self._members = _members(file, name)
        self.totals = Totals()
        #: Whether the last member was there.
        self.complete = False
        first = next(self._members, None)
        if first is None:
            raise InvalidArchive(f"{name} is empty: it is no export")
        data, self.start = first
        about = self._json(data.split(b"\n", 1)[0])
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InvalidArchive(f"{name} is no export of this program")
        if about.get("version") != VERSION:
            raise InvalidArchive(f"{name} is an export of version {about.get('version')}; this program reads {VERSION}")
        self.head = Head(tuple(about.get("tables") or ()), about.get("wanted") or {}, str(about.get("created")))

    def __iter__(self) -> Iterator[Chunk]:
        for data, end in self._members:
            first, _, lines = data.partition(b"\n")
            about = self._json(first)
            if not isinstance(about, dict):
                raise InvalidArchive(f"{self._name} is damaged: a chunk does not say what it is")
            if about.get("end"):
                if about.get("sha256") != self.totals.digest.hexdigest():
                    raise InvalidArchive(f"{self._name} is damaged: chunks are missing or stand elsewhere")
                self.complete = True
                return
            if hashlib.sha256(lines).hexdigest() != about.get("sha256"):
                raise InvalidArchive(
                    f"{self._name} is damaged: the checksum of a chunk of {about.get('table')} is wrong"
                )
            records = [from_json(self._json(line)) for line in lines.splitlines()]
            if len(records) != about.get("records") or not all(isinstance(each, dict) for each in records):
                raise InvalidArchive(f"{self._name} is damaged: a chunk has another number of records than it says")
            self.totals.add(str(about.get("table")), len(records), str(about["sha256"]))
            yield Chunk(str(about.get("table")), from_json(about.get("after")), records, end)

    def _json(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError:
            raise InvalidArchive(f"{self._name} is damaged: a line is no JSON") from None


def _members(file: IO[bytes], name: str) -> Iterator[tuple[bytes, int]]:
    """The gzip members of a file, each with where it ends. One that is cut off at the end of the file is left out."""
    # Editors and PowerShell may put the mark of an encoding in front.
    rest = file.read(BLOCK)
    position = len(codecs.BOM_UTF8) if rest.startswith(codecs.BOM_UTF8) else 0
    rest = rest[position:]
    while True:
        rest = rest or file.read(BLOCK)
        if not rest:
            return
        unpacker = zlib.decompressobj(wbits=31)
        parts: list[bytes] = []
        size = 0
        while not unpacker.eof:
            if not rest:
                rest = file.read(BLOCK)
                if not rest:
                    return
            try:
                part = unpacker.decompress(rest)
            except zlib.error:
                raise InvalidArchive(f"{name} is damaged, or is no gzip file") from None
            parts.append(part)
            size += len(part)
            if size > CHUNK_MOST:
                raise InvalidArchive(f"{name} is damaged: a chunk is longer than {CHUNK_MOST} bytes")
            position += len(rest) - len(unpacker.unused_data)
            rest = unpacker.unused_data
        yield b"".join(parts), position


def _member(values: list[Any]) -> bytes:
    return gzip.compress(b"".join(_line(value) for value in values), mtime=0)


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def to_json(value: Any) -> Any:
    """A value of SurrealDB as JSON, without loss.

    Args:
        value: The value.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)):
        exact = value in INTEGERS if isinstance(value, int) else math.isfinite(value)
        return value if exact else _other(value)
    if isinstance(value, datetime):
        return {_DATETIME: value.isoformat()}
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, RecordID):
        return {_RECORD: [value.table_name, to_json(value.id)]}
    if isinstance(value, list):
        return [to_json(each) for each in value]
    if isinstance(value, dict):
        made = {str(name): to_json(each) for name, each in value.items()}
        return {_OBJECT: list(made.items())} if any(name.startswith("$") for name in made) else made
    return _other(value)


def _other(value: Any) -> Any:
    return {_OTHER: base64.b64encode(encode(value)).decode()}


def from_json(value: Any) -> Any:
    """Undo :func:`to_json`.

    Args:
        value: The value.

    Raises:
        InvalidArchive: It is nothing that that makes.
    """
    if isinstance(value, list):
        return [from_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not next(iter(value)).startswith("$"):
        return {name: from_json(each) for name, each in value.items()}
    [(kind, inner)] = value.items()
    try:
        if kind == _DATETIME:
            return datetime.fromisoformat(inner)
        if kind == _BYTES:
            return base64.b64decode(inner)
        if kind == _RECORD:
            return RecordID(inner[0], from_json(inner[1]))
        if kind == _OBJECT:
            return {name: from_json(each) for name, each in inner}
        if kind == _OTHER:
            return decode(base64.b64decode(inner))
    except (ValueError, TypeError, LookupError) as exc:
        raise InvalidArchive(f"a value cannot be read: {exc}") from None
    raise InvalidArchive(f"a value is of the unknown kind {kind!r}")
