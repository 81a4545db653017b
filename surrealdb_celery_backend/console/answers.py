"""The answers of the JSON API as dataclasses, and their schemas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..beat import ScheduleEntry
from ..results import Stats, TaskDetail, TaskSummary, UnfinishedChord, Workflow
from .graph import rows_of
from .json_schema import Schemas
from .schedules import Row
from .views import plain


@dataclass(frozen=True)
class Mistake:
    """Why a question was not answered.

    Attributes:
        error: The class of the error, such as `InvalidFilter`.
        message: What went wrong.
    """

    error: str
    message: str


@dataclass(frozen=True)
class WorkflowTask:
    """A task of a workflow.

    Attributes:
        id: The task's id.
        state: Its state; `PENDING` where nothing is stored.
        depth: How many tasks stand above it.
        name: The task's name, where it is stored.
        children: The ids of the tasks that it sent.
    """

    id: str
    state: str
    depth: int
    name: str | None
    children: tuple[str, ...]


@dataclass(frozen=True)
class WorkflowTasks:
    """All tasks of a workflow.

    Attributes:
        tasks: The tasks, parents first.
        states: How many tasks have each state.
        complete: False where there are more tasks, or more to search, than one call may read.
    """

    tasks: tuple[WorkflowTask, ...]
    states: Mapping[str, int]
    complete: bool

    @classmethod
    def of(cls, found: Workflow) -> WorkflowTasks:
        """Make it of a workflow."""
        tasks = tuple(
            WorkflowTask(
                node.id,
                node.state,
                depth,
                node.task.name if node.task else None,
                tuple(child.id for child in node.children),
            )
            for depth, node in rows_of(found)
        )
        return cls(tasks, found.states, found.complete)


@dataclass(frozen=True)
class Counting:
    """The figures are counted for the first time.

    Attributes:
        counting: True: ask again.
    """

    counting: bool


@dataclass(frozen=True)
class Figures(Stats):
    """Figures of many tasks.

    Attributes:
        counting: Whether newer figures are on their way.
        at: When these were ready.
    """

    counting: bool
    at: datetime | None


@dataclass(frozen=True)
class Chords:
    """Chords that have not called their body.

    Attributes:
        chords: The chords, oldest first.
    """

    chords: tuple[UnfinishedChord, ...]


def schedule_fields(row: Row) -> dict[str, Any]:
    """An entry as JSON shows it: its fields; of a record that makes no entry, the record."""
    entry = row.stored.entry
    if entry is None:
        fields = {"record": {key: value for key, value in row.stored.record.items() if key != "id"}}
    else:
        fields = {name: value for name, value in entry.as_data().items() if value is not None}
    return {**plain(fields), "name": row.stored.name, "broken": row.stored.broken, "next_runs": plain(row.coming)}


def described(paths: Mapping[str, Any]) -> tuple[dict[str, dict[int, Any]], dict[str, Any]]:
    """The schemas of the answers.

    Args:
        paths: The dataclass of the answer with status 200, by path; None for the schedules.

    Returns:
        The schemas of answers by path and status, and those that they refer to by name.
    """
    schemas = Schemas(TaskSummary, TaskDetail, ScheduleEntry)
    answers = {}
    for path, kind in paths.items():
        answers[path] = {200: _schedules(schemas) if kind is None else schemas.of(kind)}
        answers[path] |= dict.fromkeys((400, 404, 502, 503), schemas.of(Mistake))
        if kind is Figures:
            answers[path][202] = schemas.of(Counting)
    return answers, schemas.found


def _schedules(schemas: Schemas) -> dict[str, Any]:
    entry = schemas.object(ScheduleEntry)
    entry["properties"] |= {
        "broken": {**schemas.of(str | None), "description": "Why it does not run."},
        "next_runs": {**schemas.of(tuple[datetime, ...]), "description": "When it is due next."},
        "record": {**schemas.of(Mapping[str, Any]), "description": "What is stored, where that makes no entry."},
    }
    entry["required"] = ["name", "broken", "next_runs"]
    schemas.found["Schedule"] = entry
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/Schedule"}}
    return {"type": "object", "properties": {"schedules": listed}, "required": ["schedules"],
            "additionalProperties": False}  # fmt: skip
