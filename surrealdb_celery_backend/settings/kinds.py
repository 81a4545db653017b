"""Kinds of settings: each checks one value and returns it in its own type."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from ..client.options import TLS
from ..client.secret import Secret
from ..errors import SettingsError
from .names import unknown

PREFIX = "surrealdb_"
#: Takes a setting's name without `surrealdb_` and what was given; returns the value.
Kind = Callable[[str, Any], Any]
#: Longer waits overflow the operating system's timers (32 bits of milliseconds), in seconds.
LONGEST_WAIT = 1_000_000.0
#: Longer lifetimes end after the last year that Python and SurrealDB can count, in seconds: some 300 years.
LONGEST_LIFETIME = 10_000_000_000.0
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def text(name: str, value: Any) -> str:
    """A text that is not empty.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{PREFIX}{name} must be a text that is not empty, not {value!r}")
    return value


def optional_text(name: str, value: Any) -> str | None:
    """A text; None and the empty text are nothing.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    return None if value in (None, "") else text(name, value)


def secret(name: str, value: Any) -> str | None:
    """A text that no message shows.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    if value is not None and not isinstance(value, str):
        raise SettingsError(f"{PREFIX}{name} must be a text, not a value of type {type(value).__name__}")
    return value


def token(name: str, value: Any) -> str | None:
    """A JSON web token: visible ASCII. White space around it, as from a file, is dropped.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    found = (secret(name, value) or "").strip()
    for position, character in enumerate(found):
        if not "!" <= character <= "~":
            raise SettingsError(
                f"{PREFIX}{name} has a character at position {position} that no JSON web token has; "
                "give the token as the server or its issuer wrote it, on one line"
            )
    return found or None


def prefix(name: str, value: Any) -> str:
    """Check the beginning of table names.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or "\x00" in value:
        raise SettingsError(f"{PREFIX}{name} must be a text without NUL bytes, not {value!r}")
    return value


def number(value: Any) -> float:
    """Seconds as a number, given in any form.

    Args:
        value: A number, its text, or a timedelta.

    Returns:
        The seconds; NaN for what is none of these.
    """
    if isinstance(value, bool):
        return float("nan")
    try:
        return float(value.total_seconds() if isinstance(value, timedelta) else value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def seconds(name: str, value: Any) -> float:
    """How long something may take: a number above 0, its text, or a timedelta.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    found = number(value)
    if not 0 < found <= LONGEST_WAIT:
        raise SettingsError(
            f"{PREFIX}{name} must be a number of seconds above 0 and at most {LONGEST_WAIT:,.0f}, not {value!r}"
        )
    return found


def threshold(name: str, value: Any) -> float | None:
    """From how many seconds on something is told: a number, its text or a timedelta; None or 0 for never."""
    if value is None:
        return None
    found = number(value)
    if not 0 <= found <= LONGEST_WAIT:
        raise SettingsError(
            f"{PREFIX}{name} must be a number of seconds from 0 (off) to {LONGEST_WAIT:,.0f}, a timedelta or None, "
            f"not {value!r}"
        )
    return found or None


def lifetime(name: str, value: Any) -> float | None:
    """How long something is kept: seconds as a number, its text or a timedelta; None or 0 for ever.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    return full_lifetime(PREFIX + name, value)


def full_lifetime(name: str, value: Any) -> float | None:
    """Like `lifetime`, of a setting that is Celery's own.

    Args:
        name: The whole name.
        value: The value given.

    Returns:
        Seconds; None for ever.

    Raises:
        SettingsError: It is no such time, or ends after the last year that can be counted.
    """
    if value is None:
        return None
    found = number(value)
    if not 0 <= found <= LONGEST_LIFETIME:
        raise SettingsError(
            f"{name} must be a number of seconds from 0 (for ever) to {LONGEST_LIFETIME:,.0f}, a timedelta or None, "
            f"not {value!r}"
        )
    return found or None


def flag(name: str, value: Any) -> bool:
    """True or False, or a word for either.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        raise SettingsError(f"{PREFIX}{name} must be True or False, not {value!r}")
    return word in _TRUE


def choice(*choices: str) -> Kind:
    """One of some words, in any case; True and False are `on` and `off`.

    Args:
        *choices: The words, in lower case.

    Returns:
        The kind.
    """

    def chosen(name: str, value: Any) -> str:
        if isinstance(value, bool):
            value = "on" if value else "off"
        if str(value).lower() not in choices:
            raise SettingsError(f"{PREFIX}{name} must be one of {', '.join(choices)}, not {value!r}")
        return str(value).lower()

    return chosen


def choices(*known: str) -> Kind:
    """Some of some words: a list, or a text with commas between them.

    Args:
        *known: The words.

    Returns:
        The kind, whose values are texts with commas.
    """

    def chosen(name: str, value: Any) -> str:
        words = value.split(",") if isinstance(value, str) else list(value or ())
        found = [str(word).strip() for word in words if str(word).strip()]
        for word in found:
            if word not in known:
                raise SettingsError(unknown(f"index in {PREFIX}{name}", word, known))
        return ",".join(dict.fromkeys(found))

    return chosen


def redaction(name: str, value: Any) -> Any:
    """Names of arguments, as a list or a text with commas; or a function.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    if not value:
        return ()
    if callable(value):
        return value
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, (list, tuple, set, frozenset)) or not all(isinstance(word, str) for word in words):
        raise SettingsError(f"{PREFIX}{name} must be names of arguments or a function, not {type(value).__name__}")
    return tuple(word.strip() for word in words if word.strip())


def count(name: str, value: Any) -> int:
    """A whole number from 0 on, or its text.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    found = number(value)
    if not (found >= 0 and found.is_integer()):
        raise SettingsError(f"{PREFIX}{name} must be a whole number from 0 on, not {value!r}")
    return int(found)


def secrets(name: str, value: Any) -> Mapping[str, Secret] | None:
    """A dict whose values no message shows.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise SettingsError(f"{PREFIX}{name} must be a dict, not a value of type {type(value).__name__}")
    return {key: Secret(part) for key, part in value.items()}


def file(name: str, value: Any) -> str | None:
    """A path, as text or as a `PathLike`.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    return optional_text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def tls(name: str, value: Any) -> TLS | None:
    """True, a CA file, or a dict of `TLS`' fields; None and False are no TLS.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    if value is None or isinstance(value, TLS):
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (bool, str)):
        word = str(value).lower()
        if word in (*_FALSE, ""):
            return None
        return TLS() if word in _TRUE else TLS(ca_file=str(value))
    if not isinstance(value, Mapping):
        raise SettingsError(f"{PREFIX}{name} must be True, a CA file or a dict, not {value!r}")
    parts: dict[str, Any] = {}
    for key, part in value.items():
        if key not in TLS.__dataclass_fields__:
            raise SettingsError(unknown(f"{PREFIX}{name} key", str(key), TLS.__dataclass_fields__))
        parts[key] = flag(f"{name} {key}", part) if key == "verify" else file(f"{name} {key}", part)
    return TLS(**parts)
