"""The set-up of the compose files works: root makes the tables and a user of least rights, with which all programs run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
import yaml

from tests.engines import Database, RunningEngine
from tests.support.paths import CHECKOUT, EXAMPLES
from tests.support.processes import MAX_WAIT
from tests.support.projects import Project
from tests.support.states import until

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.worker, pytest.mark.timeout(600)]

SECRETS = {
    "surrealdb_root_password": "root",
    "surrealdb_password": "of-the-worker",
    "console_password": "of-the-console",
}


def variables(service: str, database: Database) -> dict[str, str]:
    """The variables of a service of deployment/services.yaml, with its secrets, for an engine of the tests."""
    text = (EXAMPLES / "deployment/services.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["services"][service]["environment"]
    environment = {
        name.removesuffix("_FILE"): SECRETS[str(value).rpartition("/")[2]] if name.endswith("_FILE") else str(value)
        for name, value in found.items()
        if name != "CELERY_BROKER_URL_FILE"
    }
    assert environment["CELERY_RESULT_BACKEND"] == "surrealdb://surrealdb:8000/celery/results"
    server = urlsplit(database.backend_url.partition("+")[2] or database.backend_url)
    environment["CELERY_RESULT_BACKEND"] = (
        f"surrealdb://{server.hostname}:{server.port}/{database.namespace}/{database.database}"
    )
    return environment


def test_everything_runs_with_least_rights(live_engine: RunningEngine, tmp_path: Path) -> None:
    """Worker, beat and console work as the record user that the set-up makes; that user may not define anything."""
    database = live_engine.database()
    environment = {**os.environ, **variables("database", database)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    for _ in range(2):  # again at each start of the compose file
        made = subprocess.run(
            [sys.executable, "-m", "deployment.database"],
            cwd=EXAMPLES,
            env=environment | {"WORKER_PASSWORD": SECRETS["surrealdb_password"]},
            capture_output=True,
            text=True,
            timeout=MAX_WAIT,
        )
        assert made.returncode == 0, made.stderr
    project = Project("schedules", database, tmp_path, more=variables("program", database))
    project.more["SURREALDB_CONSOLE_PASSWORD"] = SECRETS["console_password"]
    beat = ("beat", "-S", "surrealdb", "--loglevel", "INFO", "--pidfile=")
    console = ("surrealdb", "console", "--port", "0", "--user", "admin", "--allow-actions")

    def results() -> set[str]:
        (rows,) = database.query("SELECT VALUE result FROM task WHERE status = 'SUCCESS'")
        return set(rows)

    with project.worker("--pool", "solo"), project.celery("beat", *beat), project.celery("console", *console):
        until(lambda: {'"alive"', '"Lyon and Oslo"'} <= results(), "entries of the code ran", MAX_WAIT)
        listed = project.python("-m", "schedules.entries")
        until(lambda: {"42", "30"} <= results(), "entries of the database ran", MAX_WAIT)
        found = until(
            lambda: re.search(r"running on (http://\S+)", project.log("console")), "the console listens", MAX_WAIT
        )
        with httpx.Client(base_url=found[1], auth=("admin", SECRETS["console_password"]), timeout=60) as client:
            pages = {path: client.get(path) for path in ("/", "/tasks", "/schedules", "/groups", "/health")}
        assert httpx.get(found[1], timeout=60).status_code == 401
        # Exits 1 if anything is amiss.
        findings = json.loads(project.python("-m", "celery", "-A", "schedules", "surrealdb", "check", "--json"))
    assert "heartbeat" in listed
    assert {path: page.status_code for path, page in pages.items()} == dict.fromkeys(pages, 200)
    assert "schedules.tasks.heartbeat" in pages["/tasks"].text
    assert "Permission" not in project.log("worker") + project.log("beat")
    (schema,) = (each for each in findings if each["subject"] == "schema")
    assert "may not see the indexes" in schema["text"]
