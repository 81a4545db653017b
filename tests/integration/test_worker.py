"""What real workers leave behind is equal on our backend and on Celery's Redis backend, for the same tasks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from celery import Celery, chain, chord, group, states
from celery.backends.base import Backend
from celery.exceptions import ChordError
from celery.result import AsyncResult, GroupResult

from tests.engines import RunningEngine
from tests.support.apps import contract_apps, tasks_worker
from tests.support.apps.contract_apps import described, group_seen, outcome, seen, since_celery_5_7
from tests.support.apps.tasks_contract import FAILURES, Outer, Refused
from tests.support.paths import CHECKOUT
from tests.support.states import until as until_in_time

pytestmark = [
    pytest.mark.integration,
    pytest.mark.redis,
    pytest.mark.timeout(400),
    # What Celery's Redis backend calls of redis-py is not ours to change.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

#: How long a task may take, in seconds: a limit for a hang, not a wait.
TIMEOUT = 90
until = partial(until_in_time, patience=TIMEOUT)


@contextlib.contextmanager
def worker_process(log: Path, backend: str, broker: str, queue: str, *options: str) -> Iterator[Path]:
    """A `celery worker` of its own, configured by the environment alone. Gives its log."""
    environment = {
        **os.environ,
        "CELERY_RESULT_BACKEND": backend,
        "CELERY_BROKER_URL": broker,
        "CONTRACT_QUEUE": queue,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "celery", "-A", tasks_worker.__name__, "worker", "-l", "INFO"]
    with log.open("w") as output:
        worker = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle", *options],
            env=environment,
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            until(
                lambda: " ready." in log.read_text(errors="replace") or worker.poll() is not None, "the worker is ready"
            )
            assert worker.poll() is None, log.read_text(errors="replace")
            yield log
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


#: Threads, so that what a task raises is not changed by being sent from one process to another.
POOL = ("--pool", "threads", "-c", "4", "-n", contract_apps.HOSTNAME)


@pytest.fixture(scope="session")
def broker_url(redis_url: str) -> str:
    """Where all workers here get their messages, each from a queue of its own."""
    return urlunsplit(urlsplit(redis_url)._replace(path="/6"))


@pytest.fixture(scope="module")
def app(engine: RunningEngine, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """An app of ours with a running worker, on each engine in turn."""
    url, queue = engine.database().backend_url, f"ours-{uuid.uuid4().hex}"
    log = tmp_path_factory.mktemp("ours") / "worker.log"
    ours = tasks_worker.make(broker_url, url, queue)
    with worker_process(log, url, broker_url, queue, *POOL):
        yield ours
    contract_apps.close(ours)


@pytest.fixture(scope="session")
def reference(redis_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """The same on Redis."""
    queue = f"reference-{uuid.uuid4().hex}"
    app = contract_apps.reference(redis_url, broker_url=broker_url, task_default_queue=queue)
    log = tmp_path_factory.mktemp("reference") / "worker.log"
    with worker_process(log, app.conf.result_backend, broker_url, queue, *POOL):
        yield app


@pytest.fixture
def same(app: Celery, reference: Celery) -> Callable[[Callable[[Celery], Any]], Any]:
    """Do something with both apps; what it gives must be equal and is returned."""

    def compare(act: Callable[[Celery], Any]) -> Any:
        expected = act(reference)
        got = act(app)
        assert contract_apps.without_chance(got) == contract_apps.without_chance(expected)
        return got

    return compare


@pytest.fixture
def task_id() -> str:
    """An id that no test used before."""
    return str(uuid.uuid4())


def finished(result: AsyncResult) -> AsyncResult:
    """The result, once its task has ended, whatever became of it."""
    result.get(timeout=TIMEOUT, propagate=False)
    return result


# -- single tasks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("add", (2, 3), {}),
        ("add", (2,), {"y": 3, "z": 4}),
        ("echo", ({"ü": [None, True, 1.5, "⟩`'"]},), {}),
        ("echo", (), {}),
        ("fail_with_cause", (), {}),
        ("retried", (), {}),
        ("retried", (True,), {}),
        ("parent", (3,), {}),
        ("group_parent", (), {}),
        ("add", (1, "a"), {}),
    ],
    ids=repr,
)
def test_one_task(same: Any, task_id: str, name: str, args: Any, kwargs: Any) -> None:
    """A task's result has the same attributes, children and traceback included."""

    def run(app: Celery) -> Any:
        return seen(finished(app.tasks[f"contract.{name}"].apply_async(args, kwargs, task_id=task_id)))

    same(run)


@pytest.mark.parametrize("kind", FAILURES)
def test_failing_task(same: Any, task_id: str, kind: str) -> None:
    """What a task raises comes back as it does from Redis, with the worker's traceback."""

    def run(app: Celery) -> Any:
        return seen(finished(app.tasks["contract.fail"].apply_async((kind,), task_id=task_id)))

    same(run)


def test_exceptions_are_of_their_class(app: Celery) -> None:
    """Own and nested exception classes come back as themselves, and get() raises them."""
    fail = app.tasks["contract.fail"]
    with pytest.raises(Refused) as raised:
        fail.delay("own class").get(timeout=TIMEOUT)
    assert raised.value.args == ("no", 1, None, [2, {"three": 3}])
    with pytest.raises(Outer.Inner, match="inside"):
        fail.delay("nested class").get(timeout=TIMEOUT)
    with pytest.raises(FileNotFoundError) as missing:
        fail.delay("os").get(timeout=TIMEOUT)
    assert missing.value.errno == 2


def test_progress(same: Any, task_id: str) -> None:
    """update_state within a task is seen from outside, with its meta."""

    def run(app: Celery) -> Any:
        result = app.tasks["contract.progress"].apply_async(("HALFWAY", {"done": 1, "of": 2}), task_id=task_id)
        until(lambda: result.state == "HALFWAY", "the task says that it is halfway")
        return seen(app.AsyncResult(task_id))

    values = same(run)
    assert values["info"] == described({"done": 1, "of": 2})


def test_ignored_result(same: Any, task_id: str) -> None:
    """A task that ignores its result leaves none."""

    def run(app: Celery) -> Any:
        app.tasks["contract.ignored"].apply_async(task_id=task_id)
        # Tasks of one queue start in order.
        app.tasks["contract.add"].delay(1, 1).get(timeout=TIMEOUT)
        return app.AsyncResult(task_id).state

    assert same(run) == states.PENDING


def test_stamps(same: Any, task_id: str) -> None:
    """Stamps of a task are beside the rest of its meta."""

    def run(app: Celery) -> Any:
        signature = app.tasks["contract.add"].s(1, 2).set(task_id=task_id)
        signature.stamp(monitor="seven", other=[1, 2])
        return seen(finished(signature.apply_async()))

    same(run)


def test_links(same: Any, task_id: str) -> None:
    """A callback is a child of its task; an errback gets the id of what failed."""

    def run(app: Celery) -> Any:
        tasks = app.tasks
        good = tasks["contract.add"].apply_async(
            (1, 2), task_id=task_id, link=tasks["contract.add"].s(10).set(task_id=f"{task_id}-link")
        )
        finished(good)
        linked = finished(app.AsyncResult(f"{task_id}-link"))
        bad = tasks["contract.fail"].apply_async(
            task_id=f"{task_id}-bad", link_error=tasks["contract.note"].s().set(task_id=f"{task_id}-note")
        )
        finished(bad)
        noted = finished(app.AsyncResult(f"{task_id}-note"))
        return seen(good), seen(linked), seen(bad), noted.result

    *_, noted = same(run)
    assert noted == f"noted {task_id}-bad"


# -- chains and groups -------------------------------------------------------------------------------


def test_chain(same: Any, task_id: str) -> None:
    """A chain's last result knows its parents, and each its value."""

    def run(app: Celery) -> Any:
        add = app.tasks["contract.add"]
        steps = [add.s(1, 2), add.s(3), add.s(4)]
        result = chain(step.set(task_id=f"{task_id}-{n}") for n, step in enumerate(steps)).apply_async()
        finished(result)
        found, nodes = result, []
        while found:
            # Celery sends a chain's next step before it stores the result of the one before.
            nodes.append(seen(finished(found)))
            found = found.parent
        return nodes, [(n.id, described(v)) for n, v in app.AsyncResult(f"{task_id}-0").collect(timeout=TIMEOUT)]

    same(run)


def test_chain_that_fails(same: Any, task_id: str) -> None:
    """Where a step fails, the result of the chain fails with the same exception."""

    def run(app: Celery) -> Any:
        add, fail = app.tasks["contract.add"], app.tasks["contract.fail"]
        steps = [add.s(1, 2), fail.si("own class"), add.s(3), add.s(4)]
        result = chain(step.set(task_id=f"{task_id}-{n}") for n, step in enumerate(steps)).apply_async()
        finished(result)
        # Celery writes the steps that never ran from the last one forward: each is waited for.
        return [seen(finished(app.AsyncResult(f"{task_id}-{n}"))) for n in range(4)]

    same(run)


def test_group(same: Any, task_id: str) -> None:
    """A group's results come in order, saved and restored, and their group is known."""

    def run(app: Celery) -> Any:
        add = app.tasks["contract.add"]
        result = group(add.s(n, n).set(task_id=f"{task_id}-{n}") for n in range(5)).apply_async()
        values = result.get(timeout=TIMEOUT)
        result.save()
        restored = app.GroupResult.restore(result.id)
        return values, group_seen(result), group_seen(restored), restored == result

    values, *_ = same(run)
    assert values == [0, 2, 4, 6, 8]


def test_group_with_failures(same: Any, task_id: str) -> None:
    """A group with a failed member says so in each of its methods."""

    def run(app: Celery) -> Any:
        add, fail = app.tasks["contract.add"], app.tasks["contract.fail"]
        tasks = [add.s(1, 1), fail.s("own class"), add.s(2, 2)]
        result = group(task.set(task_id=f"{task_id}-{n}") for n, task in enumerate(tasks)).apply_async()
        values = result.get(timeout=TIMEOUT, propagate=False)
        return (
            described(values),
            group_seen(result),
            outcome(lambda: result.get(timeout=TIMEOUT)),
            outcome(lambda: result.join(timeout=TIMEOUT)),
            outcome(lambda: result.join_native(timeout=TIMEOUT)),
            outcome(result.maybe_throw),
            [app_result.id for app_result in result._failed_join_report()],
        )

    same(run)


def test_nested_groups(same: Any) -> None:
    """Groups in groups give their values in the same shape."""

    def run(app: Celery) -> Any:
        add = app.tasks["contract.add"]
        result = group(add.s(1, 1), group(add.s(2, 2), group(add.s(3, 3), add.s(4, 4)))).apply_async()
        values = result.get(timeout=TIMEOUT)
        result.save()
        restored = app.GroupResult.restore(result.id)
        return values, restored.get(timeout=TIMEOUT), restored == result

    same(run)


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        pytest.param("replaced_by_group", [1, 2, 3], [1, 2, 3], marks=since_celery_5_7),
        ("replaced_by_chain", 5, 16),
        ("replaced_by_chord", [1, 2, 3], 6),
    ],
)
@pytest.mark.parametrize("where", ["alone", "in a group", "in a chain", "in a chord"])
def test_replaced_tasks(same: Any, name: str, argument: Any, expected: Any, where: str) -> None:
    """A task that replaces itself has its replacement's result, wherever it stands."""

    def run(app: Celery) -> Any:
        signature, echo = app.tasks[f"contract.{name}"].s(argument), app.tasks["contract.echo"]
        canvas = {
            "alone": lambda: signature,
            "in a group": lambda: group(signature, echo.s("beside")),
            "in a chain": lambda: chain(echo.s("before"), signature.clone().set(immutable=True), echo.s()),
            "in a chord": lambda: chord([signature, echo.s("beside")], echo.s()),
        }[where]()
        return canvas.apply_async().get(timeout=TIMEOUT)

    beside = [expected, "beside"]
    assert same(run) == (expected if where in ("alone", "in a chain") else beside)


# -- chords ------------------------------------------------------------------------------------------


def canvases(app: Celery) -> dict[str, Callable[[], Any]]:
    """Chords of every shape, by name."""
    add, echo, total, ids = (app.tasks[f"contract.{name}"] for name in ("add", "echo", "total", "ids"))
    adds, fail = app.tasks["contract.adds_to_chord"], app.tasks["contract.fail"]
    return {
        "one header task": lambda: chord([add.s(1, 1)], total.s()),
        "two header tasks": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()),
        "empty header": lambda: chord([], total.s()),
        "header from a generator": lambda: chord((add.s(n, n) for n in range(7)), echo.s()),
        "header from a group": lambda: chord(group(add.s(n, n) for n in range(3)), echo.s()),
        "70 header tasks in order": lambda: chord([echo.s(n) for n in range(70)], echo.s()),
        "None among the results": lambda: chord([echo.s(None), echo.s(0), echo.s([])], echo.s()),
        "chain into chord": lambda: chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s()),
        "chain into chord into chain": lambda: chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(100)),
        "chord then chord": lambda: chain(
            group(add.s(1, 1), add.s(2, 2)), total.s(), group(add.s(1), add.s(2)), total.s()
        ),
        "body is a chain": lambda: chord([add.s(1, 1), add.s(2, 2)], chain(total.s(), add.s(10))),
        "body is a group": lambda: chord([add.s(1, 1), add.s(2, 2)], group(total.s(), echo.s())),
        "body is a chord": lambda: chord([add.s(1, 1), add.s(2, 2)], chord([total.s(), total.s()], total.s())),
        "chord in a header": lambda: chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(5, 5)], echo.s()),
        "chord in chord in chord": lambda: chord(
            [chord([chord([add.s(1, 1)], total.s()), add.s(2, 2)], total.s()), add.s(3, 3)], echo.s()
        ),
        "chains in a header": lambda: chord([chain(add.s(1, 1), add.s(2)), chain(add.s(3, 3), add.s(4))], echo.s()),
        "groups in a header": lambda: chord(
            [add.s(1, 1), group(add.s(2, 2), group(add.s(3, 3), add.s(4, 4)))], echo.s()
        ),
        "chord with a group body in a header": lambda: chord(
            [chord([add.s(1, 1), add.s(2, 2)], group(total.s(), echo.s())), add.s(5, 5)], echo.s()
        ),
        "header ending in a group": lambda: chord([chain(add.s(1, 1), group(add.s(1), add.s(2)))], echo.s()),
        "two chains ending in groups": lambda: chord(
            [chain(add.s(n, n), group(add.s(1), add.s(2))) for n in (1, 2)], echo.s()
        ),
        "add_to_chord": lambda: chord([adds.s(1), echo.s(2)], total.s()),
        "group of chords": lambda: group(chord([add.s(n, n), add.s(n, 1)], total.s()) for n in range(3)),
        "replaced header tasks": lambda: chord(
            [app.tasks["contract.replaced_by_chord"].s([1, 2]), app.tasks["contract.replaced_by_chain"].s(1)], echo.s()
        ),
        "failing header": lambda: chord([add.s(1, 1), fail.s("own class")], total.s()),
        "failing header of one": lambda: chord([fail.s("fields")], total.s()),
        "failing header, body a group": lambda: chord([add.s(1, 1), fail.s("own class")], group(total.s(), echo.s())),
        "failing header, body a chain": lambda: chord([fail.s("own class")], chain(total.s(), add.s(10))),
        "failing header of an inner chord": lambda: chord(
            [chord([fail.s("own class")], total.s()), add.s(1, 1)], echo.s()
        ),
        "failing header before the end of a chain": lambda: chain(
            add.s(1, 1), group(add.s(1), fail.si("own class")), total.s(), add.s(1)
        ),
        "failing body": lambda: chord([add.s(1, 1)], fail.si("own class")),
        "unpicklable failure in the header": lambda: chord([fail.s("unpicklable"), add.s(1, 1)], total.s()),
        "ids in a chord": lambda: chord([ids.s(), ids.s()], total.si([1])),
    }


#: Before 5.7 get() of these never ends, or not always, with Celery's own backends.
ENDLESS = {
    "failing header, body a group",
    "failing header, body a chain",
    "chord with a group body in a header",
}
NAMES = [
    pytest.param(name, marks=since_celery_5_7 if name in ENDLESS else ())
    for name in canvases(contract_apps.app_on("cache+memory://"))
]


def without_ids(value: Any) -> Any:
    """What is comparable of an exception whose text holds a task's id."""
    if isinstance(value, ChordError):
        text = str(value)
        return (
            "ChordError",
            text[: text.find("Dependency")],
            text[text.find(" raised ") :],
            described(value.__cause__),
        )
    return described(value)


#: Of canvases whose end never comes, with any of Celery's backends, what ends last before it.
LAST_TO_END: dict[str, Callable[[Any], Any]] = {
    # The body of an inner chord that fails does not count as a part of the outer chord.
    "failing header of an inner chord": lambda result: result.parent.results[0],
}
if not hasattr(Backend, "_fail_chain"):
    # Before 5.7 Celery fails neither such a body inside a chain nor what follows it.
    LAST_TO_END["failing header before the end of a chain"] = lambda result: result.parent.parent
#: What Celery's own Redis backend calls the body with before 5.7, where it takes the size of a group at the end of a
#: chain for the whole header's, is not what the header returned.
TOO_EARLY = {"header ending in a group": [[3, 4]], "two chains ending in groups": [[3, 4], [5, 6]]}


@pytest.mark.parametrize("name", NAMES)
def test_chords(same: Any, app: Celery, name: str) -> None:
    """A chord of any shape gives the value, or fails with the exception, that it does on Redis."""

    def run(app: Celery) -> Any:
        result = canvases(app)[name]().apply_async()
        stored = None
        if "fail" in name:
            # A get() before the end raises the header's own exception where a header task has failed already, and
            # the body's ChordError where none has, on both backends: which of the two is luck.
            last = LAST_TO_END.get(name, lambda result: result)(result)
            until(last.ready, "the last task has ended")
            ended = last.results if isinstance(last, GroupResult) else [last]
            stored = [without_ids(app.AsyncResult(task.id).result) for task in ended]
        try:
            return stored, without_ids(result.get(timeout=TIMEOUT))
        except Exception as exc:
            return stored, without_ids(exc)

    if name in TOO_EARLY:
        assert canvases(app)[name]().apply_async().get(timeout=TIMEOUT) == TOO_EARLY[name]
    else:
        same(run)


def test_results_come_in_header_order(app: Celery) -> None:
    """The body gets the results in the order of the header, whoever finished first."""
    echo = app.tasks["contract.echo"]
    numbers = list(range(130))
    assert chord([echo.s(n) for n in numbers], echo.s()).apply_async().get(timeout=TIMEOUT) == numbers


@pytest.mark.slow
def test_500_header_tasks(app: Celery) -> None:
    """A chord of 500 header tasks gives all their results, once."""
    echo = app.tasks["contract.echo"]
    result = chord([echo.s(n) for n in range(500)], app.tasks["contract.total"].s()).apply_async()
    assert result.get(timeout=TIMEOUT) == sum(range(500))


@since_celery_5_7
def test_chord_errback(same: Any) -> None:
    """The errback of a chord whose header fails is told once, with the id of the body."""

    def run(app: Celery) -> Any:
        body = app.tasks["contract.total"].s().set(task_id=str(uuid.uuid4()))
        noted = str(uuid.uuid4())
        body.link_error(app.tasks["contract.note"].s().set(task_id=noted))
        result = chord([app.tasks["contract.fail"].s("own class")], body).apply_async()
        finished(result)
        return app.AsyncResult(noted).get(timeout=TIMEOUT) == f"noted {result.id}", result.failed()

    assert same(run) == (True, True)


@since_celery_5_7
def test_same_chord_twice(same: Any) -> None:
    """A chord object can be applied again: both runs give their result."""

    def run(app: Celery) -> Any:
        add = app.tasks["contract.add"]
        canvas = chord([add.s(1, 1), add.s(2, 2)], app.tasks["contract.total"].s())
        return [canvas.apply_async().get(timeout=TIMEOUT) for _ in range(3)]

    assert same(run) == [6, 6, 6]


def test_chord_leaves_nothing_but_its_mark(app: Celery) -> None:
    """After a chord its parts are gone; what is left is the mark that its body was published, which expires."""
    add, total = app.tasks["contract.add"], app.tasks["contract.total"]
    result = chord([add.s(n, n) for n in range(5)], total.s()).apply_async()
    assert result.get(timeout=TIMEOUT) == 20
    group_id = result.parent.id
    table = app.backend.connection

    def left() -> list[Any]:
        return [record for record in table.run("SELECT * FROM chord") if record["id"].id[0] == group_id]

    until(lambda: [record["id"].id[1] for record in left()] == ["claim"], "only the claim is left")
    (claim,) = left()
    assert claim["done"] is True
    assert claim["expires_at"] is not None


# -- a worker of its own -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefork(engine: RunningEngine, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """An app whose worker is a process with processes."""
    queue = f"prefork-{uuid.uuid4().hex}"
    url = engine.database().backend_url
    app = tasks_worker.make(broker_url, url, queue)
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with worker_process(log, url, broker_url, queue, "--pool", "prefork", "-c", "2", "-n", f"{queue}@here"):
        app.worker_log, app.worker_name = log, f"{queue}@here"
        yield app
    contract_apps.close(app)


@pytest.mark.worker
def test_prefork_worker_runs_everything(prefork: Celery) -> None:
    """Tasks, a failure, a retry, a group, a chain and a chord run in a worker with processes."""
    tasks = prefork.tasks
    add, total = tasks["contract.add"], tasks["contract.total"]
    assert add.delay(2, 3).get(timeout=TIMEOUT) == 5
    assert tasks["contract.retried"].delay().get(timeout=TIMEOUT) == 2
    with pytest.raises(Refused):
        tasks["contract.fail"].delay("own class").get(timeout=TIMEOUT)
    assert group(add.s(n, n) for n in range(10)).apply_async().get(timeout=TIMEOUT) == [2 * n for n in range(10)]
    assert chain(add.s(1, 1), add.s(2), add.s(3)).apply_async().get(timeout=TIMEOUT) == 7
    assert chord([add.s(n, n) for n in range(50)], total.s()).apply_async().get(timeout=TIMEOUT) == 2450
    nested = chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(5, 5)], tasks["contract.echo"].s())
    assert nested.apply_async().get(timeout=TIMEOUT) == [6, 10]


@pytest.mark.worker
def test_worker_says_where_results_go_without_the_password(prefork: Celery) -> None:
    """The worker's banner names the backend; no output of the worker holds the password."""
    prefork.tasks["contract.add"].delay(1, 1).get(timeout=TIMEOUT)
    log = prefork.worker_log.read_text(errors="replace")
    settings = prefork.backend.settings
    assert f"surrealdb://{settings.username}:**@127.0.0.1" in log
    assert f":{settings.password}@" not in log


@since_celery_5_7
@pytest.mark.worker
def test_revoked_before_it_started(prefork: Celery, task_id: str) -> None:
    """A task revoked while it waits ends as REVOKED, and those who wait for it hear of it."""
    result = prefork.tasks["contract.add"].apply_async((1, 2), task_id=task_id, countdown=3600)
    inspect = prefork.control.inspect(destination=[prefork.worker_name])
    until(
        lambda: any(task_id in str(tasks) for tasks in (inspect.scheduled() or {}).values()),
        "the worker has the task",
    )
    result.revoke()
    assert type(result.get(timeout=TIMEOUT, propagate=False)).__name__ == "TaskRevokedError"
    assert result.state == states.REVOKED


def test_group_result_is_what_a_group_gives(app: Celery) -> None:
    """Applying a group gives a GroupResult, whose id leads back to it once it is saved."""
    result = group(app.tasks["contract.add"].s(1, 1)).apply_async()
    assert isinstance(result, GroupResult)
    result.save()
    assert app.GroupResult.restore(result.id) == result
    result.delete()
    assert app.GroupResult.restore(result.id) is None
