"""Applications that mount the console, each under a path, as `uvicorn mounted:NAME` serves them."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from starlette.applications import Starlette
from starlette.routing import Mount

from surrealdb_celery_backend import console

PREFIX = "/ops/celery"

celery_app = Celery("mounted", broker="memory://", backend=os.environ["MOUNTED_BACKEND"])
page = console.app(celery_app, allow_actions=True)
urlpatterns: list[object] = []


def starlette_app() -> Any:
    """Starlette."""
    return Starlette(routes=[Mount(PREFIX, page)])


def fastapi_app() -> Any:
    """FastAPI."""
    from fastapi import FastAPI

    application = FastAPI()
    application.mount(PREFIX, page)
    return application


def django_app() -> Any:
    """Django's ASGI application, with the console below one path."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application

    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for this test only")
    return Starlette(routes=[Mount(PREFIX, page), Mount("/", get_asgi_application())])


def proxied_app() -> Any:
    """The console alone: uvicorn is told of the prefix that a proxy takes away."""
    return page
