"""One value that Python has no type for, which somebody wrote by hand, spoils its own record only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery, states

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.results import Results, cleanup_requests
from surrealdb_celery_backend.results.fetching import Fetcher
from tests.engines import Database
from tests.support import history_data as data
from tests.support.beats import Beats, take_in_changes, tick_until_idle
from tests.support.waits import in_background

#: SurrealQL of values without a Python type that every engine can store and send.
SENT = ["1..5", "(1, 2)", "{type: 'LineString', coordinates: [[1, 2], [3, 4]]}", "type::table('x')"]

#: Nothing is tried again; once may take as long as it likes.
ONCE = {"result_backend_always_retry": False, "surrealdb_timeout": 60, "surrealdb_read_timeout": 60}


@pytest.mark.parametrize("value", SENT)
@pytest.mark.parametrize("field", ["result", "traceback", "status", "children", "date_done", "note"])
def test_results(field: str, value: str, app_with: Callable[..., Celery], fresh_database: Database) -> None:
    """The results of other tasks are read by `get_many` and `get`; nothing looks like a broken line."""
    backend = app_with(**ONCE).backend
    for name in ("a", "b", "c"):
        backend.store_result(name, name, states.SUCCESS)
    fresh_database.query(f"UPDATE task:b SET {field} = {value}")
    assert backend.get_result("a") == "a"
    if field != "note":  # which no meta has
        with pytest.raises(errors.UnreadableResult, match=rf"task 'b' has a SurrealDB \w+ in its field '{field}'"):
            backend.get_task_meta("b")
    found = {}
    try:
        found = dict(backend.get_many(["a", "c"], timeout=60))
    finally:
        assert {name: meta["result"] for name, meta in found.items()} == {"a": "a", "c": "c"}


@pytest.mark.parametrize("value", SENT)
@pytest.mark.parametrize("field", ["schedule", "args", "options", "note"])
def test_schedules(field: str, value: str, app_with: Callable[..., Celery], fresh_database: Database) -> None:
    """`schedule list` shows the other entries, and names the one whose record has it."""
    app = app_with()
    with Schedules(app) as schedules:
        schedules.stored()
        for name in ("good", "bad"):
            fresh_database.query(
                f"CREATE schedule:{name} SET name = '{name}', task = 'shop.report', "
                "schedule = {timedelta: 60}, active = true"
            )
        fresh_database.query(f"UPDATE schedule:bad SET {field} = {value}")
        stored = {each.name: each for each in schedules.stored()}
        assert {"good", "bad"} <= set(stored)


def test_schedules_beside_one_that_cannot_be_sent(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """The server refuses the whole reply because of one record: the list and beat have the others, and name that one."""
    with beats.schedules() as schedules:
        for name in ("good", "bad", "fine"):
            schedules.add(ScheduleEntry(name, "shop.report", {"timedelta": 10}))
        scheduler = beats.start()
        beats.database.query("UPDATE schedule SET description = /a+/ WHERE name = 'bad' RETURN NONE")
        stored = {each.name: each for each in schedules.stored()}
        assert set(stored) == {"good", "bad", "fine"}
        assert stored["good"].broken is stored["fine"].broken is None
        assert "a value that the database cannot send" in str(stored["bad"].broken)
        assert schedules.find("bad").broken == stored["bad"].broken
        assert schedules.get("good").name == "good"
    take_in_changes(scheduler)
    beats.clock.advance(20)
    tick_until_idle(scheduler)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"good", "fine"}
    # A beat that begins reads them all.
    scheduler.close()
    following = beats.start()
    beats.clock.advance(20)
    tick_until_idle(following)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"good", "fine"}
    assert "entry 'bad' is broken and does not run: the record holds a value" in caplog.text


@pytest.mark.parametrize("value", ["/a+/", "<regex> 'a+'"])
def test_values_that_cannot_be_sent(value: str, app_with: Callable[..., Celery], fresh_database: Database) -> None:
    """A record with a value that the server cannot send is an error that says so at once, and no broken line."""
    backend = app_with().backend
    backend.store_result("a", 1, states.SUCCESS)
    before = backend.connection.transport
    with pytest.raises(errors.UnreadableRecord):
        backend.connection.run(f"RETURN {value}")
    assert backend.connection.transport is before
    assert backend.get_result("a") == 1


def test_results_beside_one_that_cannot_be_sent(
    app_with: Callable[..., Celery], fresh_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The server refuses the whole reply because of a regex in one record: the others are read, and that one is named."""
    backend = app_with(**ONCE).backend
    names = [f"task-{number}" for number in range(9)]
    for name in names:
        backend.store_result(name, name, states.SUCCESS)
    connection = backend.connection
    with contextlib.suppress(errors.UnreadableRecord):  # its reply has the regex, too
        connection.run("UPDATE $record SET traceback = /a+/ RETURN NONE", record=backend.tasks.record_id("task-4"))
    fetched = dict(Fetcher(connection.run, backend.tasks.record_id).records(names))
    assert set(fetched) == set(names) - {"task-4"}
    assert "the record of task 'task-4' is left out" in caplog.text
    with pytest.raises(errors.UnreadableRecord):
        backend.get_task_meta("task-4")


#: A field of a record that a person wrote a regex into, and what a list shows in its place.
WRITTEN = {
    "queue": ("/a+/", lambda task: task.queue),
    "error": ("{ type: 'KeyError', message: /a+/ }", lambda task: task.error and task.error.message),
    "progress": ("{ current: 1, message: /a+/ }", lambda task: task.progress and task.progress.message),
    "tags": ("[/a+/]", lambda task: "".join(task.tags)),
    "result": ("/a+/", lambda task: task.result_text),
    "started_at": ("/a+/", lambda task: "/a+/" if task.started_at is None else "a time"),
}


@pytest.mark.parametrize("indexed", [True, False], ids=["index", "no index"])
def test_lists_with_values_that_cannot_be_sent(
    indexed: bool, app_with: Callable[..., Celery], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A page of tasks has them all, the value as its text; `get` names the record; an export has the others."""
    app = app_with(surrealdb_timeout=60)
    ids = [*WRITTEN, "good", "runs"]
    times = {task_id: data.NOW - timedelta(seconds=number) for number, task_id in enumerate(ids)}
    records = [
        data.record(task_id=task_id, root_id="good", parent_id=None, encoding="native", date_done=done)
        for task_id, done in times.items()
    ]
    data.write(app, [*records[:-1], records[-1] | {"date_done": None, "status": "STARTED"}])
    run = app.backend.connection.run_all
    if not indexed:
        run("REMOVE INDEX task_date_done ON task")
    for field, (value, _) in WRITTEN.items():
        run(f"UPDATE task:{field} SET {field} = {value} RETURN NONE")
    run("UPDATE task:runs SET name = /a+/ RETURN NONE")
    with Results(app) as results:
        tasks = {task.id: task for task in results.find().tasks}
        assert list(tasks) == ["runs", *ids[:-1]]
        assert {field: shown(tasks[field]) for field, (_, shown) in WRITTEN.items()} == dict.fromkeys(WRITTEN, "/a+/")
        assert tasks["runs"].name == "/a+/"
        assert (tasks["good"].queue, tasks["good"].result_text) == ("celery", "3")
        assert [task.id for task in results.find(limit=3, after=results.find(limit=3).after).tasks] == ids[2:5]
        assert len(results.tree("good")) == len(ids)
        assert results.stats(by="queue").total.count == len(ids)
        with pytest.raises(errors.UnreadableRecord, match="task 'queue' cannot be read"):
            results.get("queue")
        exported = results.export(tmp_path / "results")
        assert exported.records["task"] == 1
    assert caplog.text.count("is left out of the export") == len(ids) - 1


#: What a person may write into a record besides: values that Python has a type for, in fields that say of which
#: record, how large and in which state it is; whether the record can be decoded still.
BY_HAND = {
    "size = 'large'": True,
    "size = [1]": True,
    "size = -1": True,
    "status = [1]": False,
    "status = NONE": True,
    "date_done = 'today'": False,
    "result = NONE": False,
    "task_id = [1]": False,
    "task_id = NONE": False,
    "tags = 'a'": True,
    "tags = 5": True,
}


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("change", BY_HAND)
def test_fields_of_another_kind(
    change: str, large: bool, app_with: Callable[..., Celery], fresh_database: Database, tmp_path: Path
) -> None:
    """Results of other tasks are fetched in one look with that one, listed and exported; it is read or says why not."""
    backend = app_with(**ONCE).backend
    names = [f"task-{number}" for number in range(9)]
    for name in names:
        backend.store_result(name, name + "x" * 9000 * large, states.SUCCESS)
    others = [name for name in names if name != "task-4"]
    with Results(backend.app) as results:
        results.check()  # the tables that a list reads
        fresh_database.query(f"UPDATE task:⟨task-4⟩ SET {change} RETURN NONE")
        fetched = dict(backend.fetch_records(names))
        assert [backend.meta_of(fetched[name])["result"][:6] for name in others] == others
        assert set(dict(backend.get_many(others, timeout=60))) == set(others)
        if BY_HAND[change]:
            assert backend.get_result("task-4")[:6] == "task-4"
        elif change != "task_id = [1]":  # of that one nobody knows whose it is
            with pytest.raises(errors.UnreadableResult, match="somebody wrote it by hand"):
                backend.get_task_meta("task-4")
        assert {task.id for task in results.find().tasks} >= set(others)
        assert results.export(tmp_path / "results").records["task"] == len(names)


#: What a person wrote into a record that clean-up reads, by table.
CLEANED = [
    "UPDATE task SET expires_at = NONE, date_done = 'today' WHERE task_id = 'bad'",
    "UPDATE task SET date_done = [1] WHERE task_id = 'bad'",
    "UPDATE chord SET sent_at = NONE WHERE group_id = 'bad'",
    "UPDATE chord SET sent_at = 'today', length = 'long' WHERE group_id = 'bad'",
]


@pytest.mark.parametrize("change", CLEANED)
def test_cleanup(change: str, app_with: Callable[..., Celery], fresh_database: Database, tmp_path: Path) -> None:
    """It goes on with the other records, and does not end with an error at each run from then on."""
    app = app_with(**ONCE, result_expires=3600)
    for name in ("bad", "good"):
        app.backend.store_result(name, name, states.SUCCESS)
        app.backend.set_chord_size(name, 2)
    app.backend.cleanup()
    fresh_database.query(f"{change} RETURN NONE")
    fresh_database.query("UPDATE task SET expires_at = time::now() - 1s WHERE task_id = 'good' RETURN NONE")
    # Shorter than before, so it looks at what is there.
    cleaning = app_with(**ONCE, result_expires=1800)
    report = cleaning.backend.cleanup()
    assert report.records["task"] == 1
    assert cleaning.backend.get_task_meta("good")["status"] == states.PENDING
    with Results(cleaning) as results:
        assert {chord.group_id for chord in results.unfinished_chords()} == {"bad", "good"}
        assert results.export(tmp_path / "results").records == {"task": 1, "chord": 2}


#: What a person wrote into a record that clean-up reads, which the server cannot send, and the chords that are listed.
UNSENT = {
    "UPDATE chord SET group_id = /a+/ WHERE group_id = 'bad'": {"bad", "good"},
    "UPDATE chord SET sent_at = /a+/ WHERE group_id = 'bad'": {"bad", "good"},
    "UPDATE chord SET size = /a+/ WHERE group_id = 'bad'": {"good"},
    "UPSERT chord:['bad', 'header'] SET group_id = 'bad', body_name = /a+/": {"good"},
    "UPDATE task SET name = /a+/ WHERE task_id = 'bad'": {"bad", "good"},
    "UPDATE task SET status = /a+/ WHERE task_id = 'bad'": {"bad", "good"},
    "UPDATE task SET own_expires = /a+/ WHERE task_id = 'bad'": {"bad", "good"},
    "UPDATE task SET date_done = /a+/ WHERE task_id = 'bad'": {"bad", "good"},
    "UPDATE task SET expires_at = NONE, name = /a+/ WHERE task_id = 'bad'": {"bad", "good"},
}


@pytest.mark.parametrize("survey", [cleanup_requests.SURVEY, 1], ids=["few", "many"])
@pytest.mark.parametrize("change", UNSENT)
def test_cleanup_beside_a_value_that_cannot_be_sent(
    change: str, survey: int, app_with: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts, shortens, keeps the newest and deletes all else, and the chords are listed; no run ends with an error."""
    monkeypatch.setattr(cleanup_requests, "SURVEY", survey)
    # SurrealDB 3 stores no such value in a field of an index.
    settings = {**ONCE, "surrealdb_indexes": []}
    app = app_with(**settings, result_expires=3600)
    for name in ("bad", "good"):
        app.backend.store_result(name, name, states.SUCCESS)
        app.backend.set_chord_size(name, 2)
    run = app.backend.connection.run
    run(f"{change} RETURN NONE")
    run("UPDATE task SET expires_at = time::now() - 1s WHERE task_id = 'good' RETURN NONE")
    # Shorter than before, so it looks at what is there.
    cleaning = app_with(**settings, result_expires=1800, surrealdb_retention={"*": {"keep": 5}})
    assert cleaning.backend.cleanup(dry_run=True).records == {"task": 1}
    assert cleaning.backend.cleanup().records == {"task": 1}
    assert cleaning.backend.cleanup().records == {}
    with Results(cleaning) as results:
        assert {chord.group_id for chord in results.unfinished_chords()} == UNSENT[change]
        if "header" in change:
            with pytest.raises(errors.UnreadableRecord, match="chord 'bad' cannot be read"):
                list(results.unfinished_chords("bad"))


def test_cleanup_beside_a_chord_of_another_name(app_with: Callable[..., Celery]) -> None:
    """A chord is the one of its id, whatever a person wrote as its group: clean-up goes through each once, and ends."""
    app = app_with(**ONCE)
    for name in ("bad", "good"):
        app.backend.set_chord_size(name, 2)
    app.backend.connection.run("UPDATE chord SET group_id = 'a' WHERE group_id = 'good' RETURN NONE")
    assert in_background(app.backend.cleanup)().total == 0
    with Results(app) as results:
        assert {chord.group_id for chord in results.unfinished_chords()} == {"bad", "good"}


def test_cleanup_shows_no_value_that_cannot_be_sent(
    app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture
) -> None:
    """What `before_delete` cannot be shown stays and is named; the others are shown and go."""
    app = app_with(**ONCE)
    names = {f"task-{number}" for number in range(45)}
    for name in names:
        app.backend.store_result(name, name, states.SUCCESS)
    run = app.backend.connection.run
    run("UPDATE task SET expires_at = time::now() - 1s RETURN NONE")
    run("UPDATE task SET traceback = /a+/ WHERE task_id IN ['task-4', 'task-30'] RETURN NONE")
    shown: list[str] = []
    report = app.backend.cleanup(before_delete=lambda records: shown.extend(record["task_id"] for record in records))
    assert set(shown) == names - {"task-4", "task-30"}
    assert report.records["task"] == 43
    assert report.spared >= 2
    assert set(run("SELECT VALUE task_id FROM task")) == {"task-4", "task-30"}
    assert "the record of task 'task-30' stays" in caplog.text
    # Where nobody wants to see them, they go.
    assert app.backend.cleanup().records["task"] == 2


def test_keys_beside_one_that_cannot_be_sent(app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture) -> None:
    """`mget` has the values of the other keys and names that one in the log; `get` of it alone says why it has none."""
    backend = app_with(**ONCE).backend
    names = [f"key-{number}" for number in range(9)]
    for name in names:
        backend.set(name, name)
    backend.connection.run("UPDATE key SET value = /a+/ WHERE key = 'key-4' RETURN NONE")
    backend.connection.run("UPDATE key SET key = [1] WHERE key = 'key-6' RETURN NONE")
    read = ["key-0", "none", *names]
    lost = ("none", "key-4", "key-6")
    assert backend.mget(read) == [None if name in lost else name for name in read]
    assert "key 'key-4' is left out" in caplog.text
    with pytest.raises(errors.UnreadableRecord, match="the value of key 'key-4' cannot be read"):
        backend.get("key-4")
    assert backend.get("key-5") == "key-5"


@pytest.mark.parametrize(("value", "error"), [("/a+/", errors.UnreadableRecord), ("1..5", errors.UnreadableResult)])
def test_keys_of_results_beside_one_that_cannot_be_read(
    value: str, error: type[Exception], app_with: Callable[..., Celery], caplog: pytest.LogCaptureFixture
) -> None:
    """The same for keys of tasks: the others' values are those of their results."""
    backend = app_with(**ONCE).backend
    for name in ("a", "bad", "c"):
        backend.store_result(name, name, states.SUCCESS)
    backend.connection.run(f"UPDATE task SET traceback = {value} WHERE task_id = 'bad' RETURN NONE")
    keys = [backend.get_key_for_task(name) for name in ("a", "bad", "c")]
    a, bad, c = backend.mget(keys)
    assert [backend.decode_result(one)["result"] for one in (a, c)] == ["a", "c"]
    assert bad is None
    assert "left out" in caplog.text
    with pytest.raises(error):
        backend.get(keys[1])
