"""The command line of the development server."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from .engine import DevServerError
from .server import DEFAULT_PORT, DevServer


def _introduction(server: DevServer) -> str:
    """The settings to connect with, ending in the line that says that the server is ready."""
    kept = "everything is lost when it stops" if server.path is None else f"kept in {server.path}"
    # A password that the reader chose is not repeated on the screen.
    password = server.password if server.password == "root" else "<your --password>"
    userinfo = f"{quote(server.username, safe='')}:{password if password == 'root' else '<your --password>'}"
    return "\n".join(
        [
            f"SurrealDB {server.version}, embedded, development only ({server.store}: {kept}). Stop it with Ctrl+C.",
            "",
            "In your Celery app:",
            '    app.conf.result_backend = "surrealdb_celery_backend:SurrealDBBackend"',
            f'    app.conf.surrealdb_url = "{server.url}"',
            f"    app.conf.surrealdb_username = {json.dumps(server.username, ensure_ascii=False)}",
            f'    app.conf.surrealdb_password = "{password}"',
            "or in its environment:",
            f"    CELERY_RESULT_BACKEND=surrealdb://{userinfo}@{server.url[5:-4]}/celery/results",
            "",
            f"ready: {server.url}",
        ]
    )


def _write_ready_file(path: Path, server: DevServer) -> None:
    """Write where the server is, whole or not at all.

    The text goes through a new file of a name that nobody can guess: a link put there beforehand would redirect it.
    """
    content = {"url": server.url, "http_url": server.http_url, "pid": os.getpid(), "version": server.version}
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(content) + "\n")
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise DevServerError(f"--ready-file is {str(path)!r}, which cannot be written: {error.strerror}") from error


def _stop_at_end_of_input(server: DevServer) -> None:
    def wait() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        server.request_stop()

    threading.Thread(target=wait, name="end-of-input", daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status (0 after a signal, 1 with one sentence on stderr)."""
    parser = argparse.ArgumentParser(
        prog="python -m surrealdb_celery_backend.devserver",
        description="Serve the SurrealDB engine of the installed SDK on loopback. Development only.",
    )
    parser.add_argument("--path", metavar="DIR", help="keep the data in this directory (default: in memory)")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--username", default="root", help="root user to create (default: %(default)s)")
    parser.add_argument("--password", default="root", help="its password (default: %(default)s)")
    parser.add_argument("--store", choices=["mem", "surrealkv"], help="default: surrealkv with --path, else mem")
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="a web page's origin that may connect"
    )
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="write url and pid here once ready, as JSON")
    parser.add_argument("--stop-with-parent", action="store_true", help="also stop when standard input ends")
    options = parser.parse_args(arguments)
    # The files that the engine makes are their owner's alone.
    os.umask(0o077)

    async def serve() -> None:
        server = DevServer(
            path=options.path,
            host=options.host,
            port=options.port,
            username=options.username,
            password=options.password,
            store=options.store,
            allow_origins=options.allow_origin,
        )

        def ready() -> None:
            if options.ready_file is not None:
                _write_ready_file(options.ready_file, server)
            print(_introduction(server), flush=True)

        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: server.request_stop())
        if options.stop_with_parent:
            _stop_at_end_of_input(server)
        await server.serve(ready)

    try:
        asyncio.run(serve())
    except DevServerError as error:
        print(f"devserver: {error}", file=sys.stderr)
        return 1
    return 0


def run() -> None:
    """Run the command and end the process."""
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: an engine thread may still be returning (see server.py). Everything is
    # closed and written by now.
    os._exit(status)
