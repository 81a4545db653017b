"""The cache: opened by the worker's signals, once per process."""

from __future__ import annotations

from celery import signals
from template import cache


def test_the_signal_opens_the_cache() -> None:
    """A pool process that starts has its cache; a second signal keeps it."""
    cache._cache = None
    signals.worker_process_init.send(sender=None)
    opened = cache._cache
    assert opened is not None
    signals.worker_process_init.send(sender=None)
    assert cache._cache is opened


def test_a_value_is_kept() -> None:
    """The second look finds the value of the first."""
    values = iter([1, 2])
    assert [cache.remembered("key", lambda: next(values)) for _ in range(2)] == [1, 1]
