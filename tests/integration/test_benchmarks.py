"""The benchmark program runs: what it prints and counts, not how long anything took."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.scale import TRIALS
from tests.support.paths import CHECKOUT

# The limits are only there so that nothing hangs for ever.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.program,
    pytest.mark.slow,
    pytest.mark.redis,
    pytest.mark.timeout(400),
]


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


def test_what_celery_takes_without_results_stands_beside_it(live_engine, redis_url, tmp_path):
    """A worker without results runs the same tasks, and its CPU is a column of its own: what no backend can get below."""
    if live_engine.spec.name == "external":
        pytest.skip("the benchmark starts an engine of its own")
    written = tmp_path / "samples.json"
    program = [sys.executable, "-m", "benchmarks", "--quick", "--repeat", "1", "--only", "end-to-end"]
    options = ["--engine", str(live_engine.spec), "--without", "postgres", "--without", "redis", "--json", str(written)]
    result = subprocess.run([*program, *options], cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    samples = json.loads(written.read_text())["samples"]["end-to-end"]
    assert set(samples["nothing"]) == {"cpu children", "cpu client", "cpu ours"}
    assert samples["nothing"]["cpu client"][0] > 0
    assert set(samples["nothing"]) < set(samples["ours"])
    assert re.search(r"\| CPU per task: client \| [0-9.]+ ms \| [0-9.]+ ms \|", result.stdout)


def test_what_is_counted_stays_below_its_limits(live_engine):
    """Requests, bytes and calls of Python per store, fetch, join and header task: counts, which no load changes."""
    if live_engine.spec.name == "external":
        pytest.skip("the benchmark starts an engine of its own")
    program = [sys.executable, "-m", "benchmarks.counts", "--engine", str(live_engine.spec)]
    result = subprocess.run(program, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "| requests per store | 1 | 1 |" in result.stdout


def test_prices_of_options_are_told_against_what_lacks_them(live_engine, tmp_path):
    """A store stays one round trip with every option; a task that is sent is stored with others. Counts, not times."""
    if live_engine.spec.name == "external":
        pytest.skip("the benchmark starts an engine of its own")
    written = tmp_path / "prices.json"
    program = [sys.executable, "-m", "benchmarks.prices", "--engine", str(live_engine.spec), "--stores", "5"]
    only = ["--repeat", "1", "--only", "native", "--only", "track_sent", "--json", str(written)]
    result = subprocess.run([*program, *only], cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    prices = json.loads(written.read_text())
    assert prices["`result_extended`"]["requests"] == prices["`surrealdb_result_format`: native"]["requests"] == 1
    assert prices["sending a task"]["requests"] == 0
    assert 0 < prices["`surrealdb_track_sent`, per task sent"]["requests"] < 1
    assert "| `surrealdb_result_format`: native | " in result.stdout


def test_races_are_counted(live_engine):
    """Writers race on an engine: a row says how many increments were lost and how often several won."""
    if live_engine.spec.name == "external":
        pytest.skip("the measurement starts an engine of its own")
    name, store = live_engine.spec.name, live_engine.store
    program = [sys.executable, "-m", "benchmarks.races", "--engine", name, "--store", store]
    result = subprocess.run(
        [*program, "--races", "3", "--increments", "16"], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    row = result.stdout.splitlines()[-1]
    assert re.fullmatch(rf"\| {re.escape(name)} `{store}` \| \d+ of 16( \| \d of 3){{3}} \|", row)
    assert not live_engine.exact or row.count("| 0 of") == 4


def test_written_runs_are_shown_beside_each_other(tmp_path):
    """Two runs that were written give one table with both figures in each cell."""
    report: dict[str, Any] = {
        "contenders": [["ours", "Ours"], ["redis", "Redis backend"]],
        "rows": {"join": [{"key": "join", "title": "join of 5", "unit": "s", "higher_is_better": False}]},
        "samples": {"join": {"ours": {"join": [1.0]}, "redis": {"join": [2.0]}}},
        "about": {"date": "2026-01-01"},
    }
    files = [tmp_path / "1.json", tmp_path / "2.json"]
    for file, seconds in zip(files, (1.0, 1.5), strict=True):
        report["samples"]["join"]["ours"]["join"] = [seconds]
        file.write_text(json.dumps(report))
    program = [sys.executable, "-m", "benchmarks", "--show", *map(str, files)]
    shown = subprocess.run(program, cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=True).stdout
    assert "| join of 5 | 1.00 s / 1.50 s | 2.00 s | 0.50 / 0.75 | engine |" in shown


def test_a_simulated_cluster_loses_nothing(live_engine, redis_url):
    """Several front ends, one of them killed every few seconds, with conflicts: every value right, every task once."""
    if live_engine.spec.name == "external":
        pytest.skip("the benchmark starts an engine of its own")
    program = [sys.executable, "-m", "benchmarks.cluster", "--tasks", "200", "--kill-every", "1"]
    result = subprocess.run(
        [*program, "--engine", str(live_engine.spec)], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("\n0 problems\n")


def test_the_trials_of_scale_run(live_engine):
    """Every trial, at a small part of its size: all results are there and right."""
    if live_engine.spec.name == "external":
        pytest.skip("the benchmark starts an engine of its own")
    program = [sys.executable, "-m", "benchmarks.scale", "--scale", "0.003", "--engine", str(live_engine.spec)]
    result = subprocess.run(program, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ")[0] for line in result.stdout.splitlines()[2:]]
    assert rows == [f"| {name}" for name in TRIALS]


@pytest.mark.timeout(2000)
def test_every_command_and_page_answers_on_a_data_set_that_is_kept(live_engine, tmp_path):
    """A data set is made and then used again; each command exits with 0, each page is there, and the five are found."""
    if live_engine.spec.name == "external" or live_engine.store == "mem":
        pytest.skip("the benchmark starts an engine of its own, which keeps its data")
    written, data = tmp_path / "figures.json", tmp_path / "data"
    program = [sys.executable, "-m", "benchmarks.million", "--data", str(data), "--results", "1500", "--engine"]
    made = subprocess.run(
        [*program, str(live_engine.spec), "--build"], cwd=CHECKOUT, capture_output=True, text=True, timeout=900
    )
    assert made.returncode == 0, made.stderr
    before = (data / "data-set.json").read_text()
    result = subprocess.run(
        [*program, str(live_engine.spec), "--quick", "--json", str(written)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    assert (data / "data-set.json").read_text() == before
    found = json.loads(written.read_text())
    assert {"check", "tasks", "show, succeeded", "stats --by name", "chords"} <= {
        each["command"] for each in found["commands"]
    }
    assert {(each["page"], each["status"]) for each in found["pages"] if each["status"] != 200} == set()
    assert {each["page"]: each["rows"] for each in found["pages"]}["tasks: name of five, looked on"] == 5
    assert "| `check` |" in result.stdout
    assert "| tasks: name of five |" in result.stdout
