"""Sending on real engines and brokers: a broker that is away, and entries that cannot be sent."""

from __future__ import annotations

import json
import logging
from datetime import timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery.beat import BeatLazyFunc
from kombu import Queue
from kombu.exceptions import OperationalError

from tests.support.beats import Beats, forwarding, tick_until_idle

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]

UTC = timezone.utc


@pytest.mark.redis
def test_a_broker_that_is_away_loses_nothing(beats: Beats, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """While the broker is away what is due waits, beat keeps its lease and says so once; then all is sent, once."""
    caplog.set_level(logging.INFO, logger="celery.beat")
    address = urlsplit(redis_url)
    with forwarding((address.hostname or "127.0.0.1", address.port or 6379)) as way:
        app = beats.new_app(
            broker_url=address._replace(netloc=f"127.0.0.1:{way.port}").geturl(),
            beat_schedule={"tick": {"task": "shop.report", "schedule": 10}},
        )
        scheduler = beats.start(app)
        beats.clock.advance(30)
        for _ in range(3):
            assert scheduler.tick() > 0
        assert scheduler.lease.is_held
        reports = [each.getMessage() for each in caplog.records if "broker does not take" in each.getMessage()]
        assert len(reports) == 1
        way.open()
        tick_until_idle(scheduler)
        scheduler.disconnect_broker()
    assert any("the broker takes messages again" in each.getMessage() for each in caplog.records)
    with redis.Redis.from_url(redis_url) as client:
        messages = [json.loads(each) for each in client.lrange(beats.queue, 0, -1)]
        client.delete(beats.queue)
    assert len(messages) == len({message["headers"]["id"] for message in messages}) == 3
    assert beats.records()["tick"]["total_run_count"] == 3


def test_what_cannot_be_sent_is_broken(beats: Beats) -> None:
    """An entry whose arguments the serializer refuses is marked with the reason, and the others run."""
    beats.app.conf.beat_schedule = {
        "good": {"task": "shop.report", "schedule": 10},
        "bad": {"task": "shop.report", "schedule": 10, "args": (object,)},
    }
    scheduler = beats.start()
    beats.clock.advance(20)
    tick_until_idle(scheduler)
    assert {message.headers["periodic_task_name"] for message in beats.sent()} == {"good"}
    assert beats.records()["bad"]["broken"].startswith("it cannot be sent: ")
    assert not beats.records()["good"].get("broken")


@pytest.mark.redis
@pytest.mark.parametrize("mistake", [OSError("no such page"), KeyError("region"), "queue"])
def test_a_mistake_that_looks_like_the_brokers_stops_nothing(beats: Beats, redis_url: str, mistake: Any) -> None:
    """What an entry's own code raises is its own, also of a kind that a broker's errors are; the others run."""

    def ask() -> None:
        raise mistake

    bad = {"options": {"queue": "nowhere"}} if mistake == "queue" else {"args": (BeatLazyFunc(ask),)}
    app = beats.new_app(
        broker_url=redis_url,
        task_create_missing_queues=False,
        beat_schedule={
            "bad": {"task": "shop.report", "schedule": 5, **bad},
            "good": {"task": "shop.report", "schedule": 10},
        },
    )
    app.conf.task_queues = [Queue(beats.queue)]
    scheduler = beats.start(app)
    beats.clock.advance(20)
    for _ in range(6):
        scheduler.tick()
    scheduler.disconnect_broker()
    with redis.Redis.from_url(redis_url) as client:
        messages = [json.loads(each) for each in client.lrange(beats.queue, 0, -1)]
        client.delete(beats.queue)
    assert [message["headers"]["periodic_task_name"] for message in messages] == ["good", "good"]
    assert beats.records()["bad"]["broken"].startswith("it cannot be sent: ")
    assert not scheduler.outages.is_broker_away


def test_what_cannot_be_sent_is_tried_when_it_is_due_again(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """An entry whose arguments could not be had is said once to be broken, tried at each due time, and runs again."""
    answers: list[Any] = [ValueError("not now"), ValueError("not now"), 7]

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    beats.app.conf.beat_schedule = {"a": {"task": "shop.report", "schedule": 10, "args": (BeatLazyFunc(ask),)}}
    caplog.set_level(logging.ERROR)
    scheduler = beats.start()
    for _ in range(2):
        beats.clock.advance(10)
        tick_until_idle(scheduler)
        assert beats.records()["a"]["broken"] == "it cannot be sent: not now"
    assert len([each for each in caplog.records if "is broken" in each.getMessage()]) == 1
    beats.clock.advance(10)
    tick_until_idle(scheduler)
    scheduler.tick()
    [message] = beats.sent()
    assert message.decode()[0] == [7]
    record = beats.records()["a"]
    assert not record.get("broken")
    assert record["total_run_count"] == 1
    assert record["next_run_at"] == beats.clock.now() + timedelta(seconds=10)


def test_what_was_sent_is_settled_when_the_broker_goes_away(beats: Beats) -> None:
    """Of several runs the broker takes one and goes away: the one is settled at once, not when it is back."""
    beats.app.conf.beat_schedule = {name: {"task": "shop.report", "schedule": 10} for name in ("a", "b")}
    scheduler = beats.start()
    task = beats.app.tasks["shop.report"]
    apply_async = task.apply_async
    sent: list[Any] = []

    def only_one(*args: Any, **kwargs: Any) -> None:
        if sent:
            raise OperationalError("away")
        sent.append(apply_async(*args, **kwargs))

    task.apply_async = only_one
    beats.clock.advance(10)
    assert scheduler.tick() > 0
    assert len(beats.sent()) == 1
    assert scheduler.firings.unsettled == 0
    assert sorted(record["total_run_count"] for record in beats.records().values()) == [0, 1]
