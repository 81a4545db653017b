"""The short version of soak.py: what grows is seen within seconds as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import Database, RunningEngine

from .soak import GROWTH, soak


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and open files are read from /proc")
def test_soak(live_engine: RunningEngine, fresh_database: Database) -> None:
    """3,000 results and 60 broken lines in one process: memory, open files and threads do not grow."""
    first, last = soak(fresh_database, 3000, 60)
    assert last.memory - first.memory < GROWTH
    # Fewer are no leak: this process has run other tests, whose threads may end meanwhile.
    assert last.files <= first.files
    assert last.threads <= first.threads
