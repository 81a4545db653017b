"""Periodic tasks: which entries the code adds."""

from __future__ import annotations

from unittest import mock

from celery.schedules import crontab
from template import periodic


def test_entries_are_added() -> None:
    """A sender that takes notes is asked for two entries, with their schedules and signatures."""
    sender = mock.Mock()
    periodic.set_up(sender)
    added = {call.kwargs["name"]: call.args for call in sender.add_periodic_task.call_args_list}
    assert added["add every 30 seconds"][0] == 30.0
    assert added["add on Mondays"][0] == crontab(hour=7, minute=30, day_of_week=1)
    assert [signature.task for _, signature in added.values()] == ["template.tasks.add"] * 2
