"""Start all programs of an example together, as its Procfile names them: `python start.py django_shop`.

Each line of output begins with the program that wrote it. Ctrl+C stops all; so does the end of any of them.
`python start.py django_shop web worker` starts only these, beside servers of your own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
#: How long programs have to stop by themselves, in seconds.
PATIENCE = 30


def commands(folder: Path) -> dict[str, str]:
    """Read a Procfile: a name, a colon and a command on each line."""
    lines = (folder / "Procfile").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(":", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): command.strip() for name, command in pairs}


def tell(name: str, process: subprocess.Popen[str]) -> None:
    """Write the output of a program, line by line."""
    assert process.stdout
    for line in process.stdout:
        print(f"{name:9}| {line}", end="", flush=True)


@contextlib.contextmanager
def started(folder: Path, chosen: dict[str, str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start programs; none of them outlives the block."""
    paths = [str(folder), str(HERE), os.environ.get("PYTHONPATH", "")]
    # The commands are those of this Python, wherever it is.
    programs = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(programs),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
    }
    processes: list[subprocess.Popen[str]] = []
    tellers: list[threading.Thread] = []
    try:
        for name, command in chosen.items():
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # In a group of its own, which is stopped as a whole.
                start_new_session=True,
            )
            processes.append(process)
            tellers.append(threading.Thread(target=tell, args=(name, process), daemon=True))
            tellers[-1].start()
        yield processes
    finally:
        stop(processes)
        for teller in tellers:
            teller.join(PATIENCE)


def stop(processes: list[subprocess.Popen[str]]) -> None:
    """Ask all to end, in the reverse order of their start: the database last. Then end those that do not."""
    for process in reversed(processes):
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    """Start what the command line names, and wait."""
    examples = sorted(path.parent.name for path in HERE.glob("*/Procfile"))
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in examples:
        print(f"usage: python start.py {{{','.join(examples)}}} [program ...]", file=sys.stderr)
        return 2
    folder = HERE / arguments[0]
    known = commands(folder)
    unknown = set(arguments[1:]) - set(known)
    if unknown:
        print(f"{', '.join(sorted(unknown))}: the programs are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = {name: command for name, command in known.items() if not arguments[1:] or name in arguments[1:]}
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    with started(folder, chosen) as processes:
        while not asked.wait(0.2):
            ended = [name for name, process in zip(chosen, processes, strict=True) if process.poll() is not None]
            if ended:
                print(f"{ended[0]} has ended; the others are stopped.", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
