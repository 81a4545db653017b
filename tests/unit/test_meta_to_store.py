"""The shortcut to the meta of a result gives what Celery's own code gives."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context

from surrealdb_celery_backend import SurrealDBBackend

pytestmark = pytest.mark.unit


def backend(kind: type[SurrealDBBackend] = SurrealDBBackend, **conf: Any) -> SurrealDBBackend:
    """A backend that is never connected."""
    app = Celery("meta", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    return kind(app=app)


REQUESTS = {
    "no request": None,
    "bare": Context(id="id"),
    "in a group": Context(id="id", group="the group", parent_id="the parent"),
    "empty ids": Context(id="id", group="", parent_id=""),
    "with children": Context(id="id", children=[Celery(set_as_current=False).AsyncResult("child")]),
    "extended": Context(
        id="id",
        task="a.task",
        args=[1],
        kwargs={"a": 1},
        hostname="here",
        retries=2,
        delivery_info={"routing_key": "q"},
    ),
}


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE, states.REVOKED, states.STARTED, "PROGRESS"])
@pytest.mark.parametrize("request_name", REQUESTS)
def test_equals_celerys(request_name: str, state: str, extended: bool) -> None:
    """Field by field, but for the date, which is now in any zone."""
    ours = backend(result_extended=extended)
    given = ("the result", state, "the traceback", REQUESTS[request_name])
    expected = ours._get_result_meta(*given, format_date=False)
    got = ours._meta_to_store(*given)
    assert list(got) == list(expected)
    expected_date, date = expected.pop("date_done"), got.pop("date_done")
    assert got == expected
    assert (date is None) == (expected_date is None)
    if date is not None:
        assert abs((datetime.now(timezone.utc) - date).total_seconds()) < 60
        assert abs((date - expected_date).total_seconds()) < 60


def test_the_setting_may_change_later() -> None:
    """result_extended counts as it is when the result is stored."""
    ours = backend()
    assert "args" not in ours._meta_to_store(1, states.SUCCESS, None, REQUESTS["extended"])
    ours.app.conf.result_extended = True
    assert ours._meta_to_store(1, states.SUCCESS, None, REQUESTS["extended"])["args"] == [1]


def test_a_subclass_that_adds_to_the_meta_is_heard() -> None:
    """Somebody's own _get_result_meta is called."""

    class Own(SurrealDBBackend):
        def _get_result_meta(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {**super()._get_result_meta(*args, **kwargs), "own": "field"}

    assert backend(Own)._meta_to_store(1, states.SUCCESS, None, None)["own"] == "field"


def test_a_celery_that_adds_to_the_meta_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that a later Celery adds is not lost."""
    from celery.backends.base import Backend

    celerys = Backend._get_result_meta

    def of_a_later_celery(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**celerys(self, *args, **kwargs), "later": "field"}

    monkeypatch.setattr(Backend, "_get_result_meta", of_a_later_celery)
    assert backend()._meta_to_store(1, states.SUCCESS, None, None)["later"] == "field"
