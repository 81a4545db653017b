"""The options of an entry: what `apply_async` takes besides the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any

from ..errors import InvalidSchedule
from .times import length_of, moment_of, read_moment, seconds_of
from .values import shown
from .wording import nearest

#: Options that `apply_async` and the message it sends know; others are for tasks that
#: override `apply_async`, and accepted unless they look like one of these misspelt.
KNOWN_OPTIONS = (
    "add_to_parent",
    "compression",
    "connection",
    "countdown",
    "delivery_mode",
    "eta",
    "exchange",
    "expires",
    "headers",
    "ignore_result",
    "immediate",
    "link",
    "link_error",
    "mandatory",
    "priority",
    "producer",
    "properties",
    "queue",
    "replaced_task_nesting",
    "reply_to",
    "retry",
    "retry_policy",
    "router",
    "routing_key",
    "serializer",
    "shadow",
    "soft_time_limit",
    "stamped_headers",
    "time_limit",
    "timeout",
)

#: Options that beat or the entry's own fields decide.
REFUSED_OPTIONS = {
    "task_id": "beat makes it of the entry's name and the due time",
    "args": "set the entry's args",
    "kwargs": "set the entry's kwargs",
}

#: Options of one type, and how a message calls it.
TYPES: dict[str, tuple[type, str]] = {
    "queue": (str, "text"),
    "exchange": (str, "text"),
    "routing_key": (str, "text"),
    "serializer": (str, "text"),
    "compression": (str, "text"),
    "reply_to": (str, "text"),
    "shadow": (str, "text"),
    "priority": (int, "a whole number"),
    "headers": (Mapping, "an object"),
    "retry": (bool, "true or false"),
    "retry_policy": (Mapping, "an object"),
    "ignore_result": (bool, "true or false"),
}

#: Options that are a duration in seconds.
DURATIONS = ("countdown", "expires", "time_limit", "soft_time_limit")

#: Options that may be a moment.
MOMENTS = ("eta", "expires")


def checked_options(options: object) -> dict[str, Any]:
    """Return options as `apply_async` takes them.

    Args:
        options: Options by name; durations may be timedeltas.

    Raises:
        InvalidSchedule: One is unknown, refused or of the wrong type; the message names it.
    """
    if not isinstance(options, Mapping):
        raise InvalidSchedule(f"options holds {shown(options)}: give an object of named values")
    return {_checked_name(name): _checked_value(name, value) for name, value in options.items()}


def with_offsets(options: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """Return options whose moments have an offset.

    Args:
        options: Checked options.
        zone: The zone of moments that have none.
    """
    result = dict(options)
    for name in MOMENTS:
        value = result.get(name)
        if isinstance(value, (str, datetime)):
            moment = moment_of(f"options.{name}", value, zone)
            result[name] = moment.isoformat() if isinstance(value, str) else moment
    return result


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidSchedule(f"options has the field {shown(name)}: give names as text")
    if name in REFUSED_OPTIONS:
        raise InvalidSchedule(f"options.{name} cannot be set: {REFUSED_OPTIONS[name]}")
    if name not in KNOWN_OPTIONS and (hint := nearest(name, KNOWN_OPTIONS)):
        raise InvalidSchedule(f"options has the unknown field {name!r}{hint}")
    return name


def _checked_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in MOMENTS and isinstance(value, (str, datetime)):
        read_moment(f"options.{name}", value)
        return value
    if name in DURATIONS:
        return _seconds(name, value)
    if name in TYPES:
        kind, called = TYPES[name]
        is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        # A queue or an exchange may also be kombu's object, which only code can hold.
        if not is_right and not (name in ("queue", "exchange") and hasattr(value, "name")):
            raise InvalidSchedule(f"options.{name} holds {shown(value)}: give {called}")
    return value


def _seconds(name: str, value: Any) -> int | float:
    if name == "countdown" and type(value) in (int, float) and value == 0:
        return 0
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number or isinstance(value, timedelta) or hasattr(value, "elapsed")):
        hint = "give seconds above 0" + (" or a time" if name in MOMENTS else "")
        raise InvalidSchedule(f"options.{name} holds {shown(value)}: {hint}")
    try:
        length = length_of(name, value)
    except InvalidSchedule:
        raise InvalidSchedule(f"options.{name} holds {shown(value)}: give seconds above 0") from None
    return value if is_number else seconds_of(length)
