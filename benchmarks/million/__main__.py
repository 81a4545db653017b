"""Time every command and every page on a million results.

``python -m benchmarks.million --data FOLDER [--results 1000000] [--engine 3.0.2] [--runs 5] [--quick] [--json FILE]``

The data set is made in the folder first, or used again where it is there. A command is a process of its own, a page a
request to a console in a process of its own. It fails where a command or a page does.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from surrealdb_celery_backend.results import Results
from tests.engines import Database

from ..about import about
from ..accounting import Accounts, peak_memory, tree
from .build import DataSet, NotUsable, app_of, data_set
from .commands import LIMIT as COMMAND_LIMIT
from .commands import START, Timed, commands, one_of_each, time_commands
from .pages import LIMIT as PAGE_LIMIT
from .pages import Asked, time_pages

#: The engine is waited for until it has nothing to do: not more than this part of a core, and for so many seconds.
IDLE, IDLE_MOST = 0.05, 180.0
ENDED = ("SUCCESS", "FAILURE", "REVOKED")


def places(data: DataSet, database: Database) -> tuple[str, str]:
    """Where the second page of a list begins, and one half way down."""
    with Results(app_of(database, data.indexes)) as results:
        first = results.find(limit=50)
        middle = datetime.fromisoformat(data.back(timedelta(days=15)))
        deep = results.find(limit=50, state=ENDED, until=middle)
    if first.after is None or deep.after is None:
        raise NotUsable(f"{data.results} results are too few")
    return first.after, deep.after


def settle(database: Database) -> None:
    """Wait until the engine has put its data in order."""
    accounts = Accounts({"engine": tree(database.engine.pid)})
    until = time.monotonic() + IDLE_MOST
    while time.monotonic() < until:
        with accounts.used() as cpu:
            time.sleep(1)
        if cpu["engine"] < IDLE:
            return
        print("the engine puts its data in order", file=sys.stderr, flush=True)


def command_table(timed: Sequence[Timed]) -> str:
    """The commands as Markdown: medians; what is above the limit is bold."""
    start = next(each for each in timed if each.command == START).median
    rows = [
        (
            f"`{each.command}`",
            _marked(each.median, COMMAND_LIMIT, f"{each.median:.2f}"),
            f"{max(each.median - start, 0):.2f}",
            f"{max(each.seconds):.2f}",
            f"{_median(each.cpu):.2f}",
            f"{_median(each.engine):.2f}",
            f"{each.memory:.0f}",
            f"{each.lines:,}",
            f"{len(each.seconds)}{each.failed and ', FAILED'}",
        )
        for each in timed
    ]
    heads = ("command", "s", "less the start", "slowest", "CPU s", "engine CPU s", "peak MiB", "lines", "runs")
    return _table(heads, rows, right=7)


def page_table(asked: Sequence[Asked]) -> str:
    """The pages as Markdown: medians; what is above the limit is bold, and the first request by itself."""
    rows = [
        (
            each.page,
            _marked(each.median, PAGE_LIMIT, f"{each.median * 1000:.0f}"),
            _marked(each.seconds[0], PAGE_LIMIT, f"{each.seconds[0] * 1000:.0f}"),
            _marked(max(each.seconds), PAGE_LIMIT, f"{max(each.seconds) * 1000:.0f}"),
            f"{each.engine * 1000:.0f}",
            f"{each.console * 1000:.0f}",
            f"{each.size / 1024:.0f}",
            f"{each.rows:,}",
            "; ".join(_notes(each)),
        )
        for each in asked
    ]
    heads = ("page", "ms", "first", "slowest", "engine CPU ms", "console CPU ms", "KiB", "tasks", "")
    return _table(heads, rows, right=7)


def _notes(asked: Asked) -> Iterable[str]:
    if not asked.good:
        yield f"FAILED: {asked.status}"
    if asked.note:
        yield asked.note
    if asked.complete is not None:
        yield f"all figures after {asked.complete:.1f} s"


def _marked(value: float, limit: float, text: str) -> str:
    return f"**{text}**" if value > limit else text


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: int) -> str:
    lines = [heads, ["---", *["---:"] * right, "---"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="where the data set is kept")
    parser.add_argument("--results", type=int, default=1_000_000, help="how many results (default: %(default)s)")
    parser.add_argument("--engine", default="3.0.2-rocksdb", help="an engine of tests/engines (default: %(default)s)")
    parser.add_argument("--indexes", default="date_done", help="surrealdb_indexes (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each command and page (default: %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=30.0, help="a command that took so many seconds is not run again (default: 30)"
    )
    parser.add_argument("--quick", action="store_true", help="see that it works: one of each command, all once")
    parser.add_argument("--build", action="store_true", help="only make the data set")
    parser.add_argument("--only", choices=("commands", "pages"), help="only these")
    parser.add_argument(
        "--match", type=re.compile, default="", metavar="PATTERN", help="only commands that this expression is found in"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    logging.getLogger("celery").setLevel(logging.ERROR)
    try:
        with data_set(options.data, options.results, options.engine, options.indexes) as (data, database):
            print(f"the data set took {data.seconds:.0f} s to make", file=sys.stderr)
            return 0 if options.build else _measure(data, database, options)
    except NotUsable as error:
        print(error, file=sys.stderr)
        return 2


def _measure(data: DataSet, database: Database, options: argparse.Namespace) -> int:
    settle(database)
    cursors = places(data, database)
    timed: list[Timed] = []
    asked: list[Asked] = []
    console_peak = 0.0
    runs = 1 if options.quick else options.runs
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.only != "pages":
            wanted = commands(data, cursors[0], folder)
            wanted = one_of_each(wanted) if options.quick else wanted
            wanted = {name: given for name, given in wanted.items() if name == START or options.match.search(name)}
            timed = time_commands(wanted, data, database, folder, runs=runs, budget=options.budget)
        if options.only != "commands":
            asked, console_peak = time_pages(data, database, cursors, folder, runs=runs)
    engine_peak = peak_memory(database.engine.pid)
    facts = {**about(("celery", "surrealdb", "cbor2", "starlette")), "engine": data.engine, "indexes": data.indexes}
    facts |= {"results": f"{data.results:,}", "engine's peak": f"{engine_peak:.0f} MiB"}
    if asked:
        facts["console's peak"] = f"{console_peak:.0f} MiB"
    if options.json:
        found = {
            "about": facts,
            "commands": [asdict(each) for each in timed],
            "pages": [asdict(each) for each in asked],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if timed:
        print(f"\n### Commands\n\n{command_table(timed)}")
    if asked:
        print(f"\n### Pages\n\n{page_table(asked)}")
    failures = [f"{each.command}: {each.failed}" for each in timed if each.failed]
    failures += [f"{each.page}: {each.status}" for each in asked if not each.good]
    for each in failures:
        print(each, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
