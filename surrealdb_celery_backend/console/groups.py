"""Groups and chords: what unfinished chords wait for, the groups of late, and the tasks of one group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from celery.states import READY_STATES
from starlette.requests import Request
from starlette.responses import Response

from ..errors import InvalidFilter
from ..results import TaskSummary
from .data import PATIENCE, Data
from .filters import View
from .listing import listed
from .pages import data_of, link, pages_of, query_text

#: Unfinished chords on a page: each costs the database up to three requests.
CHORDS = 25
#: The newest tasks among which groups are looked for, and the groups that are shown.
NEWEST, GROUPS = 500, 30
#: Tasks of a group that its page shows.
TASKS = 500


@dataclass
class Group:
    """The tasks of a group, as far as they were looked at.

    Attributes:
        id: The group's id.
        name: The name of its newest task.
        states: How many of its tasks have each state.
        at: When its newest task ended, began or was sent.
    """

    id: str
    name: str = ""
    states: Counter[str] = field(default_factory=Counter)
    at: datetime | None = None

    @property
    def count(self) -> int:
        """How many of its tasks were found."""
        return sum(self.states.values())


async def listing(request: Request) -> Response:
    """`GET /groups`."""
    data, skip = data_of(request), _skip(request)
    found = await data.shared(
        ("chords", skip), lambda: list(islice(data.results.unfinished_chords(skip=skip), CHORDS + 1))
    )
    chords = found or []
    unready = await data.unready()
    ended = await data.shared("ended", lambda: newest_ended(data), PATIENCE)
    groups = None if unready is None or ended is None else grouped((*unready.tasks, *ended))[:GROUPS]
    return pages_of(request).render(
        request,
        "groups.html",
        title="Groups and chords",
        chords=chords[:CHORDS],
        first=link(request, "groups") if skip else None,
        more=link(request, "groups", skip=skip + CHORDS) if len(chords) > CHORDS else None,
        groups=groups,
        newest=NEWEST,
    )


def newest_ended(data: Data) -> tuple[TaskSummary, ...]:
    """The newest tasks that have ended."""
    return data.results.find(state=READY_STATES, limit=NEWEST).tasks


def grouped(tasks: Iterable[TaskSummary]) -> list[Group]:
    """Tasks by their group; those that belong to none are left out.

    Args:
        tasks: The tasks, newest first.
    """
    found: dict[str, Group] = {}
    for task in tasks:
        if task.group_id is not None:
            group = found.setdefault(task.group_id, Group(task.group_id, task.name or "", at=task.at))
            group.states[task.state] += 1
    return list(found.values())


async def group(request: Request) -> Response:
    """`GET /group?id=…`."""
    data, group_id = data_of(request), query_text(request.query_params, "id")
    view = View.of({"group": group_id, "limit": str(TASKS)})
    page = await listed(data, view, on=bool(request.query_params.get("on")))
    chord = await data.read(lambda: next(data.results.unfinished_chords(group_id), None))
    return pages_of(request).render(
        request,
        "group.html",
        title=f"Group {group_id}",
        group_id=group_id,
        page=page,
        states=Counter(task.state for task in page.tasks),
        chord=chord,
        look_on=link(request, "group", id=group_id, on="1") if not page.complete else None,
        older=link(request, "tasks", group=group_id, after=page.after) if page.after and page.complete else None,
        live=link(request, "events", group=group_id),
    )


def _skip(request: Request) -> int:
    text = request.query_params.get("skip", "0")
    if not text.isdecimal() or len(text) > 6:
        raise InvalidFilter(f"skip is {text!r}: give how many chords are left out")
    return int(text)
