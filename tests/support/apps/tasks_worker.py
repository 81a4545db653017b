"""The app of `celery worker` processes, configured by the environment alone."""

from __future__ import annotations

import os

from celery import Celery

from tests.support.apps import contract_apps, tasks_contract


def make(broker: str | None = None, backend: str | None = None, queue: str | None = None) -> Celery:
    """The app; what is not given comes from the environment, as Celery reads it."""
    app = Celery("contract", broker=broker, backend=backend, set_as_current=False)
    app.conf.update({key: value for key, value in contract_apps.COMMON.items() if key != "broker_url"})
    app.conf.task_default_queue = queue or os.environ.get("CONTRACT_QUEUE", "contract")
    tasks_contract.register(app)
    return app


app = make()
