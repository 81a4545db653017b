"""The engine inside the process: one for all threads, not shared with other processes, and that is said clearly."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, group, states
from celery.contrib.testing.worker import start_worker

from surrealdb_celery_backend.client.embedded import close_engines
from surrealdb_celery_backend.errors import SettingsError
from tests.engines.installed import sdk_directory, sdk_of_this_environment
from tests.support.apps import contract_apps
from tests.support.paths import CHECKOUT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sdk_of_this_environment() is None, reason="this environment's SDK has no embedded engine"),
]

#: How long anything may take, in seconds: a limit for a hang, not a wait.
TIMEOUT = 90


@pytest.fixture(params=["mem", "surrealkv"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an engine inside this process, whose data nobody used before."""
    yield "mem://" if request.param == "mem" else f"surrealkv://{tmp_path}/data"
    close_engines()


@pytest.fixture
def app_on() -> Iterator[Callable[[str], Celery]]:
    """Make apps on an engine."""
    made: list[Celery] = []

    def make(url: str) -> Celery:
        # The broker in memory looks for messages once a second otherwise.
        quick = {"broker_transport_options": {"polling_interval": 0.01}}
        made.append(contract_apps.app_on(contract_apps.BACKEND, surrealdb_url=url, **quick))
        return made[-1]

    yield make
    for app in made:
        contract_apps.close(app)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_new_directory_is_its_owners_alone(tmp_path: Path, app_on: Callable[[str], Celery]) -> None:
    """Nobody else may read the results in a directory that was made for the engine; one that is there stays as it is."""
    before = os.umask(0o022)
    try:
        (tmp_path / "given").mkdir()
        for name in ("new", "given"):
            app_on(f"surrealkv://{tmp_path}/{name}").backend.store_result("a", 1, states.SUCCESS)
    finally:
        os.umask(before)
        close_engines()
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("new", "given")] == [0o700, 0o755]


def test_worker_in_threads_and_client_beside_it(url: str, app_on: Callable[[str], Celery]) -> None:
    """A worker in threads of this process runs tasks, a failure, a group and chords for a client beside it."""
    app = app_on(url)
    tasks = app.tasks
    add, total = tasks["contract.add"], tasks["contract.total"]
    worker = start_worker(
        app, pool="threads", concurrency=4, perform_ping_check=False, loglevel="CRITICAL", shutdown_timeout=TIMEOUT
    )
    with worker:
        assert add.delay(1, 2).get(timeout=TIMEOUT) == 3
        with pytest.raises(ValueError, match="a value"):
            tasks["contract.fail"].delay().get(timeout=TIMEOUT)
        assert group(add.s(n, n) for n in range(10)).apply_async().get(timeout=TIMEOUT) == [2 * n for n in range(10)]
        assert chord([add.s(n, n) for n in range(70)], total.s()).apply_async().get(timeout=TIMEOUT) == 4830


def test_native_values(url: str) -> None:
    """Values are native where nothing is None, which one line of the SDK does not tell from nothing."""
    app = contract_apps.app_on(contract_apps.BACKEND, surrealdb_url=url, surrealdb_result_format="native")
    try:
        values = {"native": {"total": 5, "lines": [{}, "x", 1.5]}, "encoded": {"note": None, "lines": [None]}}
        for name, value in values.items():
            app.backend.store_result(name, value, states.SUCCESS)
            assert app.AsyncResult(name).get(timeout=TIMEOUT) == value
        found = app.backend.connection.run("SELECT VALUE [task_id, encoding, result.total] FROM task")
        assert [row[0] for row in found if row[1].startswith("native")] == ["native"]
        assert [row[2] for row in found if row[0] == "native"] == [5]
    finally:
        contract_apps.close(app)


def test_engine_is_shared(url: str, app_on: Callable[[str], Celery]) -> None:
    """Two apps of one process see one database; another namespace is another database."""
    one, two = app_on(url), app_on(url)
    one.backend.store_result("a", 1, states.SUCCESS)
    assert two.AsyncResult("a").result == 1
    elsewhere = contract_apps.app_on(
        contract_apps.BACKEND, surrealdb_url=url, surrealdb_namespace="other", surrealdb_database="other"
    )
    assert elsewhere.AsyncResult("a").state == states.PENDING
    assert one.AsyncResult("a").result == 1
    contract_apps.close(elsewhere)


def test_threads_do_not_mix(url: str, app_on: Callable[[str], Celery]) -> None:
    """Threads that store and fetch at once get their own results."""
    app = app_on(url)
    wrong: list[Any] = []

    def work(number: int) -> None:
        for count in range(20):
            name = f"{number}-{count}"
            app.backend.store_result(name, name, states.SUCCESS)
            got = app.backend.get_result(name)
            if got != name:
                wrong.append((name, got))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_results_are_kept_in_the_directory(tmp_path: Path, app_on: Callable[[str], Celery]) -> None:
    """What was stored is there when the engine is opened again."""
    url = f"surrealkv://{tmp_path}/data"
    app_on(url).backend.store_result("a", {"kept": True}, states.SUCCESS)
    close_engines()
    assert app_on(url).AsyncResult("a").result == {"kept": True}
    close_engines()


def test_second_process_is_told_what_to_do(tmp_path: Path, app_on: Callable[[str], Celery]) -> None:
    """Another process on the same directory gets one sentence that names devserver and surreal start."""
    url = f"surrealkv://{tmp_path}/data"
    app_on(url).backend.store_result("a", 1, states.SUCCESS)
    program = textwrap.dedent(f"""
        from tests.support.apps import contract_apps
        from surrealdb_celery_backend.errors import EngineInUse
        app = contract_apps.app_on(contract_apps.BACKEND, surrealdb_url={url!r})
        try:
            print(app.backend.get_task_meta("a"), flush=True)
        except EngineInUse as exc:
            print(exc, flush=True)
    """)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT, timeout=TIMEOUT
        )
        assert "surrealdb_url" in done.stdout, done.stdout + done.stderr
        assert "surrealdb_celery_backend.devserver" in done.stdout
        assert "surreal start" in done.stdout
        assert done.stdout.count("\n") == 1
        # The first process has lost nothing by it.
        assert app_on(url).AsyncResult("a").result == 1
    finally:
        close_engines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_is_told_what_to_do(url: str) -> None:
    """A forked child cannot use its parent's engine and is told which pools can; the parent goes on."""
    # In a process of its own: what else this one has open is not the child's business.
    program = textwrap.dedent(f"""
        import os
        from tests.support.apps import contract_apps
        from surrealdb_celery_backend.errors import EngineInUse
        backend = contract_apps.app_on(contract_apps.BACKEND, surrealdb_url={url!r}).backend
        backend.store_result("a", 1, "SUCCESS")
        child = os.fork()
        if child == 0:
            try:
                print(backend.get_task_meta("a"), flush=True)
            except EngineInUse as exc:
                print(exc, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        # Flushed: what threads of the engine do to the end of the process is not the matter here.
        print("the parent has", backend.get_result("a"), flush=True)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=CHECKOUT, timeout=TIMEOUT
    )
    said, parent = done.stdout.splitlines()
    assert "--pool threads" in said
    assert "surreal start" in said
    assert parent == "the parent has 1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_has_a_memory_of_its_own() -> None:
    """Where the parent has not opened mem://, a forked child opens its own, as docs/configuration.md warns."""
    program = textwrap.dedent("""
        import os
        from tests.support.apps import contract_apps
        backend = contract_apps.app_on(contract_apps.BACKEND, surrealdb_url="mem://").backend
        child = os.fork()
        if child == 0:
            backend.store_result("a", 1, "SUCCESS")
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), backend.get_state("a"), flush=True)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=CHECKOUT, timeout=TIMEOUT
    )
    assert done.stdout == "0 PENDING\n", done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_process_of_a_pool_has_no_memory_of_its_own() -> None:
    """In a process of a prefork pool mem:// is refused: nobody would ever see what is stored there."""
    program = textwrap.dedent("""
        import billiard
        from celery import signals
        from tests.support.apps import contract_apps

        def child():
            signals.worker_process_init.send(sender=None)  # as Celery does there
            try:
                backend.store_result("a", 1, "SUCCESS")
            except Exception as exc:
                print(type(exc).__name__, exc, flush=True)

        if __name__ == "__main__":
            backend = contract_apps.app_on(contract_apps.BACKEND, surrealdb_url="mem://").backend
            process = billiard.get_context("fork").Process(target=child, daemon=True)
            process.start()
            process.join()
            signals.worker_process_init.send(sender=None)  # as a solo pool does in the worker itself
            backend.store_result("b", 2, "SUCCESS")
            print(backend.get_result("b"), flush=True)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=CHECKOUT, timeout=TIMEOUT
    )
    refused, stored = done.stdout.splitlines()
    assert refused.startswith("EngineInUse surrealdb_url 'mem://' is an engine in the memory of each process"), done
    assert "--pool threads or solo" in refused
    assert stored == "2"


def test_engine_without_that_store(tmp_path: Path, app_on: Callable[[str], Celery]) -> None:
    """The SDK's engine has no RocksDB: one sentence says so, at once."""
    app = app_on(f"rocksdb://{tmp_path}/data")
    with pytest.raises(SettingsError, match=r"needs an embedded engine that has rocksdb://.*use surrealkv://DIR"):
        app.backend.store_result("a", 1, states.SUCCESS)


def test_directory_of_another_version(tmp_path: Path, app_on: Callable[[str], Celery]) -> None:
    """A directory that another version wrote cannot be read: one sentence says so, at once, and nothing is retried."""
    other = "sdk2" if sdk_of_this_environment() == "sdk3" else "sdk3"
    program = "import sys, surrealdb; db = surrealdb.Surreal(sys.argv[1]); db.connect(); db.use('a', 'b'); "
    program += "db.query('CREATE a:1'); db.close()"
    url = f"surrealkv://{tmp_path}/data"
    subprocess.run(
        [sys.executable, "-c", program, url],
        check=True,
        env={**os.environ, "PYTHONPATH": str(sdk_directory(other))},
        timeout=TIMEOUT,
    )
    with pytest.raises(SettingsError, match=r"cannot be opened .*no engine of another version"):
        app_on(url).backend.store_result("a", 1, states.SUCCESS)
