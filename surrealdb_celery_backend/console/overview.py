"""The overview: how much runs and fails, how long things take, what fails now, and what beat does next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from starlette.requests import Request
from starlette.responses import Response

from ..beat import ActiveBeat, ScheduleEntry, Schedules
from ..errors import InvalidFilter
from ..results import RecentStats
from . import charts
from .data import SPANS
from .pages import data_of, pages_of
from .security import CHART_POLICY

#: Kinds of failure, running tasks, next runs and unfinished chords that are shown.
FAILURES, RUNNING, NEXT_RUNS, CHORDS = 20, 20, 8, 5


@dataclass(frozen=True)
class NextRun:
    """An entry that will run."""

    entry: ScheduleEntry
    due: datetime


@dataclass(frozen=True)
class Beat:
    """What is known of beat.

    Attributes:
        active: The beat that runs the entries; None where none does.
        coming: The entries that are due next, the next first.
        entries: How many active entries there are.
    """

    active: ActiveBeat | None
    coming: Sequence[NextRun]
    entries: int


async def overview(request: Request) -> Response:
    """`GET /`."""
    data, span = data_of(request), span_of(request)
    figures, unready, found, beat = await asyncio.gather(
        data.recent(span),
        data.unready(),
        data.shared("chords", lambda: list(islice(data.results.unfinished_chords(), CHORDS + 1))),
        data.shared("beat", lambda: beat_of(data.schedules)),
    )
    chords = found or []
    return pages_of(request).render(
        request,
        "overview.html",
        title="Overview",
        span=span,
        spans=SPANS,
        figures=figures,
        unready=unready,
        most_running=RUNNING,
        chords=chords[:CHORDS],
        more_chords=len(chords) > CHORDS,
        beat=beat,
        most_failures=FAILURES,
        most_names=charts.MOST_NAMES,
    )


CHARTS: dict[str, Callable[[RecentStats, str, str], bytes]] = {
    "ended": charts.over_time,
    "runtime": charts.runtime,
    "queue_time": charts.queue_time,
}


async def chart(request: Request) -> Response:
    """`GET /chart/{what}.svg`."""
    data, span = data_of(request), span_of(request)
    draw = CHARTS.get(request.path_params["what"])
    if draw is None:
        return Response("There is no such chart.\n", status_code=404, media_type="text/plain")
    known = await data.recent(span)
    if known.value is None:
        return Response(status_code=204)
    stats, zone = known.value, request.query_params.get("zone", "UTC")
    drawn = await data.shared(
        ("chart", request.path_params["what"], span, zone), lambda: draw(stats, SPANS[span].step_text, zone)
    )
    return Response(drawn, media_type="image/svg+xml", headers={"Content-Security-Policy": CHART_POLICY})


def span_of(request: Request) -> str:
    """The span that a page shows.

    Raises:
        InvalidFilter: There is no such span.
    """
    span = request.query_params.get("span", "24h")
    if span not in SPANS:
        raise InvalidFilter(f"span is {span!r}: choose {', '.join(SPANS)}")
    return span


def beat_of(schedules: Schedules) -> Beat:
    """The active beat, and the entries that are due next."""
    found = []
    for entry in schedules.entries():
        if not entry.active or entry.is_finished:
            continue
        due = entry.next_run_at
        if due is None:
            upcoming = schedules.next_runs(entry, 1)
            if not upcoming:
                continue
            due = upcoming[0]
        found.append(NextRun(entry, due))
    coming = sorted(found, key=lambda run: run.due)
    return Beat(schedules.active_beat(), coming[:NEXT_RUNS], len(coming))
