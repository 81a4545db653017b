"""A Django app: results and schedules in Django's admin, and commands of `manage.py`.

::

    INSTALLED_APPS = [..., "surrealdb_celery_backend.contrib.django"]

`python manage.py migrate` then makes its permissions. Results are shown, filtered and searched; with the permission for
it they are retried, revoked and deleted. Schedule entries are added, changed, paused, removed and run. `manage.py
surrealdb_check` and `manage.py surrealdb_cleanup` do as the commands of the same names of `celery surrealdb`.

The Celery app is the one that the project's `__init__.py` imports; the setting `SURREALDB_CELERY_APP` names another one
(`"shop.celery.app"`). Needs the extra `[django]`.
"""

from __future__ import annotations

__all__: list[str] = []
