"""What a record holds is the same when it is read back; what cannot be is refused before it is written."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections import OrderedDict, namedtuple
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain
from celery.schedules import crontab, schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Queue

from surrealdb_celery_backend.beat import ScheduleEntry
from surrealdb_celery_backend.beat.records import check_storable, entry_of, fields_of
from surrealdb_celery_backend.beat.values import MAX_DEPTH, is_in_code, loaded, storable, stored
from surrealdb_celery_backend.errors import InvalidSchedule

pytestmark = pytest.mark.unit

UTC = timezone.utc
Point = namedtuple("Point", "x y")  # noqa: PYI024 - as users have them


class Colour(str, enum.Enum):
    """Text that is an enum's."""

    RED = "red"


class Own:
    """A class of the project that Celery's JSON sends as something else."""

    def __json__(self) -> dict[str, int]:
        return {"own": 1}


@dataclasses.dataclass
class Data:
    """A class of the project."""

    value: int = 5


class Odd(schedule):
    """A schedule class of the project."""


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_plain_data_stays_readable() -> None:
    """What SurrealDB can hold is stored as it is; what it would change is stored as JSON text."""
    assert stored({"a": [1, 2.5, "x", True]}) == {"a": [1, 2.5, "x", True]}
    assert stored({"a": None}) == '{"a": null}'
    assert stored([2**64]) == "[18446744073709551616]"
    assert stored(["half \ud800"]) == '["half \\\\ud800"]'.replace("\\\\", "\\")
    assert stored(nested(50)) == "[" * 50 + "]" * 50
    assert stored([object]).startswith("code: [<class")
    assert stored([Own()]) == stored([Own()])  # no address of this process


def test_texts_of_other_types_are_plain() -> None:
    """Tuples, enums and mappings are stored as the lists, texts and objects that they are."""
    given = {"a": (1, Point(2, 3)), "b": Colour.RED, "c": OrderedDict(x=1), "d": MappingProxyType({"y": 2})}
    plain = {"a": [1, [2, 3]], "b": "red", "c": {"x": 1}, "d": {"y": 2}}
    assert stored(given) == plain
    assert type(stored(given)["b"]) is str


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"user": Data()}, "kwargs.user holds Data(value=5), which cannot be stored as data: give what JSON can hold"),
        ({"a": [1, {"b": object}]}, "kwargs.a[1].b holds <class 'object'>, which cannot be stored as data"),
        ({"a": timedelta(5)}, "kwargs.a holds datetime.timedelta(days=5), which cannot be stored"),
        ({"a": {1, 2}}, "kwargs.a holds {1, 2}, which cannot be stored"),
        ({"a": Own()}, "which cannot be stored as data"),
        ({"a": {1: "x"}}, "kwargs.a has the key 1: keys that are stored are text"),
        ({"a": nested(MAX_DEPTH + 5)}, "kwargs is nested deeper than 100 levels"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, sentence: str) -> None:
    """The message says where the value is, and what it is."""
    with pytest.raises(InvalidSchedule) as caught:
        storable("kwargs", value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_in_itself_is_refused() -> None:
    """A list that holds itself is refused, not followed without end."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidSchedule, match="args is nested deeper"):
        storable("args", endless)
    assert is_in_code(stored(endless))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["__type__", "__value__"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(args=st.lists(VALUES, max_size=3), kwargs=st.dictionaries(st.text(), VALUES, max_size=3))
def test_what_is_accepted_is_read_back_the_same(args: list[Any], kwargs: dict[str, Any]) -> None:
    """An entry is either refused before it is written, or read back equal."""
    entry = ScheduleEntry("e", "t", {"timedelta": 5}, args=args, kwargs=kwargs)
    try:
        check_storable(entry, UTC)
    except InvalidSchedule:
        # Only what looks like one of Celery's own forms of JSON and is none.
        assert "__type__" in repr((args, kwargs))
        return
    assert entry_of(fields_of(entry), UTC) == entry


APP = Celery("values", set_as_current=False)


@pytest.mark.parametrize(
    ("fields", "stands"),
    [
        ({"options": {"expires": timedelta(minutes=5)}}, {"options": {"expires": 300}}),
        ({"options": {"expires": timedelta(milliseconds=1500)}}, {"options": {"expires": 1.5}}),
        ({"options": {"time_limit": timedelta(hours=1), "countdown": 0}}, {"options": {"time_limit": 3600, "countdown": 0}}),
        ({"options": {"expires": datetime(2030, 1, 1, tzinfo=UTC)}}, {"options": {"expires": datetime(2030, 1, 1, tzinfo=UTC)}}),
        ({"args": (1, date(2026, 1, 1))}, {"args": [1, date(2026, 1, 1)]}),
        ({"kwargs": {"id": uuid.UUID(int=5), "sum": Decimal("1.10")}}, {}),
    ],
)  # fmt: skip
def test_what_is_stored(fields: dict[str, Any], stands: dict[str, Any]) -> None:
    """Timedeltas in options, tuples and what Celery's JSON knows are stored, and read back as data."""
    entry = ScheduleEntry("e", "t", {"timedelta": 5}, **fields)
    check_storable(entry, UTC)
    again = entry_of(fields_of(entry), UTC)
    for name, value in {**fields, **stands}.items():
        assert getattr(again, name) == value


@pytest.mark.parametrize(
    "task", [APP.signature("a"), chain(APP.signature("a"), APP.signature("b")), "celery.chain", "celery.group"]
)
def test_a_signature_is_no_task(task: Any) -> None:
    """A workflow, or a signature, is refused with what to do instead; so is the name that stands for one."""
    with pytest.raises(InvalidSchedule, match="an entry sends one task by its name; for a chain, a group or a chord"):
        ScheduleEntry("e", task, {"timedelta": 5})


def test_a_signature_in_the_options_is_stored() -> None:
    """`link` takes signatures; they are objects to the database."""
    link = chain(APP.signature("a"), APP.signature("b"))
    entry = ScheduleEntry("e", "t", {"timedelta": 5}, options={"link": link})
    check_storable(entry, UTC)
    assert entry_of(fields_of(entry), UTC).options["link"]["task"] == "celery.chain"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"schedule": Odd(5)}, "schedule holds <freq: 5.00 seconds>, which cannot be stored as data: give seconds"),
        ({"options": {"queue": Queue("q")}}, "options.queue holds <unbound Queue q"),
        ({"options": {"link": SimpleNamespace()}}, "options.link holds namespace()"),
        ({"args": [Data()]}, "args[0] holds Data(value=5)"),
    ],
)
def test_what_only_code_can_hold_is_refused_for_the_database(fields: dict[str, Any], sentence: str) -> None:
    """Objects are fine in code; an entry that is to be stored is refused, whichever field has one."""
    entry = ScheduleEntry(**{"name": "e", "task": "t", "schedule": {"timedelta": 5}, **fields})
    assert entry.is_in_code
    with pytest.raises(InvalidSchedule) as caught:
        check_storable(entry, UTC)
    assert sentence in str(caught.value)
    # Only what is written has to be storable.
    check_storable(entry, UTC, ("description",))


def test_json_text_of_the_database_is_read_or_named() -> None:
    """Text that somebody wrote into a record is JSON, however deep, or one clear sentence."""
    assert loaded("args", "[1, null]") == [1, None]
    for text in ("[1", "[" * 200_000, '{"__type__": "datetime", "__value__": 5}'):
        with pytest.raises(InvalidSchedule, match="args holds text that is no JSON"):
            loaded("args", text)


def test_a_crontab_of_celery_is_stored() -> None:
    """Celery's own schedule objects are data."""
    entry = ScheduleEntry("e", "t", crontab(minute=0, hour=9))
    check_storable(entry, UTC)
    assert not entry.is_in_code
    assert fields_of(entry)["schedule"] == {"minute": "0", "hour": "9"}
