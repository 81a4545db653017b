"""A pool's process that dies at any step of a chord's last part costs neither the body nor its exactly one run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from celery import chord

from tests.engines import Database
from tests.support.faults.worker import Worker
from tests.support.states import until

pytestmark = [pytest.mark.one_sdk, pytest.mark.redis, pytest.mark.worker, pytest.mark.timeout(180)]

STEPS = [f"{when} {where}" for where in ("store", "claim", "read", "publish", "finish") for when in ("before", "after")]
#: One that dies, one that its message comes to next, and one for the body: with two, a slow machine may not have started
#: the third before the lease is over, and the body, which nobody has taken, would be published again.
PROCESSES = 3


def completed(worker: Worker) -> Any:
    """Send a chord whose last header task waits until the others have ended; what its body returns."""
    echo, collect = worker.app.tasks["faults.echo"], worker.app.tasks["faults.collect"]
    gate = f"{worker.queue}.gate-{uuid.uuid4().hex}"
    last = worker.app.tasks["faults.wait"].s(gate)
    body = chord([echo.s(0), echo.s(1), last], collect.s()).apply_async()
    others = body.parent.results[:2]
    # Not only stored: a worker that still reads how far the header is may see the last part, and publish the body itself.
    until(
        lambda: all(worker.has_ended(one.id) for one in others), "the other parts are there, and their workers are done"
    )
    worker.open_gate(gate, 2)
    values = body.get(timeout=60)
    assert values == [0, 1, gate]
    until(lambda: worker.redis.exists(f"{worker.queue}.died"), "the process has died")
    until(lambda: not worker.app.backend.connection.run("SELECT VALUE size FROM chord WHERE size > 0"), "it is done")
    return body


@pytest.mark.parametrize("step", STEPS)
def test_late_acknowledgement(start_worker: Callable[..., Worker], fresh_database: Database, step: str) -> None:
    """With task_acks_late the chord goes on wherever the process dies: its body runs once, with all results."""
    settings = {
        "die_at": step,
        "surrealdb_chord_lease": 2,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
    }
    worker = start_worker(fresh_database, settings, concurrency=PROCESSES)
    body = completed(worker)
    assert worker.ran("bodies") == {body.id: 1}
    # Whichever run of the header task stored it, its own result is there too.
    assert [one.state for one in body.parent.results] == ["SUCCESS"] * 3


@pytest.mark.parametrize("step", [step for step in STEPS if step != "before store"])
def test_early_acknowledgement(start_worker: Callable[..., Worker], fresh_database: Database, step: str) -> None:
    """A message acknowledged early does not come again: the worker's main process sees to the chord."""
    worker = start_worker(fresh_database, {"die_at": step, "surrealdb_chord_lease": 2}, concurrency=PROCESSES)
    body = completed(worker)
    assert worker.ran("bodies") == {body.id: 1}
