"""The programs of an example, started as its page says: `python start.py NAME …` in the folder of the examples."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.engines import Database
from tests.support.paths import CHECKOUT, EXAMPLES
from tests.support.processes import MAX_WAIT, end
from tests.support.states import until


@dataclass
class Programs:
    """An example that runs.

    Args:
        example: Its folder.
        environment: The variables of its programs.
        log: All that they print.
        url: The address of its web program.
    """

    example: str
    environment: dict[str, str]
    log: Path
    url: str = ""

    def printed(self) -> str:
        """All output so far."""
        return self.log.read_text(errors="replace")

    def python(self, *arguments: str) -> str:
        """Run a program of the reader's to its end, in the folder of the example; what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=EXAMPLES / self.example,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MAX_WAIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def variables(example: str, backend: str, folder: Path, broker: str = "") -> dict[str, str]:
    """The variables of an example's programs. Queue and worker are its own on servers that others use, too.

    Args:
        example: Its folder.
        backend: The URL of its results.
        folder: For its files.
        broker: The URL of its broker; a folder of its own if left out.
    """
    paths = [str(EXAMPLES / example), str(EXAMPLES), str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CELERY_BROKER_URL": broker or f"folder://{folder / 'broker'}",
        "CELERY_RESULT_BACKEND": backend,
        "SHOP_QUEUE": f"shop-{folder.name}",
        "SERVICE_QUEUE": f"service-{folder.name}",
        "WORKER_NAME": f"{example}-{folder.name}",
        "PORT": "0",
    }


@contextlib.contextmanager
def programs(
    example: str, database: Database, folder: Path, *names: str, broker: str = "", **more: str
) -> Iterator[Programs]:
    """Start programs of an example and wait until its web program listens and its worker is ready; end them.

    Args:
        example: Its folder.
        database: Where its results are.
        folder: For its log and its files.
        names: The programs; `web` and `worker` at least.
        broker: The URL of its broker; a folder of its own if left out.
        **more: Further environment variables.
    """
    # Before there is anybody else: programs that make a database at the same time may be refused.
    database.query("DEFINE TABLE IF NOT EXISTS task")
    environment = variables(example, database.backend_url, folder, broker) | more
    running = Programs(example, environment, folder / "programs.log")
    with running.log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "start.py", example, *names],
            cwd=EXAMPLES,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        found = until(
            lambda: (
                re.search(r"^web .*running on (http://\S+)", running.printed(), re.MULTILINE)
                if re.search(r"^worker .* ready\.", running.printed(), re.MULTILINE)
                else process.poll() is not None
            ),
            "the programs are ready",
            MAX_WAIT,
        )
        assert isinstance(found, re.Match), running.printed()
        running.url = found[1]
        yield running
    finally:
        end(process)
    assert process.returncode == 0, running.printed()
    # A worker's log has the tracebacks of tasks that fail; the pages have none.
    assert not re.search(r"^(web|beat) .*Traceback", running.printed(), re.MULTILINE), running.printed()
