"""What is asked for in a message's headers holds for the result of that message's task, and for no other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signals
from celery.result import AsyncResult

from surrealdb_celery_backend.results import Results
from surrealdb_celery_backend.results.addresses import HEADER
from tests.support.inprocess import TIMEOUT, worker

pytestmark = pytest.mark.integration

#: What the labelled task of each way to send is given.
ASKED = {"tags": ["asked"], "meta": {"customer": 7}, "result_expires": 5000}
#: How long results are kept otherwise, in seconds.
KEPT = 1000
PARTS = 5


def make(app_with: Callable[..., Celery], **conf: Any) -> Celery:
    """An app with tasks that send others, and have others run in their place."""
    app = app_with(**{"task_track_started": False, "result_expires": KEPT, **conf})

    @app.task(name="echo", shared=False)
    def echo(value: Any = None, *_: Any) -> Any:
        return value

    @app.task(name="fail", shared=False)
    def fail() -> None:
        raise ValueError("no luck")

    @app.task(name="note", shared=False)
    def note(value: Any) -> Any:  # an error callback that takes more is called and not sent
        return value

    @app.task(name="retry", bind=True, shared=False)
    def retry(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    @app.task(name="replace", bind=True, shared=False)
    def replace(self: Any, headers: Mapping[str, Any] | None = None) -> None:
        raise self.replace(echo.s("replaced").set(headers=headers))

    @app.task(name="send", bind=True, shared=False)
    def send(self: Any) -> str:
        # As those do who pass a trace on.
        return str(echo.apply_async(("sent",), headers=self.request.headers).id)

    return app


def stored(app: Celery) -> dict[str, dict[str, Any]]:
    """All records of tasks, by id, once those of tasks that were sent are there."""
    assert app.backend.sent is None or app.backend.sent.flush(TIMEOUT)
    return {task["task_id"]: task for task in app.backend.connection.run("SELECT * FROM task")}


class Ways:
    """Every way to send a task with headers, and what to expect of each task.

    Args:
        app: The app.

    Attributes:
        labels: Of each task that was sent: the tags it must have; None where it was asked for nothing.
    """

    def __init__(self, app: Celery) -> None:
        self.app, self.tasks = app, app.tasks
        self.labels: dict[str, tuple[str, list[str] | None]] = {}

    def _note(self, way: str, result: AsyncResult, tags: list[str] | None) -> None:
        # A task's callbacks and the next one of a chain are sent, and may end, before its own result is stored.
        result.get(timeout=TIMEOUT, propagate=False)
        self.labels[result.id] = way, tags

    def send(self) -> None:
        """Send all, and wait for the results."""
        tasks, echo = self.tasks, self.tasks["echo"]
        alone = {
            "none": (echo.apply_async(headers=None), None),
            "some": (echo.apply_async(headers=ASKED), ["asked"]),
            "by name": (self.app.send_task("echo", headers=ASKED), ["asked"]),
            "retried": (tasks["retry"].apply_async(headers=ASKED), ["asked"]),
            "replaced": (tasks["replace"].apply_async(headers=ASKED), ["asked"]),
            "replaced by one with tags": (
                tasks["replace"].apply_async(({"tags": ["own"]},), headers=ASKED),
                ["own"],
            ),
        }
        for way, (result, tags) in alone.items():
            result.get(timeout=TIMEOUT)
            self._note(way, result, tags)
        self._others()
        self._chord()
        stamped = echo.s().set(headers=ASKED)
        stamped.stamp(colour="red", tags="a stamp")
        result = stamped.apply_async()
        result.get(timeout=TIMEOUT)
        self._note("stamped", result, ["asked"])

    def _others(self) -> None:
        echo = self.tasks["echo"]
        for first, link in (("echo", "link"), ("fail", "link_error")):
            linked = self.tasks["note"].s().set(task_id=uuid.uuid4().hex)
            self._note(first, self.tasks[first].apply_async(headers=ASKED, **{link: linked}), ["asked"])
            result = self.app.AsyncResult(linked.options["task_id"])
            result.get(timeout=TIMEOUT)
            self._note(link, result, None)
        last = chain(echo.si(1).set(headers=ASKED, priority=3), echo.si(2), echo.si(3)).apply_async()
        last.get(timeout=TIMEOUT)
        self._note("end of a chain", last, None)
        self._note("middle of a chain", last.parent, None)
        self._note("beginning of a chain", last.parent.parent, ["asked"])

    def _chord(self) -> None:
        echo = self.tasks["echo"]
        parts = group(echo.s(0).set(headers=ASKED), *(echo.s(number) for number in range(1, PARTS)))
        body = chord(parts, echo.s().set(headers={"tags": ["of the body"]})).apply_async()
        assert body.get(timeout=TIMEOUT) == list(range(PARTS)), "in the order of the header"
        self._note("body", body, ["of the body"])
        for number, part in enumerate(body.parent.results):
            self._note(f"part {number}", part, ["asked"] if number == 0 else None)


@pytest.mark.parametrize("protocol", [1, 2])
def test_headers_are_those_of_one_task(app_with: Callable[..., Celery], protocol: int) -> None:
    """Tags, meta and lifetime asked for by header hold for that task, retried and replaced, and for no other."""
    # Messages of the first protocol have no headers but the user's.
    app = make(app_with, task_protocol=protocol, task_inherit_parent_priority=True, surrealdb_track_sent=True)
    with worker(app):
        ways = Ways(app)
        ways.send()
    records = stored(app)
    assert len(ways.labels) == 20
    for task_id, (way, tags) in ways.labels.items():
        task = records[task_id]
        assert task.get("tags") == tags, way
        asked = tags == ["asked"] or way == "replaced by one with tags"
        assert task.get("meta") == (ASKED["meta"] if asked else None), way
        kept = task["expires_at"] - task["date_done"]
        assert (kept > timedelta(seconds=KEPT + 2000)) is asked, way
        assert task["queue_time"] <= (task["date_done"] - task["sent_at"]).total_seconds() + 1, way


def test_who_passes_headers_on_gives_no_times(app_with: Callable[..., Celery]) -> None:
    """A task sent with all headers of the task that sends it has its labels, but was sent when it was."""
    app = make(app_with)
    with worker(app):
        first = app.tasks["send"].apply_async(headers=ASKED)
        sent = first.get(timeout=TIMEOUT)
        app.AsyncResult(sent).get(timeout=TIMEOUT)
    records = stored(app)
    assert records[sent]["tags"] == records[first.id]["tags"] == ["asked"]
    # One process, one clock.
    assert records[sent]["sent_at"] > records[first.id]["sent_at"]


def test_a_task_that_runs_eagerly_has_its_headers(app_with: Callable[..., Celery]) -> None:
    """Celery leaves them in another place of the request; nothing was sent."""
    app = make(app_with, task_always_eager=True, task_store_eager_result=True)
    result = app.tasks["send"].apply_async(headers={**ASKED, "sent_at": 1e9})
    records = stored(app)
    assert set(records) == {result.id, result.get()}
    for task in records.values():
        assert (task["tags"], task["meta"]) == (ASKED["tags"], ASKED["meta"])
        assert task["expires_at"] - task["date_done"] > timedelta(seconds=KEPT + 2000)
        assert "sent_at" not in task
        assert "queue_time" not in task


@pytest.mark.parametrize("body", ["protocol 1", "protocol 2"])
def test_messages_of_other_clients(app_with: Callable[..., Celery], body: str) -> None:
    """A message with the least that Celery takes runs, is waited for and found; the headers that it has count."""
    app = make(app_with, surrealdb_track_sent=True)
    task_id = uuid.uuid4().hex
    own = {"tags": "asked", "meta": {"customer": 7}, "result_expires": 5000}
    with worker(app), app.amqp.Producer(app.connection_for_write()) as producer:
        if body == "protocol 1":
            message: Any = {"id": task_id, "task": "echo", "args": ["there"], "kwargs": {}}
            headers: dict[str, Any] = own
        else:
            message, headers = [["there"], {}, {}], {"id": task_id, "task": "echo", "lang": "js", **own}
        producer.publish(message, routing_key=app.conf.task_default_queue, serializer="json", headers=headers)
        assert app.AsyncResult(task_id).get(timeout=TIMEOUT) == "there"
    task = stored(app)[task_id]
    assert (task["tags"], task["meta"]) == (["asked"], {"customer": 7})
    assert task["expires_at"] - task["date_done"] > timedelta(seconds=KEPT + 2000)
    assert "sent_at" not in task
    with Results(app) as results:
        assert [found.id for found in results.find(tags="asked").tasks] == [task_id]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_retry_sent_for_a_lost_process_has_its_address(app_with: Callable[..., Celery], retries: int) -> None:
    """Celery 5.7 sends it from the worker's main process, for which no result is; a first sending is its sender's."""
    app = make(app_with)
    given = {HEADER: "of the sender", "sent_at": 1e9}
    sent: list[dict[str, Any]] = []

    def note(headers: dict[str, Any], **_: Any) -> None:
        sent.append(headers)

    signals.after_task_publish.connect(note)
    try:
        app.tasks["echo"].apply_async(retries=retries, headers=given)
    finally:
        signals.after_task_publish.disconnect(note)
    [headers] = sent
    assert (headers[HEADER] == "of the sender") is bool(retries)
    assert (headers["sent_at"] == 1e9) is bool(retries)
    assert ("queued_at" in headers) is bool(retries)
