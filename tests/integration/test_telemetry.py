"""OpenTelemetry: calls to the database are spans of the task's own trace, and are measured; nothing where it is off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from tests.engines import RunningEngine
from tests.support.paths import CHECKOUT

pytestmark = [pytest.mark.integration, pytest.mark.worker]

#: What tasks are called with, and what an error quotes.
SECRET = "swordfish"
SCOPE = "surrealdb_celery_backend"


@pytest.fixture(scope="module")
def printed(engine: RunningEngine) -> dict[str, Any]:
    """What a program with OpenTelemetry's SDK and its instrumentation of Celery has of its run."""
    environment = {**os.environ, "RESULTS": engine.database().backend_url, "SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.apps.traced"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def spans(printed: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Our spans: the name, the name of the span around it, and the span."""
    names = {span["id"]: span["name"] for span in printed["spans"]}
    return [(span["name"], names.get(span["parent"], ""), span) for span in printed["spans"] if span["scope"] == SCOPE]


def test_stores_belong_to_the_trace_of_their_task(
    printed: dict[str, Any], spans: list[tuple[str, str, dict[str, Any]]]
) -> None:
    """The store of a result and of a part of a chord is inside the span that Celery's instrumentation made of the task."""
    pairs = {(name, parent) for name, parent, _ in spans}
    assert {("UPSERT task", "run/echo"), ("UPSERT task", "run/fails"), ("UPSERT chord", "run/echo")} <= pairs
    traces = {span["trace"]: span["name"] for span in printed["spans"] if span["parent"] is None}
    stored = [traces[span["trace"]] for name, parent, span in spans if (name, parent) == ("UPSERT task", "run/echo")]
    assert "caller" in stored, "one trace from the sender over the worker to the store"


def test_waits_joins_and_clean_up_belong_to_the_caller(spans: list[tuple[str, str, dict[str, Any]]]) -> None:
    """What a program asks for is inside its own span, with the number of records where there are several."""
    pairs = {(name, parent) for name, parent, _ in spans}
    assert {("SELECT task", "caller"), ("UPSERT chord", "chord"), ("DELETE task", "cleanup")} <= pairs
    [join] = [span for _, parent, span in spans if parent == "join"]
    assert (join["name"], join["attributes"]["db.operation.batch.size"]) == ("SELECT task", 3)


def test_attributes_are_those_of_the_conventions(
    spans: list[tuple[str, str, dict[str, Any]]], engine: RunningEngine
) -> None:
    """Names and kinds are those that OpenTelemetry has for databases."""
    [store] = [span for name, parent, span in spans if (name, parent) == ("UPSERT task", "run/fails")]
    attributes = dict(store["attributes"])
    namespace, database = attributes.pop("db.namespace").split("|")
    assert namespace
    assert database
    address = engine.url.split("://")[1].removesuffix("/rpc")
    assert f"{attributes.pop('server.address')}:{attributes.pop('server.port')}" == address
    assert attributes == {
        "db.system.name": "surrealdb",
        "db.operation.name": "UPSERT",
        "db.collection.name": "task",
        "db.query.summary": "UPSERT task",
    }
    assert (store["kind"], store["status"]) == ("CLIENT", ["UNSET", None])


def test_a_failure_is_named_without_its_message(spans: list[tuple[str, str, dict[str, Any]]]) -> None:
    """A failed call has the class of its error; the message, which quotes a value here, is nowhere."""
    failed = [span for _, parent, span in spans if parent == "error"]
    assert failed[-1]["attributes"]["error.type"] == "StatementFailed"
    assert failed[-1]["status"] == ["ERROR", None]
    ours = json.dumps([span for _, _, span in spans])
    assert SECRET not in ours
    assert all(span["events"] == [] for _, _, span in spans)


def test_calls_are_measured(printed: dict[str, Any]) -> None:
    """How long calls take is a histogram by statement and table, those of no trace and those that failed included."""
    [scope] = [
        scope
        for resource in printed["metrics"]["resource_metrics"]
        for scope in resource["scope_metrics"]
        if scope["scope"]["name"] == SCOPE
    ]
    [histogram] = scope["metrics"]
    assert (histogram["name"], histogram["unit"]) == ("db.client.operation.duration", "s")
    points = [point["attributes"] for point in histogram["data"]["data_points"]]
    kinds = {(point["db.operation.name"], point.get("db.collection.name"), point.get("error.type")) for point in points}
    assert {("UPSERT", "task", None), ("SELECT", "task", None), ("DELETE", "task", None)} <= kinds
    assert ("RETURN", None, None) in kinds, "a call of no trace"
    assert "StatementFailed" in {error for _, _, error in kinds}
    assert SECRET not in json.dumps(histogram)


def test_calls_of_no_trace_make_no_span(spans: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Looks of threads that wait for many, and other calls outside of any span, leave none."""
    assert all(span["parent"] is not None for _, _, span in spans)


def test_a_program_without_opentelemetry_does_not_import_it(app_with: Callable[..., Celery]) -> None:
    """Where nothing else has imported OpenTelemetry, storing and reading a result does not either."""
    url = app_with().backend.as_uri(include_password=True)
    program = (
        "import os, sys\n"
        "from celery import Celery\n"
        "app = Celery(backend=os.environ['RESULTS'])\n"
        "app.backend.store_result('an-id', 1, 'SUCCESS')\n"
        "assert app.AsyncResult('an-id').get(timeout=60) == 1\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={**os.environ, "RESULTS": url},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
