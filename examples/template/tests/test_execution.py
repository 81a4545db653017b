"""Tasks: executed by a worker, retried, failing, mocked."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest
from celery.exceptions import Retry
from template import tasks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("worker")


def test_a_task_is_executed() -> None:
    """What a task returns is what its caller gets."""
    assert tasks.add.delay(2, 3).get(timeout=30) == 5


def test_a_bound_task_knows_itself() -> None:
    """Its id, its queue and its number of retries are those of the message."""
    result = tasks.describe.apply_async(queue="celery", priority=3)
    told = result.get(timeout=30)
    assert (told["id"], told["queue"], told["priority"], told["retries"]) == (result.id, "celery", 3, 0)


def test_retries_end_with_an_answer() -> None:
    """A task that works at its second attempt has been retried once."""
    result = tasks.fetch.delay(works_at=2)
    assert result.get(timeout=30) == 2
    assert result.retries == 1


def test_a_retry_is_asked_for() -> None:
    """Called directly, the first attempt asks to be retried instead of failing."""
    with mock.patch.object(tasks.fetch, "retry", side_effect=Retry()) as retry, pytest.raises(Retry):
        tasks.fetch.run(works_at=2)
    assert isinstance(retry.call_args.kwargs["exc"], tasks.ServiceUnavailableError)


def test_an_error_comes_back_as_its_own_class() -> None:
    """The caller sees the exception that the task raised."""
    with pytest.raises(TypeError, match="unsupported operand"):
        tasks.add.delay(1, "x").get(timeout=30)


def test_an_async_task_uses_its_database(tmp_path: Path) -> None:
    """Each run has an event loop of its own; the rows of the last one are there."""
    database = str(tmp_path / "orders.db")
    assert [tasks.order.delay(database).get(timeout=30) for _ in range(2)] == [1, 2]


def test_a_value_is_computed_once() -> None:
    """The second call is answered by the cache of the worker's process."""
    assert tasks.price.delay("book").get(timeout=30) == tasks.price.delay("book").get(timeout=30)


def test_the_service_is_mocked() -> None:
    """A task is a function: what it calls is replaced as anywhere else."""
    with mock.patch("template.tasks.remembered", return_value=9.5) as remembered:
        assert tasks.price("book") == 9.5
    remembered.assert_called_once()
