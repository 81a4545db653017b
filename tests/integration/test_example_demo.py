"""The examples do what they say, each in processes of its own as a reader would start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.engines import Database
from tests.support.paths import EXAMPLES
from tests.support.states import until as until_in_time

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.worker, pytest.mark.timeout(600)]

#: How long a program may take to get somewhere, in seconds: a limit for a hang, not a wait.
MAX_WAIT = 300
until = partial(until_in_time, patience=MAX_WAIT)
#: A demo with a long task of so many parts of 0.3 s is still at work when the test gets to stopping it.
LONG = ("--images", "40")


def start_demo(*arguments: str) -> subprocess.Popen[str]:
    """Start the demo; its two outputs come as one."""
    return subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / "demo/demo.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def demo_at_work() -> tuple[subprocess.Popen[str], str]:
    """A demo in the middle of its tasks, and what it printed so far."""
    process = start_demo(*LONG)
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if "Progress" in line:
            break
    return process, printed


def demo(*arguments: str) -> tuple[int, str]:
    """Run the demo to its end; its exit code and all it printed."""
    process = start_demo(*arguments)
    output, _ = process.communicate(timeout=MAX_WAIT)
    return process.returncode, output


def worker_pid(output: str) -> int:
    """The worker's process, as the demo named it."""
    found = re.search(r"children, process (\d+)", output)
    assert found, output
    return int(found[1])


def children(pid: int) -> list[int]:
    """The processes that a process started and has not seen the end of."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def is_running(pid: int) -> bool:
    """Whether a process is there that is more than the memory of an ended one."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return False


def assert_complete(output: str) -> None:
    """Everything that the demo promises was printed, and was right."""
    for expected in (
        r"add\(2, 3\) +5\n",
        r"fetch, twice refused +/prices after 3 attempts\n",
        r"its retries, as stored +2\n",
        r"ZeroDivisionError: division by zero\n",
        r"group: .* \[1, 4, 9, 16, 25\]\n",
        r"chain: .* 35\n",
        r"chord: .* 385\n",
        r"\[#+ +\] \d of 8\n",
        r"tasks\.divide +FAILURE +0 +worker@demo",
        r"succeeded +\d+\n",
        r"failed +1\n",
        r"All as it should be",
    ):
        assert re.search(expected, output), f"{expected} is not in:\n{output}"
    assert all(len(line) <= 80 for line in output.splitlines() if "://" not in line), output


def test_demo_needs_no_service() -> None:
    """Without options the demo brings its own engine and broker, exits 0 and leaves nothing running."""
    code, output = demo()
    assert code == 0, output
    assert_complete(output)
    assert "embedded" in output
    assert not is_running(worker_pid(output))


def test_demo_uses_the_readers_database(fresh_database: Database) -> None:
    """With --url the results are in the reader's own database, and no password is printed."""
    code, output = demo("--url", fresh_database.backend_url)
    assert code == 0, output
    assert_complete(output)
    assert "root:**@" in output
    assert "root:root" not in output
    (stored,) = fresh_database.query("SELECT VALUE status FROM demo_task")
    found = re.search(r"succeeded +(\d+)\n", output)
    assert found
    # 21, and the long task: once more where the demo was kept from seeing its progress.
    assert 22 <= int(found[1]) <= 24
    assert sorted(stored) == ["FAILURE"] + ["SUCCESS"] * int(found[1])


@pytest.mark.redis
def test_demo_uses_the_readers_redis(redis_url: str) -> None:
    """With --broker the messages go through the reader's Redis, where nothing of the demo stays."""
    redis = pytest.importorskip("redis")
    code, output = demo("--broker", redis_url)
    assert code == 0, output
    assert_complete(output)
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*surrealdb-demo*") == []


@pytest.mark.rabbitmq
def test_demo_uses_the_readers_rabbitmq(rabbitmq_url: str) -> None:
    """With --broker the messages go through the reader's RabbitMQ."""
    code, output = demo("--broker", rabbitmq_url)
    assert code == 0, output
    assert_complete(output)
    assert "guest:guest" not in output


@pytest.mark.parametrize(
    ("option", "url"),
    [("--url", "ws://user:geheim@127.0.0.1:1/rpc"), ("--broker", "redis://:geheim@127.0.0.1:1/0")],
)
def test_demo_says_what_cannot_be_reached(option: str, url: str) -> None:
    """A server that is not there is one sentence that names the option, without a traceback or the password."""
    code, output = demo(option, url)
    assert code == 1
    assert f"demo: {option}" in output
    assert "refused" in output.lower()
    assert "Traceback" not in output
    assert "geheim" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_stops_what_it_started_when_it_is_stopped(number: signal.Signals) -> None:
    """Ctrl+C and SIGTERM in the middle leave neither the worker nor the engine running."""
    process, printed = demo_at_work()
    # By process: the engine's port may belong to another program by the time that somebody looks there.
    started = children(process.pid)
    assert len(started) == 2, "the engine and the worker"
    assert worker_pid(printed) in started
    process.send_signal(number)
    printed += process.communicate(timeout=MAX_WAIT)[0]
    assert process.returncode in {130, 143}, printed
    assert [pid for pid in started if is_running(pid)] == []


def test_engine_ends_with_a_killed_demo() -> None:
    """The engine holds on to the demo's own input: it ends even when the demo had no time to end it."""
    process, printed = demo_at_work()
    worker = worker_pid(printed)
    (engine,) = set(children(process.pid)) - {worker}
    try:
        process.kill()
        process.communicate(timeout=MAX_WAIT)
        until(lambda: not is_running(engine), "the engine ended")
    finally:
        # Nobody is left to stop the worker, which is what SIGKILL means. Its processes are in a group of their own.
        os.killpg(worker, signal.SIGKILL)


def test_results_are_awaited(fresh_database: Database, tmp_path: Path) -> None:
    """The asyncio example gets the results that a worker in another process stores."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(EXAMPLES / "demo"), os.environ.get("PYTHONPATH")])),
        "CELERY_RESULT_BACKEND": fresh_database.backend_url,
        "EXAMPLES_BROKER_FOLDER": str(tmp_path),
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--concurrency", "2", "-l", "INFO"],
            cwd=EXAMPLES,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        # The example waits for 30 s, which are not for the worker to start.
        until(lambda: b" ready." in log.read_bytes() or worker.poll() is not None, "the worker is ready")
        assert worker.poll() is None, log.read_text(errors="replace")
        done = subprocess.run(
            [sys.executable, "-m", "await_results"],
            cwd=EXAMPLES,
            env=environment,
            capture_output=True,
            text=True,
            timeout=MAX_WAIT,
            check=False,
        )
    finally:
        worker.terminate()
        try:
            worker.wait(MAX_WAIT)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
            raise
    assert done.stdout.splitlines() == [
        "one: 5",
        "many, in order: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]",
        "a failure: division by zero",
    ], done.stderr
    assert done.returncode == 0, done.stderr


def test_own_tasks_are_tested_with_an_engine_in_memory() -> None:
    """Its command passes, without any server."""
    command = ["pytest", "-c", os.devnull, "--rootdir", "demo", "-p", "no:cacheprovider", "demo/test_tasks.py"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=MAX_WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"7 passed", done.stdout)


def test_folder_broker_loses_no_message(tmp_path: Path) -> None:
    """Messages that are taken while others are written arrive, all of them and in order."""
    number = 3000
    program = textwrap.dedent(
        """
        import contextlib
        import sys
        import time
        from pathlib import Path
        import kombu
        import folder_broker

        with kombu.Connection("folder://", transport_options=folder_broker.options(Path(sys.argv[1]))) as connection:
            queue = connection.SimpleQueue("numbers")
            if sys.argv[2] == "put":
                for index in range(int(sys.argv[3])):
                    queue.put({"index": index})
            else:
                deadline = time.monotonic() + 240
                for index in range(int(sys.argv[3])):
                    message = None
                    while message is None:  # The broker waits for a moment only, as a worker wants it.
                        assert time.monotonic() < deadline, index
                        with contextlib.suppress(queue.Empty):
                            message = queue.get(timeout=1)
                    assert message.payload["index"] == index, (message.payload, index)
                    message.ack()
        """
    )
    results: list[subprocess.CompletedProcess[str]] = []

    def run(what: str) -> None:
        results.append(
            subprocess.run(
                [sys.executable, "-c", program, str(tmp_path), what, str(number)],
                cwd=EXAMPLES,
                capture_output=True,
                text=True,
                timeout=MAX_WAIT,
                check=False,
            )
        )

    threads = [threading.Thread(target=run, args=(what,)) for what in ("put", "get")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for done in results:
        assert done.returncode == 0, done.stderr
