"""The key/value interface that Celery's base class has: other code of Celery's world may call it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
from celery import Celery, states

from tests.engines import Database, RunningEngine
from tests.support.apps import contract_apps

pytestmark = pytest.mark.integration


@pytest.fixture
def app(fresh_database: Database) -> Iterator[Celery]:
    """An app on a database that nobody used."""
    ours = contract_apps.ours(fresh_database)
    yield ours
    contract_apps.close(ours)


KEYS = ["plain", "with:colon", "⟩`'\"\\", "ü", "x" * 1000, "chord-unlock-1", "1", b"bytes"]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: ascii(key)[:20])
@pytest.mark.parametrize("value", ["text", b"\x00\xff bytes", 7, "", "⟩`'ü"], ids=ascii)
def test_set_get_delete(app: Celery, key: str | bytes, value: object) -> None:
    """What is set under any key is got, and gone once deleted."""
    backend = app.backend
    assert backend.get(key) is None
    backend.delete(key)
    backend.set(key, "before")
    backend.set(key, value)
    assert backend.get(key) == value
    backend.delete(key)
    assert backend.get(key) is None


def test_mget_is_one_round_trip_in_order(app: Celery) -> None:
    """One mget gives the values in the keys' order, None where there is none, in one round trip."""
    backend = app.backend
    for number in range(20):
        backend.set(f"key-{number}", number)
    keys = [f"key-{number}" for number in (5, 99, 3, 5)]
    before = backend.connection.request_count
    assert backend.mget(keys) == [5, None, 3, 5]
    assert backend.connection.request_count == before + 1


def test_task_and_group_keys_lead_to_their_records(app: Celery) -> None:
    """A task's key gives its encoded meta and a group's key its encoded members; setting them back stores them."""
    backend = app.backend
    backend.store_result("an-id", {"a": 1}, states.SUCCESS)
    group = app.GroupResult("a-group", [app.AsyncResult("an-id")])
    group.save()
    task_key, group_key = backend.get_key_for_task("an-id"), backend.get_key_for_group("a-group")
    meta, members = backend.mget([task_key, group_key])
    assert backend.decode_result(meta)["result"] == {"a": 1}
    assert backend.decode(members)["result"] == [["a-group", None], [[["an-id", None], None]]]
    backend.delete(task_key)
    backend.delete(group_key)
    assert app.AsyncResult("an-id").state == states.PENDING
    backend.set(task_key, meta)
    backend.set(group_key, members)
    assert app.AsyncResult("an-id").result == {"a": 1}
    assert app.GroupResult.restore("a-group") == group


def test_incr(app: Celery) -> None:
    """Calling incr counts from nothing and gives the new value, and no thread's increment is lost within one process."""
    backend = app.backend
    assert [backend.incr("counter") for _ in range(3)] == [1, 2, 3]
    assert backend.get("counter") == 3


def test_incr_by_threads(app: Celery, engine: RunningEngine) -> None:
    """Threads that count one key at once all succeed; none gets an error for a conflict."""
    failures: list[Exception] = []

    def count() -> None:
        try:
            for _ in range(10):
                app.backend.incr("shared")
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    # Not every store detects every conflict (docs/architecture.md), which is why nothing of ours counts. How many
    # it misses is chance. Two are left at least: one thread's last increment may have read another's belated first.
    least = 40 if engine.exact else 2
    assert least <= app.backend.get("shared") <= 40


def test_expire(app: Celery) -> None:
    """A key that has expired is gone before clean-up came by; expire() of None or 0 keeps it."""
    backend = app.backend
    key = str(uuid.uuid4())
    backend.set(key, "value")
    backend.expire(key, 1000)
    assert backend.get(key) == "value"
    backend.expire(key, -1)
    assert backend.get(key) is None
    backend.expire(key, None)
    assert backend.get(key) == "value"


def test_a_value_that_is_no_meta_stays_a_plain_value(app: Celery) -> None:
    """Under a task's key, what cannot be a task's record is kept as it is and is no result."""
    backend = app.backend
    key = backend.get_key_for_task("an-id")
    backend.set(key, b"\x00 no meta")
    assert backend.get(key) == b"\x00 no meta"
    assert app.AsyncResult("an-id").state == states.PENDING
    backend.delete(key)
    assert backend.get(key) is None
