"""Records of tasks for the tests of the typed API, written as workers would have written them."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import Celery

from surrealdb_celery_backend.client.values import RecordID

#: In one place, so that every record of a test has its time from there.
NOW = datetime.now(timezone.utc).replace(microsecond=0)
ERRORS = (("ValueError", "builtins"), ("KeyError", "builtins"), ("OperationalError", "sqlalchemy.exc"))
STATES = ("SUCCESS", "SUCCESS", "SUCCESS", "FAILURE", "REVOKED", "STARTED", "PENDING", "RETRY")


def write(app: Celery, records: Iterable[dict[str, Any]], *, table: str = "task") -> None:
    """Write records; what is None is left out."""
    rows = [
        {
            "id": RecordID(table, record["task_id"]),
            **{name: value for name, value in record.items() if value is not None},
        }
        for record in records
    ]
    for place in range(0, len(rows), 1000):
        app.backend.connection.run_all(f"INSERT INTO {table} $rows RETURN NONE", rows=rows[place : place + 1000])


def record(**fields: Any) -> dict[str, Any]:
    """A finished task with `result_extended`; fields are replaced by those given."""
    done = fields.get("date_done", NOW - timedelta(minutes=1))
    values: dict[str, Any] = {
        "task_id": str(uuid.uuid4()),
        "status": "SUCCESS",
        "result": json.dumps(3),
        "encoding": "application/json",
        "children": [],
        "date_done": done,
        "extended": True,
        "name": "shop.report",
        "args": json.dumps([1, "two"]),
        "kwargs": json.dumps({"user": 7}),
        "worker": "celery@one",
        "retries": 0,
        "queue": "celery",
        "runtime": 0.5,
        "queue_time": 0.25,
    }
    if done is not None:
        values |= {"started_at": done - timedelta(seconds=0.5), "sent_at": done - timedelta(seconds=0.75)}
    return {**values, **fields}


def many(number: int, seed: int = 1) -> list[dict[str, Any]]:
    """Tasks of every kind, with times of which many are whole seconds, equal, or milliseconds."""
    chance = random.Random(seed)
    made = []
    for place in range(number):
        state = chance.choice(STATES)
        ended = state in ("SUCCESS", "FAILURE", "REVOKED")
        at = NOW - timedelta(
            seconds=chance.choice([chance.randrange(10), chance.randrange(4000), chance.randrange(10**6)]),
            microseconds=chance.choice([0, 0, 500_000, 1000, chance.randrange(10**6)]),
        )
        kind, module = chance.choice(ERRORS)
        failed = state in ("FAILURE", "RETRY")
        message = f"Order {place} was Lost"
        made.append(
            record(
                status=state,
                date_done=at if ended else None,
                started_at=at - timedelta(seconds=1) if state != "PENDING" else None,
                sent_at=at - timedelta(seconds=2) if chance.random() < 0.9 else None,
                name=chance.choice(["shop.report", "shop.pay", "mail.send", None]),
                worker=chance.choice(["celery@one", "celery@two"]),
                queue=chance.choice(["celery", "slow"]),
                args=json.dumps([place, f"order-{place % 10}"]),
                error={"type": kind, "module": module, "message": message} if failed else None,
                traceback=f"Traceback (most recent call last):\n{kind}: {message}" if failed else None,
                result=json.dumps({"exc_type": kind, "exc_message": [message], "exc_module": module})
                if failed
                else "3",
                runtime=chance.random() * 10 if ended else None,
                queue_time=chance.random() if ended else None,
                tags=chance.sample(["a", "b", "c"], chance.randrange(3)) or None,
                root_id=f"root-{place % 50}",
                group_id=f"group-{place % 20}" if place % 3 else None,
                periodic_task_name=chance.choice(["nightly", None]),
                expires_at=NOW + timedelta(days=1) if chance.random() < 0.5 else None,
            )
        )
    return made


def listed_at(fields: dict[str, Any]) -> Any:
    """The time that a task is listed under."""
    return fields["date_done"] or fields["started_at"] or fields["sent_at"]


def newest_first(records: Iterable[dict[str, Any]]) -> list[str]:
    """The ids of tasks in the order of a list."""
    begin = datetime(1970, 1, 1, tzinfo=timezone.utc)

    def key(fields: dict[str, Any]) -> tuple[bool, datetime, str]:
        return fields["date_done"] is None, listed_at(fields) or begin, fields["task_id"]

    return [fields["task_id"] for fields in sorted(records, key=key, reverse=True)]
