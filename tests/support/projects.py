"""A project of examples/ as a reader runs it: from the folder of the examples, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.engines import Database
from tests.support.paths import CHECKOUT, EXAMPLES
from tests.support.processes import MAX_WAIT, end
from tests.support.states import until


@dataclass
class Project:
    """A project.

    Args:
        name: Its folder, and the package in it.
        database: Where its results are.
        broker: The URL of its broker; a folder of its own if left out.
        folder: For its logs.
        more: Further environment variables.
    """

    name: str
    database: Database
    folder: Path
    broker: str = ""
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes. The queue is its own on servers that others use, too."""
        # Its own folder before all else, then the checkout where that is what is tested.
        paths = [str(EXAMPLES / self.name), str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "CELERY_BROKER_URL": self.broker or f"folder://{self.folder / 'broker'}",
            "CELERY_RESULT_BACKEND": self.database.backend_url,
            f"{self.name.upper()}_QUEUE": f"{self.name}-{self.folder.name}",
            **self.more,
        }

    def log(self, name: str) -> str:
        """What a process printed so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    @contextlib.contextmanager
    def celery(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A `celery` process, ended with the block.

        Args:
            name: Of its log.
            arguments: Behind `celery -A project`.
        """
        command = [sys.executable, "-m", "celery", "-A", self.name, *arguments]
        with (self.folder / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(
                command, cwd=EXAMPLES, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield process
        finally:
            end(process)

    @contextlib.contextmanager
    def worker(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker that is ready, under a name of its own: RabbitMQ takes each once."""
        name = f"{self.name}-{self.folder.name}@%h"
        with self.celery("worker", "worker", "--loglevel", "INFO", "-n", name, *options) as process:
            until(
                lambda: " ready." in self.log("worker") or process.poll() is not None, "the worker is ready", MAX_WAIT
            )
            assert process.poll() is None, self.log("worker")
            yield process

    def python(self, *arguments: str) -> str:
        """Run a program of the reader's to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=EXAMPLES,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=MAX_WAIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
