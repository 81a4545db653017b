"""Serializers, compression and prefixes, and the backend object itself, as with Celery's Redis backend."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, states
from kombu.exceptions import ContentDisallowed

from tests.engines import Database
from tests.support.apps import contract_apps
from tests.support.apps.contract_apps import Both, described, request, seen, since_celery_5_7
from tests.support.apps.tasks_contract import failure

pytestmark = [
    pytest.mark.integration,
    pytest.mark.redis,
    # What Celery's Redis backend calls of redis-py is not ours to change.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

SERIALIZERS = ("json", "pickle", "yaml", "msgpack")


# -- settings that change how results are stored -----------------------------------------------------


@pytest.mark.parametrize("writer", SERIALIZERS)
@pytest.mark.parametrize("reader", SERIALIZERS)
def test_readable_after_the_serializer_changed(
    both_with: Callable[..., Both], task_id: str, writer: str, reader: str
) -> None:
    """A result written before result_serializer changed can be read after it, children and arguments too."""
    before, after = both_with(result_serializer=writer).ours, both_with(result_serializer=reader).ours
    children = [before.AsyncResult(f"{task_id}-child")]
    before.backend.store_result(task_id, {"a": [1, "ü"]}, states.SUCCESS, request=request(task_id, children=children))
    failed = f"{task_id}-failed"
    before.backend.mark_as_failure(failed, failure("own class"), traceback="Traceback …")
    before.backend.save_group(task_id, before.GroupResult(task_id, children))
    assert seen(after.AsyncResult(task_id)) == seen(before.AsyncResult(task_id))
    assert described(after.AsyncResult(failed).result) == described(before.AsyncResult(failed).result)
    assert described(after.GroupResult.restore(task_id)) == described(before.GroupResult.restore(task_id))


def test_content_that_is_not_accepted(both_with: Callable[..., Both], task_id: str) -> None:
    """A pickled result is not unpickled where result_accept_content does not allow it, and the error says so."""
    writer = both_with(result_serializer="pickle")
    reader = both_with(result_serializer="json", result_accept_content=["json"]).ours
    # A tuple, which is pickled whatever surrealdb_result_format is.
    writer.ours.backend.store_result(task_id, (1,), states.SUCCESS)
    with pytest.raises(ContentDisallowed, match="pickle"):
        reader.backend.get_task_meta(task_id)


@since_celery_5_7
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("compression", ["gzip", "bzip2"])
def test_compression(both_with: Callable[..., Both], task_id: str, serializer: str, compression: str) -> None:
    """result_compression changes nothing but the size, and old results are readable after it was switched."""
    both = both_with(result_serializer=serializer, result_compression=compression)
    if both.reference.backend.compression is None:
        pytest.skip("this Celery has no result_compression")
    value = {"text": "ab" * 10_000}

    def store(app: Celery) -> Any:
        children = [app.AsyncResult(f"{task_id}-child")]
        app.backend.store_result(task_id, value, states.SUCCESS, request=request(task_id, children=children))
        app.backend.save_group(task_id, app.GroupResult(task_id, children))
        return seen(app.AsyncResult(task_id)), described(app.GroupResult.restore(task_id))

    both.same(store)
    record = both.ours.backend.connection.run("SELECT VALUE result FROM task")[0]
    assert len(record) < 1000
    off = both_with(result_serializer=serializer).ours
    assert off.AsyncResult(task_id).result == value


@pytest.mark.parametrize("conf", [
    {"result_backend_transport_options": {"global_keyprefix": "prefix"}},
    {"result_backend_transport_options": {"global_keyprefix": "prefix:"}},
    {"surrealdb_table_prefix": "my-"},
    {"surrealdb_table_prefix": "`⟩\\ü "},
    {"surrealdb_table_prefix": "a_", "result_backend_transport_options": {"global_keyprefix": "b"}},
], ids=str)  # fmt: skip
def test_prefixes_keep_apps_apart(both_with: Callable[..., Both], task_id: str, conf: dict[str, Any]) -> None:
    """Two apps with different prefixes share a database without seeing each other's results."""
    plain, prefixed = both_with().ours, both_with(**conf).ours
    group = prefixed.GroupResult(task_id, [prefixed.AsyncResult(task_id)])
    assert prefixed.AsyncResult(task_id).state == states.PENDING
    prefixed.backend.store_result(task_id, 1, states.SUCCESS)
    group.save()
    assert plain.AsyncResult(task_id).state == states.PENDING
    assert plain.GroupResult.restore(task_id) is None
    assert prefixed.AsyncResult(task_id).result == 1
    assert prefixed.GroupResult.restore(task_id) == group
    assert prefixed.backend.settings.table("task") in plain.backend.connection.run("INFO FOR DB")["tables"]
    prefixed.backend.cleanup()


def test_keys_have_the_prefix(both_with: Callable[..., Both], task_id: str) -> None:
    """Whoever asks for the key of a task or group gets the one that Celery's other backends have, and it works."""
    both = both_with(result_backend_transport_options={"global_keyprefix": "prefix"})

    def keys(app: Celery) -> Any:
        backend = app.backend
        backend.store_result(task_id, 1, states.SUCCESS)
        made = [backend.get_key_for_task(task_id), backend.get_key_for_group("a"), backend.get_key_for_chord("a")]
        return [key.decode() if isinstance(key, bytes) else key for key in made], backend.decode(backend.get(made[0]))[
            "result"
        ]

    assert both.same(keys) == (
        [f"prefix_celery-task-meta-{task_id}", "prefix_celery-taskset-meta-a", "prefix_chord-unlock-a"],
        1,
    )


# -- the object itself -------------------------------------------------------------------------------


def test_backend_can_be_pickled(both: Both, task_id: str) -> None:
    """A pickled backend is a new one of the current app with the same URL and lifetime."""
    backend = both.ours.backend
    backend.store_result(task_id, 1, states.SUCCESS)
    both.ours.set_current()
    copy = pickle.loads(pickle.dumps(backend))
    try:
        assert type(copy) is type(backend)
        assert (copy.url, copy.expires, copy.settings) == (backend.url, backend.expires, backend.settings)
        assert copy.get_result(task_id) == 1
    finally:
        copy.close()


def test_backend_from_a_url_can_be_pickled(fresh_database: Database) -> None:
    """The URL is what travels, with the password in it, and an own lifetime too."""
    app = contract_apps.app_on(fresh_database.backend_url)
    app.set_current()
    from surrealdb_celery_backend import SurrealDBBackend

    backend = SurrealDBBackend(app=app, url=fresh_database.backend_url, expires=timedelta(minutes=1))
    copy = pickle.loads(pickle.dumps(backend))
    try:
        assert copy.expires == 60
        assert copy.settings == backend.settings
    finally:
        copy.close()
        backend.close()
        contract_apps.close(app)


def test_results_can_be_pickled(both: Both, task_id: str) -> None:
    """AsyncResult and GroupResult travel by pickle."""
    app = both.ours
    app.set_current()
    app.backend.store_result(task_id, 1, states.SUCCESS)
    result = app.AsyncResult(task_id, parent=app.AsyncResult("a-parent"))
    group = app.GroupResult("a-group", [result])
    assert pickle.loads(pickle.dumps(result)) == result
    assert pickle.loads(pickle.dumps(group)) == group
    copy = pickle.loads(pickle.dumps(result))
    assert copy.get(timeout=5) == 1


def test_one_backend_serves_all_threads(both: Both) -> None:
    """The app makes one backend, not one per thread, and results of concurrent threads do not mix."""
    app = both.ours
    app.backend  # noqa: B018 - made by this thread
    backends: set[int] = set()
    wrong: list[Any] = []

    def work(number: int) -> None:
        backends.add(id(app.backend))
        for count in range(20):
            name = f"thread-{number}-{count}"
            app.backend.store_result(name, [number, count], states.SUCCESS)
            got = app.backend.get_task_meta(name, cache=False)["result"]
            if got != [number, count]:
                wrong.append((name, got))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(backends) == 1


def test_one_backend_per_thread_if_asked_for(both_with: Callable[..., Both], task_id: str) -> None:
    """result_backend_thread_safe = False is heard: each thread has a backend of its own, and all work."""
    app = both_with(result_backend_thread_safe=False).ours
    backends: list[Any] = [app.backend]

    def work() -> None:
        backends.append(app.backend)
        app.backend.store_result(task_id, 1, states.SUCCESS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    try:
        assert backends[0] is not backends[1]
        assert app.AsyncResult(task_id).get(timeout=30) == 1
    finally:
        backends[1].close()


@since_celery_5_7
def test_capabilities(both: Both) -> None:
    """What the backend says of itself is what Celery's own says, but for the clean-up that beat does for ours."""
    names = (
        "supports_native_join", "supports_failure_expires", "supports_result_compression", "persistent", "is_async",
        "READY_STATES", "UNREADY_STATES", "EXCEPTION_STATES", "expires", "accept", "serializer", "content_type",
        "content_encoding",
    )  # fmt: skip
    both.same(lambda app: {name: getattr(app.backend, name, "absent") for name in names})
    assert both.ours.backend.supports_autoexpire is False
