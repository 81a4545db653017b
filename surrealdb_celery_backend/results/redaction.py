"""Redaction: arguments with secrets, and arguments that are too large, are replaced before anything is sent."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from celery import states
from celery.utils.log import get_logger

logger = get_logger(__name__)

#: Stands where an argument was.
MASK = "**"
#: How a text ends that was cut.
_CUT = re.compile(r"… \(\d+ characters\)\Z")
#: Shorter texts are not looked for in tracebacks: they would be found everywhere.
SHORTEST_SECRET = 4

#: Takes the task's name, its positional and its keyword arguments, and returns both as they may be stored.
Redactor = Callable[[str, Any, Any], tuple[Any, Any]]


class Redaction:
    """The arguments that one app does not store.

    Args:
        redact: Names of arguments whose values are masked, at any depth; or a function that does it.
        limit: How many characters the arguments of a task may have as text; 0 for any number.
        find_task: Returns the task of a name, for the names of positional arguments.
    """

    def __init__(self, redact: Collection[str] | Redactor, limit: int, find_task: Callable[[str], Any]) -> None:
        self._function = redact if callable(redact) else None
        self._names = frozenset() if callable(redact) else frozenset(redact)
        self._limit = limit
        self._find_task = find_task
        self.active = bool(redact) or limit > 0
        self._failing = threading.local()

    @contextlib.contextmanager
    def failing(self, request: Any) -> Iterator[None]:
        """Inside, a task fails, and others with it: the rest of its chain, whose requests do not know its arguments.

        Args:
            request: The request of the task that fails.
        """
        before = self.secrets_of_failing
        self._failing.secrets = [*before, *self._secrets(request)] if request and self.active else before
        try:
            yield
        finally:
            self._failing.secrets = before

    @property
    def secrets_of_failing(self) -> Sequence[str]:
        """The texts to mask in whatever this thread stores at the moment."""
        found: Sequence[str] = getattr(self._failing, "secrets", ())
        return found

    def masked_error(self, error: Any, request: Any) -> Any:
        """Mask secrets in an exception.

        Args:
            error: The exception, as `encode_result` made it.
            request: The request of its task.
        """
        return _without(error, _longest_first([*self._secrets(request), *self.secrets_of_failing]))

    def hides(self, signature: Any) -> bool:
        """Return whether a signature has arguments that must not be stored, its own or those of one inside.

        Args:
            signature: The signature, as a dict.
        """
        if isinstance(signature, Mapping):
            name, args, kwargs = (signature.get(key) for key in ("task", "args", "kwargs"))
            if isinstance(name, str) and isinstance(args, (list, tuple)) and isinstance(kwargs, Mapping):
                # It may be called with the result before it in front.
                for given in (list(args), [None, *args]):
                    kept_args, kept_kwargs = self._redacted(name, given, kwargs)
                    if not _same(given, kept_args) or not _same(kwargs, kept_kwargs):
                        return True
            return any(self.hides(member) for member in signature.values())
        return isinstance(signature, (list, tuple)) and any(self.hides(item) for item in signature)

    def apply(self, meta: dict[str, Any], request: Any, others: Sequence[str] = ()) -> tuple[dict[str, Any], bool]:
        """Mask what must not be stored.

        Args:
            meta: Celery's meta, as it is about to be stored.
            request: The task's request.
            others: Texts to mask besides: secrets of the task that made this one fail.

        Returns:
            A meta without it, and whether its arguments are no longer what the task was called with. A secret that is
            a text or a number is masked in the traceback and in the error, too.
        """
        name = str(getattr(request, "task", None) or meta.get("name") or "")
        args, kwargs = getattr(request, "args", None), getattr(request, "kwargs", None)
        kept_args, kept_kwargs = self._redacted(name, args, kwargs)
        secrets = _longest_first([*_hidden((args, kwargs), (kept_args, kept_kwargs)), *others])
        meta = dict(meta)
        changed = False
        if "args" in meta:
            meta["args"], meta["kwargs"] = self._limited(kept_args), self._limited(kept_kwargs)
            changed = not _same(args, meta["args"]) or not _same(kwargs, meta["kwargs"])
        if secrets:
            meta["traceback"] = _without(meta.get("traceback"), secrets)
            if meta.get("status") in states.EXCEPTION_STATES:
                meta["result"] = _without(meta.get("result"), secrets)
        return meta, changed

    def _secrets(self, request: Any) -> set[str]:
        args, kwargs = getattr(request, "args", None), getattr(request, "kwargs", None)
        return _hidden((args, kwargs), self._redacted(str(getattr(request, "task", None) or ""), args, kwargs))

    def _redacted(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if self._function is not None:
            try:
                args, kwargs = self._function(name, args, kwargs)
            except Exception:
                logger.exception("surrealdb_redact failed for the task %s: no argument of it is stored", name)
                return MASK, MASK
            return args, kwargs
        if not self._names:
            return args, kwargs
        if isinstance(args, (list, tuple)):
            args = self._by_position(name, args)
        return args, self._masked(kwargs)

    def _by_position(self, name: str, args: Any, *shifts: int) -> list[Any]:
        """Mask positional arguments by the names of a task's parameters, which begin at each of some places."""
        masked = {position - shift for shift in (0, *shifts) for position in self._positions(name, len(args) + shift)}
        return [MASK if position in masked else self._masked(value) for position, value in enumerate(args)]

    def _positions(self, name: str, number: int) -> set[int]:
        """Which positional arguments have a name that is masked.

        Args:
            name: The task's name.
            number: How many positional arguments there are.
        """
        task = self._find_task(name)
        try:
            parameters = list(inspect.signature(task.run).parameters)
        except (AttributeError, TypeError, ValueError):
            return set()
        return {position for position, parameter in enumerate(parameters[:number]) if parameter in self._names}

    def _masked(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            masked = {key: MASK if key in self._names else self._masked(member) for key, member in value.items()}
            task, args, calls = value.get("task"), value.get("args"), value.get("it")
            if isinstance(task, str) and isinstance(args, (list, tuple)):
                # A signature, which may be called with the result before it in front.
                masked["args"] = self._by_position(task, args, 1)
            elif isinstance(task, Mapping) and isinstance(calls, (list, tuple)):
                # What `starmap`, `map` and `chunks` of a task are called with.
                name = str(task.get("task"))
                masked["it"] = [
                    self._by_position(name, call)
                    if isinstance(call, (list, tuple))
                    else self._by_position(name, [call])[0]
                    for call in calls
                ]
            return masked
        if isinstance(value, (list, tuple)):
            return [self._masked(item) for item in value]
        return value

    def _limited(self, value: Any) -> Any:
        if not self._limit or value is None:
            return value
        try:
            text = json.dumps(value, ensure_ascii=False, default=repr)
        except (TypeError, ValueError, RecursionError):
            text = repr(value)
        return value if len(text) <= self._limit else f"{text[: self._limit]}… ({len(text)} characters)"


def shows_redaction(value: Any) -> bool:
    """Return whether stored arguments have a mask at any depth, or were cut.

    Args:
        value: Positional or keyword arguments, decoded.
    """
    if isinstance(value, str):
        return value == MASK or _CUT.search(value) is not None
    return _has_mask(value)


def _has_mask(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_mask(member) for member in value.values())
    if isinstance(value, (list, tuple)):
        return any(_has_mask(item) for item in value)
    return isinstance(value, str) and value == MASK


def _same(before: Any, after: Any) -> bool:
    """Whether arguments are what they were; a list may have become a tuple."""
    if before is after:
        return True
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return len(before) == len(after) and all(map(_same, before, after))
    try:
        return type(before) is type(after) and bool(before == after)
    except Exception:  # somebody's own comparison
        return False


def _hidden(given: Any, kept: Any) -> set[str]:
    return set(_texts(given)) - set(_texts(kept))


def _longest_first(secrets: Sequence[str]) -> list[str]:
    # One may be part of another.
    return sorted(set(secrets), key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    text = _text(value)
    if text is not None:
        if len(text) >= SHORTEST_SECRET:
            yield text
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _texts(item)


def _text(value: Any) -> str | None:
    """How a single value is shown in a message; None for what is no single value, or says nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (int, float, Decimal, UUID)) and not isinstance(value, bool):
        return str(value)
    return None


def _without(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            # Also as a traceback or a repr shows it.
            for shown in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
                value = value.replace(shown, MASK)
        return value
    if isinstance(value, Mapping):
        return {key: _without(member, secrets) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without(item, secrets) for item in value)
    if _text(value) in secrets:
        return MASK
    # An exception that pickle is to store: its class is kept only where its arguments may be.
    if isinstance(value, BaseException) and any(secret in f"{value!r}{value}" for secret in secrets):
        return RuntimeError(f"{type(value).__qualname__}: {_without(str(value), secrets)}")
    return value
