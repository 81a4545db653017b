"""What a project's code says about schedules, and where its database is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.app import backends
from celery.beat import ScheduleEntry as CeleryEntry

from ..errors import InvalidSchedule
from ..settings import Settings
from .class_tasks import PeriodicTask
from .entry import ScheduleEntry
from .recurrence import nearest


def settings_of(app: Celery) -> Settings:
    """Return where an app's schedules are kept.

    They are with the results if the result backend is this project's, wherever its
    URL says that is; else where the ``surrealdb_*`` settings say.

    :raises SettingsError: if a setting is wrong.
    """
    backend = app.conf.result_backend
    url = None
    if isinstance(backend, str) and "://" in backend and "surrealdb" in backend.split("://")[0].lower():
        url = backends.by_url(backend, app.loader)[1]
    return Settings.from_app(app, url)


def code_entries(app: Celery) -> tuple[dict[str, ScheduleEntry], dict[str, str]]:
    """Return the schedule entries of an app's code.

    :returns: those of ``beat_schedule`` (where ``add_periodic_task`` puts its own) and
        of class tasks, by name; and for each that is wrong, why.
    :raises InvalidSchedule: if ``beat_schedule`` is no dict.
    """
    given: dict[str, Any] = {
        task.name: {"task": task.name, "schedule": task.schedule, **task.entry}
        for task in app.tasks.values()
        if isinstance(task, PeriodicTask) and task.schedule is not None
    }
    in_settings = app.conf.beat_schedule or {}
    if not isinstance(in_settings, Mapping):
        raise InvalidSchedule(f"beat_schedule holds {in_settings!r}: give a dict of entries by name")
    given.update(in_settings)
    return checked_entries(given)


def checked_entries(given: Mapping[str, Any]) -> tuple[dict[str, ScheduleEntry], dict[str, str]]:
    """Return entries as code gives them, validated.

    :param given: by name, as in ``beat_schedule``.
    :returns: the entries by name; and for each that is wrong, why.
    """
    entries: dict[str, ScheduleEntry] = {}
    mistakes: dict[str, str] = {}
    for name, fields in given.items():
        try:
            entries[name] = entry_in_code(name, fields)
        except InvalidSchedule as error:
            mistakes[name] = str(error)
    return entries, mistakes


def entry_in_code(name: str, given: Any) -> ScheduleEntry:
    """Return one entry as code gives it.

    :param name: its key in ``beat_schedule``.
    :param given: a mapping of fields, or an entry object of Celery's.
    :raises InvalidSchedule: if it is wrong.
    """
    if isinstance(given, CeleryEntry):
        names = ("task", "schedule", "args", "kwargs", "options")
        given = {each: getattr(given, each) for each in names}
    if not isinstance(given, Mapping):
        raise InvalidSchedule(f"beat_schedule holds {given!r}: give a dict of fields")
    return ScheduleEntry.from_data({**given, "name": name, "source": "code"})


def check_task(app: Celery, name: str) -> None:
    """Check that an app knows a task.

    An app that knows no task but Celery's own cannot tell, so it accepts every name.

    :raises InvalidSchedule: if it does not.
    """
    known = tuple(each for each in app.tasks if not each.startswith("celery."))
    if known and name not in app.tasks:
        raise InvalidSchedule(
            f"task holds {name!r}, which the app does not know{nearest(name, known)}: import its "
            "module (imports, include), or set surrealdb_beat_check_tasks to False"
        )
