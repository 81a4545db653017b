"""Secrets: values that no log, repr, exception, URI or frame's local variable shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

#: Stands in the place of a secret; Celery's own mask.
MASK = "**"
#: A shorter secret is masked where it stands by itself, in characters. It is in many words, too: masks there would make
#: a message unreadable, and say what the secret is.
SHORTEST_PART = 4
#: What a short secret stands behind: no letter or digit, unless that is the end of `%3A`, `\n`, `\x00` or `\u00e9`.
_BEGIN = r"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{2})|(?<=\\[abfnrtv])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4}))"


class Secret:
    """A value whose repr and str are a mask.

    Error trackers keep the repr of local variables and arguments, so a secret travels in this until it is encoded.

    Args:
        value: The secret: a password, a token, a URL with either, or a variable of an access method.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def reveal(self) -> Any:
        """The secret itself: for the encoder and for comparisons, never for a message."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, str(self._value)))


def texts(value: Any) -> Iterator[str]:
    """The texts inside a secret of any shape.

    Args:
        value: A `Secret`, text, bytes, number, list or dict.

    Yields:
        Every text that is worth masking, not empty.
    """
    if isinstance(value, Secret):
        yield from texts(value.reveal())
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from texts(part)
    elif isinstance(value, bytes):
        yield from texts(value.decode("utf-8", "replace"))
    elif value is not None and not isinstance(value, bool) and str(value):
        yield str(value)


def mask(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in a text that somebody else wrote: a server, a library, the operating system.

    Args:
        text: The text to show.
        secrets: The texts that must not be in it.

    Returns:
        The text without the secrets, also where they are percent-encoded or escaped as in a repr. One of fewer than
        four characters stays where it is part of a word.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        encoded = secret.encode("utf-8", "surrogatepass")
        escaped = {repr(secret)[1:-1], repr(encoded)[2:-1], secret.encode("unicode_escape").decode("ascii")}
        forms = {secret, secret.strip(), quote(encoded, safe=""), quote_plus(encoded), *escaped}
        for form in sorted(forms - {""}, key=len, reverse=True):
            if len(form) >= SHORTEST_PART:
                text = text.replace(form, MASK)
            else:
                text = re.sub(rf"{_BEGIN}{re.escape(form)}(?!\w)", MASK, text)
    return text


def clean(exc: BaseException | None, hide: Callable[[str], str]) -> BaseException | None:
    """An exception fit to be another's cause.

    Args:
        exc: An exception caused by a library, a server or the operating system.
        hide: Masks secrets in a text.

    Returns:
        The exception without its frames, whose local variables may hold secrets, and without those of its own causes;
        where its text has a secret, an exception of the masked text in its place.
    """
    if exc is None:
        return None
    shown = f"{exc} {exc.args}"
    if hide(shown) != shown:
        return ConnectionError(hide(f"{type(exc).__name__}: {exc}"))
    exc.__cause__ = clean(exc.__cause__, hide)
    exc.__context__ = None if exc.__cause__ is not None else clean(exc.__context__, hide)
    return exc.with_traceback(None)
