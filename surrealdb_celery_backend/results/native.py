"""Values of JSON's types as SurrealDB's own (`surrealdb_result_format = "native"`), where they come back unchanged.

Measured on 2.3.10, 3.0.2 and 3.2.4: texts without NUL, integers of 64 bits, finite floats, True and False, None (as
NULL), lists and objects of these come back equal and of the same type. All else stays with Celery's serializer.

SurrealDB sorts the keys of objects. Where a dict has another order, `encoding` has it as a parameter, once for all
dicts with the same keys: ``native; order=[["total", "lines"]]``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..client.values import INTEGERS, NULL

#: How the `encoding` of a record begins whose values are not encoded.
NATIVE = "native"
#: What comes behind it where dicts have an order of their own, and how long all that may be, in characters.
_ORDER, LONGEST_ORDER = "; order=", 8192
#: How many lists and objects may be one in another: 3.2.4 refuses a request with 100, 2.3.10 one with 120.
DEEPEST = 32
#: How many bytes the values of a record may have, about. RocksDB (3.0.2) stores a million bytes of objects in 0.5 s
#: where as much text takes 0.1 s, 20 million in 14 s where text takes 1.3 s, and 50 million not at all.
LARGEST = 1_000_000
#: The content type of JSON, which makes lists of tuples.
JSON = "application/json"


class NotNative(Exception):
    """A value would not come back from SurrealDB as it was."""


class NativeCodec:
    """Turns values into SurrealDB's, in the place of Celery's serializer.

    Args:
        tuples: Whether a tuple may become a list, as JSON makes it.
        nulls: Whether the engine has None inside a value.

    Attributes:
        size: About how many bytes all encoded values have, so far.
    """

    content_type = NATIVE

    def __init__(self, *, tuples: bool = False, nulls: bool = True) -> None:
        self._tuples, self._nulls = tuples, nulls
        self.size = 0
        #: The order of a dict's keys, by the keys.
        self._orders: dict[frozenset[str], list[str]] = {}

    def encode(self, data: Any) -> Any:
        """Return a value as SurrealDB's.

        Args:
            data: Any value.

        Returns:
            The same of new lists and dicts, with NULL for None.

        Raises:
            NotNative: It would not come back as it is.
        """
        return self._encoded(data, DEEPEST)

    def decode_as(self, payload: Any, content_type: str) -> Any:
        """Undo `encode`.

        Args:
            payload: A value as SurrealDB gave it.
            content_type: Its `encoding`.
        """
        return decoded(payload, content_type)

    @property
    def encoding(self) -> str:
        """The `encoding` of a record with all values that were encoded.

        Raises:
            NotNative: It would be too long, or the values are larger than the engine should make its own.
        """
        if self.size > LARGEST:
            raise NotNative
        orders = [order for order in self._orders.values() if order != sorted(order)]
        encoding = NATIVE + (_ORDER + json.dumps(orders, ensure_ascii=False) if orders else "")
        if len(encoding) > LONGEST_ORDER:
            raise NotNative
        return encoding

    def _encoded(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is dict or kind is list or (kind is tuple and self._tuples):
            if not depth or self.size > LARGEST:
                raise NotNative
            self.size += 2
            if kind is not dict:
                return [self._encoded(item, depth - 1) for item in value]
            if len(value) == 2 and "__type__" in value:
                raise NotNative  # Kombu's JSON takes it for a value of another type, and reads that
            made = {self._text(key): self._encoded(member, depth - 1) for key, member in value.items()}
            order = list(made)
            if len(order) > 1 and self._orders.setdefault(frozenset(order), order) != order:
                raise NotNative  # two dicts with the same keys in another order
            return made
        if value is None and not self._nulls:
            raise NotNative
        self.size += 9
        if value is None:
            return NULL
        if kind is bool or (kind is int and value in INTEGERS) or (kind is float and math.isfinite(value)):
            return value
        raise NotNative

    def _text(self, value: Any) -> str:
        if type(value) is not str or not plain(value):
            raise NotNative
        self.size += len(value) + 2
        return value


def native(value: Any) -> Any:
    """Return a value as SurrealDB's; None where it would not come back unchanged.

    Args:
        value: Any value.
    """
    try:
        return NativeCodec().encode(value)
    except NotNative:
        return None


def length(payload: Any) -> int:
    """Return about how many bytes an encoded value has.

    Args:
        payload: What a serializer or `NativeCodec` made.
    """
    if isinstance(payload, bytes):
        return len(payload)
    if isinstance(payload, str):
        return len(payload) if payload.isascii() else len(payload.encode())
    if isinstance(payload, dict):
        return 2 + sum(length(key) + length(value) for key, value in payload.items())
    return 2 + sum(map(length, payload)) if isinstance(payload, list) else 9


def is_native(encoding: Any) -> bool:
    """Return whether a record's `encoding` says that its values are SurrealDB's own.

    Args:
        encoding: The content type of the record's values.
    """
    return isinstance(encoding, str) and encoding.startswith(NATIVE)


def decoded(value: Any, encoding: str) -> Any:
    """Return a value as it was stored, of new lists and dicts: all that wait for a task are given one record.

    Args:
        value: As SurrealDB gave it.
        encoding: The record's.
    """
    return _copied(value, _orders(encoding) if len(encoding) > len(NATIVE) else None)


@lru_cache(maxsize=256)
def _orders(encoding: str) -> Mapping[frozenset[str], list[str]]:
    try:
        return {frozenset(order): order for order in json.loads(encoding[len(NATIVE + _ORDER) :])}
    except (ValueError, TypeError):  # a person's
        return {}


def _copied(value: Any, orders: Mapping[frozenset[str], list[str]] | None) -> Any:
    if isinstance(value, dict):
        keys = orders.get(frozenset(value), value) if orders else value
        return {key: _copied(value[key], orders) for key in keys}
    return [_copied(item, orders) for item in value] if isinstance(value, list) else value


def again(value: Any) -> Any:
    """Return a value that came from SurrealDB as it is sent there again: None inside of it was NULL.

    Args:
        value: As SurrealDB gave it.
    """
    if isinstance(value, dict):
        return {key: again(member) for key, member in value.items()}
    if isinstance(value, list):
        return [again(item) for item in value]
    return NULL if value is None else value


def plain(text: str) -> bool:
    """Return whether every engine stores a text and gives it back.

    Args:
        text: A text.
    """
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
