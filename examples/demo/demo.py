"""Everything at once: an engine, a worker, tasks of every shape, and their records.

    python demo/demo.py
    python demo/demo.py --url surrealdb://root:root@localhost:8000/celery/results
    python demo/demo.py --broker redis://localhost:6379/0

Without `--url` it starts the embedded engine on a free port, without `--broker` the
messages go through a temporary folder, so neither needs a service. The worker is a
real `celery worker` in another process. What was started is stopped at the end. The
exit code is 0 if everything came out as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import celery
from celery import chain, chord, group
from celery.exceptions import TimeoutError as NotYet

import surrealdb_celery_backend
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.errors import SurrealDBBackendError
from surrealdb_celery_backend.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.result import AsyncResult

HERE = Path(__file__).resolve().parent
#: How long anything may take before the demo gives up on it, in seconds.
MAX_WAIT = 120.0
WIDTH = 80

#: What the table at the end shows; any SurrealDB client can ask this.
QUERY = """\
SELECT name, status, retries, worker, date_done, result FROM {table}
WHERE date_done >= $started ORDER BY date_done"""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Worker:
    """A `celery worker` in another process."""

    def __init__(self, log: Path) -> None:
        """Start it.

        Args:
            log: Takes what the worker prints.
        """
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "celery_app", "worker"),
                    *("--pool", "prefork", "--concurrency", "2", "--hostname", "worker@demo"),
                    *("--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"),
                ],
                cwd=HERE.parent,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl+C is for the demo, which then stops the worker itself.
                start_new_session=True,
            )

    def said(self) -> str:
        """Give the last lines that the worker printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def wait_for(self, done: Callable[[float], bool], what: str) -> None:
        """Wait until something is done, as long as the worker lives.

        Args:
            done: Waits for as many seconds as it is given, and tells whether it is done.
            what: What is waited for, for the error.

        Raises:
            DemoError: The worker ended, or it took longer than `MAX_WAIT`.
        """
        deadline = time.monotonic() + MAX_WAIT
        while not done(0.5):
            if self.process.poll() is not None:
                message = f"the worker ended with code {self.process.returncode}:\n{self.said()}"
                raise DemoError(message)
            if time.monotonic() > deadline:
                message = f"no {what} within {MAX_WAIT:.0f} s; the worker's last words:\n{self.said()}"
                raise DemoError(message)

    def stop(self) -> None:
        """End it as an operator would, and harder if that does not help."""
        stop(self.process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process: ask it, and kill it if it has not ended after `MAX_WAIT`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(MAX_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Start the embedded engine on a free port.

    Args:
        folder: For the file in which the engine says where it is.

    Yields:
        The URL for Celery's `result_backend`.
    """
    ready, log = folder / "engine.json", folder / "engine.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "surrealdb_celery_backend.devserver", "--port", "0"),
                *("--ready-file", str(ready), "--stop-with-parent"),
            ],
            # Held open: however the demo ends, the engine ends with it.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + MAX_WAIT
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                message = f"the engine did not start:\n{log.read_text(errors='replace')}"
                raise DemoError(message)
            time.sleep(0.02)
        address = json.loads(ready.read_text())
        say("engine", f"SurrealDB {address['version']} embedded, {address['url']}")
        yield address["url"].replace("ws://", "surrealdb://root:root@").replace("/rpc", "/celery/results")
    finally:
        stop(process)


def title(text: str) -> None:
    """Print the heading of a part."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def say(label: str, text: object) -> None:
    """Print one line of a part."""
    print(f"  {label:<28} {text}", flush=True)


class Check:
    """Prints what came, and remembers what was not as it should be."""

    def __init__(self) -> None:
        """Start with nothing wrong."""
        self.wrong: list[str] = []

    def __call__(self, label: str, got: object, wanted: object, shown: object = None) -> None:
        """Print a result and compare it.

        Args:
            label: What was run.
            got: What came out.
            wanted: What had to.
            shown: Printed in the place of `got`.
        """
        if got == wanted:
            say(label, got if shown is None else shown)
        else:
            say(label, f"{got!r}, but {wanted!r} was expected")
            self.wrong.append(label)


def value(worker: Worker, result: AsyncResult) -> Any:
    """Wait for a result.

    Args:
        worker: Watched meanwhile.
        result: A single result or that of a group.

    Returns:
        What the task returned; the exception, if it raised one.
    """

    def done(seconds: float) -> bool:
        try:
            result.get(timeout=seconds, propagate=False)
        except NotYet:
            return False
        return True

    if result.parent is not None:
        # A worker sends the next step of a chain before it stores the result of this one.
        value(worker, result.parent)
    worker.wait_for(done, "result")
    return result.get(timeout=MAX_WAIT, propagate=False)


def run_tasks(worker: Worker, check: Check) -> None:
    """Run one of each: a task, a retry, a failure, a group, a chain, a chord."""
    from tasks import add, divide, fetch, multiply, total

    title("Tasks")
    check("add(2, 3)", value(worker, add.delay(2, 3)), 5)

    retried = fetch.delay("/prices")
    check("fetch, twice refused", value(worker, retried), "/prices after 3 attempts")
    check("  its retries, as stored", retried.retries, 2)

    failed = divide.delay(1, 0)
    error = value(worker, failed)
    check("divide(1, 0)", type(error), ZeroDivisionError, f"{type(error).__name__}: {error}")
    check("  its traceback, as stored", "ZeroDivisionError" in (failed.traceback or ""), True, "kept")

    squares = group(multiply.s(n, n) for n in range(1, 6)).apply_async()
    check("group: n * n for n in 1..5", value(worker, squares), [1, 4, 9, 16, 25])

    steps = chain(add.s(1, 2), multiply.s(10), add.s(5)).apply_async()
    check("chain: (1 + 2) * 10 + 5", value(worker, steps), 35)

    summed = chord((multiply.s(n, n) for n in range(1, 11)), total.s()).apply_async()
    check("chord: sum of ten squares", value(worker, summed), 385)


def run_progress(worker: Worker, check: Check, images: int) -> int:
    """Run a long task and show how far it has come.

    Returns:
        How many tasks that took.
    """
    title("Progress of a long task")
    for runs, seconds_each in enumerate((0.3, 1.0, 5.0), start=1):
        if watch(worker, check, images, seconds_each):
            return runs
        say("", "it was over before anybody looked: once more, slower")
    check.wrong.append("progress")
    return runs


def watch(worker: Worker, check: Check, images: int, seconds_each: float) -> bool:
    """Run the long task once.

    Returns:
        Whether it was seen at work; a busy machine may keep this process from looking in time.
    """
    from tasks import resize

    result = resize.delay(images, seconds_each)
    seen: list[int] = []

    def done(seconds: float) -> bool:
        # One read gives the state and what came with it; two could give a mixture.
        meta = result.backend.get_task_meta(result.id)
        if meta["status"] == "PROGRESS" and meta["result"]["done"] not in seen:
            seen.append(meta["result"]["done"])
            bar = "#" * (30 * seen[-1] // images)
            say(f"resize({images} images)" if len(seen) == 1 else "", f"[{bar:<30}] {seen[-1]} of {images}")
        elif meta["status"] not in {"PENDING", "STARTED", "PROGRESS"}:
            return True
        time.sleep(min(seconds, 0.05))
        return False

    worker.wait_for(done, "progress")
    check("its result", value(worker, result), f"{images} images resized")
    return any(number < images for number in seen)


def show_records(connection: Connection, table: str, started: datetime, check: Check, succeeded: int) -> None:
    """Ask SurrealDB itself what was stored."""
    title("The records, asked for in SurrealQL")
    query = QUERY.format(table=table)
    print("\n".join(f"  {line}" for line in query.splitlines()), end="\n\n")
    records = connection.run(query, started=started)
    columns = {"name": 15, "status": 8, "retries": 7, "worker": 12, "done": 9}
    print("  " + "".join(f"{name:<{width}} " for name, width in columns.items()) + "result")
    for record in records:
        record["done"] = f"{record['date_done']:%H:%M:%S}"
        cells = "".join(
            f"{'' if record.get(name) is None else record[name]!s:<{width}} " for name, width in columns.items()
        )
        print(f"  {cells}{record.get('result')}"[:WIDTH])
    print()
    stored = [record["status"] for record in records]
    check("succeeded", stored.count("SUCCESS"), succeeded)
    check("failed", stored.count("FAILURE"), 1)


def remove_queue(app: celery.Celery) -> None:
    """Leave nothing of the demo in the reader's own broker."""
    with app.connection_for_write() as connection, connection.channel() as channel:
        queue = app.amqp.queues[app.conf.task_default_queue](channel)
        queue.declare()  # Some transports only remove what they have seen.
        queue.delete()
        with contextlib.suppress(Exception):  # Only AMQP has exchanges to delete.
            queue.exchange.delete()


def connect(app: celery.Celery) -> Connection:
    """Open a connection of the demo's own, to find out early that something is missing.

    Raises:
        DemoError: The database or the broker is not to be had.
    """
    try:
        connection = Connection(Settings.from_app(app, app.backend.url).options)
        connection.run("RETURN 1")
    except SurrealDBBackendError as error:
        message = f"--url: {error}"
        raise DemoError(message) from error
    try:
        with app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=5)
    except Exception as error:
        message = f"--broker {app.connection_for_write().as_uri()} cannot be reached: {error}"
        raise DemoError(message) from error
    return connection


def run(options: argparse.Namespace, stack: contextlib.ExitStack) -> list[str]:
    """Run everything.

    Returns:
        What did not come out as it should.
    """
    title("Starting")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="surrealdb-celery-demo-")))
    if options.url:
        url = options.url
        if not url.startswith("surrealdb"):
            url = f"surrealdb_celery_backend:SurrealDBBackend+{url}"
    else:
        url = stack.enter_context(engine(folder))
    queue = f"surrealdb-demo-{uuid.uuid4().hex[:8]}"
    # The worker reads them too: from its environment, where no other user sees a password.
    os.environ["CELERY_RESULT_BACKEND"] = url
    os.environ["CELERY_BROKER_URL"] = options.broker or "folder://"
    os.environ["EXAMPLES_BROKER_FOLDER"] = str(folder / "broker")
    os.environ["EXAMPLES_QUEUE"] = queue
    if options.url:
        os.environ["EXAMPLES_TABLE_PREFIX"] = "demo_"

    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from celery_app import app

    connection = connect(app)
    stack.callback(connection.close)
    if options.url:
        say("database", app.backend.as_uri())
    say("broker", app.connection_for_write().as_uri() if options.broker else "a folder, no service")
    stack.callback(remove_queue, app)
    started = datetime.now(timezone.utc)
    worker = Worker(folder / "worker.log")
    stack.callback(worker.stop)
    say("worker", f"celery worker, prefork, 2 children, process {worker.process.pid}")

    check = Check()
    run_tasks(worker, check)
    succeeded = 21 + run_progress(worker, check, options.images)
    show_records(connection, os.environ.get("EXAMPLES_TABLE_PREFIX", "") + "task", started, check, succeeded)
    worker.stop()
    check("worker's exit code", worker.process.returncode, 0)
    if options.log:
        shutil.copy(worker.log, options.log)
    if options.url:
        say("left there", "tables demo_…, whose records expire")
    return check.wrong


def main() -> int:
    """Read the command line, run the demo and say how it went."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Celery with its results in SurrealDB, from start to end."
    )
    parser.add_argument(
        "--url",
        help="your SurrealDB, surrealdb://user:password@host:8000/namespace/database;"
        " without it, an embedded engine is started",
    )
    parser.add_argument("--broker", help="your broker, redis://… or amqp://…; without it, a temporary folder")
    parser.add_argument("--images", type=int, default=8, help="how long the long task is (default: %(default)s)")
    parser.add_argument("--log", metavar="FILE", help="keep what the worker printed")
    options = parser.parse_args()

    print(
        f"surrealdb-celery-backend {surrealdb_celery_backend.__version__},"
        f" Celery {celery.__version__}, Python {platform.python_version()}"
    )
    # SIGTERM ends it like Ctrl+C: what was started is stopped. A shell's background job ignores the latter.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            wrong = run(options, stack)
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing is left running.")
        return 130
    if wrong:
        print(f"\nNot as it should be: {', '.join(wrong)}.", file=sys.stderr)
        return 1
    print(f"\nAll as it should be, in {time.monotonic() - began:.0f} s; everything is stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
