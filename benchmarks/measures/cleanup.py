"""Deleting expired results, and how long a store waits meanwhile."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from celery import states

from ..contenders import CeleryClient, Contender
from .base import Bench, Measure, Row, Sizes, ids, timed
from .calls import SMALL


class CleanUp(Measure):
    """Deleting what has expired, and how long a store waits meanwhile."""

    name = "clean-up"
    most_repeats = 3

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("clean-up", f"clean-up of {sizes.expired:,} expired results", "s", False, "postgres"),
            Row("worst wait", "worst wait of a store during it", "ms", False, "postgres"),
            Row("worst wait ratio", "the same against just before", "times", None),
        ]

    def applies(self, contender: Contender) -> bool:
        return contender.ours or contender.polled  # Redis expires keys by itself

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client = bench.client(contender)
        assert isinstance(client, CeleryClient)
        store_expired(client, bench.sizes.expired)
        bench.storer.begin(contender)
        time.sleep(bench.sizes.expired / 25_000)
        usual = max(bench.storer.end())
        bench.storer.begin(contender)
        elapsed, _ = timed(client.backend.cleanup, [()])
        worst = max(bench.storer.end())
        return {"clean-up": elapsed, "worst wait": worst * 1000, "worst wait ratio": worst / usual}


def store_expired(client: CeleryClient, number: int) -> None:
    """Store results that have expired, many at a time.

    Args:
        client: Of the backend that gets them.
        number: How many.
    """
    first = datetime.now(timezone.utc) - timedelta(days=2)
    batch = 1000
    backend = client.backend
    for start in range(0, number, batch):
        task_ids = [
            (task_id, first + timedelta(milliseconds=n))
            for n, task_id in enumerate(ids(min(batch, number - start)), start)
        ]
        if client.contender.ours:
            records = [
                {
                    "id": task_id,
                    "task_id": task_id,
                    "status": states.SUCCESS,
                    "result": "x" * SMALL,
                    "encoding": "application/json",
                    "children": [],
                    "date_done": done,
                    "expires_at": done,
                }
                for task_id, done in task_ids
            ]
            backend.connection.run("INSERT INTO task $records RETURN NONE", records=records)
        else:
            session = backend.ResultSession()
            rows = [
                {"task_id": task_id, "status": states.SUCCESS, "result": b"x" * SMALL, "date_done": done}
                for task_id, done in task_ids
            ]
            session.execute(backend.task_cls.__table__.insert(), rows)
            session.commit()
            session.close()
