"""Real `celery beat` and `celery worker` processes: fail-over, changes while beat runs, outages."""

from __future__ import annotations

import json
import os
import re
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

# The limit is only there so that nothing hangs for ever.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.one_sdk,
    pytest.mark.worker,
    pytest.mark.redis,
    pytest.mark.timeout(900),
]

#: How long a state may take to be reached before the test fails, in seconds.
MAX_WAIT = 120

#: How long the active beat may be silent, in seconds: longer than a busy machine leaves a process out. Should one
#: lose its lease all the same, the tests go on with the one that has it.
LEASE = 10

#: What beat says.
STEPPED_DOWN = "another beat took over the lease"
PAUSED, GOING_ON = "paused, nothing is fired", "going on, the database answers again"


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
            # A command that is answered late has not failed.
            "surrealdb_timeout": MAX_WAIT / 2,
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
                [sys.executable, "-m", "celery", "-A", "tests.support.apps.beat_project", *arguments],
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
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the schedule."""
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tests.support.apps.beat_project",
                "surrealdb",
                "schedule",
                *arguments,
            ],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=MAX_WAIT,
            check=False,
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(run) for run in self.redis.lrange(self.runs_key, 0, -1)]

    def wait(self, state: Callable[[], Any], what: str) -> Any:
        """Wait until a state is reached; fail with the logs if it is not."""
        deadline = time.monotonic() + MAX_WAIT
        while time.monotonic() < deadline:
            if found := state():
                return found
            time.sleep(0.05)
        logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in self.processes)
        raise AssertionError(f"{what}: not within {MAX_WAIT} s\n{logs}")

    def active(self) -> dict[str, Any] | None:
        rows = self.database.query(
            "SELECT * FROM schedule_lease WHERE until > time::now() ORDER BY token DESC LIMIT 1"
        )[0]
        return rows[0] if rows else None

    def unsettled(self) -> list[Any]:
        """What was claimed, and of which nobody has said that it was sent."""
        return self.database.query("SELECT * FROM schedule_claim WHERE sent_at IS NONE")[0]

    def stop_at_rest(self) -> dict[str, Any]:
        """Stop the active beat (SIGSTOP) where it has sent nothing that it has yet to settle; return its lease.

        If it ended, or lost its lease, between the two its heir would send the same again: rather twice than never.
        """

        def stopped() -> dict[str, Any] | None:
            lease = self.active()
            if lease is None:
                return None
            os.kill(lease["process"], signal.SIGSTOP)
            os.waitpid(lease["process"], os.WUNTRACED)  # not before it stands still
            still = self.active()
            if still is not None and still["token"] == lease["token"] and not self.unsettled():
                return lease
            os.kill(lease["process"], signal.SIGCONT)
            return None

        return self.wait(stopped, "the active beat is at rest")

    def active_after(self, lease: dict[str, Any]) -> dict[str, Any]:
        """Wait until another process has a later lease, and return that."""

        def found() -> dict[str, Any] | None:
            later = self.active()
            is_another = later is not None and later["token"] > lease["token"] and later["process"] != lease["process"]
            return later if is_another else None

        return self.wait(found, "another beat is active")

    def pause(self, name: str) -> None:
        """Pause an entry, and wait until beat knows and has settled all that it sent: from then on nothing happens."""
        self.command("pause", name)
        self.wait(
            lambda: (
                not self.database.query("SELECT * FROM schedule WHERE next_run_at IS NOT NONE")[0]
                and not self.unsettled()
            ),
            "beat took in that nothing is to run",
        )

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Have a beat end in order."""
        process.terminate()
        self.wait(lambda: process.poll() is not None, "the beat ends")

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.processes.values():
            process.wait(MAX_WAIT)
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


def beats_and_worker(project: Project) -> dict[int, subprocess.Popen[bytes]]:
    """Start a worker and two beats with an entry for every second; the beats by process id."""
    project.settings["beat_schedule"] = {"every second": {"task": "project.note", "schedule": 1}}
    project.start_worker()
    return {beat.pid: beat for beat in map(project.start_beat, ("first", "second"))}


def log_of(project: Project, process: subprocess.Popen[bytes]) -> str:
    """What a process has said so far."""
    [name] = [name for name, each in project.processes.items() if each is process]
    return project.log(name)


def test_a_standby_takes_over(project: Project) -> None:
    """Kill -9 of the active beat: a standby fires when the lease ends, every due time once, none left out."""
    beats = beats_and_worker(project)
    project.wait(lambda: len(project.runs()) >= 3, "three runs")
    project.wait(lambda: any("standing by" in log_of(project, beat) for beat in beats.values()), "one stands by")

    count = len(project.runs())
    project.wait(lambda: len(project.runs()) > count, "one more run")
    first = project.stop_at_rest()
    os.kill(first["process"], signal.SIGKILL)
    second = project.active_after(first)
    assert {first["process"], second["process"]} == set(beats)
    # The standby looks when the lease ends. How soon after that it comes to look is up to the machine, but not
    # another lease: see also test_a_standby_looks_when_the_lease_ends.
    text = "SELECT VALUE until FROM schedule_lease WHERE token = $first"
    [[ended_at]] = project.database.query(text, {"first": first["token"]})
    assert timedelta(0) <= second["taken_at"] - ended_at < timedelta(seconds=LEASE)
    taken_over_at = second["taken_at"]
    project.wait(
        lambda: [due for due in due_times(project.runs()) if due > taken_over_at + timedelta(seconds=2)],
        "runs of the new active beat",
    )
    project.pause("every second")
    project.end(beats[second["process"]])
    # The lease was given back, so that nobody need wait for its end.
    assert project.active() is None
    runs = ran_every_second(project)
    [record] = project.database.query("SELECT * FROM schedule")[0]
    assert record["total_run_count"] == len(runs)


def test_a_beat_that_was_frozen_does_not_fire_again(project: Project) -> None:
    """A beat that stands still for longer than its lease steps down when it wakes; each due time is fired once."""
    beats = beats_and_worker(project)
    project.wait(lambda: len(project.runs()) >= 2, "two runs")
    first = project.stop_at_rest()
    frozen = beats[first["process"]]
    steps = log_of(project, frozen).count(STEPPED_DOWN)
    project.active_after(first)
    count = len(project.runs())
    project.wait(lambda: len(project.runs()) >= count + 2, "runs of the new active beat")
    frozen.send_signal(signal.SIGCONT)
    project.wait(lambda: log_of(project, frozen).count(STEPPED_DOWN) > steps, "the frozen one steps down")
    count = len(project.runs())
    project.wait(lambda: len(project.runs()) >= count + 2, "runs after that")

    second = project.stop_at_rest()
    leaving = beats.pop(second["process"])
    leaving.terminate()
    leaving.send_signal(signal.SIGCONT)
    project.active_after(second)
    project.wait(lambda: leaving.poll() is not None, "the beat ends")
    count = len(project.runs())
    project.wait(lambda: len(project.runs()) > count, "runs of the one that is left")
    project.pause("every second")
    [left] = beats.values()
    project.end(left)
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
    project.pause("hourly")
    claims = len(project.database.query("SELECT * FROM schedule_claim")[0])
    project.wait(lambda: len(project.runs()) == claims, "what was sent has run")
    shown = json.loads(project.command("show", "hourly", "--json"))
    assert shown["total_run_count"] == claims == len({run["id"] for run in project.runs()})
    project.command("remove", "hourly")
    project.command("add", "once", "--task", "project.note", "--every", "0.2", "--one-off", "--args", '["third"]')
    project.wait(lambda: project.runs()[-1]["args"] == ["third"], "the one-off ran")
    project.wait(lambda: json.loads(project.command("show", "once", "--json"))["finished"], "it has ended")
    counts = Counter(run["args"][0] for run in project.runs())
    assert counts == {"first": 1, "second": claims - 1, "third": 1}


def test_an_outage_pauses_and_resumes(own_engine: RunningEngine, redis_url: str, tmp_path: Path) -> None:
    """While the database does not answer beat pauses and says so; then it goes on and leaves nothing out."""
    project = Project(own_engine.database(), redis_url, tmp_path, surrealdb_timeout=4)
    try:
        project.settings["beat_schedule"] = {"every second": {"task": "project.note", "schedule": 1}}
        project.start_worker()
        beat = project.start_beat("beat")
        project.wait(lambda: len(project.runs()) >= 2, "two runs")
        outages = project.log("beat").count(PAUSED)
        own_engine.pause()
        try:
            project.wait(lambda: project.log("beat").count(PAUSED) > outages, "beat says that it pauses")
        finally:
            own_engine.resume()
        project.wait(
            lambda: project.log("beat").count(GOING_ON) == project.log("beat").count(PAUSED),
            "beat says that it goes on",
        )
        count = len(project.runs())
        project.wait(lambda: len(project.runs()) >= count + 3, "runs after the outage")
        project.settings["surrealdb_timeout"] = MAX_WAIT / 2  # of the command, which has no second try
        project.pause("every second")
        project.end(beat)
        ran_every_second(project)
        # Said once per outage, of which a machine that stands still for longer than the timeout makes more than one.
        said = re.findall(f"{PAUSED}|{GOING_ON}", project.log("beat"))
        assert said == [PAUSED, GOING_ON] * (len(said) // 2)
    finally:
        project.close()


def test_a_beat_that_may_not_write_ends_with_one_sentence(project: Project) -> None:
    """A user with the role VIEWER: beat ends and says which right it lacks, and so does a command, which changes nothing."""
    project.command("add", "hourly", "--task", "project.note", "--every", "1h")
    project.database.query("DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER")
    project.settings.update(surrealdb_username="viewer", surrealdb_password="secret", surrealdb_auth_level="database")
    beat = project.start_beat("beat")
    project.wait(lambda: beat.poll() is not None, "the beat ends")
    assert beat.returncode != 0
    sentence = "surrealdb_username 'viewer' may not create records of the table 'schedule_lease'"
    assert sentence in project.log("beat")
    assert "RecursionError" not in project.log("beat")
    refused = project.run("remove", "hourly", "--force")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "may not delete records of the table 'schedule'" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(project.database.query("SELECT * FROM schedule")[0]) == 1


def test_class_tasks_in_a_worker(project: Project) -> None:
    """An async class task keeps its result, and the worker process keeps its event loop."""
    project.settings.update(task_ignore_result=False)
    project.start_worker()
    from celery import Celery

    with Celery("client", broker=project.settings["broker_url"], set_as_current=False) as client:
        client.conf.update(project.settings)
        results = [client.send_task("project.loop", (value,)) for value in range(3)]
        found = [result.get(timeout=MAX_WAIT) for result in results]
        client.backend.client.close()
    assert [value for value, _, _ in found] == [0, 1, 2]
    assert len({(loop, process) for _, loop, process in found}) == 1
