"""OpenTelemetry: a span and a measurement for each call to the database, by its semantic conventions for databases.

Active in programs that have imported OpenTelemetry by the time a connection is made or opened: a program that exports
spans has, and importing it for the others would take 100 ms and 8 MiB of each process. A call outside of any trace,
such as a look of a thread that waits for many, makes no span; it is measured all the same.

A span's name and attributes say the kind of statement, the table and the server. They never have a statement's text,
a value, an id or a message, which may quote a value.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import RecordExists
from .failures import Failure
from .slow import kinds_and_tables

if TYPE_CHECKING:
    from .options import Options

#: Whose spans and metrics they are.
SCOPE = "surrealdb_celery_backend"
#: The conventions that their names follow.
SCHEMA = "https://opentelemetry.io/schemas/1.30.0"
SYSTEM = "surrealdb"
#: The buckets that the conventions advise for how long a call takes, in seconds.
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
#: Of a text with several statements the first of these is named: what it changes, before what it looks up.
_TELLING = ("UPSERT", "INSERT", "CREATE", "UPDATE", "RELATE", "DELETE", "LIVE", "KILL", "DEFINE", "REMOVE", "SELECT")


def telemetry(options: Options) -> Telemetry | None:
    """Return the instrumentation of a connection; None where this program has no OpenTelemetry.

    Args:
        options: Of the connection.
    """
    return Telemetry(options) if "opentelemetry.trace" in sys.modules else None


class Telemetry:
    """Makes the spans and measurements of one connection's calls.

    Args:
        options: Of the connection.
    """

    def __init__(self, options: Options) -> None:
        from opentelemetry import metrics, trace

        self._trace = trace
        self._tracer = trace.get_tracer(SCOPE, schema_url=SCHEMA)
        self._duration = metrics.get_meter(SCOPE, schema_url=SCHEMA).create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of calls to SurrealDB, with their retries and reconnects.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        parts = urlsplit(options.endpoint)
        self._server: dict[str, Any] = {
            "db.system.name": SYSTEM,
            "db.namespace": f"{options.namespace}|{options.database}",
        }
        if parts.hostname and not options.embedded:
            self._server["server.address"] = parts.hostname
            self._server["server.port"] = parts.port or (443 if parts.scheme in ("wss", "https") else 80)

    @contextmanager
    def call(self, text: str, variables: Mapping[str, Any]) -> Iterator[Callable[[list[Any]], None]]:
        """Watch a call.

        Args:
            text: Its statements.
            variables: Their parameters, of which only tables are looked at, and how many records there are.

        Yields:
            A function that takes the outcomes of the statements.
        """
        kinds, tables = kinds_and_tables(text, variables)
        operation = next((kind for kind in _TELLING if kind in kinds), "RETURN")
        attributes = {**self._server, "db.operation.name": operation}
        if tables:
            attributes["db.collection.name"] = tables[0]
        failed: list[type] = []

        def take(outcomes: list[Any]) -> None:
            # That another was first with a record is an answer, and what a claim asks for.
            failures = [outcome.error for outcome in outcomes if isinstance(outcome, Failure)]
            failed.extend(error for error in failures if error is not RecordExists)

        began = time.perf_counter()
        try:
            if not self._trace.get_current_span().get_span_context().is_valid:
                yield take
                return
            with self._span(attributes, variables, failed):
                yield take
        except BaseException as exc:
            failed.append(type(exc))
            raise
        finally:
            if failed:
                attributes["error.type"] = failed[0].__name__
            self._duration.record(time.perf_counter() - began, attributes)

    @contextmanager
    def _span(self, attributes: Mapping[str, Any], variables: Mapping[str, Any], failed: list[type]) -> Iterator[None]:
        name = " ".join(attributes[each] for each in ("db.operation.name", "db.collection.name") if each in attributes)
        size = batch_size(variables)
        batch = {"db.operation.batch.size": size} if size > 1 else {}
        with self._tracer.start_as_current_span(
            name,
            kind=self._trace.SpanKind.CLIENT,
            attributes={**attributes, "db.query.summary": name, **batch},
            # Both would have the message.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as exc:
                failed.append(type(exc))
                raise
            finally:
                if failed:
                    span.set_attribute("error.type", failed[0].__name__)
                    span.set_status(self._trace.StatusCode.ERROR)


def batch_size(variables: Mapping[str, Any]) -> int:
    """Return the number of records that a call is for: those that it names, or the tasks that it stores.

    Args:
        variables: The parameters of its statements.
    """
    records = variables.get("records")
    if isinstance(records, list):
        return len(records)
    # Of stores that go together: r0, r1, …; of tasks that were sent: task0, task1, ….
    name = next((name for name in ("r", "task") if f"{name}0" in variables), None)
    return 0 if name is None else sum(f"{name}{number}" in variables for number in range(len(variables)))
