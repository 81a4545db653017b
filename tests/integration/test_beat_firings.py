"""The last runs of entries, as programs read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from celery import Celery, states

from surrealdb_celery_backend.beat import Schedules
from tests.support.beats import Beats, tick_until_idle

pytestmark = pytest.mark.integration


def test_the_last_runs_are_read(beats: Beats, app_with: Callable[..., Celery]) -> None:
    """Runs of an entry or of all are read with their tasks' ids and states, the latest first, the oldest found too."""
    beats.clock.moment -= timedelta(minutes=45)
    beats.app.conf.beat_schedule = {
        "often": {"task": "shop.report", "schedule": 600.0},
        "rarely": {"task": "shop.report", "schedule": 1500.0},
    }
    scheduler = beats.start()
    begin = beats.clock.moment
    for _ in range(3):
        beats.clock.advance(600)
        tick_until_idle(scheduler)
    sent = [message.headers["id"] for message in beats.sent()]
    app_with().backend.store_result(sent[-1], None, states.SUCCESS)
    with Schedules(beats.app) as schedules:
        often = schedules.firings("often")
        assert [firing.due_at for firing in often] == [begin + timedelta(minutes=each) for each in (30, 20, 10)]
        assert all(firing.sent_at and firing.claimed_at <= firing.sent_at for firing in often)
        assert {firing.task_id for firing in often} <= set(sent)
        all_of_them = schedules.firings()
        assert [firing.name for firing in all_of_them] == ["often", "rarely", "often", "often"]
        assert {firing.task_id: firing.state for firing in all_of_them} == {
            task_id: states.SUCCESS if task_id == sent[-1] else None for task_id in sent
        }
        assert schedules.firings(limit=2) == all_of_them[:2]
        assert schedules.firings("nothing") == []


def test_runs_of_a_removed_entry_are_read(beats: Beats) -> None:
    """What ran stays known for an hour, whatever became of the entry."""
    with Schedules(beats.app) as schedules:
        beats.app.conf.beat_schedule = {"once": {"task": "shop.report", "schedule": 10.0}}
        scheduler = beats.start()
        beats.clock.advance(10)
        tick_until_idle(scheduler)
        schedules.remove("once", also_of_code=True)
        [firing] = schedules.firings("once")
        assert (firing.name, firing.state) == ("once", None)
