"""A real prefork worker with its broker and its results."""

from __future__ import annotations

import gc
import time

from celery import chord, group

from .. import worker
from ..contenders import Contender
from .base import Bench, Measure, Row, Sizes

#: The processes whose CPU is counted, and what decides how much they use.
ROLES = (
    ("engine", "result server", "engine"),
    ("broker", "broker", "Celery"),
    ("parent", "worker's parent", "Celery"),
    ("children", "worker's children", "client"),
    ("client", "client", "client"),
)


class EndToEnd(Measure):
    """A real prefork worker, its broker and its results, with the client that waits for them."""

    name = "end-to-end"

    def rows(self, sizes: Sizes) -> list[Row]:
        return [
            Row("tasks", f"tasks end to end, {worker.CHILDREN} prefork children", "/s", True),
            Row("chord", f"chord of {sizes.header}, sent to got", "s", False),
            *(
                Row(f"cpu {role}", f"CPU per task: {title}", "ms", False, decided_by=decided_by)
                for role, title, decided_by in ROLES
            ),
            Row("cpu ours", "CPU per task: children and client", "ms", False, decided_by="client"),
            Row("parent", "resident memory of the worker's parent", "MiB", False),
            Row("child", "resident memory of a worker's child", "MiB", False),
        ]

    def applies(self, contender: Contender) -> bool:
        return contender.celery or not contender.stores

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        if not contender.stores:
            return self._without_results(bench, contender)
        running = bench.worker(contender)
        add, total = running.app.tasks["bench.add"], running.app.tasks["bench.total"]
        tasks, header = bench.sizes.tasks, bench.sizes.header
        gc.collect()
        with bench.accounts(contender, running).used() as cpu:
            began = time.perf_counter()
            sums = group(add.s(number, 1) for number in range(tasks)).apply_async().get(timeout=300)
            elapsed = time.perf_counter() - began
        if sums != list(range(1, tasks + 1)):
            raise RuntimeError(f"{contender.label} returned other results than were computed")
        began = time.perf_counter()
        answer = chord(add.s(number, 0) for number in range(header))(total.s()).get(timeout=300)
        chord_elapsed = time.perf_counter() - began
        if answer != sum(range(header)):
            raise RuntimeError(f"{contender.label} called a chord's body with other results than were computed")
        parent, child = running.memory()
        return {
            "tasks": tasks / elapsed,
            "chord": chord_elapsed,
            "parent": parent,
            "child": child,
            **{f"cpu {role}": seconds / tasks * 1000 for role, seconds in cpu.items()},
            "cpu ours": (cpu["children"] + cpu["client"]) / tasks * 1000,
        }

    @staticmethod
    def _without_results(bench: Bench, contender: Contender) -> dict[str, float]:
        """The CPU of sending and running the same tasks without results: no backend can get below it."""
        running, tasks = bench.worker(contender), bench.sizes.tasks
        accounts, add = bench.accounts(contender, running), running.app.tasks["bench.add"]
        ran = running.ran()
        gc.collect()
        before = accounts.read()
        group(add.s(number, 1) for number in range(tasks)).apply_async()
        sent = accounts.read()
        running.wait_for(ran + tasks)
        # What the client used to ask whether all have run is not its work.
        cpu = {**accounts.read(), "client": sent["client"]}
        used = {f"cpu {role}": (cpu[role] - before[role]) / tasks * 1000 for role in ("children", "client")}
        return {**used, "cpu ours": sum(used.values())}
