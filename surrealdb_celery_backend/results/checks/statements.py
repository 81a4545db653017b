"""The SurrealQL of the checks that nothing else asks."""

from __future__ import annotations

from functools import lru_cache

from ...client.surrealql import quote


@lru_cache(maxsize=64)
def newest_lease(table: str) -> str:
    """The newest lease: host, process and the microseconds it still holds. Parameters: none.

    Args:
        table: The table's name, prefix included.
    """
    return (
        "SELECT VALUE [host, process, left] FROM (SELECT token, host, process, "
        f"time::micros(until) - time::micros(time::now()) AS left FROM {quote(table)} ORDER BY token DESC LIMIT 1)"
    )


@lru_cache(maxsize=64)
def live_key(table: str) -> str:
    """Notify of one record of the key/value table. Parameters: key.

    Args:
        table: The table's name, prefix included.
    """
    return f"LIVE SELECT key FROM {quote(table)} WHERE key = $key"
