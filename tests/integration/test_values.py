"""Any value that Celery's serializer takes is stored and read back equal, on every engine."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, states
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surrealdb_celery_backend.errors import UnstorableValue
from tests.engines import Database, RunningEngine
from tests.support.apps import contract_apps
from tests.support.apps.contract_apps import described, outcome, request, seen
from tests.support.apps.tasks_contract import Refused

pytestmark = [
    pytest.mark.integration,
    pytest.mark.redis,
    # What Celery's Redis backend calls of redis-py is not ours to change.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

SERIALIZERS = ("json", "pickle", "yaml", "msgpack")

VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "0": 0,
    "-1": -1,
    "largest of 64 bits": 2**63 - 1,
    "smallest of 64 bits": -(2**63),
    "beyond 64 bits": 2**63,
    "unsigned 64 bits": 2**64 - 1,
    "far beyond 64 bits": -(10**60),
    "1.5": 1.5,
    "-0.0": -0.0,
    "smallest float": 5e-324,
    "NaN": math.nan,
    "infinity": -math.inf,
    "no text": "",
    "text": "text",
    "quotes": "⟩`'\"\\ $record; -- ${}",
    "unicode": "ünï \N{PILE OF POO} \u202e\u0000\u0001\x7f",
    "NUL": "a\x00b",
    "half a surrogate pair": "\ud800",
    "like a record id": "task:abc",
    "like a date": "2026-01-01T00:00:00Z",
    "bytes": b"\x00\xff",
    "no list": [],
    "no dict": {},
    "None inside": {"a": None, "b": [None, {"c": None}]},
    "deep": [[[[[[[[1]]]]]]]],
    "tuple": (1, (2,)),
    "set": {1, 2},
    "keys of other types": {1: "a", None: "b"},
    "keys with NUL": {"a\x00b": 1},
    "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.timezone.utc),
    "naive datetime": dt.datetime(2026, 1, 2, 3, 4, 5, 678901),
    "date": dt.date(2026, 1, 2),
    "timedelta": dt.timedelta(days=1, microseconds=1),
    "Decimal": decimal.Decimal("1.10"),
    "UUID": uuid.UUID(int=5),
    "complex": 1j,
    "object": Refused,
    "exception as a value": Refused("not raised"),
    "10,000 items": list(range(10_000)),
}


@pytest.fixture(scope="module", params=SERIALIZERS)
def pair(engine: RunningEngine, redis_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[Celery, Celery]]:
    """Apps on our backend and on Redis with each serializer."""
    ours = contract_apps.ours(engine.database(), result_serializer=request.param)
    yield ours, contract_apps.reference(redis_url, result_serializer=request.param)
    contract_apps.close(ours)


@pytest.mark.parametrize("name", VALUES)
def test_values(pair: tuple[Celery, Celery], name: str) -> None:
    """A value comes back as it does from Redis, or is refused with the same error, which is the serializer's."""
    task_id = str(uuid.uuid4())

    def there_and_back(app: Celery) -> Any:
        app.backend.store_result(task_id, VALUES[name], states.SUCCESS)
        return app.AsyncResult(task_id).get(timeout=60)

    ours, reference = pair
    expected = outcome(lambda: there_and_back(reference))
    assert outcome(lambda: there_and_back(ours)) == expected
    if outcome(lambda: reference.backend.encode(VALUES[name]))[0] == "raises":
        assert not ours.backend.task_result_exists(task_id)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("traceback", "Traceback:\x00 \ud800 ⟩`"),
        ("task", "a name\x00 with NUL"),
        ("hostname", "a\x00@b"),
        ("args", ["\x00", "\ud800"]),
        ("kwargs", {"\x00": "\x00"}),
        ("retries", 2**70),
        ("retries", 1.5),
        ("group", "a\x00group"),
        ("parent_id", "\x00"),
        ("delivery_info", {"routing_key": "\x00"}),
        ("stamps", {"stamp": "\x00", "stamp\x00": 2**70}),
        ("reply_to", "\x00"),
        ("root_id", "\x00"),
        ("traceback", "x" * 1_000_000),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_fields_with_what_engines_cannot_hold(
    app_with: Callable[..., Celery], redis_url: str, serializer: str, field: str, value: Any
) -> None:
    """NUL, half surrogates and huge numbers come back equal in every field, on SurrealDB 2 too."""
    ours = app_with(result_serializer=serializer)
    reference = contract_apps.reference(redis_url, result_serializer=serializer)
    task_id = str(uuid.uuid4())
    extra = {"stamped_headers": list(value)} if field == "stamps" else {}
    traceback = value if field == "traceback" else "Traceback …"
    fields = {} if field == "traceback" else {field: value, **extra}

    def store(app: Celery) -> Any:
        app.backend.mark_as_failure(task_id, Refused("\x00"), traceback=traceback, request=request(task_id, **fields))
        return seen(app.AsyncResult(task_id))

    assert store(ours) == store(reference)


@pytest.mark.parametrize("name", ["a\x00b", "\ud800"], ids=ascii)
def test_ids_that_cannot_be_stored(app_with: Callable[..., Celery], name: str) -> None:
    """An id with NUL or half a surrogate pair is refused in one sentence that names the field and shows it."""
    backend = app_with().backend
    for act in (
        lambda: backend.store_result(name, 1, states.SUCCESS),
        lambda: backend.get_task_meta(name),
        lambda: list(backend.get_many([name], timeout=0)),
    ):
        with pytest.raises(UnstorableValue, match=r"task_id .* use another id"):
            act()
    with pytest.raises(UnstorableValue, match=r"group_id .* use another id"):
        backend.restore_group(name)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_10_megabytes(app_with: Callable[..., Celery], serializer: str) -> None:
    """A result of 10 MB is stored and read back equal, on the line that everybody shares."""
    app = app_with(result_serializer=serializer, surrealdb_timeout=60)
    value = "0123456789" * 1_000_000
    app.backend.store_result("big", value, states.SUCCESS)
    assert app.AsyncResult("big").get(timeout=60) == value
    app.backend.store_result("small", 1, states.SUCCESS)
    assert app.AsyncResult("small").get(timeout=60) == 1


def test_fields_that_people_ask_for_are_native(app_with: Callable[..., Celery]) -> None:
    """Status, name, worker, dates and retries can be filtered by in SurrealQL."""
    app = app_with()
    app.backend.store_result("an-id", {"a": 1}, states.SUCCESS, request=request("an-id", retries=3))
    rows = app.backend.connection.run(
        "SELECT VALUE task_id FROM task WHERE status = 'SUCCESS' AND name = 'contract.add' AND retries > 2 "
        "AND worker = 'worker@here' AND queue = 'a queue' AND date_done > time::now() - 1h AND root_id = 'an-id'"
    )
    assert rows == ["an-id"]


# -- whatever hypothesis thinks of -------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)
_ID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=100)
_MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@_MANY
@given(task_id=_ID, value=_JSON, name=_TEXT, traceback=_TEXT, stamp=_JSON)
def test_store_then_fetch(
    fresh_database: Database, serializer: str, task_id: str, value: Any, name: str, traceback: str, stamp: Any
) -> None:
    """Whatever is stored under whatever id comes back equal."""
    app = _apps.setdefault(fresh_database, {}).setdefault(
        serializer, contract_apps.ours(fresh_database, result_serializer=serializer)
    )
    fields = {"task": name, "stamps": {"stamp": stamp}, "stamped_headers": ["stamp"]}
    app.backend.store_result(task_id, value, "A STATE", traceback=traceback, request=request(task_id, **fields))
    meta = app.backend.get_task_meta(task_id)
    assert described(meta["result"]) == described(value)
    assert meta["task_id"] == task_id
    assert meta["traceback"] == traceback
    assert described(meta["stamp"]) == described(stamp)
    assert meta["name"] == name


_apps: dict[Database, dict[str, Celery]] = {}


@pytest.fixture(autouse=True)
def _close_apps() -> Iterator[None]:
    yield
    while _apps:
        for app in _apps.popitem()[1].values():
            contract_apps.close(app)
