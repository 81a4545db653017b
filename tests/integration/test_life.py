"""A finished task's record tells its life: sent, started, ended, retried, failed, by whom and why."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import time_machine
from celery import Celery, chain, chord, group, signals, states

from surrealdb_celery_backend.results import Results
from surrealdb_celery_backend.results.progress import Progress
from tests.support.apps.contract_apps import request
from tests.support.inprocess import TIMEOUT, after_its_retries, worker
from tests.support.sentry import sentry

pytestmark = pytest.mark.integration

#: How long the task sleeps, in seconds.
NAP = 0.2


class Broken(Exception):
    """What the tasks here raise."""


class Coded(Exception):
    """An exception with a text of its own."""

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


def make(app_with: Callable[..., Celery], **conf: Any) -> Celery:
    """An app with tasks that sleep, fail, retry and tell how far they are."""
    app = app_with(**{"task_track_started": False, **conf})

    @app.task(name="nap", shared=False)
    def nap(*_: Any) -> str:
        time.sleep(NAP)
        return "done"

    @app.task(name="fail", shared=False)
    def fail(message: str = "no luck") -> None:
        raise Broken(message)

    @app.task(name="retry", bind=True, shared=False)
    def retry(self: Any, times: int, *, then_fail: bool = False) -> str:
        after_its_retries(self)
        if self.request.retries < times:
            raise self.retry(exc=Broken(f"try {self.request.retries}"), countdown=0.3, max_retries=times)
        if then_fail:
            raise Broken("at last")
        return "done"

    @app.task(name="far", bind=True, shared=False)
    def far(self: Any, steps: int) -> int:
        progress = Progress(self, total=steps, per_second=5)
        return sum(progress.update(step, message=f"step {step}") for step in range(1, steps + 1))

    return app


def record(app: Celery, task_id: str) -> dict[str, Any]:
    """What is stored of a task."""
    (found,) = app.backend.connection.run("SELECT * FROM task WHERE task_id = $id", id=task_id)
    return dict(found)


def test_times_of_every_way_to_send(app_with: Callable[..., Celery]) -> None:
    """However a task is sent, its record has when it was sent, started and ended, and how long each took."""
    app = make(app_with)
    nap = app.tasks["nap"]
    before = datetime.now(timezone.utc)
    with worker(app):
        ways = {
            "apply_async": nap.apply_async(),
            "delay": nap.delay(),
            "send_task": app.send_task("nap"),
            "group": group(nap.s(), nap.s()).apply_async(),
            "chain": chain(nap.s(), nap.s()).apply_async(),
            "chord": chord([nap.s(), nap.s()], nap.s()).apply_async(),
        }
        for result in ways.values():
            result.get(timeout=TIMEOUT)
    after = datetime.now(timezone.utc)
    tasks = app.backend.connection.run("SELECT * FROM task")
    assert len(tasks) == 3 + 2 + 2 + 3
    for task in tasks:
        assert before - timedelta(seconds=1) <= task["sent_at"] <= task["started_at"] + timedelta(seconds=1)
        assert task["started_at"] < task["date_done"] <= after + timedelta(seconds=1)
        assert NAP * 0.9 <= task["runtime"] <= TIMEOUT
        ran = (task["date_done"] - task["started_at"]).total_seconds()
        # The store may come as much later as its thread stood still, and never earlier.
        assert task["runtime"] - 0.001 <= ran <= TIMEOUT
        assert 0 <= task["queue_time"] <= TIMEOUT
        assert "clock_skew" not in task
        assert "attempts" not in task


def test_a_store_is_one_round_trip(app_with: Callable[..., Celery]) -> None:
    """All of this adds no request: a state is one, a retried one too."""
    app = make(app_with)
    backend = app.backend
    backend.connection.run("RETURN 1")
    before = backend.connection.request_count
    backend.store_result("a", Broken(), states.RETRY, request=request("a", sent_at=1e9, tags=["x"]))
    backend.store_result("a", 1, states.SUCCESS, request=request("a", retries=1, sent_at=1e9, meta={"x": [1]}))
    assert backend.connection.request_count - before == 2


def test_sender_of_another_app(app_with: Callable[..., Celery]) -> None:
    """Messages of an app with another backend have none of our headers."""
    other = Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False)
    ours = make(app_with)
    sent: list[dict[str, Any]] = []

    def look(headers: Any = None, **_: Any) -> None:
        sent.append(dict(headers))

    signals.after_task_publish.connect(look)
    try:
        ours.send_task("nap")
        other.send_task("nap")
        ours.send_task("nap", ignore_result=True)
    finally:
        signals.after_task_publish.disconnect(look)
        other.close()
    assert ["sent_at" in headers for headers in sent] == [True, False, False]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_errors(app_with: Callable[..., Celery], serializer: str) -> None:
    """A failure's type, module and message are fields, whatever the serializer; any text is stored."""
    app = make(app_with, result_serializer=serializer)
    with worker(app):
        plain, odd = app.tasks["fail"].delay(), app.tasks["fail"].delay("a NUL \x00, half \ud800, " + "x" * 5000)
        for result in (plain, odd):
            with pytest.raises(Exception, match=r"no luck|a NUL"):
                result.get(timeout=TIMEOUT)
    assert record(app, plain.id)["error"] == {"type": "Broken", "module": __name__, "message": "no luck"}
    message = record(app, odd.id)["error"]["message"]
    assert message.startswith("a NUL \\x00, half \\ud800, xxx")
    assert len(message) == 2000


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize(
    "error",
    [
        KeyError("EUR"),
        OSError(2, "No such file or directory", "/x"),
        Coded(404, "gone"),
        Coded("17"),
        ValueError("a", 1),
    ],
    ids=["key", "file", "own text", "own text that fails", "two arguments"],
)
def test_the_message_is_what_the_error_says(app_with: Callable[..., Celery], error: Exception, serializer: str) -> None:
    """The message is the exception's text, as in the traceback, and not its first argument; a retry's, too."""
    app = make(app_with, result_serializer=serializer)
    app.backend.store_result("a", error, states.FAILURE, request=request("a"))
    app.backend.store_result("b", error, states.RETRY, request=request("b"))
    said = "17" if error.args == ("17",) else str(error)
    for task_id in "ab":
        assert record(app, task_id)["error"]["message"] == said
    assert record(app, "b")["attempts"][0]["error"]["message"] == said


@pytest.mark.parametrize("track_started", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_attempts(app_with: Callable[..., Celery], track_started: bool, fails: bool) -> None:
    """Each retry's time, error and worker stay in the record, through every later state, to the end."""
    app = make(app_with, task_track_started=track_started)
    with worker(app):
        result = app.tasks["retry"].delay(3, then_fail=fails)
        result.get(timeout=TIMEOUT, propagate=False)
    task = record(app, result.id)
    assert task["status"] == (states.FAILURE if fails else states.SUCCESS)
    attempts = task["attempts"]
    assert [attempt["error"]["message"] for attempt in attempts] == ["try 0", "try 1", "try 2"]
    assert [attempt["error"]["type"] for attempt in attempts] == ["Broken"] * 3
    assert [attempt["retries"] for attempt in attempts] == [0, 1, 2]
    assert all(isinstance(attempt["worker"], str) and attempt["worker"] for attempt in attempts)
    times = [attempt["at"] for attempt in task["attempts"]]
    assert times == sorted(times)
    assert times[-1] <= task["date_done"]
    # Sent at first, and not when it was sent again.
    assert task["sent_at"] < times[0] + timedelta(seconds=1)
    assert ("error" in task) is fails


@pytest.mark.parametrize("tracer", ["Sentry", "another"])
def test_a_retry_keeps_the_headers_of_its_task(
    app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch, tracer: str
) -> None:
    """Tracers add a header named `headers`, which Celery takes for all that a retry is to have."""
    app = make(app_with, result_expires=1000)
    first_sent: dict[str, float] = {}

    def add_header(headers: dict[str, Any], **_: Any) -> None:
        if tracer == "another":
            headers["headers"] = {"x-trace": "1"}

    def note(headers: dict[str, Any], **_: Any) -> None:
        first_sent.setdefault(headers["id"], headers["sent_at"])

    headers = {"tags": ["nightly"], "meta": {"customer": 7}, "retry_of": "first", "result_expires": 5000}
    signals.before_task_publish.connect(add_header)
    signals.after_task_publish.connect(note)
    try:
        with sentry(monkeypatch) if tracer == "Sentry" else nullcontext(), worker(app):
            result = app.tasks["retry"].apply_async((2,), headers=headers)
            assert result.get(timeout=TIMEOUT) == "done"
    finally:
        signals.before_task_publish.disconnect(add_header)
        signals.after_task_publish.disconnect(note)
    task = record(app, result.id)
    assert len(task["attempts"]) == 2
    assert task["sent_at"].timestamp() == pytest.approx(first_sent[result.id], abs=0.001)
    assert (task["tags"], task["meta"], task["retry_of"]) == (["nightly"], {"customer": 7}, "first")
    assert task["expires_at"] - task["date_done"] > timedelta(seconds=4000)


def test_progress(app_with: Callable[..., Celery]) -> None:
    """Progress is native; the helper stores it a few times a second, and the last step always."""
    app = make(app_with)
    app.backend.store_result("running", {"current": 3, "total": 10, "message": "half"}, "PROGRESS")
    app.backend.store_result("own", {"current": True, "what": 1}, "PROGRESS")
    assert record(app, "running")["progress"] == {"current": 3, "total": 10, "message": "half"}
    assert "progress" not in record(app, "own")
    assert app.AsyncResult("running").info == {"current": 3, "total": 10, "message": "half"}
    with worker(app):
        result = app.tasks["far"].delay(10_000)
        assert 2 <= result.get(timeout=TIMEOUT) <= TIMEOUT * 5 + 2
    assert "progress" not in record(app, result.id)


def test_labels(app_with: Callable[..., Celery]) -> None:
    """Tags, meta, priority, eta, the entry of beat and the task that it repeats are fields."""
    app = make(app_with)
    eta = datetime.now(timezone.utc)
    headers = {
        "tags": ["nightly", "shop 7"],
        "meta": {"customer": 7, "of": ["a", 1.5, True]},
        "periodic_task_name": "every night",
        "retry_of": "an older id",
    }
    # Sent long before it is due, without anybody having to wait for that.
    with time_machine.travel(eta - timedelta(hours=1), tick=True):
        result = app.tasks["nap"].apply_async(headers=headers, eta=eta, priority=3)
    with worker(app):
        result.get(timeout=TIMEOUT)
    task = record(app, result.id)
    assert {name: task[name] for name in headers} == headers
    assert task["priority"] == 3
    assert abs(task["eta"] - eta) < timedelta(milliseconds=1)
    # From when it was due, not from when it was sent.
    assert task["queue_time"] < (task["started_at"] - task["sent_at"]).total_seconds() - 3000


def test_a_meta_with_values_of_other_types(app_with: Callable[..., Celery]) -> None:
    """One date or amount in it costs a sender's meta nothing but that value's type."""
    app = make(app_with)
    meta = {
        "at": datetime(2026, 3, 2, 12, tzinfo=timezone.utc), "day": date(2026, 3, 2), "price": Decimal("1.50"),
        "order": UUID(int=7), "large": 2**70, "none": None, "ratio": 0.5, "of": (1, True, {"x"}), "text": "a\x00b", 5: float("nan"),
    }  # fmt: skip
    app.backend.store_result("a", 1, states.SUCCESS, request=request("a", meta=meta))
    assert record(app, "a")["meta"] == {
        "at": "2026-03-02T12:00:00+00:00", "day": "2026-03-02", "price": "1.50", "order": str(UUID(int=7)),
        "large": str(2**70), "none": None, "ratio": 0.5, "of": [1, True, ["x"]], "text": "a\\x00b", "5": "nan",
    }  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": "one"}, {"tags": [1, object(), "x\x00"]}, {"meta": object()}, {"meta": {"x": 2**70}},
        {"meta": float("nan")}, {"sent_at": "yesterday"}, {"sent_at": -1}, {"sent_at": 1e300}, {"eta": "soon"},
        {"eta": 5}, {"retry_of": 5}, {"periodic_task_name": "\ud800"}, {"delivery_info": {"priority": 2**70}},
        {"delivery_info": 5}, {"properties": 5}, {"retries": "many"}, {"meta": {"deep": {}}},
    ],
    # Without addresses of objects: every process has to collect the same names.
    ids=lambda fields: re.sub(r" at 0x[0-9a-f]+", "", ascii(fields))[:40],
)  # fmt: skip
def test_nothing_in_a_request_makes_a_store_fail(app_with: Callable[..., Celery], fields: dict[str, Any]) -> None:
    """Whatever a message holds where these fields come from, the result is stored."""
    app = make(app_with, result_extended=False)
    app.backend.store_result("a", 1, states.SUCCESS, request=request("a", **fields))
    assert app.AsyncResult("a").get(timeout=TIMEOUT) == 1


def test_a_sender_whose_clock_is_ahead(app_with: Callable[..., Celery]) -> None:
    """Where the clocks of sender and worker differ, queue_time is not negative, and the record says why."""
    app = make(app_with)
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=1), tick=True):
        result = app.tasks["nap"].delay()
    with worker(app):
        result.get(timeout=TIMEOUT)
    task = record(app, result.id)
    assert task["queue_time"] == 0
    assert task["clock_skew"] == pytest.approx(3600, abs=TIMEOUT)
    with Results(app) as results:
        for found in (results.get(task["task_id"]), results.find().tasks[0]):
            assert (found.clock_skew, found.queue_time) == (task["clock_skew"], 0)
