"""What is not finished does not expire: a chord may take longer than results are kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results.chords.records import MAX_SLICE_SIZE
from tests.engines import Database
from tests.support.chord_bodies import Bodies
from tests.support.states import until

pytestmark = [pytest.mark.integration, pytest.mark.redis]


@pytest.fixture
def make_bodies(fresh_database: Database, redis_url: str) -> Iterator[Callable[..., Bodies]]:
    """Make apps whose chords' bodies can be counted."""
    made: list[Bodies] = []

    def make(**conf: Any) -> Bodies:
        made.append(Bodies(fresh_database, urlunsplit(urlsplit(redis_url)._replace(path="/6")), **conf))
        return made[-1]

    yield make
    for bodies in made:
        bodies.close()


@pytest.fixture
def group() -> str:
    """The id of a chord's header."""
    return str(uuid.uuid4())


def outlive(bodies: Bodies, task_id: str) -> None:
    """Wait until a result has expired, and clean up."""
    state = bodies.app.AsyncResult
    until(lambda: state(task_id).state == "PENDING", "the result has expired")
    bodies.backend.cleanup()


def test_chord_that_takes_longer_than_results_are_kept(make_bodies: Callable[..., Bodies], group: str) -> None:
    """Size and early parts outlive result_expires and a clean-up: the body gets all results."""
    bodies = make_bodies(result_expires=1)
    bodies.returns(group, 0)
    bodies.backend.set_chord_size(group, 3)
    bodies.returns(group, 1)
    outlive(bodies, f"{group}-0")
    bodies.returns(group, 2)
    assert bodies.published() == [(f"{group}-body", [0, 1, 2])]


def test_nested_header_keeps_its_shape(make_bodies: Callable[..., Bodies], group: str) -> None:
    """A header of groups keeps its shape and its early results, and is found by users, as long as it is unfinished."""
    bodies = make_bodies(result_expires=1)
    app = bodies.app
    ids = [f"{group}-{index}" for index in range(3)]
    inner = app.GroupResult("inner", [app.AsyncResult(ids[0]), app.AsyncResult(ids[1])])
    bodies.backend.apply_chord((group, [inner, app.AsyncResult(ids[2])]), None)
    bodies.backend.set_chord_size(group, 3)
    bodies.returns(group, 0)
    bodies.returns(group, 1)
    outlive(bodies, ids[0])
    assert app.GroupResult.restore(group) is not None
    bodies.returns(group, 2)
    assert bodies.published() == [(f"{group}-body", [[0, 1], 2])]


def test_size_is_never_lowered(make_bodies: Callable[..., Bodies], group: str) -> None:
    """A group at the end of a chain in a header announces its own size, before Celery 5.7: it is not the header's."""
    bodies = make_bodies()
    app = bodies.app
    ids = [f"{group}-{index}" for index in range(4)]
    inner = [app.GroupResult(f"inner-{n}", [app.AsyncResult(one) for one in ids[n : n + 2]]) for n in (0, 2)]
    bodies.backend.apply_chord((group, inner), None)
    bodies.backend.set_chord_size(group, 2)
    bodies.returns(group, 0)
    bodies.returns(group, 1)
    assert bodies.published() == []
    bodies.backend.set_chord_size(group, 4)
    bodies.backend.set_chord_size(group, 2)
    bodies.returns(group, 2)
    assert bodies.published() == []
    bodies.returns(group, 3)
    assert bodies.published() == [(f"{group}-body", [[0, 1], [2, 3]])]


def test_progress_keeps_a_chord(make_bodies: Callable[..., Bodies], fresh_database: Database, group: str) -> None:
    """A chord lives on as long as parts come, its first parts too: a part prolongs it, and clean-up what came before."""
    bodies = make_bodies(surrealdb_unfinished_expires=1000)
    bodies.backend.set_chord_size(group, 3)
    bodies.returns(group, 0)
    # As if 900 seconds had passed.
    earlier = "UPDATE chord SET expires_at = expires_at - 900s, sent_at = IF sent_at { sent_at - 900s } RETURN VALUE expires_at"
    ends = bodies.backend.connection.run(earlier)
    soon = fresh_database.query("RETURN time::now() + 200s")[0]
    assert ends
    assert max(ends) < soon
    bodies.returns(group, 1)
    bodies.backend.cleanup()
    assert fresh_database.query("SELECT VALUE id FROM chord WHERE expires_at < time::now() + 800s")[0] == []
    bodies.returns(group, 2)
    assert bodies.published() == [(f"{group}-body", [0, 1, 2])]


def test_abandoned_chord_ends(make_bodies: Callable[..., Bodies], fresh_database: Database, group: str) -> None:
    """A chord without progress for surrealdb_unfinished_expires is cleaned up: nothing of it stays for ever."""
    bodies = make_bodies(surrealdb_unfinished_expires=1)
    bodies.backend.set_chord_size(group, 2)
    bodies.returns(group, 0)
    text = "SELECT VALUE id FROM chord WHERE expires_at > time::now()"
    until(lambda: fresh_database.query(text)[0] == [], "its time is over")
    bodies.backend.cleanup()
    assert fresh_database.query("SELECT VALUE id FROM chord")[0] == []


def test_parts_are_read_in_bounded_slices(
    make_bodies: Callable[..., Bodies], group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reply has more than a slice of results, however large they are, and their order is the header's."""
    bodies = make_bodies()
    connection = bodies.backend.connection
    large = "x" * (MAX_SLICE_SIZE // 3)
    bodies.backend.set_chord_size(group, 20)
    sizes: list[int] = []
    run_all = connection.run_all

    def counted(text: str, /, **variables: Any) -> list[Any]:
        outcomes = run_all(text, **variables)
        if "SELECT task_id, status, result" in text:
            sizes.append(sum(len(part["result"]) for part in outcomes[0]))
        return outcomes

    monkeypatch.setattr(connection, "run_all", counted)
    for index in range(20):
        bodies.returns(group, index, value=f"{index}-{large}")
    ((_, values),) = bodies.published()
    assert [value.partition("-")[0] for value in values] == [str(index) for index in range(20)]
    assert len(sizes) >= 7
    assert max(sizes) <= MAX_SLICE_SIZE


def test_large_header_is_counted_by_its_neighbours(make_bodies: Callable[..., Bodies], group: str) -> None:
    """Parts of a header of thousands complete it whichever comes last, in one round trip each but where a bucket fills."""
    bodies = make_bodies()
    size = 4096 + 70
    bodies.backend.set_chord_size(group, size)
    backend = bodies.backend
    table = backend.settings.table("chord")
    missing = (5, 4100, size - 1)
    rows = [
        {
            "id": RecordID(table, [group, "part", index // 64, index, f"{group}-{index}"]),
            "group_id": group,
            "task_id": f"{group}-{index}",
            "status": "SUCCESS",
            "result": str(index),
            "encoding": "application/json",
            "group_index": index,
            "length": len(str(index)),
        }
        for index in range(size)
        if index not in missing
    ]
    for start in range(0, len(rows), 1000):
        backend.connection.run(f"INSERT INTO {table} $rows RETURN NONE", rows=rows[start : start + 1000])
    began = time.monotonic()
    for index in missing:
        assert bodies.published() == []
        bodies.returns(group, index)
    assert bodies.published() == [(f"{group}-body", list(range(size)))]
    assert time.monotonic() - began < 60


def test_resume_publishes_what_nobody_publishes(make_bodies: Callable[..., Bodies], group: str) -> None:
    """The body is kept beside the size: a complete header that nobody completes any more can be resumed, once."""
    bodies = make_bodies(surrealdb_chord_lease=1000)
    app = bodies.app
    body = app.tasks["contract.total"].s().set(task_id=f"{group}-body")
    bodies.backend.apply_chord((group, [app.AsyncResult(f"{group}-{index}") for index in range(2)]), body)
    bodies.backend.set_chord_size(group, 2)
    bodies.returns(group, 0)
    assert not bodies.backend.chords.resume(group)
    # The state that a worker leaves that dies right after its claim, its message acknowledged.
    connection, table = bodies.backend.connection, bodies.backend.settings.table("chord")
    text = (
        f"CREATE {table}:[$group, 'claim'] SET claimant = 'dead', task_id = $task, claimed_at = time::now() RETURN NONE"
    )
    connection.run(text, group=group, task=f"{group}-1")
    bodies.returns(group, 1)
    bodies.backend.cleanup()
    assert bodies.published() == [], "the lease has not run out"
    # As if 1,001 seconds had passed.
    connection.run(f"UPDATE {table}:[$group, 'claim'] SET claimed_at = claimed_at - 1001s RETURN NONE", group=group)
    bodies.backend.cleanup()
    assert bodies.published() == [(f"{group}-body", [0, 1])]
    assert not bodies.backend.chords.resume(group)


def test_a_body_with_masked_arguments_is_not_resumed(
    make_bodies: Callable[..., Bodies], group: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A secret is not kept, so clean-up cannot publish the body; it says of which chord."""
    bodies = make_bodies(surrealdb_redact=["password"], surrealdb_chord_lease=1000)
    app, table = bodies.app, bodies.backend.settings.table("chord")
    body = app.tasks["contract.total"].s(password="s3cr3t").set(task_id=f"{group}-body")
    bodies.backend.apply_chord((group, [app.AsyncResult(f"{group}-{index}") for index in range(2)]), body)
    bodies.backend.set_chord_size(group, 2)
    bodies.returns(group, 0)
    # The state that a worker leaves that dies right after its claim, its message acknowledged.
    connection = bodies.backend.connection
    text = (
        f"CREATE {table}:[$group, 'claim'] SET claimant = 'dead', task_id = $task, claimed_at = time::now() RETURN NONE"
    )
    connection.run(text, group=group, task=f"{group}-1")
    bodies.returns(group, 1)
    connection.run(f"UPDATE {table}:[$group, 'claim'] SET claimed_at = claimed_at - 1001s RETURN NONE", group=group)
    bodies.backend.cleanup()
    assert bodies.published() == []
    assert f"chord {group} is complete, but its body is not in the database" in caplog.text
