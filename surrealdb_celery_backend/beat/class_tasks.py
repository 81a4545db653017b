"""Periodic tasks written as classes, registered by defining them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from celery import Task, signals

from .. import celery_compat

Result = TypeVar("Result")

#: How often a class task is retried, where neither it nor ``celery_max_retry`` says so.
DEFAULT_MAX_RETRY = 3

#: How long a class task waits before it is retried, in seconds, where neither it
#: nor ``celery_retry_delay`` says so.
DEFAULT_RETRY_DELAY = 300


class PeriodicTask(Task):
    """The base of :class:`SyncTask` and :class:`AsyncTask`; not to be used directly.

    A subclass is registered with every app of the process when it is defined,
    unless it says ``abstract = True``. One with a ``schedule`` becomes a schedule
    entry of its own name, put there by code.

    It is retried on every exception: ``celery_max_retry`` times (3), each after
    ``celery_retry_delay`` seconds (300). ``max_retries``, ``default_retry_delay``
    and ``autoretry_for`` of a class win over these settings.
    """

    abstract = True
    autoretry_for: ClassVar[tuple[type[BaseException], ...]] = (Exception,)

    #: When it runs: seconds, a timedelta, a Celery schedule or schedule data.
    schedule: ClassVar[Any] = None
    #: Further fields of the entry: args, kwargs, options, timezone, description, ….
    entry: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Celery's own convention: a class is abstract only if it says so itself.
        cls.abstract = cls.__dict__.get("abstract", False)
        # Celery makes a subclass bound to the app out of a task's base class.
        if cls.abstract or "_app" in cls.__dict__ or "app" in cls.__dict__:
            return
        cls.name = cls.__dict__.get("name") or f"{cls.__module__}.{cls.__qualname__}"

        def register(app: Any) -> None:
            # A class of its own for each app: Celery keeps app and settings on the class.
            app.register_task(app.subclass_with_self(cls, name=cls.__name__, attribute="_app", keep_reduce=True)())

        celery_compat.on_app_finalized(register)
        for app in celery_compat.active_apps():
            if app.finalized:
                register(app)

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Bind the class to an app, with the app's retry settings.

        Args:
            app: The Celery app.
        """
        bound = super().bind(app)
        own = [each.__dict__ for each in cls.__mro__[: cls.__mro__.index(PeriodicTask)]]
        if not any("max_retries" in names for names in own):
            cls.max_retries = app.conf.get("celery_max_retry", DEFAULT_MAX_RETRY)
        if not any("default_retry_delay" in names for names in own):
            cls.default_retry_delay = app.conf.get("celery_retry_delay", DEFAULT_RETRY_DELAY)
        return bound


class SyncTask(PeriodicTask):
    """A periodic task written as a class with ``run``.

    ::

        class Report(SyncTask):
            name = "shop.report"
            schedule = {"minute": "0", "hour": "9"}

            def run(self, *args, **kwargs):
                return 42
    """

    abstract = True


class AsyncTask(PeriodicTask):
    """A periodic task written as a class with ``async def execute``.

    It runs on an event loop that is kept for as long as the worker process (with a
    pool of threads: the thread) lives, so clients bound to a loop can be kept too.
    The return value of `execute` is the task's result.
    """

    abstract = True

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run :meth:`execute` to its end and return what it returns.

        Args:
            *args: The task's positional arguments.
            **kwargs: The task's keyword arguments.

        Returns:
            The result of :meth:`execute`.
        """
        return run_on_kept_loop(self.execute(*args, **kwargs))

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work; to be overridden.

        Args:
            *args: The task's positional arguments.
            **kwargs: The task's keyword arguments.

        Returns:
            The task's result.
        """
        raise NotImplementedError(f"{type(self).__name__} needs `async def execute`")


class _Kept(threading.local):
    loop: asyncio.AbstractEventLoop | None = None
    process: int | None = None


_kept = _Kept()


def run_on_kept_loop(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on this thread's event loop, made at the first call.

    Args:
        coroutine: The coroutine; if an exception ends the wait (a time limit, a shutdown),
            it is cancelled and its clean-up is waited for.

    Returns:
        Its result.

    Raises:
        RuntimeError: An event loop is running in this thread already.
    """
    if _kept.loop is None or _kept.loop.is_closed() or _kept.process != os.getpid():
        # A loop of before a fork shares its selector with the parent: leave it alone.
        _kept.loop, _kept.process = asyncio.new_event_loop(), os.getpid()
    loop = _kept.loop
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not loop.is_running() and not task.done():
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        raise


@signals.worker_process_shutdown.connect
def close_kept_loop(**_: Any) -> None:
    """Close this thread's event loop, with what its generators still have to do."""
    loop, _kept.loop = _kept.loop, None
    if loop is not None and not loop.is_closed() and _kept.process == os.getpid():
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
