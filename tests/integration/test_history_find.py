"""`Results.find`, `get` on real engines: every filter against the same done in Python, page by page."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.errors import ConnectionClosed, InvalidFilter, ResultNotFound
from surrealdb_celery_backend.results import Results, TaskError
from surrealdb_celery_backend.results.history import scanning
from tests.engines import Database
from tests.support import history_data as data
from tests.support.apps.contract_apps import request

pytestmark = pytest.mark.integration


def found(results: Results, limit: int = 1000, **wanted: Any) -> list[str]:
    """The ids of all that match, page by page."""
    ids: list[str] = []
    after = None
    while True:
        page = results.find(limit=limit, after=after, **wanted)
        ids += [task.id for task in page.tasks]
        after = page.after
        if after is None:
            return ids


def _failed(fields: dict[str, Any], kind: str) -> bool:
    return bool(fields["error"]) and fields["error"]["type"] == kind


def _name(fields: dict[str, Any]) -> str:
    return fields["name"] or ""


#: A filter, and the same in Python.
FILTERS: list[tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]] = [
    ({}, lambda _: True),
    ({"state": "FAILURE"}, lambda f: f["status"] == "FAILURE"),
    ({"state": "started"}, lambda f: f["status"] == "STARTED"),
    ({"state": ["RETRY", "REVOKED"]}, lambda f: f["status"] in ("RETRY", "REVOKED")),
    ({"name": "shop.pay"}, lambda f: f["name"] == "shop.pay"),
    ({"name": "shop.*"}, lambda f: _name(f).startswith("shop.")),
    ({"name": ["*.send", "shop.r*t"]}, lambda f: f["name"] in ("mail.send", "shop.report")),
    ({"worker": "celery@two", "queue": "slow"}, lambda f: f["worker"] == "celery@two" and f["queue"] == "slow"),
    ({"queue": "s*"}, lambda f: f["queue"] == "slow"),
    ({"error": "KeyError"}, lambda f: _failed(f, "KeyError")),
    ({"error": "sqlalchemy.exc.OperationalError"}, lambda f: _failed(f, "OperationalError")),
    ({"error": "sqlalchemy.*"}, lambda f: _failed(f, "OperationalError")),
    ({"text": "order 6"}, lambda f: f["error"] and "Order 6" in f["error"]["message"]),
    ({"text": "KEYERROR: order 1"}, lambda f: _failed(f, "KeyError") and "Order 1" in f["error"]["message"]),
    ({"tags": "a"}, lambda f: "a" in (f["tags"] or ())),
    ({"tags": ["a", "b"]}, lambda f: {"a", "b"} <= set(f["tags"] or ())),
    ({"argument": "order-3"}, lambda f: "order-3" in f["args"]),
    ({"root": "root-7"}, lambda f: f["root_id"] == "root-7"),
    ({"group": "group-2"}, lambda f: f["group_id"] == "group-2"),
    ({"periodic": "nightly"}, lambda f: f["periodic_task_name"] == "nightly"),
    ({"min_runtime": 9.5}, lambda f: (f["runtime"] or 0) >= 9.5),
    (
        {"since": data.NOW - timedelta(seconds=3000), "until": data.NOW - timedelta(seconds=3), "state": "SUCCESS"},
        lambda f: (
            f["status"] == "SUCCESS"
            and data.NOW - timedelta(seconds=3000) <= f["date_done"] < data.NOW - timedelta(seconds=3)
        ),
    ),
    (
        {"since": data.NOW - timedelta(seconds=8)},
        lambda f: data.listed_at(f) is None or data.listed_at(f) >= data.NOW - timedelta(seconds=8),
    ),
    (
        {"until": data.NOW - timedelta(seconds=8)},
        lambda f: data.listed_at(f) is not None and data.listed_at(f) < data.NOW - timedelta(seconds=8),
    ),
]


def test_every_filter_finds_what_matches_in_order(app: Celery, results: Results) -> None:
    """Each filter gives what the same condition gives in Python: newest first, nothing twice, nothing left out."""
    records = data.many(700)
    data.write(app, records)
    for wanted, matches in FILTERS:
        expected = data.newest_first([fields for fields in records if matches(fields)])
        assert expected, f"{wanted} is to match something"
        assert found(results, **wanted) == expected, wanted
        if len(expected) > 40:
            assert found(results, limit=37, **wanted) == expected, wanted


def test_indexes_change_nothing_but_the_cost(app: Celery, results: Results) -> None:
    """With an index on a field and `date_done` a search finds the same, and reads little else."""
    records = data.many(700, seed=2)
    data.write(app, records)
    for name, fields in (("a", "name, date_done"), ("b", "error.type, date_done"), ("c", "status, date_done")):
        app.backend.connection.run_all(f"DEFINE INDEX by_{name} ON task FIELDS {fields}")
    for wanted, matches in FILTERS:
        expected = data.newest_first([fields for fields in records if matches(fields)])
        assert found(results, limit=100, **wanted) == expected, wanted
    rare = data.record(name="shop.rare", date_done=data.NOW - timedelta(days=5))
    data.write(app, [rare])
    page = results.find(name="shop.rare", state="SUCCESS")
    assert [task.id for task in page.tasks] == [rare["task_id"]]
    assert page.scanned < 50


def test_without_an_index_the_table_is_read_in_pages(
    app: Celery, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off means a scan and never an error: the same is found, each request reads a page, and progress is told."""
    monkeypatch.setattr(scanning, "PAGE", 150)
    records = data.many(700, seed=3)
    data.write(app, records)
    # That of the state is there with SURREALDB_TEST_OPTIONS=on only.
    app.backend.connection.run_all("REMOVE INDEX task_date_done ON task; REMOVE INDEX IF EXISTS task_status ON task")
    for wanted, matches in FILTERS:
        expected = data.newest_first([fields for fields in records if matches(fields)])
        assert found(results, limit=300, **wanted) == expected, wanted
    looked_at: list[int] = []
    page = results.find(limit=5, state="SUCCESS", on_progress=lambda scanned, _: looked_at.append(scanned))
    assert looked_at == [150, 300, 450, 600, 700]
    assert page.scanned == 700
    assert page.complete


def test_without_an_index_all_else_works(app: Celery, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, workflows, chords, changes and metrics need no index on `date_done` either."""
    monkeypatch.setattr(scanning, "PAGE", 20)
    data.write(app, [data.record(task_id=f"t{n:02}", root_id="t00", parent_id="t00" if n else None) for n in range(50)])
    data.write(app, [data.record(task_id="runs", status="STARTED", date_done=None, root_id="t00", group_id="g")])
    app.backend.set_chord_size("g", 2)
    app.backend.connection.run_all("REMOVE INDEX task_date_done ON task")
    assert results.stats().total.states == {"SUCCESS": 50, "STARTED": 1}
    assert results.stats("hour", state="FAILURE").total.count == 0
    assert results.tree("t07").states == {"SUCCESS": 50, "STARTED": 1}
    [chord] = results.unfinished_chords()
    assert [(part.task_id, part.state) for part in chord.missing] == [("runs", "STARTED")]
    follower = results.follower(look_every=0.05)
    app.backend.store_result("new", 1, "SUCCESS", request=request("new"))
    assert [task.id for task in follower.changes(60)] == ["new"]
    follower.close()
    counted = {
        sample.name: sample.value
        for metric in results.metrics(lookback=86_400 * 365).collect()
        for sample in metric.samples
        if sample.name.endswith(("tasks_total", "tasks_unfinished")) and sample.labels["name"] == "shop.report"
    }
    assert counted == {"surrealdb_celery_tasks_total": 50, "surrealdb_celery_tasks_unfinished": 1}


def test_a_task_that_ends_while_it_is_listed_is_found_once(
    app: Celery, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands among those that ended; none of the others is left out."""
    ids = [f"u{number}" for number in range(7)]
    times = {each: data.NOW - timedelta(minutes=9 - number) for number, each in enumerate(ids)}
    data.write(
        app, [data.record(task_id=each, status="STARTED", date_done=None, started_at=at) for each, at in times.items()]
    )
    connection, ends = app.backend.connection, iter(["u6"])
    run = connection.run

    def end_one(text: str, /, **variables: Any) -> Any:
        answer = run(text, **variables)
        for each in ends if "date_done = NONE" in text else ():
            app.backend.store_result(each, 1, "SUCCESS", request=request(each))
        return answer

    monkeypatch.setattr(connection, "run", end_one)
    page = results.find(limit=2)
    listed = list(page.tasks)
    while page.after is not None:
        page = results.find(limit=2, after=page.after)
        listed += page.tasks
    assert [task.id for task in listed] == ["u5", "u4", "u3", "u2", "u1", "u0", "u6"]
    assert listed[-1].state == "SUCCESS"


def test_a_page_costs_what_its_length_costs(app: Celery, results: Results) -> None:
    """Ten times as many records make a page neither read more records nor need more requests."""
    costs = []
    for number, seed in ((1_000, 3), (9_000, 4)):
        data.write(
            app,
            [
                data.record(task_id=f"{seed}-{place}", date_done=data.NOW - timedelta(seconds=place * 86_400 / number))
                for place in range(number)
            ],
        )
        first = results.find(limit=50)
        began = app.backend.connection.request_count
        second = results.find(limit=50, after=first.after)
        costs.append((second.scanned, app.backend.connection.request_count - began))
        assert len(second.tasks) == 50
    assert costs[1][0] < 300
    assert costs[1][1] <= 2


def test_expired_results_are_not_found(app: Celery, results: Results) -> None:
    """What has expired reads as gone, whether or not clean-up has come by."""
    kept, gone = data.record(), data.record(expires_at=data.NOW - timedelta(seconds=5))
    data.write(app, [kept, gone])
    assert found(results) == [kept["task_id"]]
    with pytest.raises(ResultNotFound, match="it is unknown, not yet run, or expired"):
        results.get(gone["task_id"])


def test_values_are_bound(app: Celery, results: Results) -> None:
    """Whatever stands in a filter is text to be compared, never part of a statement or a pattern."""
    names = ["a'b", 'a"b', "a`b", "a\\b", "a⟩b", "a.b", "$name", "a; DELETE task", "naïve ☂", "(a|b)", "a b", "a#b"]
    records = [data.record(name=name, args=json.dumps([name], ensure_ascii=False)) for name in names]
    data.write(app, records)
    for fields in records:
        assert found(results, name=fields["name"]) == [fields["task_id"]]
        assert fields["task_id"] in found(results, name=f"{fields['name'][:-1]}*")
        assert fields["task_id"] in found(results, name=f"*{fields['name']}")
    assert found(results, name="a?b") == []
    assert found(results, argument="☂") == [records[8]["task_id"]]


def test_an_empty_database_has_no_tasks(results: Results) -> None:
    """Before anything was stored a page is empty."""
    page = results.find()
    assert (page.tasks, page.after, page.complete) == ((), None, True)


def test_a_summary_says_what_is_stored(app: Celery, results: Results) -> None:
    """Each field of a record is in the summary, with the beginnings of arguments and result."""
    fields = data.record(
        status="FAILURE",
        error={"type": "KeyError", "module": "builtins", "message": "'x'"},
        result=json.dumps("y" * 1000),
        root_id="r",
        parent_id="p",
        retry_of="o",
        tags=["a", "b"],
        priority=3,
        expires_at=data.NOW + timedelta(days=1),
        periodic_task_name="nightly",
    )
    data.write(app, [fields])
    [task] = results.find().tasks
    assert task.id == fields["task_id"]
    assert (task.state, task.ready, task.failed) == ("FAILURE", True, True)
    assert task.error == TaskError("KeyError", "builtins", "'x'")
    assert (task.name, task.worker, task.queue, task.retries) == ("shop.report", "celery@one", "celery", 0)
    assert (task.runtime, task.queue_time, task.priority, task.tags) == (0.5, 0.25, 3, ("a", "b"))
    assert (task.root_id, task.parent_id, task.retry_of, task.periodic_task_name) == ("r", "p", "o", "nightly")
    assert task.date_done == task.at == fields["date_done"]
    assert task.args_text == '[1, "two"]'
    assert task.result_text is not None
    assert len(task.result_text) == 200


def test_a_stored_task_is_read_whole(app: Celery, results: Results) -> None:
    """What a worker stored is read with its values decoded."""
    app.backend.store_result("one", {"a": [1, None]}, "SUCCESS", request=request("one", args=[1], kwargs={"z": "ü"}))
    task = results.get("one")
    assert (task.state, task.result, task.args, task.kwargs) == ("SUCCESS", {"a": [1, None]}, [1], {"z": "ü"})
    assert task.args_kept
    assert task.unreadable == {}
    assert task.expires_in is not None
    assert 86_000 < task.expires_in <= 86_400


def test_a_failure_is_read_with_its_error(app_with: Callable[..., Celery]) -> None:
    """A failure says its exception and traceback; so do records that only have them in the encoded result."""
    # Such records are older than native values and than the index on `error`.
    app = app_with(surrealdb_timeout=60, surrealdb_result_format="encoded", surrealdb_indexes="date_done")
    app.backend.store_result("one", KeyError("x"), "FAILURE", traceback="Traceback …", request=request("one"))
    with Results(app) as results:
        task = results.get("one")
        assert task.error is not None
        assert (task.error.type, task.error.module) == ("KeyError", "builtins")
        assert task.traceback == "Traceback …"
        assert task.result is None
        app.backend.connection.run("UPDATE task UNSET error")
        old = results.get("one")
        assert old.error is not None
        assert (old.error.type, old.error.module) == ("KeyError", "builtins")
        assert found(results, error="KeyError") == ["one"]
        [summary] = results.find(error="KeyError").tasks
        assert summary.error is not None
        assert summary.error.type == "KeyError"


def test_what_cannot_be_decoded_is_said(app: Celery, results: Results) -> None:
    """A value in an encoding that is not accepted here is left out and named; all else is read."""
    data.write(app, [data.record(task_id="one", result=b"\x80\x04N.", encoding="application/x-python-serialize-2")])
    task = results.get("one")
    assert "result" in task.unreadable
    assert task.name == "shop.report"
    assert not task.args_kept
    assert results.find().tasks[0].result_text is None


def test_without_extended_results_arguments_are_not_kept(app_with: Callable[..., Celery]) -> None:
    """Where `result_extended` is off a task says that its arguments were not kept."""
    app = app_with(result_extended=False)
    app.backend.store_result("one", 1, "SUCCESS", request=request("one"))
    with Results(app) as results:
        task = results.get("one")
    assert (task.name, task.args, task.args_kept) == (None, None, False)


def test_mistakes_are_named(results: Results) -> None:
    """An unknown filter or task is one sentence."""
    with pytest.raises(InvalidFilter, match="there is no filter 'stat': choose among state, name"):
        results.find(stat="FAILURE")
    with pytest.raises(InvalidFilter, match="after must be"):
        results.find(after="x")
    with pytest.raises(ResultNotFound, match="'no-such-task'"):
        results.get("no-such-task")


def test_results_close_what_they_opened_only(app: Celery, fresh_database: Database) -> None:
    """The app's own backend lives on; one that was made for an app with another backend is closed."""
    with Results(app) as results:
        results.find()
    app.backend.store_result("one", 1, "SUCCESS")
    with Celery("other", set_as_current=False) as other:
        other.conf.update(fresh_database.settings, result_backend="disabled://")
        with Results(other) as results:
            assert [task.id for task in results.find().tasks] == ["one"]
        with pytest.raises(ConnectionClosed):
            results.find()
