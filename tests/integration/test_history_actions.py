"""`Results.retry`, `revoke`, `forget` on real engines, with the messages that they send."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from surrealdb_celery_backend.errors import InvalidFilter, ResultNotFound
from surrealdb_celery_backend.results import Results
from tests.support import history_data as data
from tests.support.apps.contract_apps import request

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


@pytest.fixture
def app(app_with: Callable[..., Celery]) -> Celery:
    """An app on a database of its own, with a broker in memory, which is that of all tests of this process."""
    app = app_with(surrealdb_timeout=60)
    for queue in ("celery", "other", "q"):
        messages(app, queue)
    return app


def messages(app: Celery, queue: str) -> list[tuple[dict[str, Any], list[Any], dict[str, Any]]]:
    """The headers, args and kwargs of what is in a queue; it is empty afterwards."""
    found = []
    with app.connection_for_read() as connection:
        box = connection.SimpleQueue(queue)
        while True:
            try:
                message = box.get(block=False)
            except box.Empty:
                break
            args, kwargs, _ = message.payload
            found.append((dict(message.headers), args, kwargs))
            message.ack()
        box.close()
    return found


def test_a_failed_task_is_sent_again_as_a_new_one(app: Celery, results: Results) -> None:
    """The new task has the name, the arguments and the queue of the old one, and says what it is a retry of."""
    sent_by = request("one", args=[1, "two"], kwargs={"z": None}, delivery_info={"routing_key": "slow"})
    app.backend.store_result("one", KeyError("x"), "FAILURE", request=sent_by)
    [planned] = results.retry("one", dry_run=True)
    assert (planned.sent, planned.refused, planned.args, planned.kwargs) == (False, None, (1, "two"), {"z": None})
    assert messages(app, "slow") == []
    [retry] = results.retry("one")
    assert retry.sent
    assert retry.new_id != "one"
    [(headers, args, kwargs)] = messages(app, "slow")
    assert (headers["id"], headers["task"], headers["retry_of"]) == (retry.new_id, "contract.add", "one")
    assert (args, kwargs) == ([1, "two"], {"z": None})


def test_arguments_can_be_changed(app: Celery, results: Results) -> None:
    """What is given replaces what is stored."""
    app.backend.store_result("one", KeyError("x"), "FAILURE", request=request("one"))
    results.retry("one", args=[5], queue="other")
    [(_, args, kwargs)] = messages(app, "other")
    assert (args, kwargs) == ([5], {"z": None})
    for wrong, sentence in (({"args": "text"}, "args must be a list"), ({"kwargs": [1]}, "kwargs must be a dict")):
        with pytest.raises(InvalidFilter, match=sentence):
            results.retry("one", **wrong)


def test_one_that_cannot_be_sent_is_no_harm_to_the_others(
    app: Celery, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends many again hears of each: of what no serializer takes, and of a broker that is gone meanwhile."""
    ids = ["a", "b", "c", "d"]
    for task_id in ids:
        app.backend.store_result(task_id, KeyError("x"), "FAILURE", request=request(task_id, args=[task_id]))
    send = app.send_task
    tried = []

    def fragile(name: str, args: list[Any], *more: Any, **options: Any) -> Any:
        tried.append(args[0])
        if args[0] == "c":
            raise OperationalError("gone")
        return send(name, [object()] if args[0] == "b" else args, *more, **options)

    monkeypatch.setattr(app, "send_task", fragile)
    outcomes = results.retry(ids)
    assert [each.sent for each in outcomes] == [True, False, False, False]
    assert "it cannot be sent: EncodeError" in str(outcomes[1].refused)
    assert outcomes[2].refused == outcomes[3].refused == "the message broker cannot be reached: gone"
    assert tried == ["a", "b", "c"]
    with pytest.raises(OperationalError):
        results.retry("c")


def test_what_cannot_be_sent_again_says_why(app: Celery, results: Results) -> None:
    """A task that is unknown, runs, or whose name or arguments were not kept is refused with the reason."""
    data.write(
        app,
        [
            data.record(task_id="no name", name=None),
            data.record(task_id="no args", args=None),
            data.record(task_id="unreadable", args=b"\x80", encoding="application/x-python-serialize"),
            data.record(task_id="running", status="STARTED", date_done=None),
            data.record(task_id="as text", args=json.dumps("(1, 2)")),
        ],
    )
    reasons = {
        each.task_id: each.refused
        for each in results.retry(["no name", "no args", "unreadable", "running", "as text", "unknown"])
    }
    assert reasons["no name"] == "its name was not kept: set result_extended to True for tasks to come"
    assert "were not kept as they were; give args and kwargs" in str(reasons["no args"])
    assert "they cannot be read" in str(reasons["unreadable"])
    assert reasons["running"] == "it has not ended, it is STARTED"
    assert "kept as text" in str(reasons["as text"])
    assert reasons["unknown"] == "nothing is stored of it"
    assert messages(app, "celery") == []
    [retry] = results.retry("no args", args=[1], kwargs={})
    assert retry.sent


def test_all_that_match_are_sent_again(app: Celery, results: Results) -> None:
    """With filters instead of ids, at most `limit`; ids and filters together, or neither, are refused."""
    data.write(app, [data.record(task_id=f"f{n}", status="FAILURE", queue="q") for n in range(5)])
    data.write(app, [data.record(task_id="good", queue="q")])
    assert len(results.retry(where={"state": "FAILURE"}, limit=2, dry_run=True)) == 2
    outcomes = results.retry(where={"state": "FAILURE"})
    assert sorted(each.task_id for each in outcomes) == [f"f{n}" for n in range(5)]
    assert sorted(headers["retry_of"] for headers, _, _ in messages(app, "q")) == [f"f{n}" for n in range(5)]
    for ids, where in (((), None), (("f1",), {"state": "FAILURE"}), ((), {})):
        with pytest.raises(InvalidFilter, match=r"give either ids|where has no filter"):
            results.retry(ids, where=where)


def test_forgetting_deletes_what_ended(app: Celery, results: Results) -> None:
    """By id any record goes, by filter only those of tasks that have ended; the ids of those that went are said."""
    data.write(app, [data.record(task_id=f"t{n}", name="old") for n in range(250)])
    data.write(app, [data.record(task_id="running", name="old", status="STARTED", date_done=None)])
    assert results.forget(["t1", "unknown"], dry_run=True) == ["t1"]
    assert results.get("t1").id == "t1"
    assert results.forget(["t1", "unknown"]) == ["t1"]
    with pytest.raises(ResultNotFound):
        results.get("t1")
    assert len(results.forget(where={"name": "old"})) == 249
    assert [task.id for task in results.find().tasks] == ["running"]
    assert results.forget("running") == ["running"]


def test_revoking_asks_all_workers(app: Celery, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are asked by broadcast; a filter chooses tasks that have not ended."""
    asked: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(app.control, "revoke", lambda ids, **options: asked.append((ids, options)))
    data.write(app, [data.record(task_id="running", status="STARTED", date_done=None), data.record(task_id="done")])
    assert results.revoke("any", dry_run=True) == ["any"]
    assert asked == []
    assert results.revoke(["any", "other"], terminate=True, signal="SIGKILL") == ["any", "other"]
    assert results.revoke(where={"name": "shop.report"}) == ["running"]
    assert asked == [
        (["any", "other"], {"terminate": True, "signal": "SIGKILL"}),
        (["running"], {"terminate": False, "signal": "SIGTERM"}),
    ]


def test_ids_are_found_by_their_beginning(app: Celery, results: Results) -> None:
    """As people type them: by the first characters of an id."""
    data.write(app, [data.record(task_id=each) for each in ("abc1", "abc2", "abd", "ä", "x'y")])
    assert results.ids_starting_with("abc") == ["abc1", "abc2"]
    assert results.ids_starting_with("ab", 2) == ["abc1", "abc2"]
    assert results.ids_starting_with("abd") == ["abd"]
    assert results.ids_starting_with("x'") == ["x'y"]
    assert results.ids_starting_with("ä") == ["ä"]
    assert results.ids_starting_with("zzz") == []
