"""Whether a beat is active: its lease in the table of leases."""

from __future__ import annotations

from dataclasses import dataclass

from . import statements
from .finding import Checked, Finding, Severity

LEASES = "schedule_lease"


@dataclass(frozen=True)
class BeatLease:
    """The lease that the active beat holds, or held last.

    Attributes:
        host: The holder's host.
        process: Its process id.
        left: The seconds that the lease still holds; below 0 it has ended.
    """

    host: str
    process: int
    left: float


def beat_lease(backend: Checked) -> BeatLease | None:
    """Read the lease of the beat.

    Args:
        backend: A result backend on the same database.

    Returns:
        The lease; None where no beat with the SurrealDB scheduler has run.
    """
    rows = backend.connection.run(statements.newest_lease(backend.settings.table(LEASES)))
    if not rows:
        return None
    host, process, left = rows[0]
    return BeatLease(str(host), int(process or 0), (left or 0) / 1e6)


def check_beat(backend: Checked) -> Finding:
    """See whether a beat holds the lease.

    Args:
        backend: The backend.

    Returns:
        A warning where the lease has ended.
    """
    lease = beat_lease(backend)
    if lease is None:
        return Finding("beat", Severity.NOTE, "no beat with the SurrealDB scheduler has run here")
    holder = f"{lease.host}, process {lease.process}"
    if lease.left > 0:
        return Finding("beat", Severity.OK, f"active on {holder}; its lease holds {lease.left:.0f} s more")
    return Finding(
        "beat",
        Severity.WARNING,
        f"nobody has the lease; the last was {holder}, {-lease.left:.0f} s ago",
        "start `celery beat -S surrealdb`, if schedules are to run",
    )
