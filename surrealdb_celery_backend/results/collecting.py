"""Handles the records that arrive for one wait, in the thread that waits: decode, call back, fulfil."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from celery import states
from celery.utils.log import get_logger
from kombu.utils.encoding import bytes_to_str

from .. import celery_compat
from .waiters import Arrival

logger = get_logger(__name__)

Meta = dict[str, Any]


def key_of(task_id: Any) -> str:
    """Return a task's id as text.

    Args:
        task_id: Text, bytes or a UUID.
    """
    return str(bytes_to_str(task_id))


def is_settled(result: Any) -> bool:
    """Return whether nothing is to be waited for.

    Args:
        result: A result object of one task.
    """
    return result.ignored or celery_compat.cached_meta(result) is not None


def leaves_of(nodes: Iterable[Any]) -> list[Any]:
    """Return the results of single tasks in results of any nesting.

    Args:
        nodes: Results of tasks and groups.
    """
    found: list[Any] = []
    for node in nodes:
        nested = getattr(node, "results", None)
        if nested is None:
            found.append(node)
        else:
            found.extend(leaves_of(nested))
    return found


def parents_of(nodes: Iterable[Any]) -> list[Any]:
    """Return the results before these in their chains, the first first, each once; of tasks, groups and headers.

    Args:
        nodes: Results of tasks and groups.
    """
    found: dict[int, Any] = {}
    for node in nodes:
        parent = getattr(node, "parent", None)
        while parent is not None and id(parent) not in found:
            found[id(parent)] = parent
            parent = getattr(parent, "parent", None)
    return list(reversed(found.values()))


def single_parents_of(nodes: Iterable[Any]) -> list[Any]:
    """Return the results of single tasks before these that have not ended yet.

    Parts of a chord's header are not among them: where one fails, the body does.

    Args:
        nodes: Results of tasks and groups.
    """
    return [each for each in parents_of(nodes) if not hasattr(each, "results") and not is_settled(each)]


@dataclass
class _Told:
    state: Any
    at: float


class StateOrder:
    """Tells each unfinished state once, and none after a later one. Pure."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        #: States that a look found although a LIVE query brings them too: told if the next look finds them again.
        self._unconfirmed: dict[str, Any] = {}

    def is_news(self, arrival: Arrival) -> bool:
        """Return whether a state is to be told.

        Args:
            arrival: A record of an unfinished task.
        """
        task_id, record = arrival.task_id, arrival.record
        state = (record.get("status"), record.get("result"), record.get("traceback"))
        told = self._told.get(task_id)
        if told is not None:
            if told.state == state:
                return False
            if not arrival.pushed and told.at >= arrival.at:
                return False  # the look began before that one came
        # A notification is on its way, behind those of the states before. Told now, it would overtake them.
        if arrival.expected and self._unconfirmed.get(task_id) != state:
            self._unconfirmed[task_id] = state
            return False
        self._unconfirmed.pop(task_id, None)
        self._told[task_id] = _Told(state, arrival.at)
        return True


class Collector:
    """The result objects that a wait still misses.

    Args:
        results: Results of single tasks that the wait is for.
        others: Results that are fulfilled as well, if they come: what goes wrong with them is logged.
        parents: Results of tasks without whose success the others never come.
        decode: Makes Celery's meta of a record.
        keep: Takes the meta of each task that succeeded.
        on_message: Takes the meta of each state of the results waited for.
    """

    def __init__(
        self,
        results: Iterable[Any],
        *,
        decode: Callable[[Any], Meta],
        keep: Callable[[str, Meta], None] = lambda _, __: None,
        others: Iterable[Any] = (),
        parents: Iterable[Any] = (),
        on_message: Callable[[Meta], Any] | None = None,
    ) -> None:
        self._missing = _by_id(results)
        self._others = _by_id(others)
        self._parents = _by_id(parents)
        self._decode = decode
        self._keep = keep
        self._on_message = on_message
        self._order = StateOrder()
        #: Whether one of the tasks waited for failed, and a parent that did.
        self.failed = False
        self.failed_parent: Any = None

    @property
    def missing(self) -> int:
        """How many tasks the wait still misses."""
        return len(self._missing)

    @property
    def missing_parents(self) -> list[str]:
        """The ids of parents that have not ended, as far as is known."""
        return list(self._parents)

    @property
    def ids(self) -> list[str]:
        """The ids of all tasks that are of interest."""
        return list({**self._missing, **self._parents, **self._others})

    def take(self, task_id: str, meta: Meta) -> list[Any]:
        """Take a finished task's meta.

        Args:
            task_id: The task's id.
            meta: Its meta.

        Returns:
            Those of the results waited for that are fulfilled.
        """
        mine = self._missing.pop(task_id, [])
        failed = meta["status"] in states.PROPAGATE_STATES
        self.failed = self.failed or (failed and bool(mine))
        for result in mine:
            celery_compat.fulfil(result, meta)
        for parent in self._parents.pop(task_id, []):
            celery_compat.fulfil(parent, meta)
            if failed:
                self.failed_parent = parent
        for other in self._others.pop(task_id, []):
            try:
                celery_compat.fulfil(other, meta)
            except Exception:
                logger.exception("a callback of task %s's result failed, which no get() waits for", task_id)
        return mine

    def sweep(self) -> list[Any]:
        """Return results waited for that somebody else has fulfilled meanwhile. Their records may be gone."""
        settled = [
            task_id for task_id, results in self._missing.items() if all(is_settled(result) for result in results)
        ]
        return [result for task_id in settled for result in self._missing.pop(task_id)]

    def accept(self, arrival: Arrival) -> list[Any]:
        """Take a record.

        Args:
            arrival: The record.

        Returns:
            Those of the results waited for that are fulfilled.

        Raises:
            Exception: The record of a task that is waited for cannot be decoded, or a callback raised.
        """
        task_id = arrival.task_id
        mine = task_id in self._missing
        if not arrival.ready:
            if mine and self._on_message is not None and self._order.is_news(arrival):
                self._on_message(self._meta(arrival))
            return []
        if not mine and task_id not in self._parents and task_id not in self._others:
            return []  # it came before, another way
        try:
            meta = self._meta(arrival)
        except Exception:
            if mine:
                raise
            self._parents.pop(task_id, None)
            self._others.pop(task_id, None)
            logger.exception("the result of task %s, which no get() waits for, cannot be decoded", task_id)
            return []
        if mine and self._on_message is not None:
            self._on_message(meta)
        if meta["status"] == states.SUCCESS:
            self._keep(task_id, meta)
        return self.take(task_id, meta)

    def _meta(self, arrival: Arrival) -> Meta:
        return {**self._decode(arrival.record), "task_id": arrival.task_id}


def _by_id(results: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for result in results:
        found.setdefault(key_of(result.id), []).append(result)
    return found
