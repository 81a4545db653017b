"""Property tests: whatever is stored comes back, and states from several writers follow Celery's rules."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from kombu.utils.uuid import uuid

from tests.engines import Database, RunningEngine

#: An engine answers in a millisecond or two, but not the first time.
LEISURELY = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Hundreds of round trips each; only a hang takes so long.
pytestmark = pytest.mark.timeout(400)

ApplicationMaker = Callable[..., Celery]


@pytest.fixture
def make_app(fresh_database: Database) -> Iterator[ApplicationMaker]:
    """Make apps, each a process of its own as far as the database can see."""
    with contextlib.ExitStack() as stack:

        def make(**more: Any) -> Celery:
            app = Celery("model", backend="surrealdb", broker="memory://", set_as_current=False)
            app.conf.update(fresh_database.settings, **more)
            stack.callback(app.backend.close)
            return app

        yield make


#: Texts that UTF-8 can hold: half a surrogate pair is in no JSON that a serializer here makes.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
PICKLED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary() | TEXT | st.decimals(allow_nan=False) | st.datetimes()
    | st.complex_numbers(allow_nan=False) | st.sampled_from([ValueError, int, Ellipsis]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.frozensets(st.integers(), max_size=3),
    max_leaves=8,
)  # fmt: skip
#: Ids as users make them: any text that is not empty and that SurrealDB 2 can read back.
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=60)


def test_any_json(engine: RunningEngine, make_app: ApplicationMaker) -> None:
    """Arbitrary JSON under arbitrary ids comes back equal, to another process, whatever state it is of."""
    here, there = make_app().backend, make_app().backend

    @LEISURELY
    @given(task_id=IDS, value=JSON, state=st.sampled_from(["SUCCESS", "STARTED", "PROGRESS", "IGNORED"]))
    def stored_and_fetched(task_id: str, value: Any, state: str) -> None:
        here.forget(task_id)
        here.store_result(task_id, value, state)
        meta = there._get_task_meta_for(task_id)
        assert (meta["task_id"], meta["status"]) == (task_id, state)
        assert meta["result"] == value
        # 1 and True and 1.0 are equal in Python, and not in JSON.
        assert repr(meta["result"]) == repr(here.decode(here.encode(value)))

    stored_and_fetched()


def test_any_pickle(engine: RunningEngine, make_app: ApplicationMaker) -> None:
    """Arbitrary pickled values come back equal and of the same types."""
    pickling = {"result_serializer": "pickle", "accept_content": ["pickle"], "result_accept_content": ["pickle"]}
    here, there = make_app(**pickling).backend, make_app(**pickling).backend

    @LEISURELY
    @given(value=PICKLED)
    def stored_and_fetched(value: Any) -> None:
        task_id = uuid()
        here.store_result(task_id, value, states.SUCCESS)
        fetched = there._get_task_meta_for(task_id)["result"]
        assert fetched == value
        assert type(fetched) is type(value)
        assert pickle.dumps(fetched) == pickle.dumps(pickle.loads(pickle.dumps(value)))

    stored_and_fetched()


def test_any_meta(engine: RunningEngine, make_app: ApplicationMaker) -> None:
    """Arbitrary arguments, names, parents and tracebacks come back in the meta of result_extended."""
    app = make_app(result_extended=True)
    here, there = app.backend, make_app(result_extended=True).backend

    @LEISURELY
    @given(
        args=st.lists(JSON, max_size=3),
        kwargs=st.dictionaries(TEXT, JSON, max_size=3),
        name=st.none() | TEXT,
        parent=st.none() | IDS,
        traceback=st.none() | TEXT,
        retries=st.integers(0, 2**40),
    )
    def stored_and_fetched(args: Any, kwargs: Any, name: Any, parent: Any, traceback: Any, retries: int) -> None:
        task_id = uuid()
        request = Context(
            id=task_id, task=name, args=args, kwargs=kwargs, parent_id=parent, retries=retries, delivery_info={}
        )
        here.store_result(task_id, 1, states.SUCCESS, traceback=traceback, request=request)
        meta = there._get_task_meta_for(task_id)
        assert meta["args"] == args
        assert meta["kwargs"] == kwargs
        assert meta["name"] == name
        assert meta["retries"] == retries
        assert meta.get("parent_id") == (parent or None)
        assert meta["traceback"] == (traceback or None) or meta["traceback"] == traceback

    stored_and_fetched()


#: What a writer can do to a task: as Celery's worker and its users do.
STATES = ["PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY", "SUCCESS", "FAILURE", "REVOKED"]


class Writers(RuleBasedStateMachine):
    """Several processes write states of a few tasks in any order; a model says what must be there.

    The rules are Celery's: a SUCCESS is final, and a task that has ended does not run again by a late message.
    """

    apps: tuple[Celery, ...] = ()
    #: Ids of this run: each example begins with tasks of its own.
    tasks: tuple[str, ...] = ()

    @initialize()
    def begin(self) -> None:
        self.tasks = tuple(uuid() for _ in range(3))
        self.model: dict[str, tuple[str, int]] = {}
        self.count = 0

    @rule(writer=st.integers(0, 2), task=st.integers(0, 2), state=st.sampled_from(STATES))
    def store(self, writer: int, task: int, state: str) -> None:
        """A writer stores a state."""
        self.count += 1
        task_id = self.tasks[task]
        value: Any = ValueError(self.count) if state in states.EXCEPTION_STATES else self.count
        self.apps[writer].backend.store_result(task_id, value, state)
        present = self.model.get(task_id, ("PENDING", 0))[0]
        is_final = present == "SUCCESS" or (present in states.READY_STATES and state not in states.READY_STATES)
        if not is_final:
            self.model[task_id] = (state, self.count)

    @rule(writer=st.integers(0, 2), task=st.integers(0, 2))
    def forget(self, writer: int, task: int) -> None:
        """Somebody forgets a result."""
        self.apps[writer].backend.forget(self.tasks[task])
        self.model.pop(self.tasks[task], None)

    @invariant()
    def everybody_sees_the_model(self) -> None:
        """Every process reads what the model holds."""
        for number, task_id in enumerate(self.tasks):
            meta = self.apps[(number + self.count) % 3].backend._get_task_meta_for(task_id)
            state, count = self.model.get(task_id, ("PENDING", None))
            assert meta["status"] == state
            value = meta["result"]
            assert (value.args[0] if isinstance(value, ValueError) else value) == count


def test_writers_follow_the_rules(engine: RunningEngine, make_app: ApplicationMaker) -> None:
    """Interleaved states of three processes end as a model of Celery's rules says, on every engine."""
    apps = tuple(make_app() for _ in range(3))
    machine = type("WritersHere", (Writers,), {"apps": apps})
    run_state_machine_as_test(machine, settings=settings(LEISURELY, max_examples=25, stateful_step_count=20))
