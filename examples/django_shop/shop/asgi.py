"""The ASGI application: the console below /console, Django everywhere else."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

from django.core.asgi import get_asgi_application

django = get_asgi_application()

from django.conf import settings  # noqa: E402 - Django is set up now
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Mount  # noqa: E402

from surrealdb_celery_backend import console  # noqa: E402
from surrealdb_celery_backend.contrib.django.sign_in import visitor_of  # noqa: E402

from .celery import app  # noqa: E402

application = Starlette(
    routes=[
        # Its visitors are the users that have signed in to the admin.
        Mount("/console", console.app(app, authenticate=visitor_of, title="shop")),
        # In production a web server has the static files.
        Mount("/", ASGIStaticFilesHandler(django) if settings.DEBUG else django),
    ]
)
