"""Stored things as text that is safe to show: Django's templates then escape it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.contrib.admin.utils import quote
from django.utils.timezone import localtime

from ....console import views
from ....results import TaskDetail

register = template.Library()
#: Characters of an argument, a result or a traceback that a page shows.
LONGEST = 20_000


@register.filter
def visible(value: Any) -> str:
    """Write control characters out."""
    return "" if value is None else views.visible(value)


@register.filter
def shown(value: Any) -> str:
    """A value of any kind, at a bounded length."""
    return views.shown(value, LONGEST)


@register.filter
def seconds(duration: float | str | None) -> str:
    """A duration as people say it; what a template does not find is an empty text."""
    return "" if isinstance(duration, str) else views.seconds(duration)


@register.filter
def moment(at: datetime | str | None) -> str:
    """A time to the second, in Django's zone; what a template does not find is an empty text."""
    return "" if not isinstance(at, datetime) else localtime(at).strftime("%Y-%m-%d %H:%M:%S")


@register.filter
def make_list_of(text: str) -> list[str]:
    """The parts of a text between its commas."""
    return text.split(",")


@register.filter
def quoted(object_id: str) -> str:
    """An id as it stands in an address of the admin."""
    return str(quote(object_id))


@register.filter
def moments(task: TaskDetail) -> list[tuple[str, datetime]]:
    """The times of a task that are known, in their order."""
    known = (("Sent", task.sent_at), ("Not before", task.eta), ("Began", task.started_at), ("Ended", task.date_done),
             ("Kept until", task.expires_at))  # fmt: skip
    return [(label, moment) for label, moment in known if moment is not None]


@register.filter
def facts(task: TaskDetail) -> list[tuple[str, Any]]:
    """The other facts about a task."""
    known = (
        ("Waited", views.seconds(task.queue_time)),
        ("Ran", views.seconds(task.runtime)),
        ("Worker", task.worker),
        ("Queue", task.queue),
        ("Priority", task.priority),
        ("Retries", task.retries),
        ("Tags", ", ".join(task.tags)),
        ("Sent by beat's entry", task.periodic_task_name),
        ("Group", task.group_id),
    )
    return [(label, value) for label, value in known if value not in (None, "")]
