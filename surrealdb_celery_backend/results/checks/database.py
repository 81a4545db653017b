"""The checks of settings and database that a worker's start makes: a handful of requests, which change nothing."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone

from ... import errors
from ...client import deadlines, surrealql
from ...client.options import EMBEDDED_SCHEMES, IN_MEMORY
from ...client.values import RecordID
from ...settings import Settings
from .. import statements
from .finding import Checked, Finding, Severity, failure

#: How many requests the latency is measured with.
PINGS = 5
#: Clocks that differ by more than this are reported, in seconds.
CLOCKS_DIFFER = 2.0
#: A request that takes longer than this is slow, in seconds.
SLOW = 0.25

TABLES = (statements.TASK, statements.GROUP, statements.CHORD, statements.KEY)


def check(backend: Checked, *, pool: str | None = None) -> list[Finding]:
    """Check a result backend. Takes a handful of requests, and `surrealdb_timeout` where nobody answers.

    Args:
        backend: The backend.
        pool: The module of the worker's pool, such as `celery.concurrency.prefork`; None outside a worker.

    Returns:
        The findings, in the order of the checks. After settings that cannot work, and after a connection that cannot
        be made, no further check is made.
    """
    found = list(check_settings(backend.settings, pool=pool))
    if any(finding.severity is Severity.ERROR for finding in found):
        return found
    connection = check_connection(backend)
    found.append(connection)
    if connection.severity is Severity.OK:
        found += made((check_rights, check_clocks, check_latency), backend)
    return found


def made(checks: Iterable[Callable[[Checked], Finding]], backend: Checked) -> Iterator[Finding]:
    """Make checks, each on its own: an error of the database is the finding of the check that met it.

    Args:
        checks: Functions named `check_` and their subject.
        backend: The backend.

    Yields:
        The finding of each.
    """
    for one in checks:
        try:
            yield one(backend)
        except errors.SurrealDBBackendError as exc:
            yield failure(one.__name__.removeprefix("check_"), exc)


def check_settings(settings: Settings, *, pool: str | None = None) -> Iterator[Finding]:
    """Find settings that contradict each other, without a request.

    Args:
        settings: The settings.
        pool: The module of the worker's pool; None outside a worker.

    Yields:
        A finding for each contradiction.
    """
    shared = "serve the database with `python -m surrealdb_celery_backend.devserver` or `surreal start`"
    if settings.scheme in EMBEDDED_SCHEMES and pool is not None and pool.endswith("prefork"):
        where = "in the memory of each process" if settings.scheme in IN_MEMORY else "inside one process only"
        yield Finding(
            "settings",
            Severity.ERROR,
            f"surrealdb_url {settings.endpoint!r} is an engine {where}, and pool prefork has several processes",
            f"run the worker with --pool threads or solo, or {shared}",
        )
    if settings.live == "on" and settings.scheme not in ("ws", "wss"):
        yield Finding(
            "settings",
            Severity.ERROR,
            f"surrealdb_live is 'on', and {settings.scheme} has no LIVE queries",
            "use ws or wss in surrealdb_url, or set surrealdb_live to 'auto'",
        )
    if settings.chord_lease <= settings.timeout:
        yield Finding(
            "settings",
            Severity.ADVICE,
            f"surrealdb_chord_lease ({settings.chord_lease:g} s) is not above surrealdb_timeout "
            f"({settings.timeout:g} s): a slow request looks like a dead worker",
            "raise surrealdb_chord_lease",
        )


def check_connection(backend: Checked) -> Finding:
    """Connect, sign in and ask for a sign of life.

    Args:
        backend: The backend.

    Returns:
        A warning where nobody answers at the moment; an error where no later attempt will help.
    """
    began = time.monotonic()
    try:
        backend.connection.run(statements.PING)
    except errors.SurrealDBBackendError as exc:
        return failure("connection", exc)
    took = time.monotonic() - began
    return Finding("connection", Severity.OK, f"{backend.as_uri()} in {took * 1000:.0f} ms")


def check_rights(backend: Checked) -> Finding:
    """Create and delete a record in each table, in one transaction: nobody sees it.

    Args:
        backend: The backend.

    Returns:
        An error that names the tables where the user may not do so.
    """
    missing = []
    for name in TABLES:
        table = backend.settings.table(name)
        record = RecordID(table, f"check-{uuid.uuid4().hex}")
        created, deleted = backend.connection.run(statements.CHECK_RIGHTS, record=record) or ((), ())
        if not created or not deleted:
            missing.append(table)
    if missing:
        return Finding(
            "rights",
            Severity.ERROR,
            f"the database user may not create and delete records of {', '.join(missing)}",
            "grant it the rights that docs/reliability.md lists",
        )
    return Finding("rights", Severity.OK, "the database user may write to the backend's tables")


def check_clocks(backend: Checked) -> Finding:
    """Compare the database's clock with this host's.

    Args:
        backend: The backend.

    Returns:
        A warning where they differ by more than `CLOCKS_DIFFER`, the time of the request left aside.
    """
    began, here = time.monotonic(), datetime.now(timezone.utc)
    there = backend.connection.run(surrealql.NOW)
    took = time.monotonic() - began
    if not isinstance(there, datetime):
        return Finding("clocks", Severity.WARNING, f"the database's time is {there!r}", "look at the server's version")
    # The database looked at its clock between the two.
    apart = (there - here).total_seconds() - took / 2
    if abs(apart) - took / 2 > CLOCKS_DIFFER:
        side = "ahead of" if apart > 0 else "behind"
        return Finding(
            "clocks",
            Severity.WARNING,
            f"the database's clock is {abs(apart):.0f} s {side} this host's",
            "set the clocks by NTP: no result is lost, but times of different hosts do not compare",
        )
    return Finding("clocks", Severity.OK, f"the database's clock is within {CLOCKS_DIFFER:g} s of this host's")


def check_latency(backend: Checked) -> Finding:
    """Measure how long a request takes.

    Args:
        backend: The backend.

    Returns:
        A warning where the median is above `SLOW`.
    """
    took = []
    with deadlines.time_limit(backend.settings.timeout):
        for _ in range(PINGS):
            began = time.monotonic()
            backend.connection.run(statements.PING)
            took.append(time.monotonic() - began)
    median = statistics.median(took)
    text = f"{median * 1000:.1f} ms a round trip (median of {PINGS}), {max(took) * 1000:.1f} ms the slowest"
    if median > SLOW:
        return Finding("latency", Severity.WARNING, text, "run the workers nearer to the database")
    return Finding("latency", Severity.OK, text)
