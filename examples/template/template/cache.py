"""A cache that each worker process opens when it starts, and that tasks use."""

from __future__ import annotations

import asyncio
from typing import Any

from aiocache import SimpleMemoryCache
from celery import signals

#: How long a value is kept, in seconds.
KEPT = 60
_cache: SimpleMemoryCache | None = None


def configure() -> SimpleMemoryCache:
    """Open the cache of this process; an open one stays."""
    global _cache  # noqa: PLW0603 - one per process is what a cache is
    if _cache is None:
        _cache = SimpleMemoryCache(ttl=KEPT)
    return _cache


@signals.worker_process_init.connect
def _in_each_pool_process(**_: object) -> None:
    configure()


@signals.worker_init.connect
def _in_the_worker(**_: object) -> None:
    # Pools of threads and greenlets have no processes of their own.
    configure()


def remembered(key: str, compute: Any) -> Any:
    """Give a value of the cache, computed if it is not there.

    Args:
        key: Names the value.
        compute: Called without arguments for a new value.
    """

    async def look() -> Any:
        cache = configure()
        value = await cache.get(key)
        if value is None:
            value = compute()
            await cache.set(key, value)
        return value

    return asyncio.run(look())
