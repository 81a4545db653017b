"""An app that returns header tasks' parts itself, and counts the bodies that are published."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import redis
from celery import Celery

from tests.engines import Database
from tests.support.apps import contract_apps, tasks_worker
from tests.support.apps.tasks_contract import failure
from tests.support.apps.tasks_parts import request_of


class Bodies:
    """An app whose chords' bodies stay in the broker, where they can be counted.

    Args:
        database: Where its results are.
        broker: Where the bodies are published.
        conf: Further settings.
    """

    def __init__(self, database: Database, broker: str, **conf: Any) -> None:
        self.broker, self.url, self.queue = broker, database.backend_url, f"bodies-{uuid.uuid4().hex}"
        self.app: Celery = tasks_worker.make(self.broker, self.url, self.queue)
        self.app.conf.update(conf)
        self.backend = self.app.backend

    def published(self) -> list[tuple[str, Any]]:
        """Id and argument of each body that was published."""
        with redis.Redis.from_url(self.broker) as client:
            messages = [json.loads(message) for message in client.lrange(self.queue, 0, -1)]
        return [(message["headers"]["id"], json.loads(base64.b64decode(message["body"]))[0][0]) for message in messages]

    def returns(self, group: str, index: int, task_id: str | None = None, value: Any = None) -> None:
        """A header task ends well."""
        request = request_of(self.app, group, index, task_id)
        self.backend.mark_as_done(request.id, index if value is None else value, request=request)

    def fails(self, group: str, index: int) -> None:
        """A header task ends with an exception."""
        request = request_of(self.app, group, index)
        self.backend.mark_as_failure(request.id, failure("own class"), traceback="…", request=request)

    def close(self) -> None:
        """Leave nothing in the broker."""
        with redis.Redis.from_url(self.broker) as client:
            client.delete(self.queue)
        contract_apps.close(self.app)
