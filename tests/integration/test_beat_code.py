"""The code's entries and the table's on real engines: which of them wins, and schedules that stay in code."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery.schedules import crontab, schedstate, schedule

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.beat.store import EntryStore
from surrealdb_celery_backend.errors import InvalidSchedule
from tests.support.beats import Beats, due_at, tick_until_idle

pytestmark = pytest.mark.integration

UTC = timezone.utc


def test_a_redeploy_keeps_counts_and_goes_on(beats: Beats) -> None:
    """A beat that is started anew goes on where the last one ended: nothing twice, nothing left out."""
    beats.app.conf.beat_schedule = {"tick": {"task": "shop.report", "schedule": 10}}
    first = beats.start()
    beats.clock.advance(25)
    tick_until_idle(first)
    first.close()
    beats.clock.advance(20)
    second = beats.start(beats.new_app(beat_schedule=beats.app.conf.beat_schedule))
    tick_until_idle(second)
    sent = [due_at(message) for message in beats.sent()]
    assert len(sent) == len(set(sent)) == 4
    assert beats.records()["tick"]["total_run_count"] == 4


def test_code_and_database_side_by_side(beats: Beats) -> None:
    """New in code: added. In both: the table wins. Gone from code: removed. Not code's: left alone."""
    beats.app.conf.beat_schedule = {
        "kept": {"task": "shop.report", "schedule": 10},
        "dropped": {"task": "shop.report", "schedule": 10},
    }
    first = beats.start()
    with beats.schedules() as schedules:
        schedules.change("kept", schedule=3600)
        schedules.add(ScheduleEntry("by hand", "shop.report", {"minute": "0"}))
    first.close()
    second_app = beats.new_app(
        beat_schedule={
            "kept": {"task": "shop.report", "schedule": 20},
            "new": {"task": "shop.report", "schedule": crontab(minute=5)},
        }
    )
    second_app.add_periodic_task(30, second_app.signature("shop.report"), name="periodic")
    second = beats.start(second_app)
    records = beats.records()
    assert set(records) == {"kept", "by hand", "new", "periodic"}
    assert records["kept"]["schedule"] == {"timedelta": 3600}
    assert records["by hand"]["source"] == "database"
    assert set(second.schedule) == set(records)


def test_what_only_code_can_hold_stays_in_code(beats: Beats) -> None:
    """A schedule class and arguments of the project's own run, and the record says that they are in code."""

    class Odd(schedule):
        pass

    class Thing:
        def __repr__(self) -> str:
            return "a thing"

    beats.app.conf.update(task_serializer="pickle", accept_content=["pickle", "json"])
    beats.app.conf.beat_schedule = {
        "odd": {
            "task": "shop.report",
            "schedule": Odd(3600),
            "kwargs": {"nothing": None, "when": datetime(2026, 1, 1, tzinfo=UTC)},
        },
        "thing": {"task": "shop.report", "schedule": 3600, "args": (Thing,)},
    }
    scheduler = beats.start(clock=None)
    records = beats.records()
    assert records["odd"]["schedule"] == {"code": "<freq: 1.00 hour>"}
    assert records["thing"]["args"].startswith("code: [")
    assert scheduler.schedule["odd"].kwargs == {"nothing": None, "when": datetime(2026, 1, 1, tzinfo=UTC)}
    assert scheduler.schedule["thing"].args == (Thing,)
    assert [record["next_run_at"] is not None for record in records.values()] == [True, True]


def test_an_entry_renamed_by_hand_makes_room(beats: Beats) -> None:
    """An entry of the code is there also where its id is that of an entry which somebody renamed."""
    beats.app.conf.beat_schedule = {"a": {"task": "shop.report", "schedule": 10}}
    beats.start().close()
    beats.database.query("UPDATE schedule SET name = 'b'")
    beats.start().close()
    assert set(beats.records()) == {"a"}  # the renamed one was code's, and code has no `b`
    beats.database.query("UPDATE schedule SET name = 'b', source = 'database'")
    scheduler = beats.start()
    assert set(beats.records()) == set(scheduler.schedule) == {"a", "b"}


def test_a_mistake_in_the_code_can_be_mended_there(beats: Beats) -> None:
    """An entry that code got wrong runs when the next deployment has it right."""
    beats.app.conf.beat_schedule = {"a": {"task": "shop.report", "schedule": "bad"}}
    beats.start().close()
    assert "'bad'" in beats.records()["a"]["broken"]
    scheduler = beats.start(beats.new_app(beat_schedule={"a": {"task": "shop.report", "schedule": 10}}))
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1
    assert not beats.records()["a"].get("broken")


def test_a_beat_schedule_that_is_no_dict_is_named(beats: Beats) -> None:
    """A list of entries ends beat in one sentence, also if it was standing by before."""
    beats.app.conf.beat_schedule = [{"task": "shop.report", "schedule": 10}]
    with pytest.raises(InvalidSchedule, match="give a dict of entries by name"):
        beats.start()
    beats.schedulers.pop().close()
    active = beats.start(beats.new_app(beat_schedule={}))
    scheduler = beats.start()
    active.close()
    with pytest.raises(InvalidSchedule, match="beat_schedule holds"):
        scheduler.tick()


def test_a_schedule_class_is_asked_again_when_it_is_due(beats: Beats) -> None:
    """That a schedule class is not due says when to ask it again: nothing runs while it waits for something."""

    class Office(schedule):
        is_open = False

        def is_due(self, last_run_at: datetime) -> Any:
            return super().is_due(last_run_at) if Office.is_open else schedstate(False, 5)

    beats.app.conf.beat_schedule = {"office": {"task": "shop.report", "schedule": Office(60)}}
    scheduler = beats.start()
    for _ in range(12):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
    assert beats.sent() == []
    Office.is_open = True
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    assert len(beats.sent()) == 1


def test_a_schedule_class_goes_by_the_clock_of_the_database(beats: Beats) -> None:
    """A host that is an hour ahead of the database runs a schedule class as often as any other."""

    class Odd(schedule):
        pass

    beats.clock.moment = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    beats.app.conf.beat_schedule = {"odd": {"task": "shop.report", "schedule": Odd(600)}}
    scheduler = beats.start()
    for _ in range(12):
        beats.clock.advance(300)
        tick_until_idle(scheduler)
    assert len(beats.sent()) == 6


def test_a_schedule_class_that_raises_stops_nothing(beats: Beats) -> None:
    """Whenever a schedule class raises, its entry is broken, what was sent is settled, and the others run."""

    class Odd(schedule):
        raises = False

        def is_due(self, last_run_at: datetime) -> Any:
            if Odd.raises:
                raise RuntimeError("no idea")
            return super().is_due(last_run_at)

    beats.app.conf.beat_schedule = {
        "good": {"task": "shop.report", "schedule": 10},
        "odd": {"task": "shop.report", "schedule": Odd(10)},
    }
    scheduler = beats.start()
    apply_async = scheduler.apply_async

    def publish_and_raise(*args: Any, **kwargs: Any) -> None:
        apply_async(*args, **kwargs)
        Odd.raises = True

    scheduler.apply_async = publish_and_raise  # type: ignore[method-assign]
    for _ in range(3):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
    assert Counter(message.headers["periodic_task_name"] for message in beats.sent()) == {"good": 3, "odd": 1}
    scheduler.tick()
    record = beats.records()["odd"]
    assert record["broken"] == "schedule cannot say its next run: RuntimeError('no idea')"
    assert (record["total_run_count"], record["active"]) == (1, True)
    claims = beats.database.query("SELECT * FROM schedule_claim WHERE sent_at IS NONE")[0]
    assert claims == []


def entry_of(beats: Beats, **fields: Any) -> Any:
    """An app of the next deployment, whose code has one entry."""
    return beats.new_app(beat_schedule={"a": {"task": "shop.report", "schedule": 3600, **fields}})


def test_new_code_is_taken_where_nobody_edited(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """A redeployment's new schedule, arguments and options take effect, are logged, and keep the counts."""
    caplog.set_level(logging.INFO)
    beats.start(entry_of(beats, args=(1,), schedule=10)).close()
    beats.database.query("UPDATE schedule SET total_run_count = 5")
    scheduler = beats.start(entry_of(beats, kwargs={"b": None}, options={"queue": "q"}, schedule=crontab(minute=5)))
    record = beats.records()["a"]
    assert (record["schedule"], record["args"], record["options"]) == ({"minute": "5"}, [], {"queue": "q"})
    assert record["total_run_count"] == 5
    assert record["next_run_at"].minute == 5
    assert scheduler.schedule["a"].kwargs == {"b": None}
    [told] = [each.getMessage() for each in caplog.records if "follows the code" in each.getMessage()]
    assert "schedule {'timedelta': 10} -> {'minute': '5'}" in told
    scheduler.close()
    beats.start(entry_of(beats, kwargs={"b": None}, options={"queue": "q"}, schedule=crontab(minute=5))).close()
    assert len([each for each in caplog.records if "follows the code" in each.getMessage()]) == 1


@pytest.mark.parametrize("by_hand", [True, False])
def test_what_a_person_changed_stays(beats: Beats, by_hand: bool) -> None:
    """An entry that was edited in the database keeps the edit when code changes, until it is as code said again."""
    beats.start(entry_of(beats)).close()
    if by_hand:
        beats.database.query("UPDATE schedule SET schedule = {timedelta: 60}")
    else:
        with beats.schedules() as schedules:
            schedules.change("a", schedule=60)
    for _ in range(2):
        beats.start(entry_of(beats, schedule=7200)).close()
        assert beats.records()["a"]["schedule"] == {"timedelta": 60}
    with beats.schedules() as schedules:
        schedules.change("a", schedule=7200)
    beats.start(entry_of(beats, schedule=1800)).close()
    assert beats.records()["a"]["schedule"] == {"timedelta": 1800}


def test_a_paused_entry_takes_new_code_and_stays_paused(beats: Beats) -> None:
    """Pausing is a person's, the schedule is still the code's: each follows its own."""
    beats.start(entry_of(beats)).close()
    with beats.schedules() as schedules:
        schedules.pause("a")
    beats.start(entry_of(beats, schedule=60)).close()
    record = beats.records()["a"]
    assert (record["active"], record["schedule"]) == (False, {"timedelta": 60})


def overtake(beats: Beats, monkeypatch: pytest.MonkeyPatch, edit: Callable[[Schedules], Any]) -> None:
    """Have somebody edit an entry once, between beat's reading and its writing what is new in the code."""
    take_code = EntryStore.take_code

    def overtaken(store: EntryStore, taken: Any) -> Any:
        monkeypatch.undo()
        with beats.schedules() as schedules:
            edit(schedules)
        return take_code(store, taken)

    monkeypatch.setattr(EntryStore, "take_code", overtaken)


def test_an_edit_in_the_moment_of_a_deployment_stays(beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody pauses an entry between beat's reading and its writing what is new in the code: both are there then."""
    beats.start(entry_of(beats)).close()
    overtake(beats, monkeypatch, lambda schedules: schedules.change("a", active=False, description="not today"))
    scheduler = beats.start(entry_of(beats, schedule=60, description="of the code"))
    record = beats.records()["a"]
    assert (record["active"], record["description"], record["schedule"]) == (False, "not today", {"timedelta": 3600})
    assert not scheduler.schedule["a"].active
    scheduler.close()
    # It is known which code the edit was made over, so what the code says anew is not taken for the edit's.
    with beats.schedules() as schedules:
        schedules.change("a", active=True)
    assert beats.start(entry_of(beats, schedule=60, description="of the code")).schedule["a"].description == "not today"


def test_a_pause_in_the_moment_of_a_deployment_stays(beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that somebody pauses in between takes the new code all the same, and stays paused."""
    beats.start(entry_of(beats)).close()
    overtake(beats, monkeypatch, lambda schedules: schedules.pause("a"))
    beats.start(entry_of(beats, schedule=60))
    record = beats.records()["a"]
    assert (record["active"], record["schedule"]) == (False, {"timedelta": 60})


def test_code_can_rule_always(beats: Beats) -> None:
    """With surrealdb_beat_code_wins code replaces what was edited in the database, but resumes nothing."""
    beats.start(entry_of(beats)).close()
    with beats.schedules() as schedules:
        schedules.change("a", schedule=60, description="mine", active=False)
    app = entry_of(beats)
    app.conf.surrealdb_beat_code_wins = True
    beats.start(app).close()
    record = beats.records()["a"]
    assert (record["schedule"], record.get("description"), record["active"]) == ({"timedelta": 3600}, None, False)


@pytest.mark.parametrize("edit", [None, "UPDATE schedule SET args = [7]", "UPDATE schedule SET code = NONE"])
def test_a_renamed_task_does_not_end_as_broken(beats: Beats, edit: str | None) -> None:
    """When code renames a task its entry follows, also if it was edited otherwise or is of an earlier version."""
    beats.start(entry_of(beats)).close()
    if edit:
        beats.database.query(edit)
    app = beats.new_app(beat_schedule={"a": {"task": "shop.renamed", "schedule": 3600}})
    app.tasks.unregister("shop.report")

    @app.task(name="shop.renamed", shared=False)
    def renamed(*args: Any) -> None:
        """Nothing: it is not run here."""

    scheduler = beats.start(app)
    record = beats.records()["a"]
    assert (record["task"], record.get("broken")) == ("shop.renamed", None)
    assert record["args"] == ([7] if edit and "args" in edit else [])
    assert set(scheduler.schedule) == {"a"}


def other_app(beats: Beats, **settings: Any) -> Any:
    """The app of another project on the same tables."""
    app = beats.new_app(**settings)
    app.main = "office"
    return app


def test_two_projects_on_the_same_tables_notice(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """Neither removes or runs the other's entries, and both the active beat and the standby say what is wrong."""
    beats.start(beats.new_app(beat_schedule={"ours": {"task": "shop.report", "schedule": 10}})).close()
    theirs = beats.start(other_app(beats, beat_schedule={"theirs": {"task": "shop.report", "schedule": 10}}))
    told = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(told) == 1
    assert "by the code of another app, 'shop', and are neither run nor removed by this one, 'office'" in told[0]
    assert set(beats.records()) == {"ours", "theirs"}
    assert set(theirs.schedule) == {"theirs"}
    beats.start(beats.new_app())
    told = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(told) == 2
    assert "the active beat is that of another app, 'office', and runs none of the entries of 'shop'" in told[1]
    [lease] = beats.database.query("SELECT * FROM schedule_lease ORDER BY token DESC LIMIT 1")[0]
    assert lease["app"] == "office"
    beats.clock.advance(10)
    tick_until_idle(theirs)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"theirs"}


def test_two_projects_with_entries_of_one_name_are_told(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """An entry that another app's code has otherwise is not taken over in silence; the same one, of a renamed app, is."""
    settings = {"nightly": {"task": "shop.report", "schedule": 10}, "same": {"task": "shop.report", "schedule": 10}}
    beats.start(beats.new_app(beat_schedule=settings)).close()
    theirs = {**settings, "nightly": {"task": "shop.report", "schedule": 20}}
    beats.start(other_app(beats, beat_schedule=theirs)).close()
    [told] = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert "entry 'nightly' was put here by the code of another app, 'shop'" in told
    assert beats.records()["nightly"]["schedule"] == {"timedelta": 20}


def test_entries_of_an_app_without_a_name_are_not_removed_in_silence(
    beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether they are another project's cannot be told, so their removal is an error in the log."""
    nameless = beats.new_app(beat_schedule={"theirs": {"task": "shop.report", "schedule": 10}})
    nameless.main = None
    beats.start(nameless).close()
    beats.start(beats.new_app()).close()
    [told] = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert "entry 'theirs' was put here by the code of an app without a name" in told
