"""How long a result is kept is decided by its message, its task, the table of patterns, and then the app."""

from __future__ import annotations

import logging
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.task import Context

from surrealdb_celery_backend.errors import SettingsError
from surrealdb_celery_backend.results.retention import FOR_EVER, Lifetime, Retention
from surrealdb_celery_backend.settings.retention import Rule, rules

pytestmark = pytest.mark.unit

DAY = 86_400.0


def retention(table: Any = None, tasks: dict[str, Any] | None = None, **defaults: Any) -> Retention:
    """Retention of an app that keeps results for a day and failures for a week."""
    return Retention(
        SimpleNamespace(**{"expires": DAY, "failure_expires": 7 * DAY, **defaults}),
        unfinished=30 * DAY,
        patterns=rules("retention", table),
        find_task=({} if tasks is None else tasks).get,
    )


def request(name: str = "a.task", **headers: Any) -> Context:
    """A request, with headers as apply_async was given them."""
    return Context(id="id", task=name, **headers)


@pytest.mark.parametrize(
    ("state", "seconds"),
    [("SUCCESS", DAY), ("REVOKED", DAY), ("FAILURE", 7 * DAY), ("STARTED", 30 * DAY), ("RETRY", 30 * DAY),
     ("PENDING", 30 * DAY), ("PROGRESS", 30 * DAY)],
)  # fmt: skip
def test_the_apps_settings(state: str, seconds: float) -> None:
    """Where nothing else is asked for, the state decides."""
    assert retention().lifetime(state) == retention().lifetime(state, request()) == Lifetime(seconds)


@pytest.mark.parametrize("value", [None, 0])
def test_for_ever(value: Any) -> None:
    """None and 0 of the app's settings are for ever; a task that asks for it gets an end that is as good."""
    kept = retention(expires=value, failure_expires=value, tasks={"a.task": SimpleNamespace(result_expires=value)})
    assert kept.lifetime("SUCCESS") == kept.lifetime("FAILURE") == Lifetime(None)
    assert kept.lifetime("SUCCESS", request()) == Lifetime(FOR_EVER, own=True)


@pytest.mark.parametrize(
    ("state", "table", "attributes", "headers", "seconds"),
    [
        ("SUCCESS", {"a.*": 60}, {}, {}, 60),
        ("SUCCESS", {"b.*": 60}, {}, {}, None),
        ("FAILURE", {"a.*": 60}, {}, {}, 60),
        ("FAILURE", {"a.*": {"failure_expires": 60}}, {}, {}, 60),
        ("SUCCESS", {"a.*": {"failure_expires": 60}}, {}, {}, None),
        ("REVOKED", {"a.*": timedelta(minutes=1)}, {}, {}, 60),
        ("SUCCESS", {"a.task": 60, "*": 90}, {}, {}, 60),
        ("SUCCESS", {"*": 90, "a.task": 60}, {}, {}, 90),
        ("SUCCESS", {"*": 90}, {"result_expires": 60}, {}, 60),
        ("FAILURE", {"*": {"failure_expires": 90}}, {"result_expires": 60}, {}, 60),
        ("FAILURE", {"*": 90}, {"result_failure_expires": 60}, {}, 60),
        ("SUCCESS", {"*": 90}, {"result_failure_expires": 60}, {}, 90),
        ("SUCCESS", {"*": 90}, {"result_expires": 60}, {"result_expires": 30}, 30),
        ("FAILURE", {"*": 90}, {"result_failure_expires": 60}, {"result_expires": 30}, 30),
        ("SUCCESS", {"*": 90}, {"result_expires": 60}, {"result_expires": None}, FOR_EVER),
        ("SUCCESS", {}, {}, {"result_expires": "60"}, 60),
        ("STARTED", {"*": 90}, {"result_expires": 60}, {"result_expires": 30}, 30 * DAY),
    ],
)  # fmt: skip
def test_who_decides(state: str, table: Any, attributes: Any, headers: Any, seconds: float | None) -> None:
    """A header before the task, the task before the first pattern that matches, each before the app."""
    kept = retention(table, {"a.task": SimpleNamespace(**attributes)})
    own = seconds is not None and seconds != 30 * DAY
    default = 7 * DAY if state == "FAILURE" else DAY
    assert kept.lifetime(state, request(**headers)) == Lifetime(default if seconds is None else seconds, own=own)


@pytest.mark.parametrize("value", ["soon", -1, float("nan"), 1e12, True, object()])
def test_wrong_wishes_lose_no_result(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong lifetime of a task or a message is said, and the app's is used."""
    kept = retention(tasks={"a.task": SimpleNamespace(result_expires=value)})
    with caplog.at_level(logging.WARNING):
        assert kept.lifetime("SUCCESS", request()) == Lifetime(DAY)
        assert "result_expires of the task 'a.task' must be" in caplog.text
        assert kept.lifetime("SUCCESS", request("other", result_expires=value)) == Lifetime(DAY)
        assert "result_expires of a header of a message of 'other' must be" in caplog.text


def test_a_task_that_is_registered_later() -> None:
    """What a task asks for is found once the task is there."""
    tasks: dict[str, Any] = {}
    kept = retention(tasks=tasks)
    assert kept.lifetime("SUCCESS", request()) == Lifetime(DAY)
    tasks["a.task"] = SimpleNamespace(result_expires=60)
    assert kept.lifetime("SUCCESS", request()) == Lifetime(60, own=True)


@pytest.mark.parametrize("given", [None, SimpleNamespace(), Context(), Context(task=None), Context(task=5)], ids=repr)
def test_requests_without_a_name(given: Any) -> None:
    """A result that is stored without a task has the app's lifetime."""
    assert retention({"*": 60}).lifetime("SUCCESS", given) == Lifetime(DAY)


def test_how_many_are_kept() -> None:
    """A task's own number counts before the pattern's."""
    kept = retention({"a.*": {"keep": 3}, "*": {"keep": "5"}}, {"a.own": SimpleNamespace(result_keep=1)})
    assert [kept.keep(name) for name in ("a.own", "a.other", "b")] == [1, 3, 5]
    assert retention().keep("a") is None


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (None, ()),
        ({}, ()),
        ("", ()),
        ('{"a": 60, "b.*": {"keep": 2}}', (("a", Rule(60)), ("b.*", Rule(keep=2)))),
        ({"a": None, "b": 0}, (("a", Rule(0)), ("b", Rule(0)))),
        ({"a": {"expires": None, "failure_expires": timedelta(1), "keep": None}}, (("a", Rule(0, DAY, None)),)),
    ],
)
def test_the_table(table: Any, expected: Any) -> None:
    """The table of patterns is a dict or its JSON text."""
    assert rules("retention", table) == expected


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{", "surrealdb_retention must be a dict or its JSON text"),
        ([60], "surrealdb_retention must be a dict"),
        ({"a": "soon"}, r"surrealdb_retention\['a'\] must be a number of seconds.*'soon'"),
        ({"a": -1}, "must be a number of seconds from 0"),
        ({"a": {"expire": 1}}, r"unknown key of surrealdb_retention\['a'\] 'expire'; did you mean 'expires'\?"),
        ({"a": {"keep": 0}}, r"keep of surrealdb_retention\['a'\] must be a whole number above 0"),
        ({"a": {"keep": 1.5}}, "must be a whole number above 0"),
        ({"a": {"keep": True}}, "must be a whole number above 0"),
        ({"": 60}, "has the pattern ''"),
        ({5: 60}, "has the pattern 5"),
    ],
)
def test_wrong_tables(table: Any, says: str) -> None:
    """A wrong table is an error that says where."""
    with pytest.raises(SettingsError, match=says):
        rules("retention", table)
