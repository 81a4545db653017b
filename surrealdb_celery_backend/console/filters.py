"""The filters of a list of tasks, as they stand in a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

from ..errors import InvalidFilter

#: Filters that are text.
TEXTS = ("state", "name", "worker", "queue", "error", "text", "tags", "argument", "root", "group", "periodic")
#: The spans that `since` may name.
AGO = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: Tasks on a page.
PAGE = 50


@dataclass(frozen=True)
class View:
    """What a list of tasks shows.

    Attributes:
        wanted: The filters, as `Results.find` takes them.
        given: The same as they stood in the URL, for the form and for links.
        after: The page before ended here.
        limit: Tasks on a page.
    """

    wanted: Mapping[str, Any]
    given: Mapping[str, str]
    after: str | None
    limit: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> View:
        """Read a URL's query; empty fields of a form are no filters.

        Raises:
            InvalidFilter: A field makes no sense; the message names it.
        """
        given = {name: query[name].strip() for name in (*TEXTS, "since", "until", "min_runtime") if query.get(name)}
        given = {name: value for name, value in given.items() if value}
        wanted: dict[str, Any] = {name: given[name] for name in TEXTS if name in given}
        for name in ("state", "tags"):
            if name in wanted:
                wanted[name] = [each.strip() for each in wanted[name].split(",") if each.strip()]
        for name in ("since", "until"):
            if name in given:
                wanted[name] = moment(name, given[name])
        if "min_runtime" in given:
            try:
                wanted["min_runtime"] = float(given["min_runtime"])
            except ValueError:
                raise InvalidFilter(f"min_runtime is {given['min_runtime']!r}: give seconds") from None
        return cls(wanted, given, query.get("after") or None, _limit(query.get("limit")))

    @property
    def shown(self) -> Mapping[str, str]:
        """The fields of the address of the first page."""
        return self.given if self.limit == PAGE else {**self.given, "limit": str(self.limit)}

    def link(self, **changed: str | None) -> str:
        """The query of a URL that shows the same, but for some fields; None leaves one out."""
        fields = {**self.given, **changed}
        return urlencode({name: value for name, value in fields.items() if value})


def _limit(text: str | None) -> int:
    if not text:
        return PAGE
    try:
        limit = int(text)
    except ValueError:
        raise InvalidFilter(f"limit is {text!r}: give a number") from None
    return limit


def moment(name: str, text: str) -> datetime:
    """A time: ISO 8601, in UTC where it has no offset, or a span before now such as `90m`, `24h`, `7d`.

    Raises:
        InvalidFilter: It is neither.
    """
    if text[:-1].isdigit() and text[-1] in AGO:
        try:
            return datetime.now(timezone.utc) - timedelta(**{AGO[text[-1]]: int(text[:-1])})
        except OverflowError:
            pass
    else:
        try:
            found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            pass
        else:
            return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
    raise InvalidFilter(f"{name} is {text!r}: give a time such as 2026-11-26T09:00, or a span such as 90m, 24h or 7d")
