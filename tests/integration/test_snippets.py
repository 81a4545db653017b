"""The Python of pages that are no guides runs as it stands there, in order, and its settings are accepted."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.schedules import crontab
from starlette.responses import StreamingResponse

from surrealdb_celery_backend import aio
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database, RunningEngine
from tests.support.guides import SNIPPETS, blocks

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk, pytest.mark.timeout(300)]


class Api:
    """A web framework's decorators."""

    def get(self, path: str) -> Any:
        return lambda function: function

    post = get


@pytest.fixture
def names(fresh_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the pages speak of: an app with a result, another one, a task, a web framework, a sign-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DB_PASSWORD", "secret")
    app, old = (
        Celery(name, broker="memory://", backend=fresh_database.backend_url, set_as_current=False)
        for name in ("shop", "old")
    )
    app.conf.update(result_extended=True, surrealdb_timeout=60)
    for number, (result, state) in enumerate([(5, "SUCCESS"), (ValueError("x"), "FAILURE")]):
        request = Context(id=str(number), task="shop.add", args=[number], kwargs={}, hostname="w", retries=0)
        app.backend.store_result(str(number), result, state, request=request)

    @app.task(name="shop.invoice", shared=False)
    def invoice(number: int) -> int:
        return number

    tasks = types.SimpleNamespace(invoice=invoice)
    shop = types.ModuleType("shop.celery")
    shop.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.celery", shop)
    # Where spans go is the reader's business: the exporter of the page is not installed.
    exporter = types.ModuleType("exporter")
    exporter.OTLPSpanExporter = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", exporter)
    with closing(app.backend), closing(old.backend):
        yield {
            "__name__": "page",
            "app": app,
            "old_app": old,
            "tasks": tasks,
            "api": Api(),
            "aio": aio,
            "json": json,
            "AsyncIterator": AsyncIterator,
            "StreamingResponse": StreamingResponse,
            "crontab": crontab,
            "timedelta": timedelta,
            "save": lambda *_: None,
        }


@pytest.mark.parametrize("page", SNIPPETS)
def test_the_python_of_a_page_runs(live_engine: RunningEngine, names: dict[str, Any], page: str) -> None:
    """Each block runs with the names of those before it, and leaves settings that a backend accepts."""
    own = names["app"]
    texts = [block.text for block in blocks(page) if block.language == "python" and not block.title]
    assert texts
    for text in texts:
        if "config_from_object" in text or "get_asgi_application" in text:
            continue  # Django's own pages are followed and started elsewhere
        exec(compile(text, page, "exec"), names)
        app, names["app"] = names["app"], own
        Settings.from_app(app)


def test_what_the_pages_define_does_what_they_say(live_engine: RunningEngine, names: dict[str, Any]) -> None:
    """The functions of the pages answer: old results, states for the web, masked arguments."""
    for page in ("docs/migrating.md", "docs/failures.md"):
        for block in blocks(page):
            if block.language == "python":
                exec(compile(block.text, page, "exec"), names)
    assert names["result_of"]("0").get(timeout=60) == 5
    assert names["result_of"]("nobody").app is names["old_app"]
    assert names["state_of"]("1") == (200, "FAILURE")
