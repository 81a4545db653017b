"""Measure, and print the tables: ``python -m benchmarks [--quick] [--only NAME] [--engine 3.2.4] [--plot FILE]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import random
import sys
import time
from pathlib import Path

from tests.engines import EngineFailed, Unavailable
from tests.engines import start as start_engine

from . import contenders, servers, tables
from .measures import MEASURES, QUICK, Bench, Measure, Sizes

DEFAULT_ENGINE = "3.0.2"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the numbers mean nothing")
    parser.add_argument("--only", action="append", choices=names, help="only this measure; may be repeated")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions, of which the median counts (default: 5)")
    parser.add_argument(
        "--engine", action="append", help=f"an engine of tests/engines; may be repeated (default: {DEFAULT_ENGINE})"
    )
    parser.add_argument("--without", action="append", default=[], help="a contender to leave out: redis, postgres, raw")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios there, as .svg or .png")
    options = parser.parse_args(arguments)
    logging.getLogger("celery").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        try:
            everybody, broker = _contenders(options.engine or [DEFAULT_ENGINE], options.without, stack)
        except (Unavailable, EngineFailed) as error:
            print(f"the engine cannot run here: {error}", file=sys.stderr)
            return 1
        bench = Bench(everybody, QUICK if options.quick else Sizes(), broker)
        stack.enter_context(bench.stack)
        chosen = [measure() for measure in MEASURES if not options.only or measure.name in options.only]
        results = {measure.name: _run(bench, measure, options.repeat) for measure in chosen}
    report = tables.Report(
        contenders=[(each.name, each.label) for each in everybody],
        rows={measure.name: measure.rows(bench.sizes) for measure in chosen},
        samples=results,
        about=_about(),
    )
    print(report.markdown())
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=1) + "\n")
    if options.plot:
        report.plot(options.plot)
    return 0


def _contenders(
    engines: list[str], without: list[str], stack: contextlib.ExitStack
) -> tuple[list[contenders.Contender], str]:
    """Start what is needed; peers that cannot run here are named and left out, the broker is needed."""
    everybody = []
    for number, name in enumerate(engines):
        version, _, store = name.partition("-")
        engine = stack.enter_context(start_engine(version, store or None))
        everybody.append(contenders.surrealdb("ours" if number == 0 else f"ours {name}", engine))
        if number == 0 and "raw" not in without:
            bare = contenders.raw(engine)
    redis_url = stack.enter_context(servers.redis())
    address = redis_url.rpartition("/")[0]
    if "redis" not in without:
        everybody.append(contenders.redis(f"{address}/13"))
    if "postgres" not in without:
        try:
            everybody.append(contenders.postgres(stack.enter_context(servers.postgres())))
        except (servers.NoServer, ImportError) as error:
            print(f"without PostgreSQL: {error}", file=sys.stderr)
    if "raw" not in without:
        everybody.append(bare)
    return everybody, f"{address}/14"


def _run(bench: Bench, measure: Measure, repeat: int) -> dict[str, dict[str, list[float]]]:
    """Samples by contender and row. The contenders take turns, so that a busy moment meets all of them."""
    samples: dict[str, dict[str, list[float]]] = {}
    taking_part = [contender for contender in bench.contenders if measure.applies(contender)]
    for number in range(min(repeat, measure.most_repeats) * measure.turns):
        # By lot: whoever came after the same contender each time would find the server as that one left it.
        for contender in random.sample(taking_part, len(taking_part)):
            began = time.monotonic()
            sample = measure.sample(bench, contender)
            took = time.monotonic() - began
            print(f"{measure.name} {number + 1}, {contender.name}: {took:.1f} s", file=sys.stderr, flush=True)
            rows = samples.setdefault(contender.name, {})
            for key, value in sample.items():
                rows.setdefault(key, []).append(value)
    return samples


def _about() -> dict[str, str]:
    packages = ("celery", "surrealdb", "cbor2", "redis", "sqlalchemy", "psycopg")
    versions = {name: _version(name) for name in packages}
    load = os.getloadavg()[0]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, load {load:.1f} at the end",
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }


def _version(name: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
