"""Which tasks a list shows: those that have not ended, which all pages share, and a page of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from celery.states import READY_STATES

from ..results import TaskSummary
from .data import Data
from .filters import View
from .matching import matcher

#: Records that a page looks at for a rare filter before it shows what it found so far; and when asked to look on.
MOST_SCANNED, MOST_SCANNED_ON = 1_000, 200_000
#: Tasks that have not ended which stand above the others.
ABOVE = 25


@dataclass(frozen=True)
class Listed:
    """A page of a list.

    Attributes:
        tasks: The tasks: those that have not ended first, each kind newest first.
        after: Where the next page begins; None after the last.
        complete: False where the search stopped before the page was full.
        scanned: How many records were looked at.
        left_out: Whether there may be more tasks that have not ended.
        reading: Whether those are still being read.
    """

    tasks: Sequence[TaskSummary]
    after: str | None
    complete: bool
    scanned: int
    left_out: bool = False
    reading: bool = False


async def listed(data: Data, view: View, *, on: bool = False) -> Listed:
    """Find what a list shows.

    Tasks that have not ended have no order in the database: they are sorted, which takes long where there are
    thousands. So a list of others, too, has the newest of them only, read once for all pages.

    Args:
        data: Where to find it.
        view: The filters and the place in the list.
        on: Look at more records than a page usually does.
    """
    scanned = MOST_SCANNED_ON if on else MOST_SCANNED
    wanted = dict(view.wanted)
    states = {each.upper() for each in wanted.get("state") or ()}
    match = matcher(wanted)
    only_unready = bool(states) and states.isdisjoint(READY_STATES)
    if only_unready or match is None:
        page = await data.read(data.results.find, limit=view.limit, after=view.after, max_scanned=scanned, **wanted)
        return Listed(page.tasks, page.after, page.complete, page.scanned)
    wanted["state"] = sorted(states & READY_STATES or READY_STATES)
    above: list[TaskSummary] = []
    left_out = reading = False
    find = data.read(data.results.find, limit=view.limit, after=view.after, max_scanned=scanned, **wanted)
    if view.after or (states and states <= READY_STATES):
        page = await find
    else:
        # Neither waits for the other.
        unready, page = await asyncio.gather(data.unready(), find)
        reading = unready is None
        if unready is not None:
            found = [task for task in unready.tasks if match(task)]
            above = found[: min(ABOVE, view.limit)]
            left_out = len(found) > len(above) or not unready.complete
    known = {task.id for task in page.tasks}
    above = [task for task in above if task.id not in known]
    return Listed((*above, *page.tasks), page.after, page.complete, page.scanned, left_out, reading)
