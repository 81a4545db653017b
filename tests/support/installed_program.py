"""What an installed package can do with the extras that are there, as JSON: run by the Python of an empty environment.

It imports nothing of the tests. Its argument is the URL of a result backend.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

from celery import Celery

import surrealdb_celery_backend


def app_on(backend: str) -> Celery:
    """An app with its results there."""
    return Celery("installed", broker="memory://", backend=backend, set_as_current=False)


def kept(backend: str, serializer: str = "json") -> Any:
    """Store a result and fetch it."""
    app = app_on(backend)
    app.conf.update(result_serializer=serializer, result_accept_content=[serializer])
    # One that ended stays as it was stored: each has its own.
    app.backend.store_result(f"in-{serializer}", {"answer": 42}, "SUCCESS")
    value = app.AsyncResult(f"in-{serializer}").get(timeout=30)
    app.backend.close()
    return value


def console(url: str) -> Any:
    """Make the console's application."""
    from surrealdb_celery_backend import console as pages

    return type(pages.app(app_on(url))).__name__


def metrics(url: str) -> Any:
    """Make the collector of metrics."""
    from surrealdb_celery_backend.results import Results

    with Results(app_on(url)) as results:
        return type(results.metrics()).__name__


def command_line(url: str) -> Any:
    """List tasks as the command line does."""
    from celery.bin.base import CLIContext
    from click.testing import CliRunner

    from surrealdb_celery_backend.cli import surrealdb

    done = CliRunner().invoke(surrealdb, ["tasks"], obj=CLIContext(app_on(url), no_color=True, workdir=None))
    return done.exit_code


def django(url: str) -> Any:
    """Set Django up with the app."""
    from django import setup
    from django.conf import settings

    names = ["auth", "contenttypes", "admin", "messages", "sessions"]
    installed = [f"django.contrib.{name}" for name in names]
    settings.configure(INSTALLED_APPS=[*installed, "surrealdb_celery_backend.contrib.django"])
    app_on(url).set_default()
    setup()
    return "set up"


def importable(name: str) -> Callable[[str], Any]:
    """Import a module."""
    return lambda url: importlib.import_module(name).__name__


PARTS: dict[str, Callable[[str], Any]] = {
    "server": kept,
    "embedded": lambda url: kept("surrealdb_celery_backend:SurrealDBBackend+mem://"),
    "console": console,
    "metrics": metrics,
    "django": django,
    "cli": command_line,
    "msgpack": lambda url: kept(url, "msgpack"),
    "yaml": lambda url: kept(url, "yaml"),
    "rich": importable("rich"),
    "opentelemetry": importable("opentelemetry.trace"),
    "aiohttp": importable("aiohttp"),
}


def outcome(part: Callable[[str], Any], url: str) -> dict[str, Any]:
    """What came of a part."""
    try:
        return {"works": part(url)}
    except Exception as error:
        return {"fails": str(error)}


if __name__ == "__main__":
    found = {name: outcome(part, sys.argv[1]) for name, part in PARTS.items()}
    print(json.dumps({"where": surrealdb_celery_backend.__file__, **found}))
