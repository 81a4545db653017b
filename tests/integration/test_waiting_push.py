"""Results pushed by a LIVE query, where the server has them."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, states
from celery.app.task import Context
from kombu.utils.uuid import uuid

from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.results import dispatcher, live_cover
from surrealdb_celery_backend.results.addresses import process_address
from tests.support.waits import (
    BACKEND,
    NEVER,
    Side,
    awaited,
    finds_nothing,
    in_background,
    live_queries,
    names,
    our_threads,
    until,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def sides(live_engine: Any, fresh_database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Side, Side]]:
    """Who waits and who works, where LIVE queries notify; one that was opened stays, however long the test pauses."""
    monkeypatch.setattr(dispatcher, "LINGER", NEVER)
    others = our_threads()
    waiting, working = Side(fresh_database.settings), Side(fresh_database.settings, surrealdb_live="off")
    yield waiting, working
    waiting.backend.close()
    working.backend.close()
    until(lambda: not our_threads() - others, "the threads ended")


def test_a_result_is_pushed(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """get() returns through the LIVE query alone: looks find nothing."""
    waiting, working = sides
    result, request, value = awaited(waiting)
    finds_nothing(monkeypatch, waiting)
    working.backend.store_result(result.id, {"pushed": True}, states.SUCCESS, request=request)
    assert value() == {"pushed": True}


@pytest.mark.parametrize("how", ["id of another's", "UUID object", "replaced in a worker", "reply_to of the user's"])
def test_whoever_sent_the_task_its_result_is_pushed(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A task of another process, by id; one whose record has another address than this process's."""
    waiting, working = sides
    ids = {"id of another's": uuid(), "UUID object": uuid4()}
    result = waiting.app.AsyncResult(ids[how]) if how in ids else waiting.sends()
    value = in_background(lambda: result.get(timeout=60))
    until(lambda: names(waiting, str(result.id)), "the LIVE query names it")
    finds_nothing(monkeypatch, waiting)
    request = waiting.request_of(result, reply_to="elsewhere")
    working.backend.store_result(result.id, how, states.SUCCESS, request=request)
    assert value() == how


def test_results_come_by_the_address_of_the_process(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """The header of the message is enough, whichever thread sent the task, before the LIVE query names its id."""
    waiting, working = sides
    first, request, value = awaited(waiting)  # has the LIVE query ask for this process's address
    finds_nothing(monkeypatch, waiting)
    monkeypatch.setattr(live_cover.LiveCover, "may_replace", lambda *_: False)
    sent = in_background(waiting.sends)()
    value_of_sent = in_background(lambda: sent.get(timeout=60))
    until(lambda: sent.id in waiting.dispatcher, "waiting")
    request_of_sent = waiting.request_of(sent, reply_to="thread-of-another", header=True)
    working.backend.store_result(sent.id, 2, states.SUCCESS, request=request_of_sent)
    assert value_of_sent() == 2
    assert not names(waiting, sent.id)
    working.backend.store_result(first.id, 1, states.SUCCESS, request=request)
    assert value() == 1


def test_all_who_wait_for_a_task_are_told(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two result objects of one task wait, and a third is collected: both are told, on every Celery."""
    waiting, working = sides
    result, request, value = awaited(waiting)
    second = waiting.app.AsyncResult(result.id)
    second_value = in_background(lambda: second.get(timeout=60))
    third = waiting.app.AsyncResult(result.id)
    third.then(lambda _: None, weak=True)
    del third
    gc.collect()
    until(lambda: waiting.dispatcher.waits_for(result.id) == 2, "both wait")
    finds_nothing(monkeypatch, waiting)
    working.backend.store_result(result.id, "told", states.SUCCESS, request=request)
    assert (value(), second_value()) == ("told", "told")


def test_a_result_stored_before_the_subscription_is_found(sides: tuple[Side, Side]) -> None:
    """What was written in the gap between sending and subscribing is read."""
    waiting, working = sides
    result = waiting.sends()
    working.backend.store_result(result.id, 7, states.SUCCESS, request=waiting.request_of(result))
    assert result.get(timeout=60) == 7


def test_a_failure_is_pushed_as_an_exception(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pushed failure raises what the task raised, as a fetched one does."""
    waiting, working = sides
    result, request, value = awaited(waiting)
    finds_nothing(monkeypatch, waiting)
    working.backend.mark_as_failure(result.id, KeyError("gone"), traceback="tb", request=request)
    with pytest.raises(KeyError, match="gone"):
        value()
    assert result.traceback == "tb"


def test_one_live_query_however_many_wait(sides: tuple[Side, Side]) -> None:
    """Twenty threads that wait for a hundred results make one LIVE query, and none that is left behind."""
    waiting, working = sides
    results = [waiting.sends() for _ in range(100)]
    request = waiting.request_of(results[0])
    values = [in_background(lambda chunk=results[n::20]: [one.get(timeout=60) for one in chunk]) for n in range(20)]
    until(lambda: waiting.dispatcher.standing, "subscribed")
    until(lambda: live_queries(working) == 1, "one LIVE query")
    for number, result in enumerate(results):
        working.backend.store_result(result.id, number, states.SUCCESS, request=request)
    assert [value() for value in values] == [list(range(n, 100, 20)) for n in range(20)]
    until(lambda: live_queries(working) == 1, "one LIVE query")


def test_backends_of_threads_share_a_live_query(fresh_database: Any, sides: tuple[Side, Side]) -> None:
    """Where the app is set to one backend instance per thread, there is still one LIVE query for the process."""
    _, working = sides
    app = Celery("threads", backend=BACKEND, broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings, result_backend_thread_safe=False)
    backends: set[Any] = set()
    results = [app.AsyncResult(uuid()) for _ in range(6)]

    def get(place: int) -> Any:
        backends.add(app.backend)
        return app.AsyncResult(results[place].id).get(timeout=60)

    values = [in_background(lambda place=place: get(place)) for place in range(6)]
    until(lambda: len(backends) == 6, "each thread has a backend")
    until(lambda: live_queries(working) == 1, "a LIVE query")
    serving = next(iter(backends)).result_consumer.dispatcher
    until(
        lambda: serving.standing and serving.standing.named("task_id").issuperset(one.id for one in results),
        "it names all",
    )
    # The query before it ends once the one that names more stands.
    until(lambda: live_queries(working) == 1, "the only LIVE query")
    for number, result in enumerate(results):
        working.backend.store_result(result.id, number, states.SUCCESS)
    assert [value() for value in values] == list(range(6))
    for backend in {*backends, app.backend}:
        backend.close()


def test_more_threads_send_than_a_query_has_addresses(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 short-lived threads send a task each: all results come, and LIVE is trusted still."""
    waiting, working = sides
    results: list[Any] = []

    def send() -> None:
        result = waiting.sends()
        results.append((result, waiting.request_of(result)))

    for _ in range(400):
        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
    group = waiting.app.ResultSet([result for result, _ in results])
    value = in_background(lambda: group.get(timeout=60))
    until(lambda: names(waiting, *(result.id for result, _ in results)), "the LIVE query names them")
    finds_nothing(monkeypatch, waiting)
    for number, (result, request) in enumerate(results):
        working.backend.store_result(result.id, number, states.SUCCESS, request=request)
    assert value() == list(range(400))
    assert waiting.dispatcher.live_is_trusted


def test_the_live_query_ends_when_nobody_waits(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """A while after the last get() the server has no LIVE query of ours and the threads are gone; a new get() opens one."""
    monkeypatch.setattr(dispatcher, "LINGER", 0.1)
    waiting, working = sides
    others = our_threads()
    for _ in range(2):
        result, request, value = awaited(waiting)
        working.backend.store_result(result.id, 1, states.SUCCESS, request=request)
        assert value() == 1
        until(lambda: waiting.dispatcher.standing is None, "unsubscribed")
        until(lambda: live_queries(working) == 0, "no LIVE query left")
        until(lambda: not our_threads() - others, "no thread left")


def test_a_get_that_timed_out_is_not_waited_for(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """The LIVE query ends, and the threads do, although the result object lives on."""
    monkeypatch.setattr(dispatcher, "LINGER", 0.1)
    waiting, working = sides
    others = our_threads()
    result = waiting.sends()
    with pytest.raises(result.TimeoutError):
        result.get(timeout=0.5)
    assert len(waiting.dispatcher) == 0
    until(lambda: live_queries(working) == 0, "no LIVE query left")
    until(lambda: not our_threads() - others, "no thread left")


def test_live_that_misses_results_is_not_relied_on(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where notifications do not come (a write on another node of a cluster), looks become early again."""
    waiting, working = sides

    def deaf(settings: Any, **more: Any) -> Connection:
        return Connection(settings, **{**more, "on_notification": lambda _: None})

    monkeypatch.setattr(dispatcher, "Connection", deaf)
    for number in range(3):
        result, request, value = awaited(waiting)
        # The look that follows a query found nothing: from now on LIVE has to bring it.
        until(lambda result=result: waiting.dispatcher.relies_on_live(result.id), "LIVE is relied on")
        assert waiting.dispatcher.live_is_trusted
        working.backend.store_result(result.id, number, states.SUCCESS, request=request)
        assert value() == number
    until(lambda: not waiting.dispatcher.live_is_trusted, "distrusted")
    result = waiting.sends()
    value = in_background(lambda: result.get(timeout=60))
    looks = waiting.backend.connection.request_count
    until(lambda: waiting.backend.connection.request_count >= looks + 3, "looked for early")
    working.backend.store_result(result.id, "polled", states.SUCCESS)
    assert value() == "polled"


def test_asking_twice_for_what_was_there_is_no_miss(sides: tuple[Side, Side]) -> None:
    """A result that is fetched again and again, by new result objects, says nothing against LIVE."""
    waiting, working = sides
    result, request, value = awaited(waiting)
    working.backend.store_result(result.id, 1, states.SUCCESS, request=request)
    assert value() == 1
    for _ in range(5):
        assert waiting.app.AsyncResult(result.id).get(timeout=60) == 1
    time.sleep(1.1)  # a notification's grace
    assert waiting.app.AsyncResult(result.id).get(timeout=60) == 1
    assert waiting.dispatcher.live_is_trusted


def test_progress_is_pushed(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """The states on the way come through the LIVE query too, each once, and a look tells none of them again."""
    waiting, working = sides
    result = waiting.sends()
    request = waiting.request_of(result)
    seen: list[Any] = []
    value = in_background(lambda: result.get(timeout=60, on_message=seen.append))
    until(lambda: names(waiting, result.id), "the LIVE query names it")
    until(lambda: waiting.dispatcher.relies_on_live(result.id), "nothing is to be found")
    for step in (1, 2, 3):
        working.backend.store_result(result.id, {"step": step}, "PROGRESS", request=request)
        until(lambda step=step: seen and seen[-1]["result"] == {"step": step}, f"step {step} seen")
        waiting.dispatcher.look_now()
    until(lambda: waiting.dispatcher.relies_on_live(result.id), "looked for")
    working.backend.store_result(result.id, "done", states.SUCCESS, request=request)
    assert value() == "done"
    assert [meta["status"] for meta in seen] == ["PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]


def test_wake_up_is_a_matter_of_milliseconds(sides: tuple[Side, Side]) -> None:
    """From the stored result to the get(): one's own tasks and those of other processes alike."""
    waiting, working = sides

    def wake_up(result: Any, request: Context) -> float:
        times = {}

        def store() -> None:
            until(lambda: names(waiting, result.id), "the LIVE query names it")
            times["stored"] = time.monotonic()
            working.backend.store_result(result.id, 1, states.SUCCESS, request=request)

        stored = in_background(store)
        result.get(timeout=60)
        got = time.monotonic()
        stored()
        return got - times["stored"]

    for make in (waiting.sends, lambda: waiting.app.AsyncResult(uuid())):
        taken = [wake_up(result, waiting.request_of(result)) for result in (make() for _ in range(15))]
        # A look would come after a second. The figures are in the benchmarks; a busy machine is allowed for here.
        assert statistics.median(taken) < 0.25


def test_a_forked_child_waits_for_itself(sides: tuple[Side, Side]) -> None:
    """A process forked while its parent waits (a pre-loading web server) has its own LIVE query and gets its result."""
    waiting, working = sides
    result, request, value = awaited(waiting)
    address = process_address()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child: never back into pytest
        status = 1
        try:
            assert len(waiting.dispatcher) == 0
            assert process_address() != address
            os.write(write, b"forked")
            status = 0 if waiting.sends("child").get(timeout=60) == "for the child" else 2
        finally:
            os._exit(status)
    os.close(write)  # a child that fails early then ends the reading
    assert os.read(read, 6) == b"forked"
    until(lambda: live_queries(working) == 2, "the child has a LIVE query of its own")
    working.backend.store_result("child", "for the child", states.SUCCESS, request=request)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    working.backend.store_result(result.id, 1, states.SUCCESS, request=request)
    assert value() == 1
    os.close(read)
