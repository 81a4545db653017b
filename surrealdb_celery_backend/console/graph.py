"""A workflow as boxes and lines: where each task of a tree stands in a drawing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..results import TaskNode, Workflow

#: Size of a box, and the gaps between boxes, in the drawing's own units.
WIDTH, HEIGHT, GAP_X, GAP_Y = 190, 46, 44, 12
#: Boxes in a drawing; the list beside it has all.
MOST = 400


@dataclass(frozen=True)
class Box:
    """A task in the drawing.

    Attributes:
        node: The task.
        x: The left edge.
        y: The upper edge.
    """

    node: TaskNode
    x: int
    y: int


@dataclass(frozen=True)
class Line:
    """The way from a task to one that it sent: from the right edge of the one to the left edge of the other."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def path(self) -> str:
        """The line as an SVG path."""
        middle = (self.x1 + self.x2) // 2
        return f"M{self.x1},{self.y1} C{middle},{self.y1} {middle},{self.y2} {self.x2},{self.y2}"


@dataclass(frozen=True)
class Drawing:
    """A workflow, drawn from left to right.

    Attributes:
        boxes: The tasks.
        lines: Which task sent which.
        width: Of the whole.
        height: Of the whole.
        complete: False where tasks were left out.
    """

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int
    height: int
    complete: bool


def draw(workflow: Workflow) -> Drawing:
    """Lay a workflow out: a column for each generation, parents beside the middle of their children."""
    layout = _Layout()
    layout.place(workflow.root)
    return Drawing(
        tuple(layout.boxes),
        tuple(layout.lines),
        max(box.x for box in layout.boxes) + WIDTH,
        max(box.y for box in layout.boxes) + HEIGHT,
        workflow.complete and len(layout.boxes) == len(workflow.root),
    )


def rows_of(workflow: Workflow) -> Iterator[tuple[int, TaskNode]]:
    """The tasks of a workflow with their depth, parents before their children."""
    stack = [(0, workflow.root)]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        stack.extend((depth + 1, child) for child in reversed(node.children))


class _Layout:
    """A drawing that is being made; without recursion, as a chain may be long."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.lines: list[Line] = []
        self._row = 0

    def place(self, root: TaskNode) -> None:
        order: list[tuple[TaskNode, int, int | None]] = []
        stack: list[tuple[TaskNode, int, int | None]] = [(root, 0, None)]
        while stack and len(order) < MOST:
            node, depth, parent = stack.pop()
            number = len(order)
            order.append((node, depth, parent))
            stack.extend((child, depth + 1, number) for child in reversed(node.children))
        rows: list[float] = [0.0] * len(order)
        children: list[list[int]] = [[] for _ in order]
        for number, (_, _, parent) in enumerate(order):
            if parent is not None:
                children[parent].append(number)
        for number in range(len(order)):
            if not children[number]:
                rows[number] = self._row
                self._row += 1
        for number in reversed(range(len(order))):
            if children[number]:
                rows[number] = sum(rows[child] for child in children[number]) / len(children[number])
        for number, (node, depth, _) in enumerate(order):
            y = int(rows[number] * (HEIGHT + GAP_Y))
            self.boxes.append(Box(node, depth * (WIDTH + GAP_X), y))
        for number, (_, _, parent) in enumerate(order):
            if parent is not None:
                start, end = self.boxes[parent], self.boxes[number]
                self.lines.append(Line(start.x + WIDTH, start.y + HEIGHT // 2, end.x, end.y + HEIGHT // 2))
