"""Every command of `celery surrealdb` that reads, as a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.engines import Database

from ..accounting import Accounts, tree
from .build import DataSet, environment
from .tasks import NOTHING, RARE, RARE_ERROR, RARE_TAG, RARE_WORKER

#: Above it a command is marked, in seconds.
LIMIT = 1.0
CHECKOUT = Path(__file__).parents[2]
#: What the reader subtracts.
START = "--help"


@dataclass
class Timed:
    """What a command took.

    Attributes:
        command: Behind `celery -A … surrealdb`, as the table shows it.
        lines: Lines that it printed at its end.
        seconds: Of each run.
        cpu: Seconds of CPU of its process, likewise.
        engine: Seconds of CPU of the engine, likewise.
        memory: MiB at its peak, the most of all runs.
        failed: Its exit status and what it said, where a run failed.
    """

    command: str
    lines: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    memory: float = 0.0
    failed: str = ""

    @property
    def median(self) -> float:
        """Of its times."""
        return statistics.median(self.seconds)


def commands(data: DataSet, cursor: str, folder: Path) -> dict[str, list[str]]:
    """The commands, as they are shown, and their arguments.

    Args:
        data: The data set that they ask about.
        cursor: Where the second page begins.
        folder: Where exports go.
    """
    known, day, week = data.known, data.back(timedelta(days=1)), data.back(timedelta(days=7))
    begin, end = data.back(timedelta(days=15)), data.back(timedelta(days=15, hours=-1))
    filters: dict[str, list[str]] = {
        "": [],
        "--limit 1000": ["--limit", "1000"],
        "--after …": ["--after", cursor],
        "--json": ["--json"],
        "--csv --limit 1000": ["--csv", "--limit", "1000"],
        "--state FAILURE": ["--state", "FAILURE"],
        "--state STARTED": ["--state", "STARTED"],
        "--name of many": ["--name", "shop.mail.send"],
        "--name 'web.*'": ["--name", "web.*"],
        "--name of five": ["--name", RARE],
        "--name of five --json": ["--name", RARE, "--json"],
        "--name of none": ["--name", NOTHING],
        "--worker of many": ["--worker", "celery@web-3"],
        "--worker of few": ["--worker", RARE_WORKER],
        "--queue slow": ["--queue", "slow"],
        "--since, --until: an hour 15 days ago": ["--since", begin, "--until", end],
        "--error of many": ["--error", "OperationalError"],
        "--error of few": ["--error", RARE_ERROR],
        "--text of many": ["--text", "mail server"],
        "--text of none": ["--text", "no such words"],
        "--tag of many": ["--tag", "vip"],
        "--tag of few": ["--tag", RARE_TAG],
        "--argument of few": ["--argument", "order-7777"],
        "--root": ["--root", known["root"]],
        "--group": ["--group", known["group"]],
        "--parent": ["--parent", known["root"]],
        "--periodic": ["--periodic", "daily-report"],
        "--retry-of": ["--retry-of", known["retried"]],
        "--min-runtime 60": ["--min-runtime", "60"],
        "--state FAILURE --name --since 7d": ["--state", "FAILURE", "--name", "shop.payments.*", "--since", week],
    }
    return {
        START: [START],
        "check": ["check"],
        **{f"tasks {shown}".strip(): ["tasks", *given] for shown, given in filters.items()},
        "show, succeeded": ["show", known["succeeded"]],
        "show, failed": ["show", known["failed"]],
        "show --json, of a workflow": ["show", known["member"], "--json"],
        "show, the body of a chord": ["show", known["body"]],
        "show --no-tree": ["show", known["failed"], "--no-tree"],
        "show, the beginning of an id": ["show", known["failed"][:18]],
        **{f"stats --by {by}": ["stats", "--by", by] for by in ("name", "hour", "worker", "queue")},
        "stats of a rare name": ["stats", "--name", RARE],
        "stats --since 7d": ["stats", "--since", week],
        "stats --all": ["stats", "--all"],
        "stats --all --name of five": ["stats", "--all", "--name", RARE],
        "chords": ["chords"],
        "cleanup --dry-run": ["cleanup", "--dry-run"],
        "retry --dry-run, failures of a day": ["retry", "--state", "FAILURE", "--since", day, "--dry-run"],
        "retry --dry-run, an error": ["retry", "--error", "KeyError", "--limit", "100", "--dry-run"],
        "revoke --dry-run": ["revoke", "--state", "STARTED", "--dry-run"],
        "forget --dry-run, of five": ["forget", "--name", RARE, "--dry-run"],
        "schema": ["schema"],
        "metrics --once": ["metrics", "--once"],
        "metrics --once --lookback 86400": ["metrics", "--once", "--lookback", "86400"],
        "export, failures of a day": ["export", str(folder / "day.gz"), "--state", "FAILURE", "--since", day],
        "export, a name of five": ["export", str(folder / "name.gz"), "--name", RARE],
        "schedule list": ["schedule", "list"],
    }


def one_of_each(wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    """The first of each command.

    Args:
        wanted: Commands, as they are shown, and their arguments.
    """
    first = {arguments[0]: shown for shown, arguments in reversed(wanted.items())}
    return {shown: arguments for shown, arguments in wanted.items() if first[arguments[0]] == shown}


def time_commands(
    wanted: dict[str, list[str]], data: DataSet, database: Database, folder: Path, *, runs: int, budget: float
) -> list[Timed]:
    """Run commands.

    Args:
        wanted: Which.
        data: The data set.
        database: Where it is.
        folder: For what they print and write.
        runs: How often each.
        budget: One that took so many seconds in all is not run again.
    """
    accounts = Accounts({"engine": tree(database.engine.pid)})
    around = environment(database, data.indexes)
    found = []
    for shown, arguments in wanted.items():
        timed = Timed(shown)
        began = time.monotonic()
        while len(timed.seconds) < runs and not timed.failed:
            _run(timed, arguments, accounts, around, folder)
            if time.monotonic() - began > budget:
                break
        print(f"{shown}: {timed.median:.2f} s{timed.failed and ', FAILED'}", file=sys.stderr, flush=True)
        found.append(timed)
    return found


def _run(timed: Timed, arguments: list[str], accounts: Accounts, around: dict[str, str], folder: Path) -> None:
    for written in folder.glob("*.gz"):
        written.unlink()
    output = folder / "output"
    celery = [sys.executable, "-m", "celery", "-A", "benchmarks.million.app", "surrealdb", *arguments]
    launcher = [sys.executable, "-S", "-E", str(Path(__file__).with_name("launch.py")), str(output)]
    with accounts.used() as cpu:
        done = subprocess.run(
            [*launcher, *celery], cwd=CHECKOUT, env=around, capture_output=True, text=True, check=True
        )
    took = json.loads(done.stdout)
    timed.seconds.append(took["seconds"])
    timed.cpu.append(took["cpu"])
    timed.engine.append(cpu["engine"])
    timed.memory = max(timed.memory, took["memory"])
    timed.lines = len(Path(f"{output}.1").read_text().splitlines())
    if took["status"]:
        timed.failed = f"exit {took['status']}: {Path(f'{output}.2').read_text()[-2000:]}"
