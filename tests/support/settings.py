"""Settings as an app reads them, and everything that is shown of an exception."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from celery import Celery

from surrealdb_celery_backend.settings import Settings


def settings(url: str | None = None, **conf: Any) -> Settings:
    """The settings of an app with this configuration."""
    app = Celery("settings", set_as_current=False)
    app.conf.update(conf)
    return Settings.from_app(app, url)


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception, its causes and contexts."""
    seen: set[int] = set()
    waiting = [exc]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is the package's, not a test's."""
    return str(frame.f_globals.get("__name__", "")).startswith("surrealdb_celery_backend")


def shown_by(exc: BaseException) -> str:
    """Everything that a log, a traceback and an error tracker show of an exception."""
    shown = ["".join(traceback.format_exception(exc))]
    for one in chain(exc):
        shown += [str(one), repr(one), repr(one.args), repr(vars(one))]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if is_ours(frame):
                shown += [f"{frame.f_code.co_name}: {name} = {value!r}" for name, value in frame.f_locals.items()]
    return "\n".join(shown)
