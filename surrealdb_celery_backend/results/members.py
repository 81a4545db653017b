"""Which members of a group are complete. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import states

from .. import celery_compat
from .collecting import is_settled, leaves_of


class Members:
    """The members of a group, tasks and groups, and what each still misses.

    Args:
        nodes: Results of tasks and groups.
    """

    def __init__(self, nodes: Iterable[Any]) -> None:
        self._nodes = list(nodes)
        #: The results of single tasks that are missing.
        self.missing: list[Any] = []
        #: How many of them each member misses, by its place.
        self._counts: list[int] = []
        #: The places of the members that a result belongs to, by the result's identity.
        self._places: dict[int, list[int]] = {}
        for place, node in enumerate(self._nodes):
            leaves = [leaf for leaf in leaves_of([node]) if not is_settled(leaf)]
            self._counts.append(len(leaves))
            self.missing += leaves
            for leaf in leaves:
                self._places.setdefault(id(leaf), []).append(place)

    def complete(self) -> list[Any]:
        """Return the members that missed nothing from the beginning."""
        return [node for node, count in zip(self._nodes, self._counts, strict=True) if not count]

    def complete_with(self, results: Iterable[Any]) -> list[Any]:
        """Return the members that are complete now.

        Args:
            results: Results that were fulfilled since.
        """
        complete = []
        for result in results:
            for place in self._places.pop(id(result), ()):
                self._counts[place] -= 1
                if not self._counts[place]:
                    complete.append(self._nodes[place])
        return complete


def entry_of(node: Any) -> tuple[Any, Any]:
    """Return what Celery's `iter_native` yields of a complete member: its id, and a task's meta or a group's results.

    Args:
        node: The result of a task or a group.
    """
    if hasattr(node, "results"):
        return node.id, node.children
    meta = celery_compat.cached_meta(node)
    return node.id, {"status": states.SUCCESS, "result": None} if meta is None else meta
