"""How long results of some tasks are kept, and how many: the table `surrealdb_retention`, a task's own, a header's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError
from .kinds import LONGEST_LIFETIME, PREFIX, number
from .names import unknown

_KEYS = ("expires", "failure_expires", "keep")


@dataclass(frozen=True)
class Rule:
    """The retention asked for the results of one task. None everywhere: the app's own settings decide.

    Attributes:
        expires: How many seconds a result is kept; 0 for ever.
        failure_expires: The same of a failure.
        keep: How many finished results of one name are kept at the most: the newest.
    """

    expires: float | None = None
    failure_expires: float | None = None
    keep: int | None = None

    def __or__(self, other: Rule) -> Rule:
        """The rule that asks what this one asks, and of the rest what the other asks."""
        if self.expires is not None:
            # A task's own lifetime is meant for its failures too, unless it says otherwise.
            failure_expires = self.failure_expires
        else:
            failure_expires = other.failure_expires if self.failure_expires is None else self.failure_expires
        return Rule(
            other.expires if self.expires is None else self.expires,
            failure_expires,
            other.keep if self.keep is None else self.keep,
        )


#: A pattern of task names (`reports.*`), and the rule of those it matches.
Rules = tuple[tuple[str, Rule], ...]


def lifetime(what: str, value: Any) -> float | None:
    """Check a lifetime.

    Args:
        what: The source of the value, for the message.
        value: Seconds as a number or its text, a timedelta; None and 0 for ever.

    Returns:
        Seconds; 0 for ever.

    Raises:
        SettingsError: It is no lifetime.
    """
    found = 0.0 if value is None else number(value)
    if not 0 <= found <= LONGEST_LIFETIME:
        raise SettingsError(
            f"{what} must be a number of seconds from 0 (for ever) to {LONGEST_LIFETIME:,.0f}, a timedelta or None, "
            f"not {value!r}"
        )
    return found


def keep(what: str, value: Any) -> int | None:
    """Check a number of results.

    Args:
        what: The source of the value, for the message.
        value: A number above 0, or its text; None for any number.

    Returns:
        The number; None for any number.

    Raises:
        SettingsError: It is no such number.
    """
    if value is None:
        return None
    found = number(value)
    if not (found >= 1 and found.is_integer()):
        raise SettingsError(f"{what} must be a whole number above 0, or None to keep all, not {value!r}")
    return int(found)


def rule(what: str, given: Any) -> Rule:
    """Check a rule.

    Args:
        what: The source of the value, for messages.
        given: A lifetime, or a mapping with `expires`, `failure_expires` and `keep`, any of them.

    Returns:
        The rule.

    Raises:
        SettingsError: It is not one.
    """
    if not isinstance(given, Mapping):
        return Rule(expires=lifetime(what, given))
    for key in given:
        if key not in _KEYS:
            raise SettingsError(unknown(f"key of {what}", str(key), _KEYS))
    lifetimes = {key: lifetime(f"{key} of {what}", given[key]) for key in _KEYS[:2] if key in given}
    return Rule(**lifetimes, keep=keep(f"keep of {what}", given.get("keep")))


def rules(name: str, value: Any) -> Rules:
    """A table of patterns of task names and what is asked for them, as a dict or its JSON text.

    Args:
        name: The setting's name, for the message.
        value: The value given.
    """
    if not value:
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise SettingsError(f"{PREFIX}{name} must be a dict or its JSON text, not {value!r}") from None
    if not isinstance(value, Mapping):
        raise SettingsError(f"{PREFIX}{name} must be a dict of patterns and lifetimes, not {value!r}")
    table = []
    for pattern, asked in value.items():
        if not isinstance(pattern, str) or not pattern:
            raise SettingsError(f"{PREFIX}{name} has the pattern {pattern!r}; write a task's name or one with *")
        table.append((pattern, rule(f"{PREFIX}{name}[{pattern!r}]", asked)))
    return tuple(table)
