"""Class tasks: registered by defining them, retried as the settings say, with one event loop kept."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from celery import Celery, _state
from celery.exceptions import Retry

from surrealdb_celery_backend.beat import AsyncTask, SyncTask
from surrealdb_celery_backend.beat.class_tasks import close_kept_loop, run_on_kept_loop
from surrealdb_celery_backend.beat.in_code import code_entries

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def forget_tasks() -> Iterator[None]:
    """Forget the classes of a test, which Celery would give to every app from now on."""
    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.intersection_update(before)
    close_kept_loop()


def app_of_test(**settings: Any) -> Celery:
    """An app that no other test has."""
    app = Celery(f"app-{uuid.uuid4()}", broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=False, **settings)
    return app


def test_defining_registers_with_every_app() -> None:
    """A class is registered with apps that exist, finalized or not, and with those made later."""
    finalized = app_of_test()
    finalized.finalize()

    class Report(SyncTask):
        name = "unit.report"
        schedule = 60

        def run(self, amount: int = 1) -> int:
            return amount * 2

    later = app_of_test()
    for app in (later, finalized):
        task = app.tasks["unit.report"]
        assert task.app is app
        assert task(21) == 42
        assert task.apply((4,)).get() == 8


def test_a_base_class_of_the_project_is_not_registered() -> None:
    """A class that says abstract is no task; what derives from it is one, under the name of its module."""
    # Tests that ran before in this process may have left tasks that every app is given.
    others = set(app_of_test().tasks)

    class Base(SyncTask):
        abstract = True

    class Derived(Base):
        def run(self) -> str:
            return "done"

    assert set(app_of_test().tasks) - others == {Derived.name}
    assert Derived.name.endswith("Derived")


def test_its_schedule_becomes_an_entry() -> None:
    """A class with a schedule is an entry of its own name, with what else the class says of it."""

    class Nightly(AsyncTask):
        name = "unit.nightly"
        schedule: ClassVar[Any] = {"minute": "0", "hour": "3"}
        entry: ClassVar[Any] = {"timezone": "Europe/Berlin", "kwargs": {"full": True}, "options": {"queue": "slow"}}

        async def execute(self, full: bool) -> bool:
            return full

    class Unscheduled(SyncTask):
        name = "unit.unscheduled"

        def run(self) -> None:
            """Nothing."""

    code = code_entries(app_of_test())
    entries, mistakes = code.entries, code.mistakes
    assert mistakes == {}
    assert set(entries) == {"unit.nightly"}
    nightly = entries["unit.nightly"]
    assert nightly.task == "unit.nightly"
    assert nightly.timezone == "Europe/Berlin"
    assert nightly.kwargs == {"full": True}
    assert nightly.options == {"queue": "slow"}
    assert nightly.source == "code"


@pytest.mark.parametrize(
    ("settings", "attributes", "retries", "delay"),
    [
        ({}, {}, 3, 300),
        ({"celery_max_retry": 7, "celery_retry_delay": 11}, {}, 7, 11),
        ({"celery_max_retry": 7}, {"max_retries": 1, "default_retry_delay": 2}, 1, 2),
    ],
)
def test_retries_follow_the_settings(
    settings: dict[str, Any], attributes: dict[str, Any], retries: int, delay: int
) -> None:
    """A failing task is retried as often, and after as long, as the settings or its class say."""
    runs = []
    name = f"unit.failing-{uuid.uuid4()}"

    def fail(self: SyncTask) -> None:
        runs.append(1)
        1 / 0  # noqa: B018 - it raises

    Failing = type(  # noqa: N806 - a class
        "Failing",
        (SyncTask,),
        {"name": name, "run": fail, "__module__": __name__, **attributes},
    )
    app = app_of_test(**settings)
    task = app.tasks[name]
    assert issubclass(type(task), Failing)
    assert (task.max_retries, task.default_retry_delay) == (retries, delay)
    # With a request under way it asks to be retried after the delay, and not more often than it may.
    task.push_request(id="1", retries=0, called_directly=False, is_eager=True, args=(), kwargs={})
    try:
        with pytest.raises(Retry) as caught:
            task.run()
        assert caught.value.when == delay
    finally:
        task.pop_request()
    # Run to the end: the first run and all retries.
    runs.clear()
    result = task.apply()
    assert result.state == "FAILURE"
    assert len(runs) == retries + 1


def test_an_async_task_gives_its_result_and_sees_its_request() -> None:
    """What execute returns is the result, and self.request is that of the task."""

    class Asking(AsyncTask):
        name = "unit.asking"

        async def execute(self) -> tuple[str, int]:
            await asyncio.sleep(0)
            return self.request.id, id(asyncio.get_running_loop())

    task = app_of_test().tasks["unit.asking"]
    first, second = task.apply(task_id="one").get(), task.apply(task_id="two").get()
    assert (first[0], second[0]) == ("one", "two")
    assert first[1] == second[1]


def test_a_time_limit_lets_the_coroutine_clean_up() -> None:
    """If an exception ends the wait the coroutine is cancelled, and what it still does is waited for."""
    steps = []

    async def work() -> None:
        # As the handler of a signal would: out of the loop, not out of the coroutine.
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_kept_loop(work())
    assert steps == ["cleaned up"]


def test_an_execute_that_is_no_coroutine_is_named() -> None:
    """An `execute` without `async` fails with what is wrong, not with a mistake of ours."""
    with pytest.raises(TypeError, match="coroutine"):
        run_on_kept_loop(42)  # type: ignore[arg-type]
