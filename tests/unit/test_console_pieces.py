"""What the console decides without a server: filters in URLs, drawings, durations, text that is safe to show."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from surrealdb_celery_backend.console import Access, ConsoleOptions, Credentials
from surrealdb_celery_backend.console.filters import View, moment
from surrealdb_celery_backend.console.graph import GAP_Y, HEIGHT, MOST, draw
from surrealdb_celery_backend.console.matching import matcher
from surrealdb_celery_backend.console.remembered import Remembered
from surrealdb_celery_backend.console.schedules import schedule_of
from surrealdb_celery_backend.console.tasks import cell
from surrealdb_celery_backend.console.views import seconds, shown, timeline, visible
from surrealdb_celery_backend.errors import InvalidFilter, InvalidSchedule, SettingsError
from surrealdb_celery_backend.results import (
    Attempt,
    Distribution,
    RecentStats,
    StatRow,
    TaskDetail,
    TaskError,
    TaskNode,
    TaskSummary,
    TimeRow,
    Workflow,
)
from tests.support.states import until

pytestmark = pytest.mark.unit


def test_a_view_is_its_url() -> None:
    """A URL gives the filters, and the filters give the URL again; empty fields are none."""
    view = View.of({"state": "FAILURE, RETRY", "name": "shop.*", "since": "2026-11-26T09:00", "worker": " ", "x": "1"})
    assert view.wanted["state"] == ["FAILURE", "RETRY"]
    assert view.wanted["since"] == datetime(2026, 11, 26, 9, tzinfo=timezone.utc)
    assert "worker" not in view.wanted
    again = dict(pair.split("=") for pair in view.link(state=None).split("&"))
    assert set(again) == {"name", "since"}


def test_a_span_is_a_time_before_now() -> None:
    """`90m` and the like are counted from now."""
    before = datetime.now(timezone.utc) - timedelta(minutes=90)
    assert abs(moment("since", "90m") - before) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "query", [{"since": "soon"}, {"since": "99999999999999d"}, {"limit": "x"}, {"min_runtime": "x"}]
)
def test_a_field_that_makes_no_sense_is_named(query: dict[str, str]) -> None:
    """The message names the field and what it held."""
    (name,), (held,) = query, query.values()
    with pytest.raises(InvalidFilter, match=f"{name} is '{held}'"):
        View.of(query)


@pytest.mark.parametrize(
    ("duration", "text"),
    [(None, ""), (0.00001, "10 µs"), (0.25, "250 ms"), (3.2, "3.20 s"), (75, "1 min 15 s"), (7300, "2 h 1 min"),
     (400_000, "4.6 days"), (-0.5, "-500 ms")],
)  # fmt: skip
def test_durations_are_said_as_people_do(duration: float | None, text: str) -> None:
    """The unit follows from the size; one below zero keeps its sign."""
    assert seconds(duration) == text


def test_control_characters_are_written_out() -> None:
    """Escape sequences and marks that turn the direction of writing cannot act; line ends stay."""
    assert visible("a\x1b[31m\u202eb\nc") == "a\\x1b[31m\\u202eb\nc"


def test_long_values_are_cut() -> None:
    """A page shows the beginning, and says how much more there is."""
    assert shown("x" * 50, 10) == "x" * 10 + "\n… and 40 characters more"
    assert shown({"a": [1]}, 100) == '{\n  "a": [\n    1\n  ]\n}'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_cell_is_no_formula(text: str) -> None:
    """A spreadsheet does not run what a task is called or fails with."""
    assert cell(text).startswith("'")
    assert cell(-1.5) == "-1.5"


def test_a_workflow_is_drawn_from_left_to_right() -> None:
    """Each generation has a column, and a parent stands beside the middle of its children."""
    leaves = tuple(TaskNode(f"leaf{n}", "SUCCESS", None) for n in range(3))
    root = TaskNode("root", "SUCCESS", None, (TaskNode("middle", "SUCCESS", None, leaves), TaskNode("end", "X", None)))
    drawing = draw(Workflow(root, {"SUCCESS": 6}, complete=True))
    places = {box.node.id: box for box in drawing.boxes}
    assert places["root"].x < places["middle"].x == places["end"].x < places["leaf0"].x
    assert places["middle"].y == places["leaf1"].y
    assert places["end"].y == 3 * (HEIGHT + GAP_Y)
    assert len(drawing.lines) == 5
    assert drawing.complete


def test_a_long_chain_is_drawn_in_part() -> None:
    """Thousands of generations are no recursion, and the drawing says that it is not all."""
    node = TaskNode("last", "SUCCESS", None)
    for number in range(MOST * 2):
        node = TaskNode(str(number), "SUCCESS", None, (node,))
    drawing = draw(Workflow(node, {}, complete=True))
    assert len(drawing.boxes) == MOST
    assert not drawing.complete


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("90", {"timedelta": 90}),
        ("1h30m", {"timedelta": 5400}),
        ("0 9 * * 1-5", {"minute": "0", "hour": "9", "day_of_month": "*", "month_of_year": "*", "day_of_week": "1-5"}),
        ("FREQ=DAILY;BYHOUR=9", {"rrule": "FREQ=DAILY;BYHOUR=9"}),
        ('{"solar": "sunset"}', {"solar": "sunset"}),
        ("", None),
    ],
)
def test_a_schedule_is_written_as_people_do(text: str, schedule: object) -> None:
    """Intervals, crontabs, rules and JSON are told apart by how they look."""
    assert schedule_of(text) == schedule


@pytest.mark.parametrize("text", ["every minute", "0 9 * *", "{", "[60]"])
def test_what_is_no_schedule_says_what_is(text: str) -> None:
    """The message names the field."""
    with pytest.raises(InvalidSchedule, match=r"^schedule is "):
        schedule_of(text)


FAILED = TaskSummary(
    "1", "FAILURE", name="shop.pay", worker="celery@web1", runtime=2.0, tags=("a", "b"), root_id="0", group_id="g",
    error=TaskError("ValueError", "builtins", "no"), date_done=datetime(2026, 11, 26, 9, tzinfo=timezone.utc),
)  # fmt: skip


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({}, True),
        ({"state": "failure,RETRY", "name": "shop.*", "worker": "celery@web1", "tags": "b"}, True),
        ({"state": "SUCCESS"}, False),
        ({"name": "shop.[p]ay"}, False),
        ({"error": "builtins.Value*"}, True),
        ({"error": "KeyError"}, False),
        (
            {"root": "0", "group": "g", "min_runtime": "2", "since": "2026-11-26T09:00", "until": "2026-11-26T09:01"},
            True,
        ),
        ({"root": "1"}, True),
        ({"until": "2026-11-26T09:00"}, False),
        ({"periodic": "tick"}, False),
    ],
)
def test_a_change_belongs_into_a_list_or_not(query: dict[str, str], matches: bool) -> None:
    """A change is decided by the filters of the list, as the search decides."""
    match = matcher(View.of(query).wanted)
    assert match is not None
    assert match(FAILED) is matches


def test_a_search_in_texts_is_not_live() -> None:
    """A change does not hold the whole of its texts."""
    assert matcher(View.of({"text": "refused"}).wanted) is None


def test_a_way_is_in_the_order_of_its_times() -> None:
    """Attempts stand between the sending and the last run, each with the time since the point before."""
    start = datetime(2026, 11, 26, 9, tzinfo=timezone.utc)
    task = TaskDetail(
        "1", "SUCCESS", sent_at=start, started_at=start + timedelta(seconds=3), date_done=start + timedelta(seconds=4),
        attempts=(Attempt(start + timedelta(seconds=1), TaskError("OSError"), None),),
    )  # fmt: skip
    assert [(each.text, each.gap) for each in timeline(task)] == [
        ("sent", None), ("attempt 1 ended: OSError", 1.0), ("attempt 2 began", 2.0), ("ended: SUCCESS", 1.0),
    ]  # fmt: skip


def test_many_ask_and_one_computes() -> None:
    """While a value is computed all that ask wait for that one, or are told what is known; what failed is tried again."""
    remembered, go, calls = Remembered(1), threading.Event(), []

    def compute(publish: Callable[[str], Any]) -> str:
        calls.append(1)
        publish("some")
        go.wait(60)
        return "all"

    try:
        until(lambda: remembered.of("x", compute, kept=1e9, patience=0.01).value == "some", "a part is known", 60)
        assert remembered.of("x", compute, kept=1e9, patience=0.01).computing
        go.set()
        assert remembered.of("x", compute, kept=1e9, patience=60).value == "all"
        assert len(calls) == 1
        remembered.forget()
        with pytest.raises(ZeroDivisionError):
            remembered.of("x", lambda _: 1 // 0, kept=1e9, patience=60)
        assert remembered.of("x", compute, kept=1e9, patience=60).value == "all"
    finally:
        go.set()
        remembered.close()


def test_credentials_tell_no_secret() -> None:
    """Neither `repr` nor `str` shows a password or a token."""
    credentials = Credentials("ada", "geheim", token="geheimer")
    assert "geheim" not in repr(credentials) + str(ConsoleOptions(credentials=credentials))
    assert credentials.is_user("ada", "geheim")
    assert not credentials.is_user("ada", "")
    assert not credentials.is_token("")
    assert credentials.is_token("geheimer")


@pytest.mark.parametrize(
    "options",
    [{"credentials": Credentials(token="x"), "authenticate": lambda _: None}, {"refresh": 0}, {"refresh": "x"}],
)
def test_options_that_contradict_are_refused(options: dict[str, object]) -> None:
    """An option that makes no sense is an error at once, not at the first page."""
    with pytest.raises(SettingsError, match="the console"):
        ConsoleOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{}, {"username": "a"}, {"password": "b"}, {"username": "a:b", "password": "c"}])
def test_credentials_are_complete(given: dict[str, str]) -> None:
    """A user has a password, and there is a user or a token."""
    with pytest.raises(SettingsError):
        Credentials(**given)


def test_without_the_right_to_act_nothing_is_changed() -> None:
    """Reading is all that credentials give unless actions are allowed."""
    assert ConsoleOptions().access_of(known=True) is Access.READ
    assert ConsoleOptions(allow_actions=True).access_of(known=True) is Access.ACT
    assert ConsoleOptions(allow_actions=True).access_of(known=False) is Access.NONE


def luminance(colour: str) -> float:
    """How bright a colour is, by WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, by WCAG 2."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_text_and_bars_of_charts_can_be_read_in_light_and_dark() -> None:
    """Text has a contrast of 4.5 to the ground that a page gives a chart, bars of 3; axe cannot look into images."""
    pytest.importorskip("pygal")
    from surrealdb_celery_backend.console import charts

    nothing = StatRow("", 2, {"SUCCESS": 2}, 0.0, Distribution(2, 1.0, 1.0, 2.0, 2.0, 2.0), None)
    now = datetime.now(timezone.utc)
    part = TimeRow(now, {"SUCCESS": 1, "FAILURE": 1})
    stats = RecentStats(now, now, now, timedelta(hours=1), (part,), (nothing,), (), nothing)
    svg = charts.over_time(stats, "hour", "UTC").decode() + charts.runtime(stats, "hour", "UTC").decode()
    style = (Path(charts.__file__).parent / "static" / "console.css").read_text()
    light, dark = re.findall(r"--raised: (#\w{6})", style)
    dark_text = set(re.findall(r"prefers-color-scheme: dark\) { text { fill: (#\w{6}) !important", svg))
    light_text = set(re.findall(r"(?:\.title|text\.major|legend text|\.graph|text\.no_data){fill:(#\w{6})}", svg))
    assert light_text
    assert dark_text
    for ground, texts in ((light, light_text), (dark, dark_text)):
        assert [text for text in texts if contrast(text, ground) < 4.5] == []
        assert [bar for bar in (charts.OK, charts.BAD, charts.OTHER) if contrast(bar, ground) < 3] == []
