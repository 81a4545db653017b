"""`Results.tree`: the workflow of a task, on real engines, with and without an index on its root."""

from __future__ import annotations

import json
import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.backends.base import Backend

from surrealdb_celery_backend.errors import ResultNotFound
from surrealdb_celery_backend.results import Results, TaskNode
from tests.support import history_data as data
from tests.support.inprocess import TIMEOUT, worker

pytestmark = pytest.mark.integration


@pytest.fixture(params=["no index", "index"])
def indexed(request: pytest.FixtureRequest, app: Celery) -> str:
    """With and without an index on the root."""
    _ = app.backend.connection.transport
    # With SURREALDB_TEST_OPTIONS=on the app has defined it already.
    has_index = "DEFINE INDEX IF NOT EXISTS task_root_id ON task FIELDS root_id"
    app.backend.connection.run_all(
        has_index if request.param == "index" else "REMOVE INDEX IF EXISTS task_root_id ON task"
    )
    return str(request.param)


def task(task_id: str, root: str, parent: str | None, *sent: Any, second: int = 0, **fields: Any) -> dict[str, Any]:
    """A stored task of a workflow, with what Celery keeps of the tasks that it sent."""
    children = [[[each, None], None] if isinstance(each, str) else each for each in sent]
    return data.record(
        task_id=task_id,
        root_id=root,
        parent_id=parent,
        children=json.dumps(children) if children else [],
        date_done=data.NOW - timedelta(seconds=600 - second),
        **fields,
    )


def shape(node: TaskNode) -> Any:
    """A tree as nested tuples."""
    return (node.id, node.state, [shape(child) for child in node.children])


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("asked", ["root", "b", "body", "deep"])
def test_the_whole_workflow_is_found_from_any_of_its_tasks(app: Celery, results: Results, asked: str) -> None:
    """Chain, group, and the body of a chord, which no task names: all are in the tree, with what is still to come."""
    group = [["g", None], [[["a", None], None], [["b", None], None]]]
    data.write(
        app,
        [
            task("root", "root", None, group, second=1),
            task("a", "root", "root", second=2),
            task("b", "root", "root", status="FAILURE", second=3),
            task("body", "root", "b", "deep", "never", second=4),
            task("deep", "root", "body", status="STARTED", second=5) | {"date_done": None},
            *(task(str(uuid.uuid4()), "another", None, second=place) for place in range(50)),
        ],
    )
    tree = results.tree(asked)
    never: list[tuple[str, str, list[Any]]] = [("never", "PENDING", [])]
    body = ("body", "SUCCESS", [("deep", "STARTED", []), *never])
    assert shape(tree.root) == ("root", "SUCCESS", [("a", "SUCCESS", []), ("b", "FAILURE", [body])])
    assert tree.complete
    assert tree.states["SUCCESS"] == 3
    assert tree.states["FAILURE"] == tree.states["STARTED"] == 1
    assert tree.states.get("PENDING") == 1
    assert len(tree) == len(tree.root) == 6


@pytest.fixture(params=["no index", "index"])
def grouped(request: pytest.FixtureRequest, app: Celery) -> str:
    """With and without an index on the group."""
    _ = app.backend.connection.transport
    has_index = "DEFINE INDEX IF NOT EXISTS task_group_id ON task FIELDS group_id, date_done"
    app.backend.connection.run_all(
        has_index if request.param == "index" else "REMOVE INDEX IF EXISTS task_group_id ON task"
    )
    return str(request.param)


@pytest.mark.usefixtures("indexed", "grouped")
def test_a_group_that_no_task_sent_is_one_workflow(app: Celery, results: Results) -> None:
    """A chord of a program: each part is a first task, the body is sent by the last of them, and all are one tree."""

    def sent(task_id: str, root: str, parent: str | None, *children: Any, second: int, **fields: Any) -> dict[str, Any]:
        at = data.NOW - timedelta(seconds=700 - second)
        return task(task_id, root, parent, *children, second=second, sent_at=at, **fields)

    data.write(
        app,
        [
            sent("a", "a", None, "child", second=1, group_id="g"),
            sent("child", "a", "a", second=2),
            sent("z", "z", None, second=3, group_id="g"),
            sent("link", "link", None, "b", second=2),
            sent("b", "link", "link", second=4, group_id="g"),
            sent("body", "z", "z", "after", second=5),
            sent("after", "z", "body", second=6),
            *(task(str(uuid.uuid4()), "another", None, second=place, group_id="h") for place in range(50)),
        ],
    )
    for asked in ("a", "child", "z", "body", "after"):
        tree = results.tree(asked)
        assert shape(tree.root) == (
            "a",
            "SUCCESS",
            [
                ("child", "SUCCESS", []),
                ("link", "SUCCESS", [("b", "SUCCESS", [])]),
                ("z", "SUCCESS", [("body", "SUCCESS", [("after", "SUCCESS", [])])]),
            ],
        )
        assert tree.complete
        assert tree.states == {"SUCCESS": 7}


@pytest.mark.parametrize("last", [0, 1])
def test_a_chord_of_a_program_is_one_workflow(app: Celery, results: Results, last: int) -> None:
    """As Celery sends and stores it: from any of its tasks, all are found, whichever part the body follows."""
    may_end = threading.Event()

    @app.task(name="total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="add", shared=False)
    def add(number: int, other: int = 1, *, is_last: bool = False) -> int:
        assert not is_last or may_end.wait(TIMEOUT)
        return number + other

    parts = [add.si(1, is_last=last == 0), chain(add.si(2), add.si(3, is_last=last == 1)), add.si(4)]
    with worker(app):
        body = chord(parts, total.s()).apply_async()
        members = body.parent.results
        for member in members:
            if member is not members[last]:
                member.get(timeout=TIMEOUT)
        # A task sends the next of its chain before its own result is stored.
        members[1].parent.get(timeout=TIMEOUT)
        may_end.set()
        assert body.get(timeout=TIMEOUT) == 11
    for asked in (body.id, members[0].id, members[1].id, members[2].id):
        tree = results.tree(asked)
        assert (tree.states, tree.complete, len(tree.root)) == ({"SUCCESS": 5}, True, 5)


@pytest.mark.usefixtures("indexed", "grouped")
def test_chords_in_a_group_that_no_task_sent_are_one_workflow(app: Celery, results: Results) -> None:
    """The parts of a chord in a group are in a group of their own: the body leads to the others, from any of them."""

    def sent(task_id: str, root: str, parent: str | None, *children: Any, second: int, **fields: Any) -> dict[str, Any]:
        at = data.NOW - timedelta(seconds=700 - second)
        return task(task_id, root, parent, *children, second=second, sent_at=at, **fields)

    inner = [["inner", None], [[["x", None], None], [["y", None], None]]]
    data.write(
        app,
        [
            sent("part", "part", None, second=1, group_id="header"),
            sent("last", "last", None, second=2, group_id="header"),
            sent("body", "last", "last", inner, second=6, group_id="outer"),
            sent("x", "last", "body", second=7, group_id="inner"),
            sent("y", "last", "body", second=8, group_id="inner"),
            # The first task of this chain keeps no result.
            sent("end", "gone", "gone", second=7, group_id="outer"),
            sent("alone", "alone", None, second=3, group_id="outer"),
            *(task(str(uuid.uuid4()), "another", None, second=place, group_id="h") for place in range(50)),
        ],
    )
    for asked in ("part", "last", "body", "x", "end", "alone"):
        tree = results.tree(asked)
        assert shape(tree.root) == (
            "part",
            "SUCCESS",
            [
                ("last", "SUCCESS", [("body", "SUCCESS", [("x", "SUCCESS", []), ("y", "SUCCESS", [])])]),
                ("alone", "SUCCESS", []),
                ("end", "SUCCESS", []),
            ],
        )
        assert tree.complete


@pytest.mark.usefixtures("indexed")
def test_groups_that_tasks_sent_are_not_looked_for(app: Celery, results: Results) -> None:
    """Groups within a workflow cost no look through other records: their sender says that they are its own."""
    groups = [[[f"g{n}", None], [[[f"t{n}", None], None]]] for n in range(20)]
    data.write(app, [task("root", "root", None, second=1)])
    results.tree("root")
    before = app.backend.connection.request_count
    results.tree("root")
    alone = app.backend.connection.request_count - before
    data.write(
        app,
        [
            task("first", "first", None, *groups, second=1),
            *(task(f"t{n}", "first", "first", second=2 + n, group_id=f"g{n}") for n in range(20)),
        ],
    )
    before = app.backend.connection.request_count
    tree = results.tree("first")
    assert (tree.states, tree.complete) == ({"SUCCESS": 21}, True)
    # One more for the level below, where no index finds all.
    assert app.backend.connection.request_count - before <= alone + 1


def test_chords_and_failed_chains_in_a_group_as_celery_sends_them(app: Celery, results: Results) -> None:
    """A chain that fails is in the tree with the rest of it that never ran, and a chord with its parts and body."""

    @app.task(name="done", shared=False)
    def done(*_: Any) -> int:
        return 1

    @app.task(name="fail", shared=False)
    def fail() -> None:
        raise ValueError

    rest = [done.si(), done.si()]
    if hasattr(Backend, "_fail_chain"):
        # Since Celery 5.7 a chord that never runs fails with its body.
        rest[1:1] = [group(done.si(), done.si())]
    fails = chain(done.si(), fail.si(), *rest)
    with worker(app):
        sent = group(fails, chain(group(done.si(), done.si()), done.si()), done.si()).apply_async()
        for member in sent.results:
            member.get(timeout=TIMEOUT, propagate=False)
    stored = app.backend.connection.run("SELECT VALUE task_id FROM task")
    trees = [results.tree(each) for each in stored]
    assert {(str(tree.states), tree.complete, len(tree.root)) for tree in trees} == {
        (str(trees[0].states), True, len(stored))
    }
    assert trees[0].states == {"SUCCESS": 5, "FAILURE": 1 + len(rest)}
    assert len({tree.root.id for tree in trees}) == 1


def test_a_task_alone_is_a_tree(app: Celery, results: Results) -> None:
    """A task that sent none and was sent by none is its own workflow; one that is not stored has none."""
    data.write(app, [data.record(task_id="one")])
    tree = results.tree("one")
    assert (shape(tree.root), len(tree), tree.complete) == (("one", "SUCCESS", []), 1, True)
    with pytest.raises(ResultNotFound):
        results.tree("two")


@pytest.mark.usefixtures("indexed")
def test_a_long_chain_is_followed_within_bounds(app: Celery, results: Results) -> None:
    """A chain of 60 is read whole; the number of requests grows with its length, not with the table."""
    data.write(app, [task(f"t{n}", "t0", f"t{n - 1}" if n else None, f"t{n + 1}", second=n) for n in range(60)])
    began = app.backend.connection.request_count
    tree = results.tree("t30")
    assert tree.states == {"SUCCESS": 60, "PENDING": 1}
    assert app.backend.connection.request_count - began <= 70
    depth, node = 0, tree.root
    while node.children:
        [node] = node.children
        depth += 1
    assert depth == 60


def test_parents_lead_to_the_root_where_records_do_not_say_it(app: Celery, results: Results) -> None:
    """Records without `root_id` are found by parents and children."""
    data.write(
        app,
        [
            task("top", "", None, "mid", second=1) | {"root_id": None},
            task("mid", "", "top", "low", second=2) | {"root_id": None},
            task("low", "", "mid", second=3) | {"root_id": None},
        ],
    )
    assert shape(results.tree("low").root) == (
        "top",
        "SUCCESS",
        [("mid", "SUCCESS", [("low", "SUCCESS", [])])],
    )


def test_a_circle_ends(app: Celery, results: Results) -> None:
    """Records that name each other as parents, whoever wrote them, make a tree and no endless loop."""
    data.write(app, [task("a", "a", "b", "b", second=1), task("b", "a", "a", "a", second=2)])
    tree = results.tree("b")
    assert shape(tree.root) == ("a", "SUCCESS", [("b", "SUCCESS", [])])
