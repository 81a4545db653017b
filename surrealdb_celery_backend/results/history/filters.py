"""Filters of a search: validation, and the terms that a statement is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from celery import states

from ...errors import InvalidFilter

#: Filters by name: one value or several, each exact or with ``*`` for any text.
NAMED = ("name", "worker", "queue")
#: Filters by an id or a name that must be equal, and the record's field.
EQUAL = {
    "root": "root_id",
    "group": "group_id",
    "parent": "parent_id",
    "periodic": "periodic_task_name",
    "retry_of": "retry_of",
}
#: The longest text that is searched for, in characters.
LONGEST = 10_000


@dataclass(frozen=True)
class Filter:
    """A checked filter.

    Attributes:
        terms: The parts of the condition: keys of :data:`~.terms.TERMS`.
        variables: The parameters of those terms.
        equal: Fields that have one known value, which an index may be of, by the field's name.
        since: The task's time is not before this.
        until: The task's time is before this.
        ready: Whether tasks that have ended can match.
        unready: Whether tasks that have not ended can match.
    """

    terms: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    equal: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    ready: bool = True
    unready: bool = True

    @classmethod
    def of(  # noqa: PLR0913 - one keyword for each filter, so that a wrong name is refused
        cls,
        *,
        state: str | Iterable[str] | None = None,
        name: str | Iterable[str] | None = None,
        worker: str | Iterable[str] | None = None,
        queue: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        error: str | None = None,
        text: str | None = None,
        tags: str | Iterable[str] | None = None,
        argument: str | None = None,
        root: str | None = None,
        group: str | None = None,
        parent: str | None = None,
        periodic: str | None = None,
        retry_of: str | None = None,
        min_runtime: float | None = None,
    ) -> Filter:
        """Check what is given and make a filter of it: see :meth:`Results.find`.

        Raises:
            InvalidFilter: A value makes no sense; the message names it.
        """
        making = _Making()
        given = making.texts("state", state)
        if given:
            making.term("state", state=[each.upper() for each in given])
        for what, value in (("name", name), ("worker", worker), ("queue", queue)):
            making.named(what, value)
        for what, value in (("root", root), ("group", group), ("parent", parent)):
            making.equals(what, value)
        for what, value in (("periodic", periodic), ("retry_of", retry_of)):
            making.equals(what, value)
        making.error(error)
        making.text("text", text, lowered=True)
        if argument is not None:
            making.text("argument", argument)
            making.variables["argument_bare"] = argument.replace('"', "").replace("'", "")
        wanted_tags = making.texts("tags", tags)
        if wanted_tags:
            making.term("tags", tags=wanted_tags)
        if min_runtime is not None:
            making.term("min_runtime", min_runtime=_number("min_runtime", min_runtime))
        wanted = making.variables.get("state")
        return cls(
            terms=tuple(making.terms),
            variables=making.variables,
            equal=making.equal,
            since=_moment("since", since),
            until=_moment("until", until),
            ready=wanted is None or any(each in states.READY_STATES for each in wanted),
            unready=wanted is None or any(each not in states.READY_STATES for each in wanted),
        )


class _Making:
    """A filter that is being made."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.variables: dict[str, Any] = {}
        self.equal: dict[str, Any] = {}

    def term(self, term: str, /, **variables: Any) -> None:
        self.terms.append(term)
        self.variables.update(variables)
        if term == "state" and len(variables["state"]) == 1:
            self.equal["status"] = variables["state"][0]

    def texts(self, what: str, value: Any) -> list[str]:
        if value is None:
            return []
        values = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
        return [_text(what, each) for each in values]

    def named(self, what: str, value: Any) -> None:
        values = self.texts(what, value)
        if not values:
            return
        if any("*" in each for each in values):
            self.term(f"{what}_like", **{what: _pattern(values)})
        else:
            self.term(what, **{what: values})
            if len(values) == 1:
                self.equal[what] = values[0]

    def equals(self, what: str, value: Any) -> None:
        if value is not None:
            self.term(what, **{what: _text(what, value)})
            self.equal[EQUAL[what]] = value

    def error(self, value: Any) -> None:
        if value is None:
            return
        error = _text("error", value)
        if "*" in error:
            self.term("error_like", error=_pattern([error]))
            return
        # Records of older versions have the type in the encoded result only.
        own_name = error.rpartition(".")[2]
        self.term("error", error=error, error_in_result=f'"exc_type": "{own_name}"')
        if "." not in error:
            self.equal["error.type"] = error

    def text(self, what: str, value: Any, *, lowered: bool = False) -> None:
        if value is not None:
            text = _text(what, value)
            self.term(what, **{what: text.lower() if lowered else text})


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidFilter(f"{what} must be a text that is not empty, not {value!r}")
    if len(value) > LONGEST or "\x00" in value:
        raise InvalidFilter(f"{what} must be a text of at most {LONGEST} characters without NUL bytes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidFilter(f"{what} holds half a surrogate pair, which no record can hold") from None
    return value


def _pattern(values: list[str]) -> str:
    # re.escape writes what Rust's regular expressions read alike, but for these.
    alternatives = [".*".join(re.escape(part) for part in value.split("*")) for value in values]
    return f"(?s)^(?:{'|'.join(alternatives)})$"


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise InvalidFilter(f"{what} must be a number of seconds, not {value!r}")
    return float(value)


def _moment(what: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidFilter(f"{what} must be a datetime with a time zone, not {value!r}")
    return value.astimezone(timezone.utc)
