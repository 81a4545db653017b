"""Measure, and print the tables: ``python -m benchmarks [--quick] [--only NAME] [--engine 3.2.4] [--plot FILE]``.

``--show RUN.json [RUN.json …]`` measures nothing and prints written runs beside each other.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import sys
import time
from pathlib import Path

from tests.engines import EngineFailed, Unavailable
from tests.engines import start as start_engine

from . import contenders, servers, tables
from .about import about
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
    parser.add_argument(
        "--without", action="append", default=[], help="a contender to leave out: redis, postgres, raw, nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios there, as .svg or .png")
    parser.add_argument("--show", type=Path, nargs="+", metavar="FILE", help="print runs that --json wrote, and end")
    options = parser.parse_args(arguments)
    if options.show:
        return _show([tables.Report.read(file) for file in options.show], options.plot)
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
        about=about(),
    )
    if options.json:
        report.write(options.json)
    return _show([report], options.plot)


def _show(reports: list[tables.Report], plot: Path | None) -> int:
    print(tables.markdown(reports))
    if plot:
        tables.plot(reports[-1], plot)
    return 0


def _contenders(
    engines: list[str], without: list[str], stack: contextlib.ExitStack
) -> tuple[list[contenders.Contender], servers.Server]:
    """Start what is needed; peers that cannot run here are named and left out, the broker is needed."""
    everybody = []
    for number, name in enumerate(engines):
        version, _, store = name.partition("-")
        engine = stack.enter_context(start_engine(version, store or None))
        everybody.append(contenders.surrealdb("ours" if number == 0 else f"ours {name}", engine))
        if number == 0 and "raw" not in without:
            bare = contenders.raw(engine)
    broker = stack.enter_context(servers.redis())
    if "redis" not in without:
        own = stack.enter_context(servers.redis())
        everybody.append(contenders.redis(own.url, own.pid))
    if "postgres" not in without:
        try:
            everybody.append(contenders.postgres(stack.enter_context(servers.postgres())))
        except (servers.NoServer, ImportError) as error:
            print(f"without PostgreSQL: {error}", file=sys.stderr)
    if "raw" not in without:
        everybody.append(bare)
    if "nothing" not in without:
        everybody.append(contenders.nothing())
    return everybody, broker


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


if __name__ == "__main__":
    sys.exit(main())
