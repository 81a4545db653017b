"""The workflow of a task: all tasks that one call has set off, as a tree.

Each record has the first task of its workflow (`root_id`) and the task that sent it (`parent_id`). With an index
on `root_id` one request finds all. Without one the tasks are followed from the first to those that it sent, all
of a level in one request, and what those do not name (the body of a chord is sent by a part of its header after
that was stored) is looked for among the tasks that ended since, as many as :data:`LOOKED_AT`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from celery import states

from ...client.values import EPOCH, RecordID
from . import statements
from .forward import PAGE, Forward
from .model import TaskNode, TaskSummary, Workflow
from .paging import FAR
from .reading import Decoder, groups_in, ids_in, summary
from .scanning import Runner
from .searching import UNREADY_SORTED, Search

#: The most tasks of a workflow that one call reads.
MOST_TASKS = 5000
#: The most levels that are followed from the first task down, and from a task up to its first.
MOST_LEVELS = 100
#: How often groups are looked for that those before led to. A chord in a group takes two: its header's, and its body's.
MOST_GROUPINGS = 10
#: How many groups are looked for by an index, each in a request of its own.
BY_INDEX = 50
#: How many records are looked at for those that no other names, where there is no index on `root_id`.
LOOKED_AT = 20_000
#: How long before the first task is stored those that it sends may end, by another's clock.
SKEW = timedelta(seconds=60)


class Workflows:
    """Finds workflows.

    Args:
        runner: The connection that runs statements.
        table: The task table.
        search: Looks for tasks, with the table's indexes.
        decoder: Decodes a task's children.
    """

    def __init__(self, runner: Runner, table: str, search: Search, decoder: Decoder) -> None:
        self._runner, self._table, self._search, self._decoder = runner, table, search, decoder

    def of(self, task_id: str, max_scanned: int | None = None) -> Workflow | None:
        """The whole workflow that a task is part of; None where nothing is stored of the task.

        Args:
            task_id: The task's id.
            max_scanned: How many records are looked at for those that no other names; None is :data:`LOOKED_AT`.
        """
        reading = _Reading(self._runner, self._table, self._decoder)
        reading.fetch([task_id])
        task = reading.tasks.get(task_id)
        if task is None:
            return None
        root = task.root_id or reading.first_of(task)
        reading.fetch([root])
        most = LOOKED_AT if max_scanned is None else max_scanned
        if self._is_indexed("root_id"):
            complete = reading.all_of("root_id", root)
        else:
            complete = reading.follow(root) and self._look_for_others([root], [], reading, most)
        if reading.is_first(root):
            roots = {root}
            complete = self._follow_groups(roots, reading, most) and complete
            root = reading.first_sent(roots) or root
        return workflow(root, reading.tasks, reading.sent, complete=complete)

    def _follow_groups(self, roots: set[str], reading: _Reading, most: int) -> bool:
        """Find the first tasks that belong together because they, or the ends of their chains, are in one group.

        Args:
            roots: The first tasks that are known; those found are added.
            reading: The tasks that were read so far.
            most: How many records are looked at at once.

        Returns:
            Whether that was all.
        """
        complete = True
        looked_for: set[str] = set()
        for _ in range(MOST_GROUPINGS):
            groups = reading.groups_of(roots) - looked_for
            if not groups:
                return complete and len(reading.tasks) < MOST_TASKS
            looked_for |= groups
            if self._is_indexed("group_id") and len(groups) <= BY_INDEX:
                for group in groups:
                    complete = reading.all_of("group_id", group) and complete
            else:
                complete = self._look_for_others([], sorted(groups), reading, most) and complete
            others = reading.roots_in(groups) - roots
            roots |= others
            if others:
                reading.fetch(others)
                complete = reading.follow(*others) and complete
                complete = self._look_for_others(sorted(others), [], reading, most) and complete
        return False

    def _is_indexed(self, field: str) -> bool:
        indexes = self._search.facts.indexes
        return (field,) in indexes or (field, "date_done") in indexes

    def _look_for_others(self, roots: list[str], groups: list[str], reading: _Reading, most: int) -> bool:
        """Find those that no task names, by their first task or their group. Returns whether all were looked at.

        Args:
            roots: The ids of first tasks.
            groups: The ids of groups.
            reading: The tasks that are known; takes those that are found.
            most: How many records may be read.
        """
        times = [
            each for task in reading.tasks.values() for each in (task.sent_at, task.started_at, task.date_done) if each
        ]
        variables = {"roots": roots, "groups": groups}
        found: list[str] = []
        forward = Forward(
            self._runner,
            statements.others_of_workflow(self._table),
            variables,
            (min(times) if times else EPOCH) - SKEW,
            FAR,
            page=min(PAGE, max(1, most)),
            scan=self._search.scan,
        )
        complete = True
        for rows in forward:
            found += [row[1] for row in rows if row[2]]
            if forward.read >= most:
                complete = False
                break
        unready_most = min(UNREADY_SORTED, most)
        found += self._search.rows(statements.unready_of_workflow(self._table), variables, unready_most)
        known = set(reading.tasks)
        new = [each for each in found if each not in known]
        reading.fetch(new)
        return reading.follow(*new) and complete


class _Reading:
    """The tasks of a workflow that were read so far."""

    def __init__(self, runner: Runner, table: str, decoder: Decoder) -> None:
        self._runner, self._table, self._decoder = runner, table, decoder
        self.tasks: dict[str, TaskSummary] = {}
        #: The ids of the tasks that each task sent, as it says itself.
        self.sent: dict[str, list[str]] = {}
        #: The groups that those tasks sent. Their tasks have the first task of their sender.
        self._sent_groups: set[str] = set()
        self._asked: set[str] = set()

    def fetch(self, ids: Iterable[str]) -> None:
        """Read tasks in one request, those that are not there yet."""
        new = [each for each in dict.fromkeys(ids) if each not in self._asked][: MOST_TASKS - len(self._asked)]
        if new:
            self._asked.update(new)
            self._take(self._runner.run(statements.SUMMARIES, records=[RecordID(self._table, each) for each in new]))

    def first_of(self, task: TaskSummary) -> str:
        """The first task of a workflow, by its parents: records of other programs may not say it."""
        for _ in range(MOST_LEVELS):
            if task.parent_id is None:
                break
            self.fetch([task.parent_id])
            parent = self.tasks.get(task.parent_id)
            if parent is None:
                return task.parent_id
            task = parent
        return task.id

    def is_first(self, root: str) -> bool:
        """Whether a task is the first of a workflow, as far as is known: it may not be stored."""
        task = self.tasks.get(root)
        return task is None or task.parent_id is None

    def groups_of(self, roots: set[str]) -> set[str]:
        """The groups of first tasks, and of the ends of their chains, that no task is known to have sent."""
        tasks = self.tasks.values()
        found = {each.group_id for each in tasks if each.group_id and (each.root_id or each.id) in roots}
        return found - self._sent_groups

    def roots_in(self, groups: set[str]) -> set[str]:
        """The first tasks of those that are in groups. Of a chain in a group the last task is in the group."""
        return {task.root_id or task.id for task in self.tasks.values() if task.group_id in groups}

    def first_sent(self, roots: set[str]) -> str | None:
        """The first task that was sent first; None where none is stored."""
        stored = [self.tasks[each] for each in roots if each in self.tasks and self.is_first(each)]
        first = min(stored, key=lambda task: (task.sent_at or FAR, task.id), default=None)
        return None if first is None else first.id

    def all_of(self, field: str, value: str) -> bool:
        """Read all by the index on a field. Returns whether that was all."""
        rows = self._runner.run(statements.find_equal(self._table, field), value=value, limit=MOST_TASKS) or []
        self._take(rows)
        return len(rows) < MOST_TASKS

    def follow(self, *firsts: str) -> bool:
        """Read what tasks sent, what that sent, and so on, a level in one request. Returns whether that was all."""
        level = list(firsts)
        for _ in range(MOST_LEVELS):
            level = [child for each in level for child in self.sent.get(each, ()) if child not in self._asked]
            if not level:
                return True
            if len(self._asked) + len(level) > MOST_TASKS:
                return False
            self.fetch(level)
        return False

    def _take(self, rows: Any) -> None:
        for fields, children in rows or ():
            task = summary(fields)
            self.tasks[task.id] = task
            sent = self._decoded(children, fields)
            self.sent[task.id] = list(dict.fromkeys(ids_in(sent)))
            self._sent_groups.update(groups_in(sent))

    def _decoded(self, children: Any, fields: Mapping[str, Any]) -> Any:
        if not isinstance(children, (str, bytes)):
            return children
        try:
            return self._decoder.decode_as(children, fields.get("encoding") or "")
        except Exception:  # a serializer may raise anything: its children are found by their parent's id
            return ()


def workflow(
    root: str, tasks: Mapping[str, TaskSummary], sent: Mapping[str, Iterable[str]], *, complete: bool
) -> Workflow:
    """Arrange tasks as a tree.

    Args:
        root: The id of the first.
        tasks: The stored tasks, by id.
        sent: The ids of the tasks that each task sent, as it says itself; those without a record are in the tree too.
        complete: Whether these are all.
    """
    parents: dict[str, str] = {}
    for parent, children in sent.items():
        for child in children:
            parents.setdefault(child, parent)
    for task in tasks.values():
        if task.parent_id is not None:
            parents[task.id] = task.parent_id
    parents.pop(root, None)
    below: dict[str, list[str]] = {}
    for each in dict.fromkeys([*tasks, *parents]):
        if each == root:
            continue
        sender = parents.get(each)
        above = sender if sender is not None and sender in tasks else _own_first(each, tasks)
        below.setdefault(above or root, []).append(each)
    counts: Counter[str] = Counter()
    made: dict[str, TaskNode] = {}
    # From the leaves up, without recursion: a chain may be longer than Python's stack.
    order, seen = [root], {root}
    for each in order:
        new = [child for child in below.get(each, ()) if child not in seen]
        seen.update(new)
        order += new
    for each in reversed(order):
        task_here = tasks.get(each)
        state = states.PENDING if task_here is None else task_here.state
        counts[state] += 1
        children_here = [made[child] for child in below.get(each, ()) if child in made]
        children_here.sort(key=_order)
        made[each] = TaskNode(each, state, task_here, tuple(children_here))
    return Workflow(made[root], dict(counts), complete)


def _own_first(task_id: str, tasks: Mapping[str, TaskSummary]) -> str | None:
    """The first task of a task whose parent is not stored; None where it is that itself, or is not stored either.

    Where a chain failed, that is all that is known of its rest.
    """
    root = tasks[task_id].root_id if task_id in tasks else None
    first = None if root is None or root == task_id else tasks.get(root)
    return None if first is None or first.parent_id is not None or first.root_id not in {None, root} else root


def _order(node: TaskNode) -> tuple[datetime, str]:
    task = node.task
    at = None if task is None else task.sent_at or task.started_at or task.date_done
    return at or FAR, node.id
