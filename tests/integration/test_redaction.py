"""What must not be stored is nowhere in the database."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord

from surrealdb_celery_backend.results import Results
from tests.support import history_data as data
from tests.support.inprocess import TIMEOUT, worker

pytestmark = pytest.mark.integration

SECRET = "s3cr3t-'ünd\"\\so"
CARD = 4_111_111_111_111_111
TABLES = ("task", "group", "chord", "key")


def everything(app: Celery) -> str:
    """All that the database holds, as text, escapes undone."""
    found = [app.backend.connection.run(f"SELECT * FROM `{table}`") for table in TABLES]
    text = repr(found) + json.dumps(found, default=repr, ensure_ascii=False)
    return text + text.encode().decode("unicode_escape", "replace") + text.replace("\\", "")


def only_order(name: str, args: Any, kwargs: Any) -> Any:
    """A function for the setting."""
    return [], {"order": kwargs.get("order")}


def broken(name: str, args: Any, kwargs: Any) -> Any:
    """A function that fails."""
    raise RuntimeError


@pytest.mark.parametrize(
    "redact",
    [["password", "card"], "password, card", only_order, broken],
    ids=["names", "text", "function", "broken function"],
)
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_secret_is_nowhere(app_with: Callable[..., Celery], redact: Any, serializer: str) -> None:
    """A masked argument is in no field of any record: not by name, by position, deep inside, or in an error."""
    app = app_with(surrealdb_redact=redact, result_serializer=serializer, task_track_started=True)

    @app.task(name="pay", shared=False)
    def pay(order: int = 0, password: str = "", *, deep: Any = None, fail: bool = False) -> int:
        if fail:
            raise ValueError(f"refused: {password}")
        return order

    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {"order": 7, "password": SECRET}),
        ((7, SECRET), {}),
        ((), {"order": 7, "deep": [{"card": SECRET}], "password": "x"}),
        ((), {"order": 7, "password": SECRET, "fail": True}),
        ((7, SECRET), {"fail": True}),
    ]
    with worker(app):
        results = [pay.apply_async(args, kwargs) for args, kwargs in ways]
        for result in results:
            result.get(timeout=TIMEOUT, propagate=False)
    stored = everything(app)
    for shown in (SECRET, repr(SECRET)[1:-1], json.dumps(SECRET)[1:-1], "s3cr3t"):
        assert shown not in stored
    assert [result.state for result in results] == ["SUCCESS"] * 3 + ["FAILURE"] * 2
    if redact == ["password", "card"]:
        assert app.AsyncResult(results[0].id).kwargs == {"order": 7, "password": "**"}
        assert list(app.AsyncResult(results[1].id).args) == [7, "**"]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_secret_is_nowhere_in_a_workflow(app_with: Callable[..., Celery], serializer: str) -> None:
    """Not in what fails with the task that was given it, and not in the body of a chord that waits."""
    app = app_with(surrealdb_redact=["password", "card"], result_serializer=serializer)
    seen: list[str] = []

    @app.task(name="pay", shared=False)
    def pay(order: int = 0, password: str = "", *, card: int = 0, fail: bool = False) -> int:
        if fail:
            raise ValueError(f"refused: {password}", card)
        return order

    @app.task(name="look", shared=False)
    def look() -> None:
        seen.append(everything(app))

    @app.task(name="total", shared=False)
    def total(results: Any, password: str = "") -> str:
        return "done"

    refused = pay.s(1, SECRET, card=CARD, fail=True)
    fails = [
        chain(refused, total.s(), total.s()),
        chord([pay.s(1), refused], total.s()),
        chord([pay.s(1), chain(refused, total.s())], total.s()),
    ]
    bodies = [total.s(SECRET), total.s(password=SECRET), chain(total.s(), total.s(SECRET))]
    with worker(app):
        pay.starmap([(1, SECRET), (2, "other")]).apply_async().get(timeout=TIMEOUT)
        pay.chunks([(1, SECRET), (2, SECRET)], 1).group().apply_async().get(timeout=TIMEOUT)
        total.delay([dict(pay.s(1, SECRET)), dict(total.s(SECRET))]).get(timeout=TIMEOUT)
        seen.append(everything(app))
        for workflow in fails:
            error = workflow.apply_async().get(timeout=TIMEOUT, propagate=False)
            assert isinstance(error, Exception)
            seen.append(everything(app))
        for body in bodies:
            assert chord([pay.s(1), look.si()], body).apply_async().get(timeout=TIMEOUT) == "done"
    assert len(seen) == 1 + len(fails) + len(bodies)
    for stored in seen:
        for shown in (SECRET, repr(SECRET)[1:-1], json.dumps(SECRET)[1:-1], "s3cr3t", str(CARD)):
            assert shown not in stored


def test_without_the_setting_arguments_are_stored(app_with: Callable[..., Celery]) -> None:
    """The test above would find the secret."""
    app = app_with()

    @app.task(name="pay", shared=False)
    def pay(**_: Any) -> None:
        """Take it."""

    with worker(app):
        pay.delay(password=SECRET).get(timeout=TIMEOUT)
    assert "s3cr3t" in everything(app)


def test_large_arguments(app_with: Callable[..., Celery]) -> None:
    """Arguments beyond the limit are cut, with their length; others are stored as they are."""
    app = app_with(surrealdb_redact_limit=100)

    @app.task(name="load", shared=False)
    def load(*_: Any, **__: Any) -> None:
        """Take it."""

    with worker(app):
        large, small = load.delay("x" * 10_000, key="y"), load.delay("x", key="y" * 10)
        for result in (large, small):
            result.get(timeout=TIMEOUT)
    assert len(app.AsyncResult(large.id).args) < 200
    assert "10004 characters" in app.AsyncResult(large.id).args
    assert app.AsyncResult(large.id).kwargs == {"key": "y"}
    assert list(app.AsyncResult(small.id).args) == ["x"]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize(
    ("conf", "args", "kwargs", "known"),
    [
        ({"surrealdb_redact": ["password"]}, (7,), {"password": SECRET}, False),
        ({"surrealdb_redact": ["password"]}, (7, SECRET), {}, False),
        ({"surrealdb_redact": ["password"]}, (7,), {"deep": [{"password": 5}]}, False),
        ({"surrealdb_redact": ["password"]}, (7,), {"deep": [(1, 2), None]}, True),
        ({"surrealdb_redact": only_order}, (), {"order": 7, "deep": "gone without a mask"}, False),
        ({"surrealdb_redact": only_order}, (), {"order": (7, [8])}, True),
        ({"surrealdb_redact": broken}, (7,), {}, False),
        ({"surrealdb_redact_limit": 50}, ("x" * 51,), {}, False),
        ({"surrealdb_redact_limit": 50}, (7,), {"deep": "x" * 51}, False),
        ({"surrealdb_redact_limit": 50}, ("x" * 40,), {"deep": "x"}, True),
    ],
)
def test_what_was_redacted_is_not_sent_again(
    app_with: Callable[..., Celery],
    serializer: str,
    conf: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    known: bool,
) -> None:
    """A retry with other arguments than the task's is refused, with the settings that changed them."""
    app = app_with(**conf, result_serializer=serializer)

    @app.task(name="pay", shared=False)
    def pay(order: Any = 0, password: str = "", *, deep: Any = None) -> None:
        raise ValueError

    with worker(app):
        failed = pay.apply_async(args, kwargs)
        failed.get(timeout=TIMEOUT, propagate=False)
    with Results(app) as results:
        task = results.get(failed.id)
        assert (task.args_kept, task.args_redacted) == (known, not known)
        [planned] = results.retry(failed.id, dry_run=True)
        [changed] = results.retry(failed.id, args=[1], kwargs={"password": "new"}, dry_run=True)
        assert (changed.refused, changed.args, changed.kwargs) == (None, (1,), {"password": "new"})
    if known:
        assert planned.refused is None
        return
    assert planned.refused == (
        "its arguments are not known, they were masked or cut before they were stored (surrealdb_redact, "
        "surrealdb_redact_limit); give args and kwargs"
    )
    assert (planned.args, planned.kwargs) == ((), None)
    assert "args_redacted" not in app.backend.get_task_meta(failed.id)


def test_a_mask_alone_is_enough(app_with: Callable[..., Celery]) -> None:
    """A record that does not say that it was redacted, but has a mask or the end of a cut text, is refused, too."""
    app = app_with()
    data.write(
        app,
        [
            data.record(task_id="mask", kwargs=json.dumps({"card": ["**"]})),
            data.record(task_id="cut", args=json.dumps("[1, 2… (812 characters)")),
            data.record(task_id="stars", kwargs=json.dumps({"path": "src/**"})),
        ],
    )
    with Results(app) as results:
        planned = {each.task_id: each.refused or "" for each in results.retry(["mask", "cut", "stars"], dry_run=True)}
        assert [results.get(each).args_kept for each in planned] == [False, False, True]
    assert "surrealdb_redact" in planned["mask"]
    assert "surrealdb_redact" in planned["cut"]
    assert planned["stars"] == ""


# -- indexes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"task_expires_at", "task_date_done"}),
        ([], {"task_expires_at"}),
        ("name, error", {"task_expires_at", "task_name", "task_error"}),
        (
            ["date_done", "name", "status", "worker", "queue", "root_id", "group_id", "error", "text"],
            {
                *("task_expires_at", "task_date_done", "task_name", "task_status", "task_worker", "task_queue"),
                *("task_root_id", "task_group_id", "task_error", "task_text_message", "task_text_traceback"),
            },
        ),
    ],
    ids=["default", "none", "some", "all"],
)
def test_indexes(app_with: Callable[..., Celery], given: Any, expected: set[str]) -> None:
    """The task table has the indexes that the setting asks for, on every engine, and results are stored with all."""
    app = app_with(**({} if given is None else {"surrealdb_indexes": given}))
    app.backend.mark_as_failure("a", ValueError("no luck today"))
    assert set(app.backend.connection.run("INFO FOR TABLE task")["indexes"]) == expected
    if "task_text_message" in expected:
        found = app.backend.connection.run("SELECT VALUE task_id FROM task WHERE error.message @@ 'luck'")
        assert found == ["a"]
    with pytest.raises(ValueError, match="no luck"):
        app.AsyncResult("a").get(timeout=TIMEOUT)
