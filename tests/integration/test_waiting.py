"""Waiting for results: each wait has its own mailbox, thread and callbacks, and leaves nothing behind.

On each engine, with LIVE queries where it has them and without.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, group, states
from celery.exceptions import ImproperlyConfigured
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import GroupResult, ResultSet
from kombu.utils.uuid import uuid

from tests.support.waits import Side, in_background, is_waited_for, until

pytestmark = pytest.mark.integration


# -- several threads ---------------------------------------------------------------------------------


FRESH_PROCESS = """
import sys, threading, time
from celery import Celery
from kombu.exceptions import ContentDisallowed
from kombu.utils.uuid import uuid
app = Celery("web", broker="memory://", backend=sys.argv[1])
app.conf.surrealdb_live = sys.argv[2]
ids, go, out = sys.argv[3:], threading.Barrier(8), []
def request(n):
    go.wait()
    group = app.GroupResult(uuid(), [app.AsyncResult(ids[n]), app.AsyncResult(ids[n + 8])])
    time.sleep(0.05)
    out.append(group.get(timeout=60) == [ids[n], ids[n + 8]])
threads = [threading.Thread(target=request, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(out.count(True))
"""


@pytest.mark.parametrize("live", ["auto", "off"])
def test_threads_of_a_fresh_process(fresh_database: Any, live: str) -> None:
    """Of eight threads that use a new process's backend first, at once, each gets its group.

    Celery makes a backend instance for each of them, and the app's is the last one.
    """
    working = Side(fresh_database.settings)
    ids = [uuid() for _ in range(16)]
    for task_id in ids:
        working.backend.store_result(task_id, task_id, states.SUCCESS)
    program = [sys.executable, "-c", FRESH_PROCESS, fresh_database.backend_url, live, *ids]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout.strip(), done.returncode) == ("8", 0), done.stderr
    working.backend.close()


def test_each_wait_has_its_own_on_message(sides: tuple[Side, Side]) -> None:
    """Of two threads each hears of its own task, of all its states, in its thread; nothing of it stays."""
    waiting, working = sides
    heard: dict[str, list[Any]] = {"a": [], "b": []}

    def get(task_id: str) -> Any:
        def hear(meta: dict[str, Any]) -> None:
            heard[task_id].append((meta["task_id"], meta["status"], meta["result"], threading.get_ident()))

        return waiting.app.AsyncResult(task_id).get(timeout=60, on_message=hear), threading.get_ident()

    values = {task_id: in_background(lambda task_id=task_id: get(task_id)) for task_id in heard}
    is_waited_for(waiting, "a", "b")
    for task_id, told in heard.items():
        working.backend.store_result(task_id, {"step": task_id}, "PROGRESS")
        until(lambda told=told: told, "heard of the progress")
    for task_id in heard:
        working.backend.store_result(task_id, task_id.upper(), states.SUCCESS)
    for task_id, value in values.items():
        returned, thread = value()
        assert returned == task_id.upper()
        assert heard[task_id] == [
            (task_id, "PROGRESS", {"step": task_id}, thread),
            (task_id, states.SUCCESS, task_id.upper(), thread),
        ]
    working.backend.store_result("later", 1, states.SUCCESS)
    assert waiting.app.AsyncResult("later").get(timeout=60) == 1
    assert [len(each) for each in heard.values()] == [2, 2]


@pytest.mark.parametrize("same_object", [False, True])
def test_two_threads_wait_for_one_task(sides: tuple[Side, Side], same_object: bool) -> None:
    """Both get it, with one result object or two, and a callback of it runs once."""
    waiting, working = sides
    task_id = uuid()
    called: list[Any] = []
    results = [waiting.app.AsyncResult(task_id) for _ in range(2)]
    if same_object:
        results[1] = results[0]
    results[0].then(called.append)
    values = [in_background(lambda result=result: result.get(timeout=60)) for result in results]
    until(lambda: waiting.dispatcher.waits_for(task_id) == 2, "both wait")
    working.backend.store_result(task_id, 5, states.SUCCESS)
    assert [value() for value in values] == [5, 5]
    assert called == [results[0]]


# -- what stays --------------------------------------------------------------------------------------


def kept(side: Side) -> dict[str, int]:
    """How much is kept of waits, tasks that were sent, and callbacks."""
    dispatcher, backend = side.dispatcher, side.backend
    return {
        "waited for": len(dispatcher),
        "sent": len(dispatcher.sent),
        "callbacks": len(dispatcher.promises),
        "pending": sum(len(each) for each in backend._pending_results),
        "buffered": len(backend._pending_messages),
        "objects": dispatcher.planned,
    }


def sends_groups(side: Side) -> Any:
    """A task of an app whose messages go nowhere."""
    app = side.app

    @app.task(name="waiting.nothing", shared=False)
    def nothing() -> None:
        """Never runs."""

    return nothing


@pytest.mark.parametrize("how", ["sent", "chords", "made of ids", "waited for in vain", "asked whether it is ready"])
def test_groups_nobody_waits_for_leave_nothing_behind(sides: tuple[Side, Side], how: str) -> None:
    """Groups of 6,000 members altogether, sent or restored, and collected: nothing of them is kept."""
    waiting, _ = sides
    nothing = sends_groups(waiting)
    for _ in range(6):
        if how == "chords":
            group(nothing.s() for _ in range(500)).apply_async()
            (group(nothing.s() for _ in range(10)) | nothing.si()).apply_async()
        elif how == "sent":
            group(nothing.s() for _ in range(1000)).apply_async()
        else:
            members = GroupResult(uuid(), [waiting.app.AsyncResult(uuid()) for _ in range(1000)], app=waiting.app)
            if how == "waited for in vain":
                with pytest.raises(ResultTimeout):
                    members.get(timeout=0)
            elif how == "asked whether it is ready":
                assert not members.ready()
            del members
    gc.collect()
    assert kept(waiting) == dict.fromkeys(kept(waiting), 0)


def test_a_get_that_timed_out_leaves_nothing_behind(sides: tuple[Side, Side]) -> None:
    """Nothing is looked for afterwards, although the result objects live on: the next get() asks for its own only."""
    waiting, working = sides
    given_up = [waiting.app.AsyncResult(uuid()) for _ in range(300)]
    for result in given_up:
        with pytest.raises(ResultTimeout):
            result.get(timeout=0)
    with pytest.raises(ResultTimeout):
        ResultSet(given_up, app=waiting.app).get(timeout=0)
    assert kept(waiting) == dict.fromkeys(kept(waiting), 0)
    asked: list[Any] = []
    fetch = waiting.backend.fetch_records

    def note(task_ids: Any, **how: Any) -> Any:
        task_ids = list(task_ids)
        asked.extend(task_ids)
        return fetch(task_ids, **how)

    waiting.backend.fetch_records = note  # type: ignore[method-assign]
    result = waiting.app.AsyncResult(uuid())
    value = in_background(lambda: result.get(timeout=60))
    until(lambda: len(asked) >= 2, "looked for")
    working.backend.store_result(result.id, 1, states.SUCCESS)
    assert value() == 1
    assert set(asked) == {result.id}
    assert len(given_up) == 300


def test_another_wait_for_the_same_task_goes_on(sides: tuple[Side, Side]) -> None:
    """A get() that timed out ends its own wait only."""
    waiting, working = sides
    task_id = uuid()
    patient = in_background(lambda: waiting.app.AsyncResult(task_id).get(timeout=60))
    is_waited_for(waiting, task_id)
    for _ in range(3):
        with pytest.raises(ResultTimeout):
            waiting.app.AsyncResult(task_id).get(timeout=0.02)
    waiting.app.AsyncResult(uuid()).forget()
    gc.collect()
    working.backend.store_result(task_id, "there", states.SUCCESS)
    assert patient() == "there"


def test_nothing_is_left_behind(sides: tuple[Side, Side]) -> None:
    """After 200 results came, 50 were given up, and callbacks ran, no id, result, message or state is kept."""
    waiting, working = sides
    for number in range(200):
        result = waiting.sends()
        result.then(lambda _: None)
        working.backend.store_result(result.id, number, states.SUCCESS, request=waiting.request_of(result))
        assert result.get(timeout=60, on_message=lambda _: None) == number
    for _ in range(50):
        with pytest.raises(ResultTimeout):
            waiting.sends().get(timeout=0)
    del result
    gc.collect()
    assert kept(waiting) == dict.fromkeys(kept(waiting), 0)


# -- ids, timeouts, rounds ---------------------------------------------------------------------------


def test_ids_of_any_type(sides: tuple[Side, Side]) -> None:
    """UUID objects as ids, alone and in groups."""
    waiting, working = sides
    ids = [uuid4() for _ in range(3)]
    single = in_background(lambda: waiting.app.AsyncResult(ids[0]).get(timeout=60))
    members = GroupResult(uuid(), [waiting.app.AsyncResult(each) for each in ids], app=waiting.app)
    several = in_background(lambda: members.get(timeout=60))
    is_waited_for(waiting, *map(str, ids))
    for number, task_id in enumerate(ids):
        working.backend.store_result(task_id, number, states.SUCCESS)
    assert (single(), several()) == (0, [0, 1, 2])


def test_timeout_ends_a_get(sides: tuple[Side, Side]) -> None:
    """get() of what never comes ends with Celery's TimeoutError, at once with timeout=0, without a cause."""
    waiting, _ = sides
    for timeout in (0, 0.2):
        with pytest.raises(ResultTimeout) as raised:
            waiting.sends().get(timeout=timeout)
        assert raised.value.__cause__ is None


#: Ways to wait.
WAITS: dict[str, Callable[[Celery, str, Any], Any]] = {
    "get": lambda app, task_id, timeout: app.AsyncResult(task_id).get(timeout=timeout),
    "group": lambda app, task_id, timeout: _group(app, task_id).get(timeout=timeout),
    "join_native": lambda app, task_id, timeout: _group(app, task_id).join_native(timeout=timeout),
    "iter_native": lambda app, task_id, timeout: list(_group(app, task_id).iter_native(timeout=timeout)),
    "get_many": lambda app, task_id, timeout: list(app.backend.get_many([task_id], timeout=timeout)),
}


def _group(app: Celery, task_id: str) -> GroupResult:
    return GroupResult(uuid(), [app.AsyncResult(task_id)], app=app)


@pytest.mark.parametrize("wait", WAITS)
def test_a_timeout_that_is_no_number(sides: tuple[Side, Side], wait: str) -> None:
    """NaN, with which a wait would never end, and text are refused by name; other kinds of numbers are seconds."""
    waiting, working = sides
    task_id = uuid()
    working.backend.store_result(task_id, 1, states.SUCCESS)
    ask = WAITS[wait]
    # The result is there: a wait that took the timeout would end.
    for nan in (float("nan"), Decimal("nan")):
        with pytest.raises(ValueError, match=r"^timeout must be a number of seconds, or None .*, not .*(nan|NaN)"):
            ask(waiting.app, task_id, nan)
    with pytest.raises(
        TypeError, match=r"^timeout must be a number of seconds, .* not '5': convert text with float\(\)"
    ):
        ask(waiting.app, task_id, "5")
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, .* not datetime.timedelta"):
        ask(waiting.app, task_id, timedelta(seconds=5))
    numbers: tuple[Any, ...] = (60, 60.0, Decimal(60), float("inf"), None)
    for number in numbers:
        assert ask(waiting.app, task_id, number)
    missing = uuid()
    for past in (-1, -0.5, float("-inf")):
        with pytest.raises(ResultTimeout):
            ask(waiting.app, missing, past)


def test_join_with_a_timeout_of_nan(sides: tuple[Side, Side]) -> None:
    """Celery's own join(), which computes with its timeout first, does not wait for ever either."""
    waiting, working = sides
    task_id = uuid()
    working.backend.store_result(task_id, 1, states.SUCCESS)
    with pytest.raises(ValueError, match=r"^timeout must be a number of seconds"):
        _group(waiting.app, task_id).join(timeout=float("nan"))
    assert _group(waiting.app, task_id).join(timeout=60) == [1]


def test_a_timeout_of_drain_events_that_is_no_number(sides: tuple[Side, Side]) -> None:
    """What Celery's greenlet calls takes no other timeouts than the waits do."""
    consumer = sides[0].backend.result_consumer
    with pytest.raises(ValueError, match=r"^timeout must be a number of seconds"):
        consumer.drain_events(timeout=float("nan"))
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds"):
        consumer.drain_events(timeout="5")
    with pytest.raises(TimeoutError):
        consumer.drain_events(timeout=-1)


def test_a_timeout_of_a_group_holds_for_groups_in_it(sides: tuple[Side, Side]) -> None:
    """Celery's own join waits for the members of a nested group without a timeout."""
    waiting, working = sides
    there, missing = waiting.app.AsyncResult(uuid()), waiting.app.AsyncResult(uuid())
    inner = GroupResult(uuid(), [missing], app=waiting.app)
    working.backend.store_result(there.id, 1, states.SUCCESS)
    began = time.monotonic()
    with pytest.raises(ResultTimeout):
        GroupResult(uuid(), [there, inner], app=waiting.app).get(timeout=0.3)
    assert time.monotonic() - began < 30


def test_results_are_found_by_looks_alone(fresh_database: Any) -> None:
    """On every engine, with LIVE off, get() returns what another process stores, and nothing is subscribed to."""
    waiting = Side(fresh_database.settings | {"surrealdb_live": "off"})
    working = Side(fresh_database.settings)
    result = waiting.sends()
    value = in_background(lambda: result.get(timeout=60))
    is_waited_for(waiting, result.id)
    working.backend.store_result(result.id, 3, states.SUCCESS)
    assert value() == 3
    assert waiting.dispatcher.standing is None
    waiting.backend.close()
    working.backend.close()


def test_one_look_is_one_round_trip_for_all(sides: tuple[Side, Side]) -> None:
    """However many results are waited for, looking for them is one request, and join() of 500 is one too."""
    waiting, working = sides
    ids = [f"many-{n}" for n in range(500)]
    for task_id in ids:
        working.backend.store_result(task_id, task_id, states.SUCCESS)
    waiting.backend.connection.run("RETURN 1")
    before = waiting.backend.connection.request_count
    results = ResultSet([waiting.app.AsyncResult(task_id) for task_id in ids], app=waiting.app)
    assert results.join_native(timeout=60) == ids
    assert waiting.backend.connection.request_count - before == 1
    # Thirty threads that each wait for ten share their looks.
    sets = [[waiting.app.AsyncResult(f"no-{n}-{m}") for m in range(10)] for n in range(30)]
    asked: list[int] = []
    fetch = waiting.backend.fetch_records

    def count(task_ids: Any, **how: Any) -> Any:
        task_ids = list(task_ids)
        asked.append(len(task_ids))
        return fetch(task_ids, **how)

    waiting.backend.fetch_records = count  # type: ignore[method-assign]
    values = [in_background(lambda each=each: ResultSet(each, app=waiting.app).get(timeout=60)) for each in sets]
    # Ten is what the first look of each asks for; how many are due together is the machine's to say.
    until(lambda: any(number > 10 for number in asked), "one look asked for several threads")
    waiting.backend.fetch_records = fetch  # type: ignore[method-assign]
    for each in sets:
        for result in each:
            working.backend.store_result(result.id, 0, states.SUCCESS)
    assert [value() for value in values] == [[0] * 10] * 30


def test_progress_reaches_on_message(sides: tuple[Side, Side]) -> None:
    """get(on_message=…) sees the states on the way, each once however often it is looked for, and the result last."""
    waiting, working = sides
    result = waiting.sends()
    request = waiting.request_of(result)
    seen: list[Any] = []
    value = in_background(lambda: result.get(timeout=60, on_message=seen.append))
    is_waited_for(waiting, result.id)
    for step in (1, 2, 3):
        working.backend.store_result(result.id, {"step": step}, "PROGRESS", request=request)
        until(lambda step=step: seen and seen[-1]["result"] == {"step": step}, f"step {step} seen")
        for _ in range(2):
            looks = waiting.backend.connection.request_count
            waiting.dispatcher.look_now()
            until(lambda looks=looks: waiting.backend.connection.request_count > looks, "looked at again")
    working.backend.store_result(result.id, "done", states.SUCCESS, request=request)
    assert value() == "done"
    assert [meta["status"] for meta in seen] == ["PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]


def test_group_results_arrive_as_they_come(sides: tuple[Side, Side]) -> None:
    """iter_native, join_native, collect and then() all work on results that arrive while waiting."""
    waiting, working = sides
    results = [waiting.sends() for _ in range(10)]
    requests = [waiting.request_of(result) for result in results]
    members = GroupResult(uuid(), results, app=waiting.app)
    called: list[Any] = []
    arrived: list[Any] = []

    def wait() -> Any:
        results[3].then(lambda one: called.append(one.result))
        members.then(lambda _: called.append("all"))
        for task_id, meta in members.iter_native(timeout=60):
            arrived.append((task_id, meta["result"]))

    value = in_background(wait)
    is_waited_for(waiting, *(result.id for result in results))
    for number, result in enumerate(results):
        working.backend.store_result(result.id, number, states.SUCCESS, request=requests[number])
        until(lambda number=number: len(arrived) > number, f"result {number} was yielded")
    value()
    assert arrived == [(result.id, number) for number, result in enumerate(results)]
    assert members.join_native(timeout=60) == list(range(10))
    assert called == [3, "all"]
    assert [value for _, value in results[0].collect()] == [0]


def test_an_iteration_that_is_abandoned_ends_its_wait(sides: tuple[Side, Side]) -> None:
    """Whoever takes the first result only leaves nothing behind."""
    waiting, working = sides
    results = [waiting.app.AsyncResult(uuid()) for _ in range(3)]
    working.backend.store_result(results[1].id, "first", states.SUCCESS)
    arriving = GroupResult(uuid(), results, app=waiting.app).iter_native(timeout=60)
    assert next(arriving)[1]["result"] == "first"
    assert len(waiting.dispatcher) == 2
    arriving.close()
    assert len(waiting.dispatcher) == 0


def test_a_result_that_is_fulfilled_elsewhere(fresh_database: Any) -> None:
    """Another thread reads it through the same object and forgets it before a look: the wait ends all the same."""
    waiting, working = Side(fresh_database.settings | {"surrealdb_live": "off"}), Side(fresh_database.settings)
    result, other = waiting.app.AsyncResult(uuid()), waiting.app.AsyncResult(uuid())
    fetch = waiting.backend.fetch_records

    def looks_come_late(task_ids: Any, **how: Any) -> Any:
        late = threading.current_thread().name == "surrealdb-waiting"
        return fetch([each for each in task_ids if not (late and each == result.id)], **how)

    waiting.backend.fetch_records = looks_come_late  # type: ignore[method-assign]
    value = in_background(lambda: GroupResult(uuid(), [result, other], app=waiting.app).get(timeout=60))
    is_waited_for(waiting, result.id, other.id)
    working.backend.store_result(result.id, 1, states.SUCCESS)
    assert result.ready()
    working.backend.forget(result.id)
    working.backend.store_result(other.id, 2, states.SUCCESS)
    assert value() == [1, 2]
    waiting.backend.close()
    working.backend.close()


def test_result_objects_are_collected_at_any_moment(sides: tuple[Side, Side]) -> None:
    """AsyncResult.__del__ may run inside any operation of a wait, in any thread: none waits for itself."""
    waiting, working = sides

    def littered(number: int) -> Any:
        for _ in range(30):
            litter = waiting.sends()
            litter.itself = litter  # only the collector ends it
            litter.then(lambda _: None)
            waiting.dispatcher.promises.discard(litter)
        task_id = f"littered-{number}"
        working.backend.store_result(task_id, number, states.SUCCESS)
        return waiting.app.AsyncResult(task_id).get(timeout=60)

    threshold = gc.get_threshold()
    gc.set_threshold(1, 2, 2)
    try:
        values = [in_background(lambda number=number: littered(number)) for number in range(8)]
        assert [value() for value in values] == list(range(8))
    finally:
        gc.set_threshold(*threshold)
    # A collection does nothing while another thread's is under way.
    until(lambda: gc.collect() >= 0 and len(waiting.dispatcher.sent) == 0, "all litter was collected")


def test_closing_a_backend_ends_its_waits(fresh_database: Any, sides: tuple[Side, Side]) -> None:
    """A get() in another thread raises at once; another backend of the same database waits on."""
    waiting, working = sides
    other = Side(fresh_database.settings | {"surrealdb_live": waiting.backend.settings.live})
    value = in_background(lambda: waiting.app.AsyncResult("a").get(timeout=60))
    other_value = in_background(lambda: other.app.AsyncResult("a").get(timeout=60))
    until(lambda: waiting.dispatcher.waits_for("a") == 2, "both wait")
    waiting.backend.close()
    with pytest.raises(Exception, match="closed"):
        value()
    working.backend.store_result("a", 1, states.SUCCESS)
    assert other_value() == 1
    other.backend.close()


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
    is_waited_for(waiting, result.id)
    working.backend.store_result(result.id, [1, 2], states.SUCCESS)
    assert value() == [1, 2]
    waiting.backend.close()
    working.backend.close()


def test_a_forked_child_waits_for_itself(sides: tuple[Side, Side]) -> None:
    """A process forked while its parent's threads wait gets its own results; the parent's waits go on."""
    waiting, working = sides
    result = waiting.app.AsyncResult(uuid())
    value = in_background(lambda: result.get(timeout=60))
    is_waited_for(waiting, result.id)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child: never back into pytest
        status = 1
        try:
            assert len(waiting.dispatcher) == 0
            os.write(write, b"forked")
            status = 0 if waiting.app.AsyncResult("child").get(timeout=60) == "for the child" else 2
        finally:
            os._exit(status)
    os.close(write)
    assert os.read(read, 6) == b"forked"
    working.backend.store_result("child", "for the child", states.SUCCESS)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    working.backend.store_result(result.id, 1, states.SUCCESS)
    assert value() == 1
    os.close(read)
