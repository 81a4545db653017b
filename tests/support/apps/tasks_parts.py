"""A process that returns parts of chords, as a worker does: ``python -m tests.support.apps.tasks_parts``.

Reads one line of JSON: ``backend``, ``broker``, ``queue`` and ``parts``, a list of ``[group, index]``. Says
``ready`` once connected, begins at the next line, and says in the end how many parts it returned.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from celery import Celery
from celery.app.task import Context

from tests.support.apps import tasks_worker


def request_of(app: Celery, group: str, index: int, task_id: str | None = None) -> Context:
    """The request of a header task whose chord's body is ``contract.total`` with the id ``GROUP-body``."""
    return Context(
        {
            "id": task_id or f"{group}-{index}",
            "task": "contract.echo",
            "group": group,
            "group_index": index,
            "chord": dict(app.tasks["contract.total"].s().set(task_id=f"{group}-body")),
            "delivery_info": {},
            "children": [],
            "args": [],
            "kwargs": {},
        }
    )


def main() -> None:
    """Run it."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    app = tasks_worker.make(given["broker"], given["backend"], given["queue"])
    backend = app.backend
    backend.get_task_meta("a first look opens the connection")
    print("ready", flush=True)
    sys.stdin.readline()
    for group, index in given["parts"]:
        request = request_of(app, group, index)
        backend.mark_as_done(request.id, index, request=request)
    print(len(given["parts"]), flush=True)
    backend.close()


if __name__ == "__main__":
    main()
