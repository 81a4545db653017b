"""Arguments and options as a record holds them, without loss.

Plain data is stored as it is, so that it can be read and edited in the database. What SurrealDB
would change (it drops `None` in objects, refuses integers beyond 64 bits, and 2.x cannot read NUL
again) or has no type for is stored as JSON text. What JSON cannot hold either stays in code.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

from kombu.utils import json

from ..client.values import INTEGERS
from ..errors import InvalidSchedule

#: Begins the text that stands in a record for a value only code can hold.
CODE_MARK = "code: "

#: How many lists and objects may be in one another.
MAX_DEPTH = 100

#: How many of them SurrealDB is given as they are; deeper ones are JSON text.
MAX_PLAIN_DEPTH = 20

#: How much of a value a message shows.
SHOWN = 100


def _representation(most: int) -> reprlib.Repr:
    """Return what represents values with escapes for control characters, and of long ones a part.

    Args:
        most: The most characters of a text; a third as many members of a container.
    """
    short = reprlib.Repr()
    for name in ("maxdict", "maxlist", "maxtuple", "maxset", "maxfrozenset", "maxdeque", "maxarray", "maxlong"):
        setattr(short, name, most // 3)
    short.maxstring = short.maxother = most
    return short


_SHORT, _LONG = _representation(SHOWN), _representation(10 * SHOWN)


def storable(name: str, value: Any) -> Any:
    """Return a value as data that is the same when it is read back.

    Args:
        name: The field's name, for the message.
        value: The field's value.

    Returns:
        Lists, objects with text as keys, and what JSON knows, as Celery has it.

    Raises:
        InvalidSchedule: It holds what JSON cannot hold; the message says where.
    """
    return _storable(name, value, 0)


def _storable(path: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if depth >= MAX_DEPTH:
        name = re.split(r"[.\[]", path)[0]
        raise InvalidSchedule(f"{name} is nested deeper than {MAX_DEPTH} levels: give less")
    if isinstance(value, (list, tuple)):
        return [_storable(f"{path}[{position}]", part, depth + 1) for position, part in enumerate(value)]
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise InvalidSchedule(f"{path} has the key {shown(wrong)}: keys that are stored are text")
        parts = {str.__str__(key): part for key, part in value.items()}
        return {key: _storable(f"{path}.{key}", part, depth + 1) for key, part in parts.items()}
    try:
        is_same = json.loads(json.dumps(value)) == value
    except Exception:  # an object of the project's may raise anything
        is_same = False
    if is_same is not True:
        raise InvalidSchedule(
            f"{path} holds {shown(value)}, which cannot be stored as data: give what JSON can hold, or keep "
            "the entry in code (beat_schedule)"
        )
    return value


def stored(value: Any) -> Any:
    """Return a value as a record holds it.

    Args:
        value: A list or an object. Values that only code can hold become a text that says so.
    """
    try:
        data = storable("", value)
        if _is_plain(data, MAX_PLAIN_DEPTH):
            return data
        text = json.dumps(data)
        json.loads(text)  # what looks like one of Celery's own forms and is none cannot be read
    except (InvalidSchedule, ValueError, TypeError, RecursionError):
        # Without addresses, which are others in each process.
        return CODE_MARK + re.sub(r" at 0x[0-9a-fA-F]+", "", _LONG.repr(value))
    return text


def is_in_code(value: Any) -> bool:
    """Return whether a record's field stands for a value that only code can hold.

    Args:
        value: Any value.
    """
    return isinstance(value, str) and value.startswith(CODE_MARK)


def loaded(name: str, text: str) -> Any:
    """Return the value that a record holds as JSON text.

    Args:
        name: The field's name, for the message.
        text: The text.

    Raises:
        InvalidSchedule: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidSchedule(f"{name} holds text that is no JSON: {error}") from error


def shown(value: Any) -> str:
    """Return a value for a message: of a long one the beginning.

    Args:
        value: Any value.
    """
    text = _SHORT.repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def is_text(value: object) -> bool:
    """Return whether a value is text that every SurrealDB stores and reads again.

    Args:
        value: Any value.
    """
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(is_text(key) and _is_plain(part, depth - 1) for key, part in value.items())
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(part, depth - 1) for part in value)
    if isinstance(value, str):
        return is_text(value)
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return value in INTEGERS
    if isinstance(value, float):
        return value - value == 0  # neither infinite nor NaN
    return False
