"""Threads whose first requests are sure to meet, which is chance on a machine of any speed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from surrealdb_celery_backend.results import gathering
from tests.support.faults.proxy import Proxy
from tests.support.states import until

#: How long a thread waits for others, in seconds: a limit for a hang, not a wait.
LIMIT = 30


def run_together(
    work: Callable[[int], None],
    threads: int,
    gathered: gathering.Gathering,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run something in threads; none goes on until the first requests of all are sent or wait.

    Args:
        work: Called in each thread, with its number.
        threads: How many threads.
        gathered: Where their requests gather.
        proxy: The way to the database.
        monkeypatch: Lets them wait for each other.
    """
    proxy.holding_replies = True
    with ThreadPoolExecutor(threads) as pool:
        with monkeypatch.context() as patient:
            patient.setattr(gathering, "MAX_WAIT", LIMIT)
            running = [pool.submit(work, thread) for thread in range(threads)]
            try:
                until(lambda: gathered.waiting == threads - gathering.MAX_IN_FLIGHT, "the first requests wait")
            finally:
                proxy.holding_replies = False
            until(lambda: not gathered.waiting, "they went together")
        for each in running:
            each.result()
