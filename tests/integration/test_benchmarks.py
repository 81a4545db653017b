"""The benchmark program runs: what it prints and counts, not how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# The limits are only there so that nothing hangs for ever.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(400)]

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_run_counts_round_trips_and_prints_its_table(live_engine, redis_url, tmp_path):
    """One round trip per store, per fetch and per join, which the proxy counts, and the same as Markdown."""
    written = tmp_path / "samples.json"
    program = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--repeat",
        "1",
        "--only",
        "round-trips",
        "--only",
        "join",
    ]
    options = ["--engine", str(live_engine.spec), "--without", "postgres", "--json", str(written)]
    if live_engine.spec.name == "external":
        pytest.skip("the benchmark starts an engine of its own")
    result = subprocess.run([*program, *options], cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    samples = json.loads(written.read_text())["samples"]
    assert samples["round-trips"]["ours"] == {"store trips": [1.0], "fetch trips": [1.0], "join trips": [1.0]}
    assert samples["round-trips"]["redis"]["store trips"] == [2.0]
    assert set(samples["join"]) == {"ours", "redis"}
    assert "| round trips per store | 1.00 | 2.00 |" in result.stdout
