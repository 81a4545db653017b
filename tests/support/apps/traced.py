"""A program with OpenTelemetry: a worker and a caller, whose spans and metrics it prints as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from celery import Celery, chord, group
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from surrealdb_celery_backend.errors import StatementFailed
from tests.support.inprocess import TIMEOUT, worker

#: What must be in no span and in no metric.
SECRET = os.environ["SECRET"]

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
app = Celery("traced", broker="memory://", backend=os.environ["RESULTS"], set_as_current=False)
app.conf.update(result_extended=True, worker_hijack_root_logger=False, surrealdb_timeout=60)


@app.task(name="echo", shared=False)
def echo(value: Any) -> Any:
    """Return what is given."""
    return value


@app.task(name="fails", shared=False)
def fails(value: Any) -> None:
    """Raise an exception."""
    raise ValueError(value)


def run(tracer: trace.Tracer) -> None:
    """Send tasks, wait for them, and make calls that fail or belong to no trace."""
    with worker(app):
        with tracer.start_as_current_span("caller"):
            echo.delay(SECRET).get(timeout=TIMEOUT)
            fails.delay(SECRET).get(timeout=TIMEOUT, propagate=False)
        with tracer.start_as_current_span("chord"):
            chord([echo.s(SECRET), echo.s(SECRET)], echo.s()).delay().get(timeout=TIMEOUT)
        members = group(echo.s(number) for number in range(3)).delay()
        members.get(timeout=TIMEOUT)
    with tracer.start_as_current_span("join"):
        app.backend.fetch([each.id for each in members.results])
    with tracer.start_as_current_span("cleanup"):
        app.backend.cleanup()
    with tracer.start_as_current_span("error"):
        try:
            app.backend.connection.run("THROW $value", value=SECRET)
        except StatementFailed as exc:
            said = str(exc)
    assert SECRET in said
    app.backend.connection.run("RETURN 'of no trace'")


def printed(span: Any) -> dict[str, Any]:
    """A span as JSON."""
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent and span.parent.span_id,
        "attributes": dict(span.attributes),
        "status": [span.status.status_code.name, span.status.description],
        "events": [str(event.attributes) for event in span.events],
        "scope": span.instrumentation_scope.name,
    }


def main() -> None:
    """Set OpenTelemetry up, run, and print."""
    logging.disable(logging.CRITICAL)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    CeleryInstrumentor().instrument()
    run(trace.get_tracer("the caller's own"))
    app.backend.close()
    data = reader.get_metrics_data()
    assert data is not None
    measured = json.loads(data.to_json())
    spans = [printed(span) for span in exporter.get_finished_spans()]
    json.dump({"spans": spans, "metrics": measured}, sys.stdout)


if __name__ == "__main__":
    main()
