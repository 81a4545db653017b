"""Install, list and serve the engines of the tests: ``python -m tests.engines install|list|serve``."""

from __future__ import annotations

import argparse
import queue
import signal
import sys

from . import installed, matrix


def install() -> int:
    """Install what is missing, then list. In CI, fail where something could not be."""
    problems = installed.install()
    for problem in problems:
        print(f"not installed: {problem}", file=sys.stderr)
    return list_engines() or (1 if problems and matrix.in_ci() else 0)


def list_engines() -> int:
    """Print each engine and store, and where it comes from or why it cannot run."""
    for label, found in matrix.all_specs(every_store=True):
        if isinstance(found, matrix.Unavailable):
            print(f"{label:18} cannot run: {found}")
        else:
            live = "LIVE" if found.spec.live else "no LIVE"
            print(f"{label:18} {live:8} {found.source}")
    return 0


def serve(engine: str, store: str | None, port: int) -> int:
    """Run one engine until a signal."""
    try:
        provider = matrix.find(engine, store)
    except matrix.Unavailable as error:
        print(f"engine {engine} cannot run: {error}", file=sys.stderr)
        return 1
    # Not an Event: its `set` would wait for ever for a lock that the interrupted `wait` has at that moment.
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: ended.put(number))
    with provider.start(port) as running:
        print(f"SurrealDB {running.version} ({running.store}), {running.source}, root/root")
        print(f"ready: {running.url}", flush=True)
        ended.get()
    return 0


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="get the engines that are not here yet, into .engines")
    commands.add_parser("list", help="say which engines can run here, and why others cannot")
    command = commands.add_parser("serve", help="run one engine until Ctrl+C")
    command.add_argument("--engine", default="3.0.2", help="which (default: %(default)s)")
    command.add_argument("--store", help="mem, surrealkv or rocksdb (default: the engine's first)")
    command.add_argument("--port", type=int, default=0, help="0 takes a free one (default: %(default)s)")
    options = parser.parse_args()
    if options.command == "install":
        return install()
    if options.command == "list":
        return list_engines()
    return serve(options.engine, options.store, options.port)


if __name__ == "__main__":
    sys.exit(main())
