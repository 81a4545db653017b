"""Records of tasks, groups and chords as the backend writes them, with times of their own.

The backend itself makes each record; only what the database adds when it stores one is added here, from the time that
the task is to have. All follows from the number of results and the time that they end at, so a part can be made by
itself.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import states
from celery.app.task import Context
from celery.exceptions import TaskRevokedError

from surrealdb_celery_backend import celery_compat
from surrealdb_celery_backend.client.values import RecordID

from .tasks import (
    KINDS,
    RARE_COUNT,
    RARE_KIND,
    RARE_TAG,
    RARE_WORKER,
    SPLIT,
    TAGS,
    TOTAL,
    WEIGHTS,
    WORKERS,
    Failure,
    Kind,
    arguments,
    failure,
    result,
)

#: Days over which tasks are spread.
DAYS = 30
#: Tasks of a part, about: what one statement inserts.
PART = 1000
#: The part of the newest tasks of which half have not ended, and how many of the others never did.
NEWEST, STUCK = 1 / 300, 1 / 2000
UNFINISHED = (states.STARTED, states.STARTED, "PROGRESS", states.RETRY, states.PENDING, states.PENDING)


@dataclass(frozen=True)
class Place:
    """Where a task belongs.

    Attributes:
        root: The first task of its workflow; itself if None.
        parent: The task that sent it.
        group: Its group.
        index: Its index there.
        children: The tasks that it sent.
        retry_of: The task that it is a retry of.
    """

    root: str | None = None
    parent: str | None = None
    group: str | None = None
    index: int | None = None
    children: tuple[str, ...] = ()
    retry_of: str | None = None


ALONE = Place()


@dataclass
class Part:
    """Records that are inserted together.

    Attributes:
        rows: The records, by table.
        known: Ids of some of them, by what they are.
    """

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"task": [], "group": [], "chord": []})
    known: dict[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """The records of tasks."""
        return self.rows["task"]


class Maker:
    """Makes records.

    Args:
        app: The app, whose backend makes them.
        number: How many tasks there are to be.
        end: When the newest ended.
    """

    def __init__(self, app: Any, number: int, end: datetime) -> None:
        self._app, self._number, self._end = app, number, end
        self._backend = app.backend
        self._step = timedelta(days=DAYS) / number
        self._rare = {(2 * each + 1) * number // (2 * RARE_COUNT) for each in range(RARE_COUNT)}

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self._number // PART)

    def part(self, number: int) -> Part:
        """Make a part.

        Args:
            number: Which, from 0, the oldest first.
        """
        return _Making(self, random.Random(number), number * PART, min((number + 1) * PART, self._number)).run()

    # -- one record -------------------------------------------------------------------------------------

    def at(self, place: int) -> datetime:
        """When a task of the list ends."""
        return self._end - (self._number - place) * self._step

    def is_rare(self, place: int) -> bool:
        """Whether a task of the list is one of the rare name."""
        return place in self._rare

    def ends(self, place: int, chance: random.Random) -> bool:
        """Whether a task of the list has ended."""
        newest = place > self._number * (1 - NEWEST)
        return chance.random() >= (0.5 if newest else STUCK)

    def task(self, kind: Kind, task_id: str, place: Place, at: datetime, state: str, chance: random.Random) -> Any:
        """The record of a task.

        Args:
            kind: Its kind.
            task_id: Its id.
            place: Where it belongs.
            at: When it ended, or came to its state.
            state: Its state.
            chance: What else it has.
        """
        runtime = kind.runtime * chance.lognormvariate(0, 0.7)
        waited = chance.expovariate(2)
        request = self._request(kind, task_id, place, chance)
        if state == states.PENDING:
            request.hostname = None
        moment = time.monotonic()
        request.update(sent_at=at.timestamp() - runtime - waited)
        if state not in {states.PENDING, states.REVOKED}:
            request.__dict__["_surrealdb_started"] = (moment - runtime, at.timestamp() - runtime)
        value, failed = _outcome(state, chance)
        retries = request.retries
        backend = self._backend
        encoded = backend.encode_result(value, state)
        meta = backend._meta_to_store(encoded, state, failed.traceback if failed else None, request)
        kept = backend.retention.lifetime(state, request)
        made = backend.tasks.from_meta(task_id, meta, request=request, kept=kept, at=moment)
        fields = {"id": made.id, **made.fields}
        self._add_of_database(fields, made.more, at, runtime)
        if retries and state != states.RETRY:
            fields["attempts"] = [_attempt(chance, request.hostname, number, at) for number in range(retries)]
        return fields

    def _request(self, kind: Kind, task_id: str, place: Place, chance: random.Random) -> Context:
        args, kwargs = arguments(chance)
        lot = chance.random()
        labels: dict[str, Any] = {}
        if lot < 0.06:
            labels["tags"] = [RARE_TAG] if lot < 0.0001 else chance.sample(TAGS, 1 + (lot < 0.01))
        if 0.1 < lot < 0.12:
            labels["meta"] = {"tenant": f"shop-{int(lot * 10_000) % 40}"}
        if kind.periodic is not None:
            labels["periodic_task_name"] = kind.periodic
        if place.retry_of is not None:
            labels["retry_of"] = place.retry_of
        worker = RARE_WORKER if chance.random() < 0.0002 else chance.choice(WORKERS)
        children = [self._app.AsyncResult(each) for each in place.children]
        return Context(
            id=task_id,
            root_id=place.root or task_id,
            parent_id=place.parent,
            group=place.group,
            group_index=place.index,
            reply_to=f"reply-{int(lot * 100)}",
            task=kind.name,
            args=args,
            kwargs=kwargs,
            children=children,
            hostname=worker,
            retries=1 + (lot > 0.98) if lot > 0.96 else 0,
            delivery_info={"routing_key": kind.queue, "priority": int(lot * 10)},
            **labels,
        )

    @staticmethod
    def _add_of_database(fields: dict[str, Any], more: Mapping[str, Any], at: datetime, runtime: float) -> None:
        """Add what the statement that stores a task adds (`statements.store_task`)."""
        if fields["status"] in states.READY_STATES:
            fields["date_done"] = at
        if "l" in more:
            fields["expires_at"] = at + more["l"]
        if "s" in more:
            fields["started_at"] = at - timedelta(seconds=runtime)
        if "u" in more:
            fields["run"] = more["u"]
        if "a" in more:
            fields["attempts"] = [{**more["a"].fields, "at": at}]

    def group(self, group_id: str, members: list[str], at: datetime) -> dict[str, Any]:
        """The record of a group that was saved."""
        backend = self._backend
        shape = ((group_id, None), [((each, None), None) for each in members])
        saving = backend.groups.saving(group_id, backend.encode(shape), backend.expires)
        found = {**saving.parameters["fields"], "date_done": at, "expires_at": at + saving.parameters["lifetime"]}
        return {"id": saving.parameters["record"], **found}

    def claim(self, group_id: str, task_id: str, at: datetime) -> dict[str, Any]:
        """What is left of a chord whose body was sent."""
        kept = celery_compat.chord_expires(self._backend)
        return {
            "id": RecordID("chord", [group_id, "claim"]),
            "group_id": group_id,
            "claimant": uuid.UUID(task_id).hex,
            "task_id": task_id,
            "claimed_at": at,
            "done": True,
            "expires_at": at + timedelta(seconds=kept or 0),
        }


class _Making:
    """One part in the making: workflows of all kinds until it is full.

    Args:
        maker: Makes its records.
        chance: Decides.
        place: Where it begins in the list of all.
        end: Where it ends.
    """

    def __init__(self, maker: Maker, chance: random.Random, place: int, end: int) -> None:
        self._maker, self._chance, self._place, self._end = maker, chance, place, end
        self._made = Part()

    def run(self) -> Part:
        """Fill it."""
        rare = [place for place in range(self._place, self._end) if self._maker.is_rare(place)]
        for stop in (*rare, self._end):
            while self._place < stop:
                self._unit(stop - self._place)
            if stop < self._end:
                self._add(RARE_KIND, self._id(), state=states.SUCCESS)
        return self._made

    def _unit(self, room: int) -> None:
        lot, size = self._chance.random(), self._chance.randrange(3, 11)
        if lot < 0.75 or room < size + 2:
            self._single(room)
        elif lot < 0.87:
            self._chain(2 + size % 3)
        elif lot < 0.95:
            self._fan_out(size, chord=False)
        else:
            self._fan_out(size, chord=True)

    def _single(self, room: int) -> None:
        kind = self._kind()
        record = self._add(kind, self._id())
        if record["status"] == states.FAILURE:
            self._know("failed", record)
            if room > 1 and self._chance.random() < 0.1:
                self._know("retried", record)
                self._add(kind, self._id(), Place(retry_of=record["task_id"]))

    def _chain(self, length: int) -> None:
        ids = [self._id() for _ in range(length)]
        for index, task_id in enumerate(ids):
            place = Place(ids[0], ids[index - 1] if index else None, children=tuple(ids[index + 1 : index + 2]))
            last = self._add(self._kind(), task_id, place, state=None if index == length - 1 else states.SUCCESS)
        self._know("chained", last)

    def _fan_out(self, size: int, *, chord: bool) -> None:
        root, group, members = self._id(), self._id(), [self._id() for _ in range(size)]
        body = [self._id()] if chord else []
        self._add(SPLIT, root, Place(children=(*members, *body)), state=states.SUCCESS)
        kind = self._kind()
        for index, task_id in enumerate(members):
            place = Place(root, root, group, index)
            last = self._add(kind, task_id, place, state=states.SUCCESS if chord else None)
        at = self._maker.at(self._place)
        if chord:
            self._add(TOTAL, body[0], Place(root, last["task_id"]), state=states.SUCCESS)
            self._made.rows["chord"].append(self._maker.claim(group, last["task_id"], at))
            self._made.known.setdefault("chord", group)
            self._made.known.setdefault("body", body[0])
            return
        for what, known in (("root", root), ("group", group), ("member", members[0])):
            self._made.known.setdefault(what, known)
        if self._chance.random() < 0.2:
            self._made.rows["group"].append(self._maker.group(group, members, at))

    def _add(self, kind: Kind, task_id: str, place: Place = ALONE, state: str | None = None) -> dict[str, Any]:
        chance, maker = self._chance, self._maker
        state = state or self._state(kind)
        at = maker.at(self._place)
        record: dict[str, Any] = maker.task(kind, task_id, place, at, state, chance)
        self._place += 1
        self._made.tasks.append(record)
        if state == states.SUCCESS:
            self._know("succeeded", record)
        return record

    def _state(self, kind: Kind) -> str:
        if not self._maker.ends(self._place, self._chance):
            return str(self._chance.choice(UNFINISHED))
        lot = self._chance.random()
        if lot < kind.failing:
            return str(states.FAILURE)
        return str(states.REVOKED if lot > 0.997 else states.SUCCESS)

    def _kind(self) -> Kind:
        return self._chance.choices(KINDS, WEIGHTS)[0]

    def _id(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def _know(self, what: str, record: Mapping[str, Any]) -> None:
        self._made.known.setdefault(what, record["task_id"])


def _outcome(state: str, chance: random.Random) -> tuple[Any, Failure | None]:
    if state in {states.FAILURE, states.RETRY}:
        failed = failure(chance)
        return failed.error, failed
    if state == states.SUCCESS:
        return result(chance), None
    if state == states.REVOKED:
        return TaskRevokedError("revoked"), None
    if state == "PROGRESS":
        total = chance.randrange(10, 1000)
        return {"current": chance.randrange(total), "total": total, "message": "rows"}, None
    return None, None


def _attempt(chance: random.Random, worker: str, number: int, at: datetime) -> dict[str, Any]:
    error = failure(chance).error
    kind = type(error)
    named = {"type": kind.__qualname__, "module": kind.__module__, "message": str(error)}
    return {"error": named, "worker": worker, "retries": number, "at": at - timedelta(minutes=5)}


def now() -> datetime:
    """The time, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)
