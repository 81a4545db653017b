"""The Celery app: no setting stands here.

`CELERY_CONFIG_MODULE=celeryconfig` reads a module of settings first; every `CELERY_…` variable goes above it.
"""

from __future__ import annotations

import os

import folder_broker  # noqa: F401 - makes `folder:///path` a broker, for machines without one
from celery import Celery

from .environment import settings

app = Celery("template", include=["template.tasks", "template.periodic", "template.cache"])
if "CELERY_CONFIG_MODULE" in os.environ:
    app.config_from_envvar("CELERY_CONFIG_MODULE")
app.conf.update(settings(os.environ))
