"""How to test your own tasks: real results in a real engine, all inside the test process.

    pip install 'surrealdb-celery-backend[embedded]' pytest
    python -m pytest -c /dev/null --rootdir demo demo/test_tasks.py

(`-c` and `--rootdir` keep the pytest settings of the checkout out; elsewhere `pytest test_tasks.py` is enough.)

The engine lives in memory, the broker too, and the worker runs in a thread: no server,
no port, nothing left behind. `task_always_eager` would be faster, and would show none
of what a result backend does to a result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker
from celery_app import app
from tasks import ServiceUnavailableError, add, divide, fetch, resize, total

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def worker() -> Iterator[Celery]:
    """Run a worker beside the tests, on an engine of its own."""
    app.conf.update(
        broker_url="memory://",
        broker_transport_options={"polling_interval": 0.01},
        result_backend="surrealdb_celery_backend:SurrealDBBackend+mem://",
    )
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=60):
        yield app


def test_result_comes_back() -> None:
    """What a task returns is what its caller gets."""
    assert add.delay(2, 3).get(timeout=30) == 5


def test_failure_comes_back_as_its_own_class() -> None:
    """The exception that a task raised is raised again where its result is asked for."""
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        divide.delay(1, 0).get(timeout=30)


def test_retries_are_counted() -> None:
    """A task that works at its third attempt has been retried twice."""
    result = fetch.delay("/prices")
    assert result.get(timeout=30) == "/prices after 3 attempts"
    assert result.retries == 2


def test_giving_up_raises_what_the_last_attempt_raised() -> None:
    """When the retries run out, the caller gets the last error."""
    with pytest.raises(ServiceUnavailableError, match="/prices is not there yet"):
        fetch.delay("/prices", works_at=99).get(timeout=30)


def test_progress_is_what_was_stored_last() -> None:
    """A finished task has its result in the place of its progress."""
    result = resize.delay(3, seconds_each=0)
    assert result.get(timeout=30) == "3 images resized"
    assert result.state == "SUCCESS"


def test_group_keeps_its_order() -> None:
    """A group's results come in the order of its tasks."""
    assert group(add.s(n, n) for n in range(5)).apply_async().get(timeout=30) == [0, 2, 4, 6, 8]


def test_chord_gets_every_result() -> None:
    """A chord's body is called with what all the tasks of its header returned."""
    assert chord((add.s(n, n) for n in range(5)), total.s()).apply_async().get(timeout=30) == 20
