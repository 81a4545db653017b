"""Build an index of a table that others write to meanwhile, so that it has every record.

Measured with four writers and 2,000 records, on 3.0.2 (RocksDB) and 3.2.4 (SurrealKV and in memory): what is stored while a
plain `DEFINE INDEX` reads the table is missing from the index for good, 5 to 40 records each time. Built with
`CONCURRENTLY` it has all, where the store is exact. On 2.3.10 it is the other way round: the plain statement keeps all, and
`CONCURRENTLY` loses one now and then. `REBUILD INDEX` beside writers hangs 3.0.2.

An index that the end of the server interrupts counts as ready on 3.0.2, with what it has; 3.2.4 goes on with it, or stays
where it was. And 3.0.2 answers queries from an index that is not ready. So it has a comment until it is built to its
end, by which nobody takes it for complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..client.request import RequestFailed
from ..errors import StatementFailed
from . import statements

#: Sends statements, and gives the value of each.
Ask = Callable[[str], list[Any]]

#: How often a building that was interrupted is begun again.
MOST_ATTEMPTS = 5
#: A building that has come no further for so many seconds was interrupted.
STALLED = 30.0
#: The shortest and the longest pause between two looks, in seconds.
PAUSES = (0.02, 1.0)


def is_complete(definition: Any) -> bool:
    """Tell whether an index is there and has every record.

    Args:
        definition: As `INFO FOR TABLE` gives it; None where there is none.
    """
    return definition is not None and statements.UNFINISHED not in str(definition)


def is_of_line_2(ask: Ask) -> bool:
    """Tell whether a server is SurrealDB 2, by what it knows.

    Args:
        ask: Sends the statements.
    """
    try:
        ask(statements.KNOWN_TO_2)
    except (StatementFailed, RequestFailed):
        return False
    return True


def build(ask: Ask, index: statements.Index, table: str, deadline: float) -> bool:
    """Build an index on SurrealDB 3, and wait until it has every record. Safe to be done by several at once.

    Args:
        ask: Sends the statements.
        index: The index.
        table: Its table, prefix included.
        deadline: How long to wait, by the monotonic clock. The server goes on after it.

    Returns:
        Whether it is built to its end. Where the user may not look, that is not known, and False.

    Raises:
        StatementFailed: The server cannot build it.
        SurrealDBBackendError: A request failed.
    """
    pause, longest = PAUSES
    attempts, before, since = 1, None, time.monotonic()
    while True:
        _, progress, described = ask(statements.build_beside_writers(index, table))
        if not isinstance(progress, Mapping) or not isinstance(described, Mapping):
            return False
        if is_complete((described.get("indexes") or {}).get(index.name)):
            return True
        building = progress.get("building") or {}
        status = building.get("status")
        # One that this run of the server has not built says no number.
        if status == "ready" and "initial" in building:
            ask(statements.finish_index(index.name, table))
            return True
        is_the_same = building == before
        if not is_the_same:
            before, since = building, time.monotonic()
        has_ended = is_the_same and status in ("ready", "error", "aborted")
        if has_ended or time.monotonic() - since > STALLED:
            if attempts == MOST_ATTEMPTS:
                reason = building.get("error") or "its building was interrupted each time"
                raise StatementFailed(f"the index {index.name} of the table {table!r} cannot be built: {reason}")
            attempts, before, since = attempts + 1, None, time.monotonic()
            ask(statements.remove_index(index.name, table))
        if time.monotonic() + pause > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, longest)
