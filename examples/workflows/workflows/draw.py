"""Draw a workflow as SVG, from what is stored of its tasks.

    python -m workflows.draw ID report.svg

`Results.tree` reads the workflow that a task is part of; the console's `draw` says where each task stands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from surrealdb_celery_backend.console.graph import HEIGHT, WIDTH, draw
from surrealdb_celery_backend.results import Results, TaskNode, Workflow

from .app import app

#: The colors of the states; any other state is grey.
COLORS = {"SUCCESS": "#d7f0dd", "FAILURE": "#f8d7da", "STARTED": "#fff3cd", "RETRY": "#fff3cd"}
MARGIN = 8


def svg(workflow: Workflow) -> str:
    """Draw a workflow.

    Args:
        workflow: The tree of its tasks.

    Returns:
        The text of an SVG file.
    """
    drawing = draw(workflow)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    picture = Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "width": str(width), "height": str(height)},
        viewBox=f"{-MARGIN} {-MARGIN} {width} {height}",
    )
    style = {"font-family": "sans-serif", "font-size": "13"}
    for line in drawing.lines:
        SubElement(picture, "path", d=line.path, fill="none", stroke="#888")
    for box in drawing.boxes:
        place = {"x": str(box.x), "y": str(box.y), "width": str(WIDTH), "height": str(HEIGHT), "rx": "6"}
        SubElement(picture, "rect", place, fill=COLORS.get(box.node.state, "#e9ecef"), stroke="#555")
        SubElement(picture, "text", style, x=str(box.x + 10), y=str(box.y + 19)).text = label(box.node)
        small = {**style, "font-size": "11", "fill": "#555"}
        SubElement(picture, "text", small, x=str(box.x + 10), y=str(box.y + 37)).text = box.node.state
    indent(picture)
    return tostring(picture, encoding="unicode")


def label(node: TaskNode) -> str:
    """Name a task: by its name, or by its id where nothing is stored of it."""
    return (node.task.name if node.task else None) or node.id


def outline(workflow: Workflow) -> str:
    """Write a workflow as indented lines, each task below the one that sent it."""
    lines, stack = [], [(workflow.root, 0)]
    while stack:
        node, depth = stack.pop()
        lines.append(f"{'  ' * depth}{label(node)} {node.state}")
        stack.extend((child, depth + 1) for child in reversed(node.children))
    return "\n".join(lines)


def main(task_id: str, file: str) -> None:
    """Draw the workflow of a task.

    Args:
        task_id: Any task of it.
        file: Where the picture is written to.
    """
    with Results(app) as results:
        workflow = results.tree(task_id)
    Path(file).write_text(svg(workflow), encoding="utf-8")
    print(outline(workflow))
    print(f"{len(workflow)} tasks, drawn in {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
