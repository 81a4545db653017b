"""Real `celery beat` and `celery worker` processes: fail-over, changes while beat runs, outages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.engines import Database, RunningEngine

pytestmark = [pytest.mark.integration, pytest.mark.worker, pytest.mark.redis]

#: How long a state may take to be reached before the test fails, in seconds.
PATIENCE = 40

#: How long the active beat may be silent, in seconds.
LEASE = 3


class Project:
    """A project's processes, on a database and a broker queue of its own."""

    def __init__(self, database: Database, redis_url: str, folder: Path, **settings: Any) -> None:
        self.database = database
        self.folder = folder
        self.redis = redis.Redis.from_url(redis_url)
        self.prefix = f"beat-{uuid.uuid4()}"
        self.runs_key = f"{self.prefix}-runs"
        self.settings = {
            **database.settings,
            "broker_url": redis_url,
            "broker_transport_options": {"global_keyprefix": self.prefix},
            "result_backend": redis_url,
            "result_expires": None,
            "task_ignore_result": True,
            "worker_prefetch_multiplier": 1,
            "surrealdb_beat_lease": LEASE,
            "surrealdb_beat_sync_every": 0.5,
            **settings,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # SurrealDB 3 refuses to read a table that beat has yet to make.
        database.query("DEFINE TABLE IF NOT EXISTS schedule_lease; DEFINE TABLE IF NOT EXISTS schedule_claim")

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "BEAT_PROJECT": json.dumps(self.settings),
            "BEAT_PROJECT_RUNS": self.runs_key,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Celery command; its output goes to a file of that name."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.integration.beat_project", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes[name] = process
        return process

    def start_beat(self, name: str) -> subprocess.Popen[bytes]:
        return self.start(
            name, "beat", "-S", "surrealdb_celery_backend.beat:SurrealDBScheduler", "-l", "INFO", "--pidfile="
        )

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self.start(
            "worker", "worker", "-c", "1", "-l", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"
        )

    def command(self, *arguments: str) -> str:
        """Run a command of the schedule and return what it printed."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tests.integration.beat_project",
                "surrealdb",
                "schedule",
                *arguments,
            ],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(run) for run in self.redis.lrange(self.runs_key, 0, -1)]

    def wait(self, state: Callable[[], Any], what: str) -> Any:
        """Wait until a state is reached; fail with the logs if it is not."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := state():
                return found
            time.sleep(0.05)
        logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in self.processes)
        raise AssertionError(f"{what}: not within {PATIENCE} s\n{logs}")

    def active(self) -> dict[str, Any] | None:
        rows = self.database.query(
            "SELECT * FROM schedule_lease WHERE until > time::now() ORDER BY token DESC LIMIT 1"
        )[0]
        return rows[0] if rows else None

    def settled(self) -> bool:
        """Whether all that was claimed was sent and planned on."""
        claims, entries = self.database.query(
            "SELECT * FROM schedule_claim WHERE sent_at IS NONE; "
            "SELECT * FROM schedule WHERE next_run_at IS NOT NONE AND next_run_at < time::now()"
        )
        return not claims and not entries

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.processes.values():
            process.wait(PATIENCE)
        for key in self.redis.scan_iter(match=f"{self.prefix}*"):
            self.redis.delete(key)
        self.redis.close()


@pytest.fixture
def project(fresh_database: Database, redis_url: str, tmp_path: Path) -> Iterator[Project]:
    """A project whose processes end with the test."""
    project = Project(fresh_database, redis_url, tmp_path)
    yield project
    project.close()


def due_times(runs: list[dict[str, Any]]) -> list[datetime]:
    """When the runs were due, in order."""
    return sorted(datetime.fromisoformat(run["due_at"]) for run in runs)


def ran_every_second(project: Project) -> list[Any]:
    """The runs, once all that was sent has run: one for each second of the whole time, a fail-over included."""
    project.wait(
        lambda: len(project.runs()) == len(project.database.query("SELECT * FROM schedule_claim")[0]),
        "all that was sent has run",
    )
    runs = project.runs()
    due = due_times(runs)
    assert len({run["id"] for run in runs}) == len(runs)
    assert due == [due[0] + timedelta(seconds=n) for n in range(len(due))]
    return runs


def test_a_standby_takes_over(project: Project) -> None:
    """Kill -9 of the active beat: a standby fires within the lease time, every due time once, none left out."""
    project.settings["beat_schedule"] = {"every second": {"task": "project.note", "schedule": 1}}
    project.start_worker()
    beats = {project.start_beat(name).pid: name for name in ("first", "second")}
    first = project.wait(project.active, "a beat is active")
    project.wait(lambda: len(project.runs()) >= 3, "three runs")
    assert first["process"] in beats
    standby = next(name for pid, name in beats.items() if pid != first["process"])
    project.wait(lambda: "standing by" in project.log(standby), "the other stands by")

    count = len(project.runs())
    project.wait(lambda: len(project.runs()) > count and project.settled(), "one more run, and all settled")
    killed_at = project.database.query("RETURN time::now()")[0]
    os.kill(first["process"], signal.SIGKILL)

    second = project.wait(lambda: (lease := project.active()) and lease["token"] == 2 and lease, "a new lease")
    assert second["process"] != first["process"]
    # A second more, for machines that are busy; the standby looks when the lease ends.
    assert second["taken_at"] - killed_at < timedelta(seconds=LEASE + 1)
    taken_over_at = second["taken_at"]
    project.wait(
        lambda: [due for due in due_times(project.runs()) if due > taken_over_at + timedelta(seconds=2)],
        "runs of the new active beat",
    )
    os.kill(second["process"], signal.SIGTERM)
    project.wait(lambda: project.processes[standby].poll() is not None, "the second beat ends")
    runs = ran_every_second(project)
    [record] = project.database.query("SELECT * FROM schedule")[0]
    assert record["total_run_count"] == len(runs)
    # The lease was given back, so that nobody need wait for its end.
    assert project.active() is None


def test_a_beat_that_was_frozen_does_not_fire_again(project: Project) -> None:
    """A beat that stands still for longer than its lease steps down when it wakes; each due time is fired once."""
    project.settings["beat_schedule"] = {"every second": {"task": "project.note", "schedule": 1}}
    project.start_worker()
    beats = {project.start_beat(name).pid: name for name in ("first", "second")}
    first = project.wait(project.active, "a beat is active")
    project.wait(lambda: len(project.runs()) >= 2 and project.settled(), "two runs")
    os.kill(first["process"], signal.SIGSTOP)
    second = project.wait(lambda: (lease := project.active()) and lease["token"] == 2 and lease, "a new lease")
    count = len(project.runs())
    project.wait(lambda: len(project.runs()) >= count + 2, "runs of the new active beat")
    os.kill(first["process"], signal.SIGCONT)
    frozen = beats[first["process"]]
    project.wait(lambda: "another beat took over the lease" in project.log(frozen), "the frozen one steps down")
    count = len(project.runs())
    project.wait(lambda: len(project.runs()) >= count + 2, "runs after that")
    os.kill(second["process"], signal.SIGTERM)
    project.wait(lambda: (lease := project.active()) and lease["token"] == 3, "the lease is passed on")
    os.kill(first["process"], signal.SIGTERM)
    for name in beats.values():
        project.wait(lambda name=name: project.processes[name].poll() is not None, "the beats end")
    ran_every_second(project)


def test_changes_from_another_process(project: Project) -> None:
    """Entries added, run, edited, paused and removed by a command take effect while beat runs."""
    if project.database.engine.live:
        # Then nothing but LIVE can tell in time.
        project.settings["surrealdb_beat_sync_every"] = 3600
    project.start_worker()
    project.start_beat("beat")
    project.wait(project.active, "a beat is active")
    project.command("add", "hourly", "--task", "project.note", "--every", "1h", "--args", '["first"]')
    project.command("run", "hourly")
    project.wait(lambda: [run["args"] for run in project.runs()] == [["first"]], "the run that was asked for")
    project.command("set", "hourly", "--every", "0.5", "--args", '["second"]')
    project.wait(lambda: len(project.runs()) >= 4, "runs at the new interval")
    project.command("pause", "hourly")
    project.wait(project.settled, "what was due is sent")
    claims = len(project.database.query("SELECT * FROM schedule_claim")[0])
    project.wait(lambda: len(project.runs()) == claims, "what was sent has run")
    shown = json.loads(project.command("show", "hourly", "--json"))
    assert shown["total_run_count"] == claims == len({run["id"] for run in project.runs()})
    project.command("remove", "hourly")
    project.command("add", "once", "--task", "project.note", "--every", "0.2", "--one-off", "--args", '["third"]')
    project.wait(lambda: project.runs()[-1]["args"] == ["third"], "the one-off ran")
    project.wait(lambda: not json.loads(project.command("show", "once", "--json"))["active"], "it is paused")
    counts = Counter(run["args"][0] for run in project.runs())
    assert counts == {"first": 1, "second": claims - 1, "third": 1}


def test_an_outage_pauses_and_resumes(own_engine: RunningEngine, redis_url: str, tmp_path: Path) -> None:
    """While the database does not answer beat pauses and says so; then it goes on and leaves nothing out."""
    project = Project(own_engine.database(), redis_url, tmp_path, surrealdb_timeout=1)
    try:
        project.settings["beat_schedule"] = {"every second": {"task": "project.note", "schedule": 1}}
        project.start_worker()
        project.start_beat("beat")
        project.wait(lambda: len(project.runs()) >= 2 and project.settled(), "two runs")
        own_engine.pause()
        try:
            project.wait(lambda: "paused, nothing is fired" in project.log("beat"), "beat says that it pauses")
        finally:
            own_engine.resume()
        project.wait(lambda: "going on, the database answers again" in project.log("beat"), "beat says that it goes on")
        count = len(project.runs())
        project.wait(lambda: len(project.runs()) >= count + 3, "runs after the outage")
        project.processes["beat"].terminate()
        project.processes["beat"].wait(PATIENCE)
        ran_every_second(project)
        assert project.log("beat").count("paused, nothing is fired") == 1
    finally:
        project.close()


def test_class_tasks_in_a_worker(project: Project) -> None:
    """An async class task keeps its result, and the worker process keeps its event loop."""
    project.settings.update(task_ignore_result=False)
    project.start_worker()
    from celery import Celery

    with Celery("client", broker=project.settings["broker_url"], set_as_current=False) as client:
        client.conf.update(project.settings)
        results = [client.send_task("project.loop", (value,)) for value in range(3)]
        found = [result.get(timeout=PATIENCE) for result in results]
        client.backend.client.close()
    assert [value for value, _, _ in found] == [0, 1, 2]
    assert len({(loop, process) for _, loop, process in found}) == 1
