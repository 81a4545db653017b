"""Waiting for results: pushed by a LIVE query where there is one, polled in any case."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.exceptions import ImproperlyConfigured
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult, GroupResult, ResultSet
from kombu.utils.uuid import uuid

from surrealdb_celery_backend import consumer as consumer_module
from surrealdb_celery_backend.backend import SurrealDBBackend
from surrealdb_celery_backend.waiting import waiting_on
from tests.states import until as until_in_time

pytestmark = pytest.mark.integration

BACKEND = "surrealdb_celery_backend:SurrealDBBackend"
#: Longer than any test waits, in seconds.
NEVER = 3600.0
until = partial(until_in_time, patience=60.0)


class Side:
    """A process's view of the backend: here the one that waits, there the one that works."""

    def __init__(self, settings: dict[str, Any], **more: Any) -> None:
        self.app = Celery("push", backend=BACKEND, broker="memory://", set_as_current=False)
        self.app.conf.update(settings, **more)
        self.backend: SurrealDBBackend = self.app.backend

    @property
    def consumer(self) -> consumer_module.ResultConsumer:
        return self.backend.result_consumer

    def sends(self, task_id: str | None = None) -> AsyncResult:
        """What sending a task does to the backend."""
        task_id = task_id or uuid()
        self.backend.on_task_call(None, task_id)
        return self.app.AsyncResult(task_id)

    def request_of(self, result: AsyncResult, reply_to: str | None = None) -> Context:
        """The request that the worker has for a task that this side sent."""
        return Context({"id": result.id, "reply_to": reply_to or self.app.thread_oid, "delivery_info": {}})


@pytest.fixture
def sides(fresh_database: Any) -> Iterator[tuple[Side, Side]]:
    """Who waits and who works, on each engine."""
    others = set(threading.enumerate())
    waiting, working = Side(fresh_database.settings), Side(fresh_database.settings)
    yield waiting, working
    waiting.backend.close()
    working.backend.close()
    until(
        lambda: not any(t.name == "surrealdb-results" for t in threading.enumerate() if t not in others),
        "the push thread ended",
    )


@pytest.fixture
def live_sides(live_engine: Any, sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> tuple[Side, Side]:
    """The same, only where LIVE queries notify; one that was opened stays, however long the test pauses."""
    monkeypatch.setattr(consumer_module, "LINGER", NEVER)
    return sides


@pytest.fixture
def only_push(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch polling off, so that what arrives was pushed (or read right after subscribing)."""
    monkeypatch.setattr(consumer_module, "POLL_FIRST", NEVER)
    monkeypatch.setattr(consumer_module, "POLL_LAST", NEVER)
    monkeypatch.setattr(consumer_module, "POLL_PUSHED_FIRST", NEVER)
    monkeypatch.setattr(consumer_module, "POLL_PUSHED_LAST", NEVER)


def in_background(function: Callable[[], Any]) -> Callable[[], Any]:
    """Run a function in a thread; the returned one waits for its value."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = function()
        except BaseException as exc:  # it is raised again below
            outcome["error"] = exc

    thread = threading.Thread(target=run)
    thread.start()

    def value() -> Any:
        thread.join(90)
        assert not thread.is_alive(), "still waiting"
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    return value


def subscribed(side: Side) -> bool:
    """Whether the LIVE query stands."""
    push = side.consumer._push
    return push is not None and push.subscribed


def only_listens(side: Side) -> bool:
    """Whether the LIVE query stands and the look that follows it is over: with polling off, there is no other."""
    push = side.consumer._push
    # It listens after it has asked for that look, and whoever waits plans the next one, for never, after that.
    if push is None or not push.subscribed or not push._line._reading:
        return False
    with side.consumer._condition:
        due = [when for when, _ in side.consumer._schedule]
    return bool(due) and min(due) > time.monotonic() + NEVER / 2


def live_queries(side: Side) -> int:
    """How many LIVE queries the server has on the task table."""
    information = side.backend.connection.run("INFO FOR TABLE task")
    return len(information["lives"])


def awaited(waiting: Side) -> tuple[AsyncResult, Any, Callable[[], Any]]:
    """A task that was sent, its request, and what get() gives in a thread that waits by a LIVE query."""
    result = waiting.sends()
    request = waiting.request_of(result)
    value = in_background(lambda: result.get(timeout=60))
    until(lambda: subscribed(waiting), "subscribed")
    return result, request, value


def test_a_result_is_pushed(live_sides: tuple[Side, Side], only_push: None) -> None:
    """get() returns through the LIVE query alone: polling is switched off and would come in an hour."""
    waiting, working = live_sides
    result, request, value = awaited(waiting)
    until(lambda: only_listens(waiting), "nothing is looked for any more")
    working.backend.store_result(result.id, {"pushed": True}, states.SUCCESS, request=request)
    assert value() == {"pushed": True}


def test_all_who_wait_for_a_task_are_told(live_sides: tuple[Side, Side], only_push: None) -> None:
    """Two result objects of one task wait, and a third is collected: both are told, on every Celery."""
    waiting, working = live_sides
    result, request, value = awaited(waiting)
    second = waiting.app.AsyncResult(result.id)
    second_value = in_background(lambda: second.get(timeout=60))
    third = waiting.app.AsyncResult(result.id)
    third.then(lambda _: None, weak=True)
    until(lambda: len(waiting_on(waiting.backend._pending_results, result.id)) == 3, "all three wait")
    del third
    gc.collect()
    working.backend.store_result(result.id, "told", states.SUCCESS, request=request)
    assert (value(), second_value()) == ("told", "told")


def test_a_result_stored_before_the_subscription_is_found(live_sides: tuple[Side, Side], only_push: None) -> None:
    """What was written in the gap between sending and subscribing is read after subscribing."""
    waiting, working = live_sides
    result = waiting.sends()
    working.backend.store_result(result.id, 7, states.SUCCESS, request=waiting.request_of(result))
    assert result.get(timeout=60) == 7


def test_a_failure_is_pushed_as_an_exception(live_sides: tuple[Side, Side], only_push: None) -> None:
    """A pushed failure raises what the task raised, as a fetched one does."""
    waiting, working = live_sides
    result, request, value = awaited(waiting)
    until(lambda: only_listens(waiting), "nothing is looked for any more")
    working.backend.mark_as_failure(result.id, KeyError("gone"), traceback="tb", request=request)
    with pytest.raises(KeyError, match="gone"):
        value()
    assert result.traceback == "tb"


def test_one_live_query_however_many_wait(live_sides: tuple[Side, Side]) -> None:
    """Twenty threads that wait for a hundred results make one LIVE query, and none that is left behind."""
    waiting, working = live_sides
    results = [waiting.sends() for _ in range(100)]
    request = waiting.request_of(results[0])
    values = [in_background(lambda chunk=results[n::20]: [one.get(timeout=60) for one in chunk]) for n in range(20)]
    until(lambda: subscribed(waiting), "subscribed")
    until(lambda: live_queries(working) == 1, "one LIVE query")
    for number, result in enumerate(results):
        working.backend.store_result(result.id, number, states.SUCCESS, request=request)
    assert [value() for value in values] == [list(range(n, 100, 20)) for n in range(20)]
    assert live_queries(working) == 1


def test_a_thread_that_sends_later_is_asked_for_too(live_sides: tuple[Side, Side], only_push: None) -> None:
    """The address of a thread that sends its first task while others wait joins the LIVE query."""
    waiting, working = live_sides
    first = waiting.sends()
    first_request = waiting.request_of(first)
    value = in_background(lambda: first.get(timeout=60))
    until(lambda: subscribed(waiting), "subscribed")

    def sends_and_waits() -> Any:
        later = waiting.sends("later")
        assert waiting.app.thread_oid != first_request.reply_to
        addresses.append(waiting.app.thread_oid)
        return later.get(timeout=60)

    addresses: list[str] = []
    later_value = in_background(sends_and_waits)
    until(lambda: addresses, "the other thread sent")
    until(lambda: addresses[0] in waiting.consumer._push._asked_for, "asked for the other thread")
    working.backend.store_result("later", 2, states.SUCCESS, request=Context({"id": "later", "reply_to": addresses[0]}))
    assert later_value() == 2
    working.backend.store_result(first.id, 1, states.SUCCESS, request=first_request)
    assert value() == 1
    until(lambda: live_queries(working) == 1, "the narrower LIVE query ended")


def test_the_live_query_ends_when_nobody_waits(live_sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """A while after the last get() the server has no LIVE query of ours and the thread is gone; a new get() opens one."""
    monkeypatch.setattr(consumer_module, "LINGER", 0.1)
    waiting, working = live_sides
    for _ in range(2):
        result = waiting.sends()
        request = waiting.request_of(result)
        value = in_background(lambda result=result: result.get(timeout=60))
        until(lambda: subscribed(waiting), "subscribed")
        working.backend.store_result(result.id, 1, states.SUCCESS, request=request)
        assert value() == 1
        until(lambda: not subscribed(waiting), "unsubscribed")
        until(lambda: live_queries(working) == 0, "no LIVE query left")


def test_a_lost_live_query_is_replaced(live_sides: tuple[Side, Side]) -> None:
    """The push connection breaks while somebody waits: the result comes, and LIVE is asked for again."""
    waiting, working = live_sides
    result, other = waiting.sends(), waiting.sends()
    request = waiting.request_of(result)
    value = in_background(lambda: (result.get(timeout=60), other.get(timeout=60)))
    until(lambda: subscribed(waiting), "subscribed")
    push = waiting.consumer._push
    before = push._line
    before.close()
    working.backend.store_result(result.id, 1, states.SUCCESS, request=request)
    until(lambda: push.subscribed and push._line is not before, "subscribed again")
    working.backend.store_result(other.id, 2, states.SUCCESS, request=request)
    assert value() == (1, 2)


def test_results_are_polled_where_there_is_no_live(sides: tuple[Side, Side]) -> None:
    """On every engine, with LIVE off, get() returns what another process stores."""
    waiting, working = sides
    object.__setattr__(waiting.backend.settings, "live", "off")
    result = waiting.sends()
    value = in_background(lambda: result.get(timeout=60))
    until(lambda: result.id in waiting.consumer._waited_for, "waiting")
    working.backend.store_result(result.id, 3, states.SUCCESS)
    assert value() == 3
    assert waiting.consumer._push is None


def test_a_task_sent_elsewhere_is_found(sides: tuple[Side, Side]) -> None:
    """A web process that knows only the id gets the result although no notification is for it."""
    waiting, working = sides
    result = waiting.app.AsyncResult("sent-elsewhere")
    value = in_background(lambda: result.get(timeout=60))
    until(lambda: result.id in waiting.consumer._waited_for, "waiting")
    working.backend.store_result(result.id, "found", states.SUCCESS)
    assert value() == "found"


def test_one_look_is_one_round_trip_for_all(sides: tuple[Side, Side]) -> None:
    """However many results are waited for, looking for them is one request, and join() of 500 is one too."""
    waiting, working = sides
    object.__setattr__(waiting.backend.settings, "live", "off")
    ids = [f"many-{n}" for n in range(500)]
    for task_id in ids:
        working.backend.store_result(task_id, task_id, states.SUCCESS)
    waiting.backend.connection.run("RETURN 1")
    before = waiting.backend.connection.request_count
    results = ResultSet([waiting.app.AsyncResult(task_id) for task_id in ids], app=waiting.app)
    assert results.join_native(timeout=60) == ids
    assert waiting.backend.connection.request_count - before == 1
    before = waiting.backend.connection.request_count
    waiting.consumer.on_wait_for_pending(ResultSet([waiting.app.AsyncResult(f"no-{n}") for n in range(300)]))
    assert waiting.backend.connection.request_count - before == 1


def test_polling_grows_rarer(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause between two looks grows with the time waited, up to Celery's own half second."""
    waiting, _ = sides
    consumer = waiting.consumer
    consumer.consume_from("slow")
    now = time.monotonic()
    monkeypatch.setattr(consumer_module, "time", SimpleNamespace(monotonic=lambda: now))
    for waited, pause in ((0.0, 0.01), (1.0, 0.1), (100.0, 0.5)):
        consumer._schedule.clear()
        consumer._waited_for["slow"] = now - waited
        consumer._plan(["slow"])
        assert consumer._schedule[0][0] - now == pytest.approx(pause)


def test_live_that_misses_results_is_not_relied_on(
    live_sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where notifications do not come (a write on another node of a cluster), polling becomes early again."""
    monkeypatch.setattr(consumer_module, "POLL_PUSHED_FIRST", 0.05)
    waiting, working = live_sides
    # From here on the LIVE query stands: each look is one that it should have spared.
    first, request, value = awaited(waiting)
    working.backend.store_result(first.id, 0, states.SUCCESS, request=request)
    assert value() == 0
    waiting.consumer._missed = 0  # that one may have come either way
    for missed in (1, 2, 3):
        result = waiting.sends()
        value = in_background(lambda result=result: result.get(timeout=60))
        # Past get()'s own first look, which counts for nothing.
        until(lambda: waiting.consumer._draining, "waiting")
        assert waiting.consumer.live_is_reliable
        # Nobody's address: like a write that this node does not hear of.
        working.backend.store_result(result.id, missed, states.SUCCESS, request=waiting.request_of(result, "elsewhere"))
        assert value() == missed
        assert waiting.consumer._missed == missed
    assert not waiting.consumer.live_is_reliable


def test_timeout_ends_a_get(sides: tuple[Side, Side]) -> None:
    """get() of what never comes ends with Celery's TimeoutError, at once with timeout=0."""
    waiting, _ = sides
    for timeout in (0, 0.2):
        with pytest.raises(ResultTimeout):
            waiting.sends().get(timeout=timeout)


def test_progress_reaches_on_message(sides: tuple[Side, Side]) -> None:
    """get(on_message=…) sees the states on the way, each once however often it is looked for, and the result last."""
    waiting, working = sides
    object.__setattr__(waiting.backend.settings, "live", "off")
    connection = waiting.backend.connection
    result = waiting.sends()
    request = waiting.request_of(result)
    seen: list[Any] = []
    value = in_background(lambda: result.get(timeout=60, on_message=seen.append))
    until(lambda: waiting.consumer.on_message is not None, "waiting")
    for step in (1, 2, 3):
        working.backend.store_result(result.id, {"step": step}, "PROGRESS", request=request)
        until(lambda step=step: seen and seen[-1]["result"] == {"step": step}, f"step {step} seen")
        looks = connection.request_count
        until(lambda looks=looks: connection.request_count >= looks + 2, f"step {step} looked at again")
    working.backend.store_result(result.id, "done", states.SUCCESS, request=request)
    assert value() == "done"
    assert [meta["status"] for meta in seen] == ["PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]


def test_progress_is_pushed(live_sides: tuple[Side, Side], only_push: None) -> None:
    """The states on the way come through the LIVE query too, and a look finds nothing new in what was pushed."""
    waiting, working = live_sides
    result = waiting.sends()
    request = waiting.request_of(result)
    seen: list[Any] = []
    value = in_background(lambda: result.get(timeout=60, on_message=seen.append))
    until(lambda: only_listens(waiting), "nothing is looked for any more")
    for step in (1, 2, 3):
        working.backend.store_result(result.id, {"step": step}, "PROGRESS", request=request)
        until(lambda step=step: seen and seen[-1]["result"] == {"step": step}, f"step {step} seen")
        assert not waiting.consumer._look_for([result.id])
    working.backend.store_result(result.id, "done", states.SUCCESS, request=request)
    assert value() == "done"
    assert [meta["status"] for meta in seen] == ["PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]


def test_group_results_arrive_as_they_come(sides: tuple[Side, Side]) -> None:
    """iter_native, join_native, collect and then() all work on results that arrive while waiting."""
    waiting, working = sides
    results = [waiting.sends() for _ in range(10)]
    request = waiting.request_of(results[0])
    group = GroupResult(uuid(), results, app=waiting.app)
    called: list[Any] = []
    results[3].then(lambda one: called.append(one.result))
    arrived = in_background(lambda: dict(group.iter_native(timeout=60)))
    # The ten are waited for since then() and GroupResult were told of them; now by a thread too.
    until(lambda: waiting.consumer._draining, "waiting")
    for number, result in enumerate(results):
        working.backend.store_result(result.id, number, states.SUCCESS, request=request)
    assert {task_id: meta["result"] for task_id, meta in arrived().items()} == {
        result.id: number for number, result in enumerate(results)
    }
    assert group.join_native(timeout=60) == list(range(10))
    # A callback may come after the group is complete, from the thread that brings the results.
    until(lambda: called, "called back")
    assert called == [3]
    assert [value for _, value in results[0].collect()] == [0]


def test_a_group_is_whole_however_late_its_last_result_is_handed_over(
    live_sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that brings the last result stops right after it completed the group: iter_native() gives it too."""
    waiting, working = live_sides
    ended = threading.Event()
    set_cache = AsyncResult._maybe_set_cache

    def stops_afterwards(self: AsyncResult, meta: Any) -> Any:
        value = set_cache(self, meta)
        if threading.current_thread().name == "surrealdb-results":
            ended.wait(60)
        return value

    results = [waiting.sends()]
    request = waiting.request_of(results[0])
    group = GroupResult(uuid(), results, app=waiting.app)
    arrived = in_background(lambda: [meta["result"] for _, meta in group.iter_native(timeout=60)])
    until(lambda: subscribed(waiting), "subscribed")
    monkeypatch.setattr(AsyncResult, "_maybe_set_cache", stops_afterwards)
    try:
        working.backend.store_result(results[0].id, "last", states.SUCCESS, request=request)
        assert arrived() == ["last"]
    finally:
        ended.set()


def test_a_result_that_comes_while_it_is_asked_for(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives between the look at what is there and the note of whom to give it to: it is given at once."""
    waiting, working = sides
    results = [waiting.sends() for _ in range(2)]
    collect_into = waiting.backend._collect_into

    def comes(result: AsyncResult, bucket: Any) -> None:
        if result is results[0]:
            working.backend.store_result(result.id, "early", states.SUCCESS)
            waiting.consumer._look_for([result.id])
        collect_into(result, bucket)

    monkeypatch.setattr(waiting.backend, "_collect_into", comes)
    group = GroupResult(uuid(), results, app=waiting.app)
    arriving = group.iter_native(timeout=60)
    first = in_background(lambda: next(arriving)[1]["result"])
    until(lambda: waiting.consumer._draining, "waiting")
    working.backend.store_result(results[1].id, "late", states.SUCCESS)
    assert first() == "early"
    assert [meta["result"] for _, meta in arriving] == ["late"]


def test_states_are_told_in_order(sides: tuple[Side, Side]) -> None:
    """What a look fetched is not told after what was pushed since, nor before what is on its way."""
    consumer = sides[0].consumer
    told: list[Any] = []
    consumer.on_message = lambda meta: told.append(meta["result"])

    def hand_out(step: int, **how: Any) -> bool:
        return consumer._hand_out({"task_id": "id", "status": "PROGRESS", "result": step}, **how)

    began = time.monotonic()
    consumer._waited_for["id"] = began
    assert hand_out(2)
    assert not hand_out(1, as_of=began), "older"
    assert not hand_out(2, as_of=time.monotonic()), "told already"
    assert not hand_out(3, as_of=time.monotonic(), expected=True), "LIVE brings it"
    assert hand_out(3, as_of=time.monotonic(), expected=True), "LIVE did not"
    assert not hand_out(3), "LIVE was late"
    assert hand_out(4)
    assert not hand_out(3, as_of=began, expected=True)
    assert told == [2, 3, 4]
    consumer.cancel_for("id")
    assert not hand_out(5)
    assert not consumer._seen
    assert not consumer._unheard


def test_a_callback_that_raises_does_not_lose_the_result(sides: tuple[Side, Side]) -> None:
    """Who waits is told later, when on_message raised before they were."""
    waiting, working = sides
    result = waiting.sends()
    waiting.backend.add_pending_result(result)
    working.backend.store_result(result.id, 1, states.SUCCESS)

    def raises(meta: Any) -> None:
        raise ZeroDivisionError

    waiting.consumer.on_message = raises
    with pytest.raises(ZeroDivisionError):
        waiting.consumer._look_for([result.id])
    waiting.consumer.on_message = None
    assert result.get(timeout=60) == 1


def test_nothing_is_left_behind(sides: tuple[Side, Side]) -> None:
    """After 200 results came, and 50 were given up, no result, id or message is kept."""
    waiting, working = sides
    for number in range(200):
        result = waiting.sends()
        working.backend.store_result(result.id, number, states.SUCCESS, request=waiting.request_of(result))
        assert result.get(timeout=60) == number
    for _ in range(50):
        result = waiting.sends()
        with pytest.raises(ResultTimeout):
            result.get(timeout=0)
        result.forget()
        waiting.backend.remove_pending_result(result)
        del result
    consumer, backend = waiting.consumer, waiting.backend
    # The push thread may still be at a notification whose result was looked up meanwhile.
    until(lambda: not consumer._waited_for, "no id is kept")
    until(lambda: not consumer._seen, "no state is kept")
    until(lambda: not any(backend._pending_results), "no result is kept")
    until(lambda: not len(backend._pending_messages), "no message is kept")


def test_giving_up_a_result_never_blocks(sides: tuple[Side, Side]) -> None:
    """cancel_for, which AsyncResult.__del__ calls, returns while another thread holds every lock there is."""
    waiting, _ = sides
    waiting.consumer.consume_from("held")
    with waiting.consumer._condition:
        in_background(lambda: waiting.consumer.cancel_for("held"))()
    assert "held" not in waiting.consumer._waited_for


def test_live_on_says_where_it_cannot_be(fresh_database: Any) -> None:
    """surrealdb_live='on' over HTTP is an error that names the setting, when somebody waits."""
    settings = fresh_database.settings | {"surrealdb_url": fresh_database.engine.http_url, "surrealdb_live": "on"}
    side = Side(settings)
    with pytest.raises(ImproperlyConfigured, match="surrealdb_live"):
        side.sends().get(timeout=1)
    side.backend.close()


def test_over_http_results_are_polled(fresh_database: Any) -> None:
    """The whole cycle works over HTTP, without push."""
    settings = fresh_database.settings | {"surrealdb_url": fresh_database.engine.http_url}
    waiting, working = Side(settings), Side(settings)
    result = waiting.sends()
    value = in_background(lambda: result.get(timeout=60))
    until(lambda: result.id in waiting.consumer._waited_for, "waiting")
    working.backend.store_result(result.id, [1, 2], states.SUCCESS)
    assert value() == [1, 2]
    waiting.backend.close()
    working.backend.close()


def test_a_forked_child_waits_for_itself(live_sides: tuple[Side, Side]) -> None:
    """A process forked while its parent waits (a pre-loading web server) has its own LIVE query and gets its result."""
    waiting, working = live_sides
    result, request, value = awaited(waiting)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child: never back into pytest
        status = 1
        try:
            assert not waiting.consumer._waited_for
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
