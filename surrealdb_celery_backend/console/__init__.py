"""The console: history, live tasks, workflows and schedules in the browser.

::

    import surrealdb_celery_backend.console as console

    page = console.app(celery_app)                      # an ASGI application
    fastapi_app.mount("/console", console.app(celery_app, authenticate=user_of))

Needs the extra `[console]`. `celery -A proj surrealdb console` serves it by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import Access, Authenticate, ConsoleOptions, Credentials

if TYPE_CHECKING:
    from celery import Celery
    from starlette.applications import Starlette

__all__ = ["Access", "Authenticate", "ConsoleOptions", "Credentials", "app"]


def app(celery_app: Celery, **options: Any) -> Starlette:
    """Make the console of a Celery app, as an ASGI application that can be mounted under any path.

    Args:
        celery_app: The app whose results and schedules are shown.
        **options: The fields of :class:`ConsoleOptions`.

    Returns:
        The ASGI application.

    Raises:
        SettingsError: An option makes no sense.
        ImportError: The extra `[console]` is not installed.
    """
    try:
        from .application import make
    except ImportError as error:
        raise ImportError(
            f"the console needs {error.name}: pip install 'surrealdb-celery-backend[console]'", name=error.name
        ) from error
    return make(celery_app, ConsoleOptions(**options))
