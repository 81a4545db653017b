"""Messages of SurrealDB's RPC protocol in CBOR, as far as a pipe needs to read them.

A request is read just deep enough to know its method and session, a reply not at all: the rest keeps its bytes,
so no value can be changed by being decoded and encoded on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from surrealdb.data.cbor import decode, encode

#: SurrealDB's NULL and NONE, encoded.
NULL: Final = b"\xf6"
NONE: Final = b"\xc6\xf6"


class RpcError(Exception):
    """An error to be answered in SurrealDB's own form."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def head(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Read one CBOR head: (major type, argument or None for indefinite length, where the content begins)."""
    try:
        major, info = data[at] >> 5, data[at] & 31
        if info < 24:
            return major, info, at + 1
        if info == 31:
            return major, None, at + 1
        size = 1 << (info - 24)
        if size > 8 or at + 1 + size > len(data):
            raise IndexError
        return major, int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size
    except IndexError:
        raise RpcError(-32700, "Parse error") from None


def skip(data: bytes, at: int) -> int:
    """Return where the CBOR item that begins at *at* ends."""
    open_items: list[int | None] = [1]  # items still to read on each level; None: until a break
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            continue
        major, argument, at = head(data, at)
        if major == 7 and argument is None:
            if open_items.pop() is not None:
                raise RpcError(-32700, "Parse error")
            continue
        if open_items[-1] is not None:
            open_items[-1] -= 1
        if major in (2, 3):
            if argument is None:
                open_items.append(None)
            else:
                at += argument
        elif major == 4:
            open_items.append(argument)
        elif major == 5:
            open_items.append(None if argument is None else 2 * argument)
        elif major == 6:
            open_items.append(1)
    if at > len(data):
        raise RpcError(-32700, "Parse error")
    return at


def items_of(data: bytes, major: int) -> list[bytes]:
    """Return the items of the array (*major* 4) or the keys and values of the map (5) as their bytes."""
    found, count, at = head(data, 0)
    if found != major:
        raise RpcError(-32600, "Invalid Request")
    items: list[bytes] = []
    wanted = None if count is None else count * (2 if major == 5 else 1)
    while len(items) != wanted:
        if wanted is None and data[at : at + 1] == b"\xff":
            break
        end = skip(data, at)
        items.append(data[at:end])
        at = end
    return items


def _collection(major: int, count: int) -> bytes:
    """Return the head of an array (*major* 4) or a map (5) of *count* items or pairs."""
    if count < 24:
        return bytes([major << 5 | count])
    if count < 256:
        return bytes([major << 5 | 24, count])
    return bytes([major << 5 | 26]) + count.to_bytes(4, "big")


def array(items: Sequence[bytes]) -> bytes:
    """An array of items that are encoded already."""
    return _collection(4, len(items)) + b"".join(items)


def mapping(entries: dict[bytes, bytes]) -> bytes:
    """A map of keys and values that are encoded already."""
    return _collection(5, len(entries)) + b"".join(key + value for key, value in entries.items())


def pairs(data: bytes) -> dict[bytes, bytes]:
    """Return a map's pairs, keys and values as their bytes."""
    items = items_of(data, 5)
    return dict(zip(items[::2], items[1::2], strict=True))


ID: Final = encode("id")
METHOD: Final = encode("method")
PARAMS: Final = encode("params")
SESSION: Final = encode("session")
RESULT: Final = encode("result")


class Request:
    """One request: its method in clear, everything else as the bytes that came."""

    def __init__(self, data: bytes) -> None:
        self.pairs = pairs(data)
        self.id = self.pairs.get(ID, NONE)
        method = self.pairs.get(METHOD, NONE)
        if head(method, 0)[0] != 3:
            raise RpcError(-32600, "Invalid Request")
        self.method = str(decode(method))

    @classmethod
    def of(cls, method: str, *params: bytes) -> Request:
        """Make a request of our own; *params* are encoded already."""
        return cls(mapping({ID: encode(""), METHOD: encode(method), PARAMS: array(params)}))

    @property
    def params(self) -> list[bytes]:
        """The parameters, each as its bytes."""
        return items_of(self.pairs[PARAMS], 4) if PARAMS in self.pairs else []

    @property
    def data(self) -> bytes:
        """The whole request."""
        return mapping(self.pairs)

    def text(self, position: int) -> str | None:
        """Return the parameter at *position* if it is a text."""
        params = self.params
        if position >= len(params) or head(params[position], 0)[0] != 3:
            return None
        return str(decode(params[position]))

    def reply(self, result: bytes = NONE) -> bytes:
        """Answer with *result*, encoded already."""
        return mapping({ID: self.id, RESULT: result})


def failure(request_id: bytes, error: RpcError) -> bytes:
    """The reply to a request that failed."""
    body = encode({"code": error.code, "message": str(error)})
    return mapping({ID: request_id, encode("error"): body})


def succeeded(reply: bytes) -> bool:
    """Whether a reply holds a result.

    Args:
        reply: The encoded reply.
    """
    return RESULT in pairs(reply)
