"""Whether the server notifies of writes."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from ...client.connection import Connection
from ...client.values import RecordID
from ...errors import LiveNotSupported
from .. import statements
from .finding import Checked, Finding, Severity
from .statements import live_key

#: How long a notification may take, in seconds.
NOTIFIED_WITHIN = 5.0
#: How long one step of listening takes, in seconds.
LISTEN = 0.1


def check_live(backend: Checked) -> Finding:
    """Write a record and wait for its notification.

    Args:
        backend: The backend.

    Returns:
        A warning where none comes; a note where LIVE queries are off, or the server has none.
    """
    if backend.settings.live == "off":
        return Finding("LIVE", Severity.NOTE, "surrealdb_live is 'off': results are polled")
    try:
        took = _notified(backend)
    except LiveNotSupported:
        return Finding("LIVE", Severity.NOTE, "this server, or the way to it, has none: results are polled")
    if took is not None:
        return Finding("LIVE", Severity.OK, f"a notification arrived after {took * 1000:.0f} ms")
    return Finding(
        "LIVE",
        Severity.WARNING,
        f"no notification within {NOTIFIED_WITHIN:.0f} s",
        "in a cluster that is so; set surrealdb_live = 'off' to poll soon instead of late",
    )


def _notified(backend: Checked) -> float | None:
    """Return after how many seconds the notification came; None if it did not."""
    heard: list[Any] = []
    table = backend.settings.table(statements.KEY)
    key = f"check-{uuid4().hex}"
    push = Connection(backend.settings.options, on_notification=heard.append)
    try:
        transport = push.transport
        if not transport.live:
            raise LiveNotSupported
        push.run(live_key(table), key=key)
        began = time.monotonic()
        backend.set(key, "1")
        while not heard:
            # Before listening: what came while this process stood still is not late.
            is_late = time.monotonic() - began >= NOTIFIED_WITHIN
            transport.listen(LISTEN)
            if is_late:
                break
        return time.monotonic() - began if heard else None
    finally:
        push.close()
        backend.connection.run(statements.DELETE, records=RecordID(table, key))
