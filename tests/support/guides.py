"""Follows a page of the documentation from an empty folder: writes its files, runs its commands, compares what they say.

A block with a title is a file, or what stands at the end of one. In a block `console` each line that begins with `$` is a command, and the lines below it
are what it prints, where `…` stands for anything. Programs that do not end by themselves run on until the page ends.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tests.support.paths import CHECKOUT
from tests.support.states import until

#: How long a program may take to get somewhere, in seconds: a limit for a hang, not a wait.
MAX_WAIT = 300.0
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)

#: Pages that are followed from an empty folder by `test_guides.py`.
FOLLOWED = (
    "docs/start.md",
    "docs/celery.md",
    "docs/django.md",
    "docs/fastapi.md",
    "docs/backup.md",
    "docs/upgrading.md",
    "docs/operating.md",
    "docs/migrating.md",
)
#: Pages whose Python `test_snippets.py` runs as it stands there.
SNIPPETS = (
    "README.md",
    "docs/configuration.md",
    "docs/console.md",
    "docs/failures.md",
    "docs/history.md",
    "docs/migrating.md",
    "docs/monitoring.md",
    "docs/querying.md",
    "docs/reliability.md",
    "docs/security.md",
)
#: Commands that are not run: what they are for is tested elsewhere, or there already.
ELSEWHERE = {
    r"git clone |cd surrealdb-celery-backend|python3 run\.py |cp dist/": "run.py is what CI itself runs",
    r"python3? -m venv |\. \.venv/|pip install |uv ": "the tests of the wheel install it into an empty environment",
    r"python -m surrealdb_celery_backend\.devserver": "an engine of the tests is in its place",
    r"surreal |docker ": "neither is on every machine",
    r"redis-server|psql |createdb ": "services of the reader's own",
}
#: Programs that run on, each with what it says when it is ready.
PROGRAMS = {
    r"celery -A \S+ (?:--workdir \S+ )?worker\b": r" ready\.",
    # By then the entries of the code are in the database, where the next command changes one.
    r"celery -A \S+ beat\b": r"beat: \d+ entries",
    r"celery -A \S+ surrealdb (?:console|metrics)\b": r"(?:Uvicorn running|Listening) on",
    r"uvicorn ": r"Uvicorn running on",
    r"python manage\.py runserver": r"Starting development server at|Quit the server",
}


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        language: What it is written in.
        title: The file that it is; empty for none.
        text: What is in it.
    """

    language: str
    title: str
    text: str

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each command, with the lines that it prints."""
        command, printed = "", list[str]()
        for line in self.text.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, printed
                command, printed = line[2:], []
            elif command.endswith("\\"):
                command = command[:-1] + line.strip()
            elif line:
                printed.append(line)
        if command:
            yield command, printed


def blocks(page: str) -> list[Block]:
    """Every block of a page, in order.

    Args:
        page: Its path in the checkout.
    """
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    return [Block(*found) for found in _BLOCK.findall(text)]


def elsewhere(command: str) -> bool:
    """Whether a command is not run here."""
    return any(re.match(pattern, command) for pattern in ELSEWHERE)


@final
class Guide:
    """One reader with an empty folder.

    Args:
        folder: The folder.
        replaced: What stands on the page, and what stands for it here: addresses of servers.
        variables: Further variables of the environment.
    """

    def __init__(self, folder: Path, replaced: Mapping[str, str], variables: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._replaced = replaced
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "SURREALDB_"))}
        self.variables = {**clean, "PATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(variables or {})}
        self._programs: list[tuple[subprocess.Popen[bytes], Path]] = []
        #: The commands that were run, and those that were not.
        self.ran: list[str] = []
        self.left_out: list[str] = []

    def __enter__(self) -> Guide:
        return self

    def __exit__(self, *_: object) -> None:
        for process, _log in reversed(self._programs):
            process.send_signal(signal.SIGTERM)
        for process, _log in self._programs:
            try:
                process.wait(MAX_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def follow(self, page: str) -> None:
        """Do all that the page says.

        Args:
            page: Its path in the checkout.
        """
        for block in blocks(page):
            if block.title:
                self.write(block)
            elif block.language == "console":
                for command, printed in block.commands():
                    self._run(self._here(command).partition("  #")[0].strip(), printed)

    def write(self, block: Block) -> None:
        """Write the file that a block is.

        Args:
            block: A block with a title.
        """
        name, at_the_end, _ = block.title.partition(" (at the end)")
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8") if at_the_end else ""
        file.write_text(before + self._here(block.text), encoding="utf-8")

    def says(self, command: str) -> str:
        """Run a command that ends well, and return what it printed.

        Args:
            command: For bash.
        """
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MAX_WAIT,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}\n{self._logs()}"
        return done.stdout

    def _here(self, text: str) -> str:
        for there, here in self._replaced.items():
            text = text.replace(there, here)
        return text

    def _run(self, command: str, printed: list[str]) -> None:
        if elsewhere(command):
            self.left_out.append(command)
            return
        self.ran.append(command)
        if command.startswith("export "):
            for word in shlex.split(command.removeprefix("export ")):
                name, _, value = word.partition("=")
                self.variables[name] = value
            return
        for pattern, ready in PROGRAMS.items():
            if re.match(pattern, command):
                self._start(command, ready)
                return
        said = self.says(command)
        if printed:
            wanted = "\n".join(".*".join(map(re.escape, line.split("…"))) for line in printed)
            assert re.search(wanted, said), f"$ {command}\n{said}\nis not\n" + "\n".join(printed)

    def _start(self, command: str, ready: str) -> None:
        log = self.folder / f"program-{len(self._programs)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._programs.append((process, log))
        is_ready = re.compile(ready)
        until(
            lambda: is_ready.search(log.read_text(errors="replace")) or process.poll() is not None,
            f"{command} is ready",
            MAX_WAIT,
        )
        assert process.poll() is None, f"$ {command}\n{self._logs()}"

    def _logs(self) -> str:
        return "\n".join(log.read_text(errors="replace")[-3000:] for _, log in self._programs)
