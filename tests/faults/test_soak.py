"""The short version of soak.py: what grows is seen within seconds as well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import Database, RunningEngine
from tests.support.paths import CHECKOUT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and open files are read from /proc")
def test_soak(live_engine: RunningEngine, fresh_database: Database) -> None:
    """3,000 results and 60 broken lines in one process: memory, open files and threads do not grow."""
    # A process of its own: in this one, what other tests left behind comes and goes.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.faults.soak", "--settings", json.dumps(fresh_database.settings)),
            *("--results", "3000", "--breaks", "60"),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memory grew by" in done.stdout
