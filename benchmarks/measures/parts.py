"""What a finished header task costs its worker, by the size of the header."""

from __future__ import annotations

import uuid

from ..accounting import Accounts
from ..contenders import CeleryClient, Contender, request_of
from .base import Bench, Measure, Row, Sizes, ids, timed


class ChordParts(Measure):
    """What a finished header task costs its worker, by the size of the header: its result and its part."""

    name = "chord-parts"
    most_repeats = 3

    def rows(self, sizes: Sizes) -> list[Row]:
        rows = []
        for size in sizes.parts:
            of = f"result and part of a header task, of {size:,}"
            rows += [
                Row(f"part {size}", of, "ms", False),
                Row(f"part {size} cpu", f"client CPU: {of}", "ms", False, decided_by="client"),
                Row(f"part {size} engine", f"engine CPU: {of}", "ms", False),
            ]
        return rows

    def applies(self, contender: Contender) -> bool:
        return contender.celery and not contender.polled  # SQLAlchemy has none: a task polls instead

    def sample(self, bench: Bench, contender: Contender) -> dict[str, float]:
        client = bench.client(contender)
        assert isinstance(client, CeleryClient)
        results = {}
        for size in bench.sizes.parts:
            elapsed, cpu = return_parts(client, size, size, bench.accounts(contender))
            results[f"part {size}"] = elapsed / size * 1000
            results[f"part {size} cpu"] = cpu["client"] / size * 1000
            if "engine" in cpu:
                results[f"part {size} engine"] = cpu["engine"] / size * 1000
        return results


def return_parts(
    client: CeleryClient, size: int, returned: int, accounts: Accounts | None = None
) -> tuple[float, dict[str, float]]:
    """Let header tasks of a chord of a size return, the last of them too if all do.

    :return: seconds, and seconds of CPU by group.
    """
    body = client.app.signature("bench.total")
    body.freeze()
    body["chord_size"] = size
    group_id = str(uuid.uuid4())
    client.backend.set_chord_size(group_id, size)
    parts = []
    for index, task_id in enumerate(ids(returned)):
        request = request_of(task_id)
        request.update(group=group_id, group_index=index, chord=dict(body))
        parts.append((task_id, index, request))
    return timed(client.backend.mark_as_done, parts, accounts=accounts)
