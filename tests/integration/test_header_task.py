"""A header task's result is encoded once and sent once, in one request with its part of the chord."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from surrealdb_celery_backend.client import protocol
from tests.engines import Database

pytestmark = pytest.mark.integration

#: How many header tasks there are.
SIZE = 3
RESULT = "a result that is looked for on the line"


def test_its_result_is_encoded_once_and_sent_once(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request, one call of the serializer and one copy of what it made: of the task and of its part."""
    app = Celery("header", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings)
    backend = app.backend
    group, body = str(uuid.uuid4()), app.signature("total")
    body.freeze()
    backend.set_chord_size(group, SIZE)
    encoded: list[Any] = []
    sent: list[bytes] = []

    def encode(data: Any) -> Any:
        encoded.append(data)
        return type(backend).encode(backend, data)

    class Pending(protocol.Pending):
        def __init__(self, request_id: str, data: bytes) -> None:
            sent.append(data)
            super().__init__(request_id, data)

    monkeypatch.setattr(backend, "encode", encode)
    monkeypatch.setattr(protocol, "Pending", Pending)
    request = Context(
        id=str(uuid.uuid4()), task="part", group=group, group_index=0, chord={**body, "chord_size": SIZE},
        args=[], kwargs={}, children=[], delivery_info={},
    )  # fmt: skip
    before = backend.connection.request_count
    backend.mark_as_done(request.id, RESULT, request)
    assert backend.connection.request_count - before == 1
    assert encoded == [RESULT]
    assert b"".join(sent).count(RESULT.encode()) == 1
    monkeypatch.undo()
    assert backend.get_result(request.id) == RESULT
    [part] = backend.connection.run("SELECT VALUE result FROM chord WHERE task_id = $task", task=request.id)
    assert part == f'"{RESULT}"'
    backend.close()
