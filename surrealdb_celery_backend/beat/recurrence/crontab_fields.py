"""Crontab fields: as they are written, and the minutes, hours and days that they mean."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celery import schedules as celery_schedules
from celery.utils.time import weekday

from ...errors import InvalidSchedule

#: The fields of a crontab schedule, in the order Celery's `crontab` takes them.
CRONTAB_FIELDS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")

#: The fields of a five-field cron expression, in the order people write them.
EXPRESSION_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")

#: The last day of a month, or so many days before it: `L`, `L-2`.
_FROM_THE_END = re.compile(r"(?:l|last)(?:-(\d{1,2}))?", re.IGNORECASE)

#: One day of the week, or a range of them, perhaps with a step.
_WEEKDAYS = re.compile(r"(\w+)(?:-(\w+)(?:/(\d+))?)?")

#: Sunday, as other crons write it; Celery's is 0.
SUNDAY = 7


@dataclass(frozen=True)
class CrontabSets:
    """The values that crontab fields mean, each in ascending order.

    Args:
        minutes: Minutes of the hour.
        hours: Hours of the day.
        weekdays: Days of the week; 0 is Sunday.
        days: Days of the month.
        months: Months of the year.
        days_before_last: Days counted from the end of the month; 0 is the last one.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    weekdays: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    days_before_last: tuple[int, ...] = ()


def expression_fields(expression: object) -> dict[str, str]:
    """Return the fields of a cron expression of five fields.

    Args:
        expression: Minute, hour, day of month, month and day of week, such as `0 9 15 * *`.

    Raises:
        InvalidSchedule: It has not five fields.
    """
    written = expression.split() if isinstance(expression, str) else []
    if len(written) != len(EXPRESSION_FIELDS):
        raise InvalidSchedule(
            f"schedule.crontab holds {expression!r}: give five fields, minute hour day_of_month "
            "month_of_year day_of_week, such as '0 9 15 * *'"
        )
    return named_fields(dict(zip(EXPRESSION_FIELDS, written, strict=True)))


def named_fields(given: Mapping[str, Any]) -> dict[str, str]:
    """Return crontab fields as text, in their order, without those that are `*`.

    Args:
        given: Text, numbers or lists of numbers by the names of the fields, as Celery takes them.

    Raises:
        InvalidSchedule: One is neither.
    """
    fields = {name: _field_text(name, given[name]) for name in CRONTAB_FIELDS if name in given}
    return {name: text for name, text in fields.items() if text != "*"} or {"minute": "*"}


@functools.lru_cache(maxsize=4096)
def parsed_crontab(written: tuple[str, ...]) -> CrontabSets:
    """Return what crontab fields mean; parsed once for all the entries that share them.

    Args:
        written: The fields in the order of :data:`CRONTAB_FIELDS`.

    Raises:
        InvalidSchedule: One cannot be read or matches nothing; the message names it.
    """
    by_name = dict(zip(CRONTAB_FIELDS, written, strict=True))
    days, days_before_last = _days_from_the_end(by_name["day_of_month"])
    for_celery = {
        **by_name,
        "day_of_week": _sunday_as_zero(by_name["day_of_week"]),
        # Any day that every month has, where only days from the end are named.
        "day_of_month": "1" if days is None else days,
    }
    try:
        parsed = celery_schedules.crontab(**for_celery)
    except Exception as error:
        raise InvalidSchedule(_mistake(by_name, for_celery, error)) from error
    sets = {name: tuple(sorted(getattr(parsed, name))) for name in CRONTAB_FIELDS}
    for name, values in sets.items():
        if not values:
            raise InvalidSchedule(f"schedule.{name} matches nothing: give text such as '*/15'")
    return CrontabSets(
        minutes=sets["minute"],
        hours=sets["hour"],
        weekdays=sets["day_of_week"],
        days=() if days is None else sets["day_of_month"],
        months=sets["month_of_year"],
        days_before_last=days_before_last,
    )


def _days_from_the_end(text: str) -> tuple[str | None, tuple[int, ...]]:
    """Return a day-of-month field without `L` and `L-n`, and the days that these mean."""
    others: list[str] = []
    before_last: set[int] = set()
    for part in text.split(","):
        match = _FROM_THE_END.fullmatch(part.strip())
        if match is None:
            others.append(part)
        elif int(match[1] or 0) <= 30:
            before_last.add(int(match[1] or 0))
        else:
            raise InvalidSchedule(f"schedule.day_of_month holds {text!r}: no month has a day {part.strip()}")
    return ",".join(others) if others else None, tuple(sorted(before_last))


def _sunday_as_zero(text: str) -> str:
    """Return a day-of-week field with 0 for a Sunday that is written 7."""
    return ",".join(_weekdays_as_celery_has_them(part) for part in text.split(","))


def _weekdays_as_celery_has_them(part: str) -> str:
    match = _WEEKDAYS.fullmatch(part.strip())
    if match is None or str(SUNDAY) not in (match[1], match[2]):
        return part
    if match[2] is None:
        return "0"
    try:
        first, last = (int(each) if each.isdigit() else int(weekday(each)) for each in match.group(1, 2))
    except KeyError:
        return part  # Celery says what is wrong with it
    step = int(match[3] or 1)
    if step == 0 or max(first, last) > SUNDAY:
        return part
    if last < first or last < SUNDAY:
        first = 0  # from Sunday on
    return ",".join(str(day % SUNDAY) for day in range(first, last + 1, step))


def _field_text(name: str, value: object) -> str:
    """Return a crontab field as text: Celery also takes numbers and lists of numbers."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset, range)) and value:
        return ",".join(str(part) for part in (sorted(value) if _are_numbers(value) else value))
    raise InvalidSchedule(f"schedule.{name} holds {value!r}: give text such as '*/15'")


def _are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int) for value in values)


def _mistake(written: Mapping[str, str], for_celery: Mapping[str, str], error: Exception) -> str:
    """Say which field of a crontab is wrong: Celery's own message does not.

    Args:
        written: The fields as the user has them.
        for_celery: The same fields as Celery takes them.
        error: What Celery said of all of them together.
    """
    for name, text in for_celery.items():
        try:
            celery_schedules.crontab(**{name: text})
        except Exception as own:
            return f"schedule.{name} holds {written[name]!r}: {str(own).rstrip('.')}"
    return f"schedule never happens: {error}"
