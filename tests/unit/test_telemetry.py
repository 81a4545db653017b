"""What a span says of a call, told from the parameters that are really sent."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from surrealdb_celery_backend.client.options import Options
from surrealdb_celery_backend.client.telemetry import batch_size
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.results import gathering
from surrealdb_celery_backend.results.group_commit import GroupCommit
from surrealdb_celery_backend.results.records import TaskRecord
from tests.support.states import until

pytestmark = pytest.mark.unit


class Held:
    """A connection whose first requests are answered when the test says so."""

    def __init__(self) -> None:
        self.options = Options("ws://127.0.0.1:8000/rpc", "celery", "results", 60.0)
        self.sent: list[dict[str, Any]] = []
        self.answer = threading.Event()

    def run(self, text: str, /, *, deadline: float, **variables: Any) -> list[list[str]]:
        self.sent.append(variables)
        self.answer.wait(60)
        return [["SUCCESS"]] * max(batch_size(variables), 1)


def test_stores_that_go_together_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of a group commit are counted; a store alone, and a call for nothing in particular, are no batch."""
    monkeypatch.setattr(gathering, "MAX_WAIT", 60)  # the others wait for the first, however slow the machine
    connection: Any = Held()
    commit = GroupCommit(connection)
    records = [TaskRecord(RecordID("task", str(number)), {"task_id": str(number)}, {}) for number in range(30)]
    threads = [threading.Thread(target=commit.store, args=(each,), kwargs={"ready": True}) for each in records]
    for thread in threads:
        thread.start()
    alone = gathering.MAX_IN_FLIGHT
    until(lambda: (len(connection.sent), commit.gathering.waiting) == (alone, 30 - alone), "the others gather")
    connection.answer.set()
    for thread in threads:
        thread.join(60)
    assert [batch_size(each) for each in connection.sent[:alone]] == [0] * alone
    assert sum(batch_size(each) or 1 for each in connection.sent) == 30
    assert max(batch_size(each) for each in connection.sent) == gathering.MAX_BATCH
    assert batch_size({"records": [RecordID("task", "a")] * 3}) == 3
    assert batch_size({}) == 0
