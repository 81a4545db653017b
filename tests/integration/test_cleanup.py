"""Clean-up takes what has expired, in batches along an index, and never a task that has not finished."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery, states
from celery.beat import Scheduler

from surrealdb_celery_backend.results import cleanup_plan, cleanup_requests, cleanup_statements, signals, statements
from tests.support.apps.contract_apps import request
from tests.support.apps.tasks_contract import failure

pytestmark = pytest.mark.integration


def age(app: Celery, seconds: float, where: str = "true") -> None:
    """Let results be older than they are."""
    for field in ("date_done", "expires_at"):
        # 3.0.2 computes what an UPDATE sets before it looks at its condition.
        older = f"IF {field} = NONE {{ NONE }} ELSE {{ {field} - {int(seconds)}s }}"
        app.backend.connection.run(f"UPDATE task SET {field} = {older} WHERE {where}")


def ids(app: Celery) -> set[str]:
    """The tasks that are still in the database."""
    return set(app.backend.connection.run("SELECT VALUE task_id FROM task") or ())


def store(app: Celery, number: int, name: str = "task") -> None:
    """Store some results."""
    for each in range(number):
        app.backend.store_result(f"{name}-{each}", each, states.SUCCESS)


@pytest.mark.parametrize(
    ("expires", "lifetime"),
    [(60, 60.0), (60.5, 60.5), (timedelta(minutes=1), 60.0), (timedelta(days=1), 86400.0), (0, None), (None, None)],
    ids=repr,
)
def test_result_expires(app_with: Callable[..., Celery], expires: Any, lifetime: float | None) -> None:
    """result_expires may be a number, a timedelta, 0 or None; the last two keep results for ever."""
    app = app_with(result_expires=expires)
    before = datetime.now(timezone.utc)
    app.backend.store_result("a", 1, states.SUCCESS)
    after = datetime.now(timezone.utc)
    query = "SELECT VALUE [date_done, expires_at] FROM task"
    ((done, expires_at),) = app.backend.connection.run(query)
    if lifetime is None:
        assert not expires_at
        age(app, 10 * 365 * 86400)
        app.backend.cleanup()
        assert app.AsyncResult("a").state == states.SUCCESS
    else:
        assert before <= done <= after
        assert before <= expires_at - timedelta(seconds=lifetime) <= after
        age(app, lifetime + 5)
        assert app.AsyncResult("a").state == states.PENDING
        app.backend.cleanup()
        assert ids(app) == set()


def test_expired_results_are_gone_before_cleanup(app_with: Callable[..., Celery]) -> None:
    """A result past its time is not given out, and a task of that id may run again."""
    app = app_with(result_expires=60)
    app.backend.store_result("a", 1, states.SUCCESS)
    age(app, 120)
    assert app.AsyncResult("a").state == states.PENDING
    assert not app.backend.task_result_exists("a")
    app.backend.store_result("a", 2, states.SUCCESS)
    assert app.AsyncResult("a").result == 2


def test_unfinished_tasks_stay(app_with: Callable[..., Celery]) -> None:
    """However old, a task without an end is never deleted, and neither is what has not expired."""
    app = app_with(result_expires=60)
    for state in (states.PENDING, states.STARTED, states.RETRY, states.RECEIVED, "PROGRESS"):
        app.backend.store_result(state, failure("builtin") if state == states.RETRY else 1, state)
    app.backend.store_result("young", 1, states.SUCCESS)
    app.backend.store_result("old", 1, states.SUCCESS)
    age(app, 3600, "task_id = 'old'")
    app.backend.cleanup()
    assert ids(app) == {states.PENDING, states.STARTED, states.RETRY, states.RECEIVED, "PROGRESS", "young"}


def test_result_failure_expires(app_with: Callable[..., Celery]) -> None:
    """Failures live as long as result_failure_expires says, longer or shorter than the others."""
    app = app_with(result_expires=60, result_failure_expires=3600)
    if app.conf.get("result_failure_expires") is None:
        pytest.skip("this Celery has no result_failure_expires")
    app.backend.mark_as_failure("failed", failure("builtin"))
    app.backend.store_result("done", 1, states.SUCCESS)
    age(app, 120)
    app.backend.cleanup()
    assert ids(app) == {"failed"}
    age(app, 3600)
    app.backend.cleanup()
    assert ids(app) == set()


def test_shorter_lifetime_applies_to_what_is_there(app_with: Callable[..., Celery]) -> None:
    """Where result_expires was shortened, clean-up goes by the new one."""
    app_with(result_expires=None).backend.store_result("a", 1, states.SUCCESS)
    app = app_with(result_expires=60)
    app.backend.cleanup()
    assert ids(app) == {"a"}
    age(app, 120)
    app.backend.cleanup()
    assert ids(app) == set()


def test_groups_chords_and_keys_expire_too(app_with: Callable[..., Celery]) -> None:
    """Clean-up leaves nothing expired in any table."""
    app = app_with(result_expires=60)
    backend = app.backend
    app.GroupResult("a-group", [app.AsyncResult("a")]).save()
    backend.set_chord_size("a-chord", 3)
    backend.set("a-key", "a value")
    tables = (statements.GROUP, statements.CHORD, statements.KEY)
    for table in tables:
        backend.connection.run(f"UPDATE `{table}` SET expires_at = time::now() - 1s")
    assert app.GroupResult.restore("a-group") is None
    assert backend.get("a-key") is None
    backend.cleanup()
    assert [backend.connection.run(f"SELECT * FROM `{table}`") for table in tables] == [[], [], []]


def test_cleanup_of_an_empty_database(app_with: Callable[..., Celery]) -> None:
    """Clean-up may be the first thing that happens in a database."""
    app_with().backend.cleanup()


def test_batches(app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one batch of expired results is deleted, batch by batch, and the batches say how far they are."""
    for name in ("BATCH_FIRST", "BATCH_LEAST", "BATCH_MOST"):
        monkeypatch.setattr(cleanup_plan, name, 10)
    app = app_with(result_expires=60)
    store(app, 35)
    age(app, 120)
    told: list[int] = []
    report = app.backend.cleanup(on_batch=lambda report: told.append(report.total))
    assert ids(app) == set()
    assert told == [10, 20, 30, 35]
    assert report.records == {"task": 35}
    assert (report.total, report.dry_run) == (35, False)


@pytest.mark.parametrize("batch", [2, 10, 1000])
def test_many_that_end_at_one_moment(
    app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Records with one and the same end are all counted once and deleted, whole seconds among fractions too."""
    for name in ("BATCH_FIRST", "BATCH_LEAST", "BATCH_MOST"):
        monkeypatch.setattr(cleanup_plan, name, batch)
    monkeypatch.setattr(cleanup_requests, "SURVEY", batch)
    app = app_with(result_expires=60)
    store(app, 25)
    app.backend.connection.run("UPDATE task SET expires_at = d'2026-01-01T00:00:01.25Z'")
    store(app, 3, "fresh")
    assert app.backend.cleanup(dry_run=True).records == {"task": 25}
    store(app, 10, "whole")
    # The index sorts a whole second behind its fractions.
    app.backend.connection.run(
        "UPDATE task SET expires_at = d'2026-01-01T00:00:01Z' WHERE string::starts_with(task_id, 'whole')"
    )
    assert app.backend.cleanup().records == {"task": 35}
    assert ids(app) == {f"fresh-{number}" for number in range(3)}


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        (cleanup_statements.delete_expired("task"), {}),
        (cleanup_statements.find_expired("task"), {}),
        (cleanup_statements.survey("task"), {"until": datetime(9000, 1, 1, tzinfo=timezone.utc)}),
        (cleanup_statements.survey_without_end("task"), {"skip": 0}),
        (cleanup_statements.give_ends("task"), {}),
    ],
    ids=["delete", "find", "survey", "without end", "give ends"],
)
def test_cleanup_follows_an_index(app_with: Callable[..., Celery], text: str, variables: Any) -> None:
    """The engine says that it looks for records along an index, not through the whole table."""
    app = app_with(result_expires=60)
    store(app, 1)
    select = re.search(r"SELECT (?:VALUE )?(?:id|\[id).*?LIMIT \$batch", text)
    assert select
    plan = app.backend.connection.run(
        f"LET $now = time::now(); {select[0]} EXPLAIN",
        start=datetime(1970, 1, 1, tzinfo=timezone.utc),
        batch=10,
        **variables,
    )
    told = json.dumps(plan, default=str)
    assert "task_expires_at" in told
    if "$start" in text:
        # The range ends where what has not expired begins, which 3.0.2 overlooks where the condition has a call.
        assert re.search(r"<=?\s?d'[29]|\"to\": ", told), told
    assert "Iterate Table" not in told
    assert "TableScan" not in told


def test_beat_schedules_the_cleanup(app_with: Callable[..., Celery]) -> None:
    """Beat has celery.backend_cleanup in its schedule, and the task cleans up."""
    app = app_with(result_expires=60)
    scheduler = Scheduler(app, lazy=True)
    scheduler.install_default_entries({})
    assert scheduler.schedule["celery.backend_cleanup"].task == "celery.backend_cleanup"
    app.backend.store_result("a", 1, states.SUCCESS)
    age(app, 120)
    app.finalize()
    app.tasks["celery.backend_cleanup"]()
    assert ids(app) == set()


# -- what must not be lost, and what must not stay --------------------------------------------------


def test_a_task_that_is_run_again_meanwhile(app_with: Callable[..., Celery]) -> None:
    """A result that replaces an expired one while that is being deleted is not deleted with it."""
    app = app_with(result_expires=60)
    store(app, 20)
    age(app, 120)
    backend = app.backend

    def run_again(records: Any) -> None:
        for record in records:
            if record["task_id"] in ("task-3", "task-4"):
                backend.store_result(record["task_id"], "again", states.SUCCESS)

    assert backend.cleanup(before_delete=run_again).records == {"task": 18}
    assert ids(app) == {"task-3", "task-4"}
    assert app.AsyncResult("task-3").result == "again"


def test_several_at_once(app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean-ups that run at one time delete each record once, together all of them."""
    monkeypatch.setattr(cleanup_plan, "BATCH_FIRST", 20)
    app = app_with(result_expires=60)
    store(app, 150)
    age(app, 120)
    store(app, 5, "fresh")
    apps = [app_with(result_expires=60) for _ in range(4)]
    for each in apps:
        each.backend.connection.run("RETURN 1")
    start = threading.Barrier(len(apps))

    def clean(each: Celery) -> int:
        start.wait(30)
        return int(each.backend.cleanup().records["task"])

    with ThreadPoolExecutor(len(apps)) as pool:
        deleted = list(pool.map(clean, apps))
    assert ids(app) == {f"fresh-{number}" for number in range(5)}
    # The loose stores tell two writers that they deleted one record (docs/architecture.md).
    assert sum(deleted) >= 150


def test_an_interrupted_run_is_gone_on_with(app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that was interrupted has deleted is deleted, and the next deletes the rest."""
    for name in ("BATCH_FIRST", "BATCH_LEAST", "BATCH_MOST"):
        monkeypatch.setattr(cleanup_plan, name, 10)
    app = app_with(result_expires=60)
    store(app, 35)
    age(app, 120)

    def interrupt(report: cleanup_plan.Report) -> None:
        if report.total == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        app.backend.cleanup(on_batch=interrupt)
    assert len(ids(app)) == 15
    assert app.backend.cleanup().total == 15


def test_records_of_an_older_version(app_with: Callable[..., Celery]) -> None:
    """States without an end that an older version stored get one, by their age where it is known."""
    app = app_with(result_expires=3600, surrealdb_unfinished_expires=86_400)
    app.backend.connection.run(
        "CREATE task:old SET task_id = 'old', status = 'SUCCESS', date_done = time::now() - 2h;"
        "CREATE task:young SET task_id = 'young', status = 'SUCCESS', date_done = time::now() - 30m;"
        "CREATE task:died SET task_id = 'died', status = 'STARTED'"
    )
    assert app.backend.cleanup(dry_run=True).records == {"task": 1}
    app.backend.cleanup()
    text = "SELECT VALUE [task_id, math::round(time::unix(expires_at) - time::unix(time::now()))] FROM task"
    left = dict(app.backend.connection.run(text))
    assert left == {"young": pytest.approx(1800, abs=60), "died": pytest.approx(86_400, abs=60)}


# -- a change of settings ---------------------------------------------------------------------------


def test_shorter_than_before(app_with: Callable[..., Celery]) -> None:
    """Shorter lifetimes count for what is stored, success and failure each by its own, but not for what a task asked."""
    before = app_with(result_expires=86_400, result_failure_expires=86_400, surrealdb_retention={"own": 80_000})
    store(before, 3)
    before.backend.mark_as_failure("failed", failure("builtin"))
    before.backend.store_result("own", 1, states.SUCCESS, request=request("own", task="own"))
    before.backend.store_result("running", 1, states.STARTED)
    app = app_with(result_expires=600, result_failure_expires=7200)
    assert app.backend.cleanup(dry_run=True).total == 0
    assert app.backend.cleanup().total == 0
    text = "SELECT VALUE [task_id, math::round(time::unix(expires_at) - time::unix(time::now()))] FROM task"
    left = dict(app.backend.connection.run(text))
    expected = {"failed": 7200, "own": 80_000, "running": 30 * 86_400} | {f"task-{number}": 600 for number in range(3)}
    assert left == {name: pytest.approx(seconds, abs=60) for name, seconds in expected.items()}
    age(app, 1200)
    assert app.backend.cleanup(dry_run=True).names == {None: 3}
    app.backend.cleanup()
    assert ids(app) == {"failed", "own", "running"}


def test_what_is_over_by_the_new_settings_goes_at_once(app_with: Callable[..., Celery]) -> None:
    """Results that are older than the new lifetime are deleted by the first clean-up under it."""
    store(app_with(result_expires=86_400), 5)
    age(app_with(), 1200)
    app = app_with(result_expires=600)
    store(app, 2, "fresh")
    assert app.backend.cleanup(dry_run=True).records == {"task": 5}
    assert app.backend.cleanup().records == {"task": 5}
    assert ids(app) == {"fresh-0", "fresh-1"}


def test_longer_than_before(app_with: Callable[..., Celery]) -> None:
    """A longer lifetime concerns what is stored from now on: what a client was told stays true."""
    store(app_with(result_expires=600), 2)
    app = app_with(result_expires=None)
    app.backend.cleanup()
    age(app, 1200)
    app.backend.cleanup()
    assert ids(app) == set()


# -- how many are kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("expires", [86_400, None])
def test_the_newest_of_a_name_are_kept(app_with: Callable[..., Celery], expires: Any) -> None:
    """Of a task at most so many finished results stay, the newest; others and unfinished ones do not count."""
    app = app_with(result_expires=expires, result_extended=False, surrealdb_retention={"few.*": {"keep": 3}})

    @app.task(name="own", result_keep=1, shared=False)
    def own() -> None:
        """Keep one."""

    for number in range(5):
        for name in ("few.a", "few.b", "many", "own"):
            task_id = f"{name}-{number}"
            state = states.FAILURE if number == 3 else states.SUCCESS
            result = failure("builtin") if number == 3 else number
            app.backend.store_result(task_id, result, state, request=request(task_id, task=name))
    app.backend.store_result("running", 1, states.STARTED, request=request("running", task="own"))
    expected = {"few.a-2", "few.a-3", "few.a-4", "few.b-2", "few.b-3", "few.b-4", "own-4", "running"}
    expected |= {f"many-{number}" for number in range(5)}
    dry = app.backend.cleanup(dry_run=True)
    assert dry.names == {"few.a": 2, "few.b": 2, "own": 4}
    assert app.backend.cleanup().records == {"task": 8}
    assert ids(app) == expected
    assert app.backend.cleanup().total == 0


def test_a_surplus_task_that_runs_again_meanwhile(
    app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task of which enough newer results are kept is run again after it was found: what it says now is not deleted."""
    app = app_with(result_extended=False, surrealdb_retention={"few": {"keep": 1}})
    backend = app.backend
    for number in range(3):
        task_id = f"few-{number}"
        backend.store_result(task_id, failure("builtin"), states.FAILURE, request=request(task_id, task="few"))
    end_now = cleanup_statements.END_NOW
    run = backend.connection.run

    def overtaken(text: str, /, **variables: Any) -> Any:
        if text == end_now:
            again = request("few-0", task="few", retries=1)
            backend.store_result("few-0", None, states.STARTED, request=again)
        return run(text, **variables)

    monkeypatch.setattr(backend.connection, "run", overtaken)
    assert backend.cleanup().records == {"task": 1}
    assert ids(app) == {"few-0", "few-2"}
    assert app.AsyncResult("few-0").state == states.STARTED


# -- seeing it before -------------------------------------------------------------------------------


def test_dry_run(app_with: Callable[..., Celery]) -> None:
    """A dry run counts by table and by name what would go, and changes nothing."""
    app = app_with(result_expires=60, result_extended=True)
    for number in range(5):
        name = "contract.add" if number else "contract.other"
        app.backend.store_result(f"task-{number}", 1, states.SUCCESS, request=request(f"task-{number}", task=name))
    store(app, 1, "without a request")
    app.GroupResult("a-group", [app.AsyncResult("a")]).save()
    assert app.backend.cleanup(dry_run=True).total == 0
    age(app, 120)
    app.backend.connection.run("UPDATE `group` SET expires_at = time::now() - 1s")
    before = app.backend.connection.run("SELECT * FROM task ORDER BY id")
    report = app.backend.cleanup(dry_run=True)
    assert report.dry_run
    assert report.records == {"task": 6, "group": 1}
    assert report.names == {"contract.add": 4, "contract.other": 1, None: 1}
    assert app.backend.connection.run("SELECT * FROM task ORDER BY id") == before
    assert app.backend.cleanup().records == report.records


def test_a_dry_run_reads_each_task_without_an_end_a_bounded_number_of_times(
    app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks without an end are counted once each, whatever their ids, and what it has come to is told."""
    monkeypatch.setattr(cleanup_requests, "SURVEY", 20)
    monkeypatch.setattr(cleanup_requests, "PAGE_OF_IDS", 25)
    store(app_with(result_expires=None), 150)
    app = app_with(result_expires=3600)
    age(app, 7200, "task_id > 'task-4'")
    over = app.backend.connection.run("SELECT VALUE task_id FROM task WHERE task_id > 'task-4'")
    store(app, 30, "new")
    app.backend.connection.run("UPDATE task SET expires_at = NONE WHERE task_id = 'new-3'")
    told: list[tuple[int, int]] = []
    report = app.backend.cleanup(dry_run=True, on_batch=lambda report: told.append((report.looked_at, report.total)))
    assert report.records == {"task": len(over)}
    assert 180 <= told[-1][0] == report.looked_at <= 180 + 180
    assert len(told) >= 180 / 25
    assert len(ids(app)) == 180
    assert app.backend.cleanup().records == report.records


def test_results_are_announced_before_they_go(app_with: Callable[..., Celery]) -> None:
    """Receivers of the signal get every result before it goes, as it is stored, in lists of a bounded size."""
    app = app_with(result_expires=60)
    store(app, 45)
    age(app, 120)
    store(app, 2, "fresh")
    archived: dict[str, Any] = {}
    sizes: list[int] = []

    def archive(sender: Any, records: Any, **_: Any) -> None:
        sizes.append(len(records))
        for record in records:
            archived[record["task_id"]] = sender.meta_of(record)["result"]
            assert sender.connection.run("SELECT VALUE task_id FROM $id", id=record["id"]) == [record["task_id"]]

    signals.results_expiring.connect(archive)
    try:
        assert app.backend.cleanup().records == {"task": 45}
    finally:
        signals.results_expiring.disconnect(archive)
    assert archived == {f"task-{number}": number for number in range(45)}
    assert max(sizes) <= 20
    assert ids(app) == {"fresh-0", "fresh-1"}


@pytest.mark.parametrize("how", ["signal", "before_delete"])
def test_what_could_not_be_archived_stays(app_with: Callable[..., Celery], how: str) -> None:
    """Results whose receiver fails stay until it does not, and the others go."""
    app = app_with(result_expires=60)
    store(app, 45)
    # In microseconds, as a reply is read: the end where a list stops is where the next begins, so one is seen twice.
    ended = datetime.now(timezone.utc).replace(microsecond=1) - timedelta(seconds=120)
    for number in range(45):
        at = ended + timedelta(milliseconds=number)
        app.backend.connection.run(
            "UPDATE task SET expires_at = $at, date_done = $at WHERE task_id = $id", at=at, id=f"task-{number}"
        )
    calls = iter(range(100))

    def archive(records: Any, **_: Any) -> None:
        if next(calls) in (1, 3):  # the second list, also in the next pass
            raise OSError("the archive is full")

    if how == "signal":
        signals.results_expiring.connect(archive)
    try:
        report = app.backend.cleanup(before_delete=archive if how == "before_delete" else None)
        assert report.records == {"task": 26}
        assert report.spared >= 20
        assert ids(app) == {f"task-{number}" for number in range(20, 39)}
        assert app.backend.cleanup(before_delete=archive if how == "before_delete" else None).total == 19
    finally:
        signals.results_expiring.disconnect(archive)
    assert ids(app) == set()
