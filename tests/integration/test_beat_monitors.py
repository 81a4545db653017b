"""Monitors of others that wrap Celery's scheduler see what this one sends."""

from __future__ import annotations

import pytest

from tests.support.beats import Beats, tick_until_idle
from tests.support.sentry import sentry

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]


def test_monitors_of_sentry_see_each_run(beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real SDK of Sentry monitors entries as those of Celery's own beat: its check-ins know schedule and zone."""
    from sentry_sdk.integrations.celery.beat import _patch_beat_apply_entry

    with sentry(monkeypatch, _patch_beat_apply_entry, monitor_beat_tasks=True, propagate_traces=False) as kept:
        beats.app.conf.beat_schedule = {
            "hourly": {"task": "shop.report", "schedule": 3600},
            "daily": {
                "task": "shop.report",
                "schedule": {"minute": "0", "hour": "9"},
                "timezone": "Europe/Berlin",
                "options": {"headers": {"x": "y"}},
            },
        }
        scheduler = beats.start()
        beats.clock.advance(86400)
        tick_until_idle(scheduler)
    sent = {message.headers["periodic_task_name"]: message.headers for message in beats.sent()}
    found = {item["monitor_slug"]: item for item in kept.items}
    assert found["hourly"]["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "hour"}
    assert found["daily"]["monitor_config"]["schedule"] == {"type": "crontab", "value": "0 9 * * *"}
    assert found["daily"]["monitor_config"]["timezone"] == "Europe/Berlin"
    assert {item["status"] for item in found.values()} == {"in_progress"}
    for name, headers in sent.items():
        assert headers["sentry-monitor-slug"] == name
    assert sent["daily"]["x"] == "y"
