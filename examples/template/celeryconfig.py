"""The same settings as a module, for those who prefer one: `CELERY_CONFIG_MODULE=celeryconfig`."""

from __future__ import annotations

from celery.schedules import crontab
from kombu import Queue

task_serializer = result_serializer = "json"
accept_content = result_accept_content = ["json"]
timezone = "Europe/Berlin"
worker_concurrency = 2
result_extended = True
result_expires = 3600 * 24 * 7
task_track_started = True
task_queues = [Queue("celery"), Queue("fast", queue_arguments={"x-max-priority": 10})]
task_routes = {"template.tasks.describe": {"queue": "fast"}}
beat_schedule = {
    "heartbeat": {"task": "template.periodic.heartbeat", "schedule": crontab(minute="*/5")},
}
