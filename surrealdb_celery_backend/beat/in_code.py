"""The schedules in a project's code, and the place of its database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from celery import Celery
from celery.app import backends
from celery.beat import ScheduleEntry as CeleryEntry

from ..errors import InvalidSchedule
from ..settings import Settings
from .class_tasks import PeriodicTask
from .entry import ScheduleEntry
from .wording import nearest
from .zones import app_zone


@dataclass(frozen=True)
class Code:
    """The schedule entries of an app's code.

    Attributes:
        entries: Those that are right, by name.
        mistakes: For each of the others its name and what is wrong with it.
    """

    entries: dict[str, ScheduleEntry] = field(default_factory=dict)
    mistakes: dict[str, str] = field(default_factory=dict)


def settings_of(app: Celery) -> Settings:
    """Return where an app's schedules are kept.

    They are with the results if the result backend is this project's, wherever its
    URL says that is; else where the `surrealdb_*` settings say.

    Args:
        app: The Celery app.

    Raises:
        SettingsError: A setting is wrong.
    """
    backend = app.conf.result_backend
    url = None
    if isinstance(backend, str) and "://" in backend and "surrealdb" in backend.split("://")[0].lower():
        url = backends.by_url(backend, app.loader)[1]
    return Settings.from_app(app, url)


def app_name(app: Celery) -> str | None:
    """Return the name of an app, or None if it has none of its own.

    Args:
        app: The Celery app.
    """
    return app.main if isinstance(app.main, str) and app.main not in ("", "__main__") else None


def check_overlap(app: Celery, entry: ScheduleEntry) -> None:
    """Check that the results can tell whether a run of an entry still runs, if that matters.

    Args:
        app: The Celery app.
        entry: The entry.

    Raises:
        InvalidSchedule: They cannot.
    """
    if not entry.no_overlap:
        return
    backend = app.conf.result_backend
    if not isinstance(backend, str) or "surrealdb" not in backend.split("://")[0].lower():
        raise InvalidSchedule("no_overlap needs the results in SurrealDB: set result_backend to a surrealdb:// URL")
    task = app.tasks.get(entry.task)
    if entry.options.get("ignore_result") or getattr(task, "ignore_result", False):
        raise InvalidSchedule(f"no_overlap needs the results of {entry.task!r}, which ignores them: keep them")


def knows_task(app: Celery, name: object) -> bool:
    """Return whether an app knows a task; one that knows none but Celery's own accepts every name.

    Args:
        app: The Celery app.
        name: The task's name.
    """
    return name in app.tasks or all(each.startswith("celery.") for each in app.tasks)


def code_entries(app: Celery) -> Code:
    """Return the schedule entries of an app's code.

    They are those of `beat_schedule`, where `add_periodic_task` puts its own, and of class tasks.

    Args:
        app: The Celery app.

    Raises:
        InvalidSchedule: `beat_schedule` is no dict.
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
    return checked_entries(given, app_zone(app))


def checked_entries(given: Mapping[str, Any], zone: tzinfo) -> Code:
    """Return entries as code gives them, validated.

    Args:
        given: By name, as in `beat_schedule`.
        zone: The app's zone, for times without an offset.
    """
    code = Code()
    for name, fields in given.items():
        try:
            code.entries[name] = entry_in_code(name, fields).localized(zone)
        except InvalidSchedule as error:
            code.mistakes[name] = str(error)
    return code


def entry_in_code(name: str, given: Any) -> ScheduleEntry:
    """Return one entry as code gives it.

    Args:
        name: Its key in `beat_schedule`.
        given: A mapping of fields, or an entry object of Celery's.

    Raises:
        InvalidSchedule: It is wrong.
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

    Args:
        app: The Celery app.
        name: The task's name.

    Raises:
        InvalidSchedule: The app does not know it.
    """
    known = tuple(each for each in app.tasks if not each.startswith("celery."))
    if known and name not in app.tasks:
        raise InvalidSchedule(
            f"task holds {name!r}, which the app does not know{nearest(name, known)}: import its "
            "module (imports, include), or set surrealdb_beat_check_tasks to False"
        )
