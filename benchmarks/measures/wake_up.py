"""Waiting for a result that another process stores."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
import uuid
from dataclasses import replace

from ..contenders import CeleryClient, Client, Contender
from .base import Bench, Measure, Row, Sizes, ids


class WakeUp(Measure):
    """From when another process begins to store a result to when get() has it."""

    name = "wake-up"

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("wake median", "wake-up of get(), median", "ms", False),
            Row("wake p95", "wake-up of get(), 95 of 100", "ms", False),
            Row("foreign median", "the same of a task that another process sent, median", "ms", False),
            Row("foreign p95", "the same of a task that another process sent, 95 of 100", "ms", False),
            Row("polled median", "the same with surrealdb_live off, median", "ms", False, "postgres"),
            Row("polled p95", "the same with surrealdb_live off, 95 of 100", "ms", False, "postgres"),
        ]

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        if contender.polled:
            return self._wakes(bench, contender, "polled", bench.client(contender))
        results = self._wakes(bench, contender, "wake", bench.client(contender))
        results |= self._wakes(bench, contender, "foreign", bench.client(contender), sent_here=False)
        if contender.ours:
            polling = replace(contender, settings={**contender.settings, "surrealdb_live": "off"})
            with contextlib.closing(CeleryClient(polling)) as client:
                results |= self._wakes(bench, contender, "polled", client)
        return results

    def _wakes(
        self, bench: Bench, contender: Contender, name: str, client: Client, *, sent_here: bool = True
    ) -> dict[str, float]:
        assert isinstance(client, CeleryClient)
        waits = []
        for task_id in ids(bench.sizes.wakes + 1):
            if sent_here:  # What Celery does when a task is sent.
                client.backend.on_task_call(None, task_id)
            address = client.app.thread_oid if sent_here else str(uuid.uuid4())
            bench.storer.store_later(contender, task_id, address, random.uniform(0.05, 0.25))
            client.app.AsyncResult(task_id).get(timeout=60)
            got = time.monotonic()
            waits.append((got - bench.storer.stored_at()) * 1000)
        waits = sorted(waits[1:])  # the first opens connections
        return {f"{name} median": statistics.median(waits), f"{name} p95": waits[int(len(waits) * 0.95)]}
