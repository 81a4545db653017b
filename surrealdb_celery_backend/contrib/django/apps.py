"""The app as Django knows it, and its way to the project's Celery app."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ...beat import Schedules
from ...results import Results

if TYPE_CHECKING:
    from celery import Celery

LABEL = "surrealdb_celery"
#: The setting that names the Celery app.
SETTING = "SURREALDB_CELERY_APP"
#: The name of the app that Celery makes where a project has none.
FALLBACK = "default"


class SurrealDBCelery(AppConfig):
    """Results and schedules in the admin."""

    name = "surrealdb_celery_backend.contrib.django"
    label = LABEL
    verbose_name = "Celery"

    def ready(self) -> None:
        """Keep the project's Celery app: other threads have a current app of their own."""
        from celery import current_app

        self._current: Any = current_app._get_current_object()
        self._opened: dict[tuple[type, Any], Any] = {}
        self._opening = threading.Lock()

    @property
    def celery_app(self) -> Celery:
        """The project's Celery app.

        Raises:
            ImproperlyConfigured: There is none.
        """
        named = getattr(settings, SETTING, None)
        if named is not None:
            try:
                return import_string(named) if isinstance(named, str) else named
            except ImportError as error:
                raise ImproperlyConfigured(
                    f"{SETTING} is {named!r}, which cannot be imported ({error}): name the app as 'shop.celery.app'"
                ) from error
        if self._current.main == FALLBACK:
            raise ImproperlyConfigured(
                "the project has no Celery app: import it in the project's __init__.py, as Celery's documentation on "
                f"Django says, or name it in the setting {SETTING}, such as 'shop.celery.app'"
            )
        return self._current

    def opened(self, kind: type) -> Any:
        """Return the `Results` or `Schedules` of this process, made when first needed and shared by its threads.

        Args:
            kind: The one or the other class.
        """
        app = self.celery_app
        with self._opening:
            if (kind, app) not in self._opened:
                app.loader.import_default_modules()
                app.finalize()
                self._opened[kind, app] = kind(app)
            return self._opened[kind, app]


def results() -> Results:
    """The stored results of the project."""
    opened: Results = apps.get_app_config(LABEL).opened(Results)
    return opened


def schedules(user: Any = None) -> Schedules:
    """The schedule entries of the project.

    Args:
        user: The user in whose name they are changed.
    """
    opened: Schedules = apps.get_app_config(LABEL).opened(Schedules)
    return opened if user is None else opened.signed(f"{user.get_username()} (Django)")


def celery_app() -> Celery:
    """The project's Celery app."""
    app: Celery = apps.get_app_config(LABEL).celery_app
    return app
