"""How long a record lives: what the message, the task, the table of patterns and the app's settings say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Protocol

from celery import states
from celery.utils.log import get_logger

from ..celery_compat import request_fields
from ..errors import SettingsError
from ..settings.retention import Rule, Rules, keep, lifetime
from .expiry import lifetime as lifetime_of

logger = get_logger(__name__)

#: For ever, where a task asks for it: some 7,500 years, in seconds. An end as far off as that is no record without
#: an end, which clean-up would meet in every run.
FOR_EVER = 7_500 * 365.25 * 86_400
#: For ever, of results of which clean-up keeps a number: it looks for them by their end.
COUNTED_FOR_EVER = 6_000 * 365.25 * 86_400
#: Headers of a message, and the names of a rule's fields.
HEADERS = {"result_expires": "expires", "result_failure_expires": "failure_expires"}
#: Attributes of a task likewise.
_ATTRIBUTES = {**HEADERS, "result_keep": "keep"}
#: Of tasks for which nothing is asked.
NO_RULE = Rule()


class Defaults(Protocol):
    """The lifetimes of all tasks: a backend's. Seconds; None and 0 are for ever."""

    expires: float | None
    failure_expires: float | None


@dataclass(frozen=True)
class Lifetime:
    """How long a record lives.

    Attributes:
        seconds: None for ever.
        own: Whether the task, its message or the table of patterns asked for it. Then a later change of the app's
            settings does not concern the record.
        name: The task's name, where the record has to know it: results of that name are counted.
    """

    seconds: float | None
    own: bool = False
    name: str | None = None

    @cached_property
    def duration(self) -> timedelta | None:
        """As a parameter of a statement; None for ever."""
        return lifetime_of(self.seconds)


class Retention:
    """The lifetimes of one backend's records.

    Args:
        defaults: The defaults of the app; read whenever they are needed.
        unfinished: How many seconds the state of a task that has not ended is kept; None for ever.
        patterns: The table of patterns; the first that matches a name counts.
        find_task: Returns the task of a name, None where there is none.
    """

    def __init__(
        self, defaults: Defaults, *, unfinished: float | None, patterns: Rules, find_task: Callable[[str], Any]
    ) -> None:
        self._defaults = defaults
        self._unfinished = Lifetime(unfinished or FOR_EVER)
        self._patterns = patterns
        self._find_task = find_task
        #: By task name.
        self._rules: dict[str, Rule] = {}
        #: By task name, whether it failed, and the defaults: of requests whose message asks for nothing.
        self._lifetimes: dict[tuple[Any, ...], Lifetime] = {}

    def lifetime(self, state: str, request: Any = None) -> Lifetime:
        """Return how long a state of a task is kept.

        Args:
            state: The state.
            request: The task's request, if there is one.
        """
        if state not in states.READY_STATES:
            return self._unfinished
        failed = state == states.FAILURE
        given = request_fields(request)
        if "result_expires" in given or "result_failure_expires" in given:
            return self._lifetime(request, failed=failed)
        name = getattr(request, "task", None)
        defaults = self._defaults
        try:
            return self._lifetimes[name, failed, defaults.expires, defaults.failure_expires]
        except (KeyError, TypeError):
            found = self._lifetime(request, failed=failed)
        # A task that is not registered may be later.
        if isinstance(name, str) and name in self._rules:
            self._lifetimes[name, failed, defaults.expires, defaults.failure_expires] = found
        return found

    def _lifetime(self, request: Any, *, failed: bool) -> Lifetime:
        rule = NO_RULE if request is None else self._of_request(request)
        name = None if rule.keep is None else request.task
        seconds = rule.failure_expires if failed and rule.failure_expires is not None else rule.expires
        if seconds is not None:
            return Lifetime(seconds or (FOR_EVER if name is None else COUNTED_FOR_EVER), own=True, name=name)
        defaults = self._defaults
        seconds = defaults.failure_expires if failed else defaults.expires
        if seconds:
            return Lifetime(float(seconds), name=name)
        if name is not None:
            return Lifetime(COUNTED_FOR_EVER, name=name)
        # Only where no result of any kind has an end, clean-up need not look for those without.
        return Lifetime(FOR_EVER if defaults.expires or defaults.failure_expires else None)

    def keep(self, name: str) -> int | None:
        """Return how many finished results of a task are kept at the most; None for any number.

        Args:
            name: The task's name.
        """
        return self._of_name(name).keep

    def keeps(self, names: Iterable[str]) -> bool:
        """Return whether of any task a number of results is kept only.

        Args:
            names: The names of the app's tasks.
        """
        return any(rule.keep for _, rule in self._patterns) or any(self.keep(name) for name in names)

    def _of_request(self, request: Any) -> Rule:
        name = getattr(request, "task", None)
        rule = self._of_name(name) if isinstance(name, str) else NO_RULE
        # What was given to apply_async as headers. The class has no such attribute: None is an answer, for ever.
        given = request_fields(request)
        if "result_expires" in given or "result_failure_expires" in given:
            asked = {header: given[header] for header in HEADERS if header in given}
            rule = _own_rule("a header of a message of", name, asked) | rule
        return rule

    def _of_name(self, name: str) -> Rule:
        rule = self._rules.get(name)
        if rule is not None:
            return rule
        task = self._find_task(name)
        rule = next((rule for pattern, rule in self._patterns if fnmatchcase(name, pattern)), NO_RULE)
        if task is not None:
            asked = {attribute: getattr(task, attribute) for attribute in _ATTRIBUTES if hasattr(task, attribute)}
            rule = self._rules[name] = _own_rule("the task", name, asked) | rule
        return rule


def _own_rule(who: str, name: Any, given: dict[str, Any]) -> Rule:
    """The rule of a task's attributes or a message's headers. A wrong one is left out: no result is lost for it.

    Args:
        who: What has them, for the warning, such as `the task`.
        name: Its name.
        given: Their values by their names.
    """
    asked: dict[str, Any] = {}
    for attribute, value in given.items():
        field = _ATTRIBUTES[attribute]
        try:
            check = keep if field == "keep" else lifetime
            asked[field] = check(f"{attribute} of {who} {name!r}", value)
        except SettingsError as exc:
            logger.warning("%s; the app's settings are used instead", exc)
    return Rule(**asked)
