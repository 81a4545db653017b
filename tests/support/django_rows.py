"""Migrates rows of the real django-celery-beat by the code of docs/scheduling.md. Run by test_migration.py.

Arguments: the document's code, the settings of the app as JSON. Prints the mistakes and the rows as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django_celery_beat"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
    TIME_ZONE="Europe/Berlin",
)
django.setup()

from celery import Celery  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django_celery_beat.models import (  # noqa: E402
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)

UTC = timezone.utc
NOW = datetime.now(UTC).replace(microsecond=0)


def make_rows() -> None:
    """One row of each kind, with every field that django-celery-beat has."""
    every = IntervalSchedule.objects.create(every=10, period=IntervalSchedule.MINUTES)
    common: dict[str, Any] = {"task": "shop.report"}
    PeriodicTask.objects.create(
        name="full",
        interval=every,
        args='["eu", 5]',
        kwargs='{"a": null}',
        queue="slow",
        exchange="x",
        routing_key="k",
        headers='{"tenant": "acme"}',
        priority=3,
        expire_seconds=90,
        start_time=NOW - timedelta(days=2),
        last_run_at=NOW - timedelta(minutes=4),
        total_run_count=7,
        description="of the office",
        **common,
    )
    PeriodicTask.objects.create(name="grid", interval=every, last_run_at=NOW - timedelta(minutes=4), **common)
    PeriodicTask.objects.create(
        name="ends", interval=every, expires=NOW + timedelta(days=30), enabled=False, queue="", headers="{}", **common
    )
    sundays = CrontabSchedule.objects.create(minute="0", hour="9", day_of_week="7", timezone="Asia/Tokyo")
    PeriodicTask.objects.create(name="sundays", crontab=sundays, **common)
    sun = SolarSchedule.objects.create(event="sunset", latitude="52.5", longitude="13.4")
    PeriodicTask.objects.create(name="sun", solar=sun, **common)
    at = ClockedSchedule.objects.create(clocked_time=NOW + timedelta(days=1))
    PeriodicTask.objects.create(name="once", clocked=at, one_off=True, **common)
    # What makes no entry.
    past = ClockedSchedule.objects.create(clocked_time=NOW - timedelta(days=1))
    PeriodicTask.objects.create(name="past", clocked=past, one_off=True, **common)
    PeriodicTask.objects.create(name="done", clocked=past, one_off=True, enabled=False, **common)
    eighth = CrontabSchedule.objects.create(minute="0", hour="9", day_of_week="8")
    PeriodicTask.objects.create(name="eighth", crontab=eighth, **common)
    PeriodicTask.objects.create(name="broken", interval=every, args="[", **common)
    PeriodicTask.objects.create(name="gone", interval=every, task="shop.before")
    PeriodicTask.objects.create(name="cleanup", interval=every, task="celery.backend_cleanup")


def main() -> None:
    """Make rows, migrate them, and say what became of them."""
    call_command("migrate", verbosity=0)
    make_rows()
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(json.loads(sys.argv[2]), result_backend="disabled://")

    @app.task(name="shop.report", shared=False)
    def report() -> None:
        """Nothing: it is not run here."""

    namespace: dict[str, Any] = {}
    exec(sys.argv[1], namespace)
    mistakes = namespace["migrate"](app, PeriodicTask.objects.exclude(task="celery.backend_cleanup"))
    print(json.dumps({"mistakes": mistakes, "now": NOW.isoformat()}))


main()
