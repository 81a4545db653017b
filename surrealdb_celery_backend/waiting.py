"""Which result objects of this process wait for a task, and which tasks before it they depend on.

Who waits is kept on every Celery as on 5.7. Before 5.7 Celery keeps one result object for a task (celery issue 4925). Of two ``get()`` of one task only
one is told, and any result object of a task that is collected ends the waiting of all others: a client in the
process of its worker waited for the body of a chord for ever, because the worker's own object of it was gone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary

from celery.backends import asynchronous
from celery.backends.asynchronous import AsyncBackendMixin
from celery.backends.base import pending_results_t

#: How often somebody who waits for a group looks whether a task before it failed, in seconds.
PARENT_INTERVAL = 0.5
#: How long after that the task's own result may still be marked as failed, which is the better news, in seconds.
PARENT_GRACE = 2.0


def waiting_on(pending_results: Any, task_id: str) -> list[Any]:
    """The result objects that wait for a task.

    :param pending_results: the backend's: two mappings, of a task's id to its result objects by identity.
    """
    return [result for mapping in pending_results for result in list((mapping.get(task_id) or {}).values())]


class _KeepsAll(AsyncBackendMixin):
    """Celery's handling of those who wait, with all of them kept."""

    _pending_results: Any
    result_consumer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # With room for more than one result object of a task.
        self._pending_results = pending_results_t({}, {})

    def _add_pending_result(self, task_id: str, result: Any, weak: bool = False) -> None:
        if any(one is result for one in waiting_on(self._pending_results, task_id)):
            return
        concrete, weakly = self._pending_results
        if weak:
            weakly.setdefault(task_id, WeakValueDictionary())[id(result)] = result
        else:
            concrete.setdefault(task_id, {})[id(result)] = result
        self.result_consumer.consume_from(task_id)

    def remove_pending_result(self, result: Any) -> Any:
        """This one waits no more; the others of its task do."""
        for mapping in self._pending_results:
            of_task = mapping.get(result.id)
            if of_task is not None:
                of_task.pop(id(result), None)
                if not of_task:
                    mapping.pop(result.id, None)
        if not waiting_on(self._pending_results, result.id):
            self.on_result_fulfilled(result)
        return result

    def iter_native(self, result: Any, no_ack: bool = True, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Yield a group's results as they arrive, those of groups in it too when nothing is left to wait for."""
        self._ensure_not_eager()
        arrived: deque[Any] = deque()
        for node in result.results:
            if getattr(node, "_cache", True):
                arrived.append(node)  # a group, or a result that is there
            else:
                self._collect_into(node, arrived)
        for _ in self._wait_for_pending(result, no_ack=no_ack, **kwargs):
            yield from _taken(arrived)
        yield from _taken(arrived)


def _taken(arrived: deque[Any]) -> Iterator[tuple[str, Any]]:
    while arrived:
        node = arrived.popleft()
        yield node.id, node._cache if hasattr(node, "_cache") else node.children


#: What the backend is based on: from 5.7 on Celery keeps all itself.
PendingResults: Any = AsyncBackendMixin if hasattr(asynchronous, "_waiting_on") else _KeepsAll


def parents_of(nodes: Iterable[Any]) -> list[Any]:
    """The results of the tasks before these in their chains, the first first, each once."""
    found: dict[int, Any] = {}
    for node in nodes:
        parent = getattr(node, "parent", None)
        while parent is not None and id(parent) not in found:
            found[id(parent)] = parent
            parent = getattr(parent, "parent", None)
    return list(reversed(found.values()))


class ParentCheck:
    """Raises the error of a failed parent, looking for it now and then while a group is waited for.

    :param parents: the results to look at.
    :param then: what else is to be called.
    """

    def __init__(self, parents: list[Any], then: Callable[[], Any] | None) -> None:
        self._parents = parents
        self._then = then
        self._next = time.monotonic()
        self._failed_since: float | None = None

    def __call__(self) -> None:
        if self._then is not None:
            self._then()
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PARENT_INTERVAL
        try:
            for parent in self._parents:
                parent.maybe_throw()
        except Exception:
            self._failed_since = self._failed_since or now
            if now - self._failed_since >= PARENT_GRACE:
                raise
