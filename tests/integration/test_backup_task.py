"""The task `surrealdb_celery_backend.backup` in a real worker."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from celery import Celery

from surrealdb_celery_backend.results import Results
from tests.support import history_data as data
from tests.support.beats import Beats
from tests.support.inprocess import TIMEOUT, worker

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]

MODULE = "surrealdb_celery_backend.contrib.backup"
NAME = "surrealdb_celery_backend.backup"


def importing(app: Celery) -> Celery:
    """An app that imports the module, as a worker does at its start."""
    app.conf.imports = [MODULE]
    app.loader.import_default_modules()
    return app


def backup_of(age: timedelta) -> str:
    """The name of a backup that is so old."""
    return f"surrealdb-celery-{datetime.now(timezone.utc) - age:%Y%m%dT%H%M%SZ}.jsonl.gz"


def test_a_worker_writes_backups_and_deletes_old_ones(app_with: Callable[..., Celery], tmp_path: Path) -> None:
    """The file is compressed and holds all records; only backups beyond `keep_days` go; other files stay."""
    app = importing(app_with(surrealdb_timeout=60))
    data.write(app, [data.record(task_id=f"t{n}") for n in range(30)])
    folder = tmp_path / "new" / "backups"
    folder.mkdir(parents=True)
    old, recent = folder / backup_of(timedelta(days=4)), folder / backup_of(timedelta(days=2))
    for path in (old, recent, folder / "notes.txt"):
        path.write_text("x")
    with worker(app):
        made = app.send_task(NAME, (str(folder),), {"keep_days": 3}).get(timeout=TIMEOUT)
    path = Path(made["path"])
    assert sorted(folder.iterdir()) == sorted([path, recent, folder / "notes.txt"])
    assert made["deleted"] == [str(old)]
    assert made["size"] == path.stat().st_size
    with gzip.open(path, "rt") as file:
        ids = {line["task_id"] for line in map(json.loads, file) if "task_id" in line}
    assert ids >= {f"t{n}" for n in range(30)}
    assert made["records"]["task"] == len(ids)
    app.backend.connection.run_all("DELETE task RETURN NONE")
    with Results(app) as results:
        results.import_file(path)
        assert results.get("t7").id == "t7"


@pytest.mark.parametrize("days", [0, -1, "7", True, float("nan")])
def test_days_that_make_no_sense_delete_nothing(app_with: Callable[..., Celery], tmp_path: Path, days: object) -> None:
    """The task fails with a sentence that names the argument, before it touches the folder."""
    app = importing(app_with(task_serializer="pickle", accept_content=["pickle", "json"]))
    old = tmp_path / backup_of(timedelta(days=400))
    old.write_text("x")
    with worker(app), pytest.raises(ValueError, match="keep_days must be a number of days above 0"):
        app.send_task(NAME, (str(tmp_path),), {"keep_days": days}).get(timeout=TIMEOUT)
    assert list(tmp_path.iterdir()) == [old]


def test_no_folder_is_not_the_current_one(
    app_with: Callable[..., Celery], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder fails the task with a sentence, and nothing is written where the worker was started."""
    app = importing(app_with())
    monkeypatch.chdir(tmp_path)
    with worker(app), pytest.raises(ValueError, match="folder must be a path that is not empty"):
        app.send_task(NAME, ("",)).get(timeout=TIMEOUT)
    assert list(tmp_path.iterdir()) == []


def test_beat_has_backups_made(beats: Beats, tmp_path: Path) -> None:
    """An entry of beat names the task; a worker that imports the module writes the file."""
    app = importing(beats.app)
    app.conf.beat_schedule = {"nightly backup": {"task": NAME, "schedule": 10, "args": [str(tmp_path)]}}
    scheduler = beats.start()
    beats.clock.advance(11)
    scheduler.tick()
    [message] = beats.sent()
    assert (message.headers["task"], message.headers["periodic_task_name"]) == (NAME, "nightly backup")
    args, kwargs, _ = message.payload
    made = app.tasks[NAME].apply(args, kwargs).get()
    assert [path.name for path in tmp_path.iterdir()] == [Path(made["path"]).name]


def test_only_processes_that_import_it_have_the_task() -> None:
    """The backend and the typed API register no task; the setting `imports` does."""
    code = f"""
from celery import Celery
import surrealdb_celery_backend.cli
from surrealdb_celery_backend.results import Results
app = Celery("x", backend="surrealdb_celery_backend:SurrealDBBackend", broker="memory://")
app.conf.update(surrealdb_url="mem://", imports=[{MODULE!r}])
print({NAME!r} in app.tasks, app.backend is not None)
app.loader.import_default_modules()
print({NAME!r} in app.tasks)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert done.stdout.split() == ["False", "True", "True"]
