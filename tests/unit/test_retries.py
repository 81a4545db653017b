"""Celery's retry settings and hooks, those that a subclass overrides included."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import BackendGetMetaError, BackendStoreError

from surrealdb_celery_backend import SurrealDBBackend

pytestmark = pytest.mark.unit


class Passing(Exception):
    """What only the subclass below knows to pass."""


class Failing(SurrealDBBackend):
    """A backend that is never connected, whose operations fail a number of times."""

    def __init__(self, failures: int, **conf: Any) -> None:
        app = Celery("retries", broker="memory://", set_as_current=False)
        app.conf.update(conf)
        super().__init__(app=app)
        self.failures = failures
        self.pauses: list[float] = []
        self.told: list[Exception] = []

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        return isinstance(exc, Passing) or super().exception_safe_to_retry(exc)

    def on_backend_retryable_error(self, exc: Exception) -> None:
        self.told.append(exc)
        raise RuntimeError("the hook's own")

    def _sleep(self, amount: float) -> None:
        self.pauses.append(amount)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Passing("not now")

    def _get_task_meta_for(self, task_id: Any) -> dict[str, Any]:
        self._fail()
        return {"status": states.SUCCESS, "result": 1}

    def _store_result(self, *_: Any, **__: Any) -> Any:
        self._fail()


def test_a_subclass_says_what_passes() -> None:
    """exception_safe_to_retry of a subclass is asked, and its hook is called before each retry and may fail."""
    backend = Failing(3)
    assert backend.get_state("a") == states.SUCCESS
    assert len(backend.pauses) == 3
    backend.failures, backend.told = 2, []
    backend.store_result("a", 1, states.SUCCESS)
    assert len(backend.pauses) == 5
    assert len(backend.told) == 2
    assert {type(exc) for exc in backend.told} == {Passing}


def test_retries_end() -> None:
    """Where the retries run out, Celery's own exceptions are raised, with the last failure as their cause."""
    backend = Failing(100, result_backend_max_retries=4)
    with pytest.raises(BackendGetMetaError) as failed:
        backend.get_state("a")
    assert isinstance(failed.value.__cause__, Passing)
    with pytest.raises(BackendStoreError):
        backend.store_result("a", 1, states.SUCCESS)
    assert len(backend.pauses) == 8


def test_no_retries_without_the_setting() -> None:
    """With result_backend_always_retry off, the failure itself comes at once."""
    backend = Failing(1, result_backend_always_retry=False)
    with pytest.raises(Passing):
        backend.get_state("a")
    assert not backend.pauses


def test_retries_without_end_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Celery's own default number of retries, infinity, can be set and logged."""
    caplog.set_level(logging.WARNING)
    backend = Failing(2, result_backend_max_retries=float("inf"))
    backend.store_result("a", 1, states.SUCCESS)
    assert "retry 2 of inf" in caplog.text
