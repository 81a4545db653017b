"""`surrealdb_result_format = "native"`: values can be asked for in SurrealQL, and are read as if they were encoded."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, states
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surrealdb_celery_backend.results import Results
from surrealdb_celery_backend.results.native import LARGEST
from tests.engines import Database, RunningEngine
from tests.support.apps import contract_apps
from tests.support.apps.contract_apps import described, request
from tests.support.inprocess import TIMEOUT, worker
from tests.support.shell import Shell

pytestmark = pytest.mark.integration

NATIVE = {"surrealdb_result_format": "native"}
RESULT = {"total": 5.0, "lines": [{"name": "tea", "note": None}, {}], "ok": True, "": [None, []]}


class Color(enum.IntEnum):
    """A number that is more than one."""

    RED = 1


def stored(app: Celery, task_id: str) -> dict[str, Any]:
    """A task's record."""
    record = app.backend.tasks.record_id(task_id)
    [found] = app.backend.connection.run("SELECT * FROM $record", record=record)
    return dict(found)


def store(app: Celery, task_id: str, result: Any, *, state: str = states.SUCCESS, **fields: Any) -> dict[str, Any]:
    """Store a state and read its meta."""
    app.backend.store_result(task_id, result, state, request=request(task_id, **fields))
    meta: dict[str, Any] = app.backend.get_task_meta(task_id, cache=False)
    return meta


def test_values_can_be_asked_for(app_with: Callable[..., Celery]) -> None:
    """Result, args and kwargs are SurrealDB's own values, and nothing in them changes."""
    app = app_with(**NATIVE)
    meta = store(app, "t", RESULT, args=[1, "task:abc"], kwargs={"user": {"id": 7, "tags": None}})
    rows = app.backend.connection.run(
        "SELECT result.total AS total, result.lines[0].name AS name, args[1] AS arg FROM task WHERE kwargs.user.id = 7"
    )
    assert rows == [{"total": 5.0, "name": "tea", "arg": "task:abc"}]
    assert stored(app, "t")["encoding"].startswith("native")
    assert repr(meta["result"]) == repr(RESULT)
    assert repr([meta["args"], meta["kwargs"]]) == repr([[1, "task:abc"], {"user": {"id": 7, "tags": None}}])


@pytest.mark.parametrize(
    "value",
    ["done", "", "task:abc", "2026-01-01T00:00:00Z", "ünï \N{PILE OF POO}\x01", 0, -(2**63), 1.5, -0.0, True, None, {}],
    ids=ascii,
)
def test_values_that_are_native(app_with: Callable[..., Celery], value: Any) -> None:
    """Values of JSON's types are stored as they are, and come back of the same type."""
    app = app_with(**NATIVE)
    assert described(store(app, "t", value)["result"]) == described(value)
    assert stored(app, "t")["encoding"] == "native"
    assert described(stored(app, "t")["result"]) == described(value)


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        math.nan,
        -math.inf,
        "a\x00b",
        "\ud800",
        {"a\x00": 1},
        {1: 2},
        b"bytes",
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),
        Color.RED,
        {"__type__": "bytes", "__value__": "looks like Kombu's"},
        json.loads("[" * 40 + "]" * 40),
    ],
    ids=lambda value: ascii(value)[:40],
)
@pytest.mark.parametrize("place", ["result", "args", "kwargs"])
def test_values_that_stay_encoded(app_with: Callable[..., Celery], place: str, value: Any) -> None:
    """A record with a value that would change is encoded, and read as with the other format."""
    native, encoded = app_with(**NATIVE), app_with()
    given: dict[str, Any] = {"result": value if place == "result" else 1}
    given |= {"args": [value]} if place == "args" else {}
    given |= {"kwargs": {"x": value}} if place == "kwargs" else {}
    assert described(store(native, "n", **given)[place]) == described(store(encoded, "e", **given)[place])
    assert stored(native, "n")["encoding"] == "application/json"


@pytest.mark.parametrize("more", [0, 1])
def test_large_values_stay_encoded(app_with: Callable[..., Celery], more: int) -> None:
    """As many bytes as the engine makes its own in a moment are native, and larger records encoded."""
    app = app_with(**NATIVE, surrealdb_timeout=60)
    value = ["x" * (LARGEST // 10 - 2)] * 9
    value.append("x" * (LARGEST - 900_000 - 50 + more * 100))
    assert store(app, "t", value, args=[], kwargs={})["result"] == value
    assert stored(app, "t")["encoding"] == ("application/json" if more else "native")


def test_the_order_of_keys(app_with: Callable[..., Celery]) -> None:
    """SurrealDB sorts the keys of objects; a reader has them in the order of the dict that was stored."""
    app = app_with(**NATIVE)
    rows = {"total": 1, "lines": [{"b": 1, "a": 2}, {"b": 3, "a": 4}, {"a": 1}]}
    assert repr(store(app, "t", rows, kwargs={"x": 1, "y": 2})["result"]) == repr(rows)
    assert stored(app, "t")["encoding"] == 'native; order=[["b", "a"], ["total", "lines"]]'
    for task_id, value in (("two", [{"b": 1, "a": 2}, {"a": 1, "b": 2}]), ("long", {"x" * 9000: 1, "a": 1})):
        assert repr(store(app, task_id, value)["result"]) == repr(value)
        assert stored(app, task_id)["encoding"] == "application/json"


def test_tuples(app_with: Callable[..., Celery]) -> None:
    """JSON makes lists of tuples, so they may be native; another serializer keeps them."""
    for serializer, encoding in (("json", "native"), ("pickle", "application/x-python-serialize")):
        native = app_with(**NATIVE, result_serializer=serializer)
        encoded = app_with(result_serializer=serializer)
        read = store(native, f"n-{serializer}", (1, [2]))["result"]
        assert described(read) == described(store(encoded, f"e-{serializer}", (1, [2]))["result"])
        assert stored(native, f"n-{serializer}")["encoding"] == encoding


def test_each_reader_has_values_of_its_own(app_with: Callable[..., Celery]) -> None:
    """Who changes what it was given changes nobody else's."""
    app = app_with(**NATIVE)
    store(app, "t", {"list": [1]})
    [(_, record)] = app.backend.fetch_records(["t"])
    first, second = app.backend.meta_of(record), app.backend.meta_of(record)
    first["result"]["list"].append(2)
    assert second["result"] == {"list": [1]}


def test_errors_and_progress(app_with: Callable[..., Celery]) -> None:
    """Exceptions and the metas of states are native too, and come back as exceptions and dicts."""
    app = app_with(**NATIVE)
    app.backend.store_result("t", {"current": 1, "total": None}, "PROGRESS")
    assert app.AsyncResult("t").info == {"current": 1, "total": None}
    app.backend.mark_as_failure("t", KeyError("EUR"), traceback="Traceback …", request=request("t"))
    assert stored(app, "t")["result"]["exc_type"] == "KeyError"
    with pytest.raises(KeyError, match="EUR"):
        app.AsyncResult("t").get(timeout=TIMEOUT)


def test_both_formats_in_one_table(app_with: Callable[..., Celery]) -> None:
    """Apps of either format read the records of both, one by one and many at once, small and large."""
    native, encoded = app_with(**NATIVE), app_with()
    values = {"small": {"a": None}, "large": [{"text": "x" * 100}] * 100}
    for name, value in values.items():
        store(native, f"n-{name}", value)
        store(encoded, f"e-{name}", value)
    assert stored(native, "n-large")["size"] > 10_000
    for app in (native, encoded):
        ids = [f"{kind}-{name}" for kind in "ne" for name in values]
        found = {task_id: meta["result"] for task_id, meta in app.backend.get_many(ids, timeout=TIMEOUT)}
        assert found == {task_id: values[task_id[2:]] for task_id in ids}
        assert [app.AsyncResult(each).get(timeout=TIMEOUT) for each in ids] == [values[each[2:]] for each in ids]


def test_children_and_chords_of_real_tasks(app_with: Callable[..., Celery]) -> None:
    """A worker's results are native: those of a chord's header and body, and of a task that sends others."""
    app = app_with(**NATIVE)

    @app.task(name="lines", shared=False)
    def lines(number: int) -> dict[str, Any]:
        return {"number": number, "none": None}

    @app.task(name="body", shared=False)
    def body(parts: list[Any]) -> list[Any]:
        return parts

    @app.task(name="parent", bind=True, shared=False)
    def parent(self: Any) -> str:
        return str(lines.delay(7).id)

    with worker(app):
        expected = [{"number": number, "none": None} for number in range(3)]
        result = chord([lines.s(number) for number in range(3)], body.s()).delay()
        assert result.get(timeout=TIMEOUT) == expected
        sender = parent.delay()
        child = sender.get(timeout=TIMEOUT)
        assert app.AsyncResult(child).get(timeout=TIMEOUT) == {"number": 7, "none": None}
        assert [each.id for each in app.AsyncResult(sender.id).children] == [child]
        with Results(app) as results:
            assert [node.id for node in results.tree(sender.id).root.children] == [child]
    encodings = app.backend.connection.run("SELECT VALUE encoding FROM task")
    assert all(each.startswith("native") for each in encodings)
    assert len(encodings) == 6


def test_history_reads_native_values(app_with: Callable[..., Celery]) -> None:
    """Lists show the beginning of native values, filters look into arguments, and `retry` has them back."""
    app = app_with(**NATIVE)
    store(app, "small", RESULT, args=[17, "it's"], kwargs={"user": 7, "none": None})
    store(app, "large", {"rows": [{"text": "x" * 100}] * 100}, args=[18], kwargs={})
    store(app, "text", "done", args=[], kwargs={})
    store(app, "none", None, args=[], kwargs={})
    with Results(app) as results:
        tasks = {task.id: task for task in results.find().tasks}
        assert tasks["small"].kwargs_text == '{"user": 7, "none": null}'
        assert tasks["small"].result_text == json.dumps(RESULT)[:200]
        assert "rows" in (tasks["large"].result_text or "")
        assert len(tasks["large"].result_text or "") == 200
        assert (tasks["text"].result_text, tasks["none"].result_text) == ('"done"', "null")
        for argument in ("17", "it's", '"user": 7', "user: 7"):
            assert [task.id for task in results.find(argument=argument).tasks] == ["small"], argument
        detail = results.get("small")
        assert detail is not None
        assert (detail.result, detail.args_kept) == (RESULT, True)
        [retry] = results.retry(["small"], dry_run=True)
        assert (retry.args, retry.kwargs) == ((17, "it's"), {"user": 7, "none": None})


def test_export_and_import(app_with: Callable[..., Celery], engine: RunningEngine, tmp_path: Path) -> None:
    """An archive keeps native values, None inside of them too, in results and in parts of chords."""
    app = app_with(**NATIVE)
    store(app, "t", RESULT, kwargs={"none": None})
    store(app, "none", None)
    part = request("p", group="c", group_index=0, chord={"chord_size": 2})
    app.backend.mark_as_done("p", RESULT, request=part)
    tables = ("task", "chord")
    before = {table: app.backend.connection.run(f"SELECT * FROM {table}") for table in tables}
    assert any(row.get("result") == RESULT for row in before["chord"])
    with Results(app) as results:
        results.export(tmp_path / "file.gz", tables=tables)
    other = contract_apps.ours(engine.database(), **NATIVE)
    try:
        with Results(other) as results:
            results.import_file(tmp_path / "file.gz")
        assert {table: other.backend.connection.run(f"SELECT * FROM {table}") for table in tables} == before
        assert other.AsyncResult("t").get(timeout=TIMEOUT) == RESULT
    finally:
        contract_apps.close(other)


def test_the_command_line_shows_native_values(fresh_database: Database) -> None:
    """`tasks` and `show` print JSON, as for encoded values."""
    shell = Shell(fresh_database, **NATIVE)
    try:
        store(shell.app, "a-task", {"total": None, "name": "tea"}, args=[1], kwargs={"user": None})
        assert '{"total": null, "name": "tea"}' in shell.ok("tasks")
        shown = shell.ok("show", "a-task")
        assert '{"total": null, "name": "tea"}' in shown
        assert '{"user": null}' in shown
        assert shell.json("show", "a-task")["result"] == {"total": None, "name": "tea"}
    finally:
        shell.close()


_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)
_apps: dict[tuple[Database, str], tuple[Celery, Celery]] = {}


@pytest.fixture(autouse=True)
def _close_apps() -> Iterator[None]:
    yield
    while _apps:
        for app in _apps.popitem()[1]:
            contract_apps.close(app)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(value=_JSON, args=st.lists(_JSON, max_size=2), kwargs=st.dictionaries(_TEXT, _JSON, max_size=2))
def test_both_formats_read_alike(fresh_database: Database, serializer: str, value: Any, args: Any, kwargs: Any) -> None:
    """Whatever JSON's types hold is read with the same types and values, whichever format it was stored in."""
    key = (fresh_database, serializer)
    if key not in _apps:
        common = {"result_serializer": serializer}
        _apps[key] = (
            contract_apps.ours(fresh_database, **common, **NATIVE),
            contract_apps.ours(fresh_database, **common),
        )
    # A SUCCESS would not be replaced by the next example's.
    native, encoded = (
        store(app, task_id, value, state="A STATE", args=args, kwargs=kwargs)
        for app, task_id in zip(_apps[key], ("native", "encoded"), strict=True)
    )
    for field in ("result", "args", "kwargs"):
        assert repr(native[field]) == repr(encoded[field])
