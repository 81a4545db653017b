"""A meta becomes a record whose fields can be filtered by, and comes back without loss."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.app.task import Context

from surrealdb_celery_backend import SurrealDBBackend
from surrealdb_celery_backend.errors import UnstorableValue
from surrealdb_celery_backend.results.records import TaskRecords, identifier
from surrealdb_celery_backend.results.retention import Lifetime

pytestmark = pytest.mark.unit

DONE = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def records(serializer: str = "json", zone: Any = timezone.utc) -> TaskRecords:
    """Records of a backend that is never connected."""
    app = Celery("records", set_as_current=False)
    app.conf.update(result_serializer=serializer, result_accept_content=["json", "pickle"])
    return TaskRecords(SurrealDBBackend(app=app), "task", zone)


def meta(**fields: Any) -> dict[str, Any]:
    """A meta as Celery makes it."""
    return {"status": "SUCCESS", "result": 1, "traceback": None, "children": [], "date_done": DONE, **fields}


def there_and_back(kept: TaskRecords, given: dict[str, Any], task_id: Any = "an-id") -> dict[str, Any]:
    """What comes back of a meta."""
    record = kept.from_meta(task_id, given)
    # The database adds it.
    return kept.to_meta(record.fields | {"date_done": given.get("date_done")})


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"children": None},
        {"children": [[["child", None], None]]},
        {"traceback": "Traceback …"},
        {"traceback": ""},
        {"traceback": "\x00"},
        {"group_id": "a group", "parent_id": "a parent"},
        {"result": {"a": [None, 2**70]}},
        {"name": "n", "args": [1], "kwargs": {}, "worker": "w", "retries": 0, "queue": "q"},
        {"name": None, "args": None, "kwargs": None, "worker": None, "retries": None, "queue": None},
        {"name": "\x00", "args": ["\x00"], "kwargs": {"\x00": 1}, "worker": "", "retries": 2**70, "queue": "\ud800"},
        {
            "name": "n", "args": [], "kwargs": {}, "worker": "w", "retries": 0, "queue": "q",
            "stamped_headers": ["monitor"], "monitor": [1, 2],
        },
    ],
    ids=lambda fields: ascii(fields)[:40],
)  # fmt: skip
def test_nothing_is_lost(serializer: str, fields: dict[str, Any]) -> None:
    """Every field comes back equal, with date_done as text and the id added."""
    expected = {**meta(**fields), "task_id": "an-id", "date_done": DONE.isoformat()}
    assert there_and_back(records(serializer), meta(**fields)) == expected


def test_date_done_is_given_in_the_apps_zone() -> None:
    """The database has the time in UTC; it is given in the app's time zone."""
    zone = timezone(timedelta(hours=5, minutes=45))
    assert there_and_back(records(zone=zone), meta())["date_done"] == DONE.astimezone(zone).isoformat()


def test_what_people_filter_by_is_native() -> None:
    """Text, numbers and dates that every engine can hold are stored as they are."""
    record = (
        records()
        .from_meta(
            "an-id",
            meta(name="n", args=[1], kwargs={}, worker="w", retries=3, queue="q"),
            request=Context({"root_id": "root", "reply_to": "me"}),
        )
        .fields
    )
    native = {key: record[key] for key in ("status", "name", "worker", "retries", "queue", "root_id", "reply_to")}
    assert native == {
        "status": "SUCCESS", "name": "n", "worker": "w", "retries": 3, "queue": "q", "root_id": "root",
        "reply_to": "me",
    }  # fmt: skip


def test_times_are_durations() -> None:
    """No time of this host's clock is in a record: the database counts lifetime and age from its own."""
    record = records().from_meta("an-id", meta(), kept=Lifetime(60), ended=timedelta(seconds=2))
    assert not any(isinstance(value, datetime) for value in record.fields.values())
    assert record.more == {"l": timedelta(seconds=60), "e": timedelta(seconds=2)}
    assert records().from_meta("an-id", meta(date_done=None)).more == {}


@pytest.mark.parametrize("value", ["text", UUID(int=1), b"bytes", 5])
def test_identifiers(value: Any) -> None:
    """An id may be text, bytes, a UUID or anything with a text."""
    assert identifier("task_id", value) == (value.decode() if isinstance(value, bytes) else str(value))


@pytest.mark.parametrize("value", ["", None, b""])
def test_empty_identifiers(value: Any) -> None:
    """An empty id is refused in Celery's words."""
    with pytest.raises(ValueError, match="task_id must not be empty"):
        identifier("task_id", value)


@pytest.mark.parametrize("value", ["\x00", "a\ud800"], ids=ascii)
def test_identifiers_that_no_engine_holds(value: str) -> None:
    """NUL and half a surrogate pair are refused with the id shown."""
    with pytest.raises(UnstorableValue, match="group_id"):
        identifier("group_id", value)


def test_ids_beside_the_meta_never_fail_a_store() -> None:
    """What Celery's meta leaves out is kept where it is text; anything else is left out, not an error."""
    request = Context(root_id=object(), reply_to="half a \ud800 pair")
    record = records().from_meta("id", {"status": "SUCCESS", "result": 1}, request=request).fields
    assert not {"root_id", "reply_to"} & set(record)
    request = Context(root_id="root", reply_to="address")
    record = records().from_meta("id", {"status": "SUCCESS", "result": 1}, request=request).fields
    assert (record["root_id"], record["reply_to"]) == ("root", "address")
