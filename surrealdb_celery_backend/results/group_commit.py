"""Results that several threads store at one moment go to the database together: a group commit, see `gathering`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..client import deadlines
from . import statements
from .gathering import ALONE, Gathering
from .replies import check_stored

if TYPE_CHECKING:
    from ..client.connection import Connection
    from .records import TaskRecord

#: From how many characters or bytes on a store goes by itself: its commit is not what it costs.
LARGE = 16_384


class GroupCommit:
    """Stores task records, those of threads that meet in one transaction.

    Args:
        connection: The connection they are sent on.

    Attributes:
        gathering: The stores under way.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.gathering = Gathering(self._alone, self._together)

    def store(self, task: TaskRecord, *, ready: bool) -> Any:
        """Store a task's record, where Celery's rules let it replace what is there.

        Args:
            task: The record.
            ready: Whether the task has ended.

        Returns:
            The status stored in a list; empty where the stored record must stay.

        Raises:
            SurrealDBBackendError: It was not stored.
        """
        deadline = deadlines.deadline(self._connection.options.timeout)
        # A small record does not say its size.
        if self.gathering.under_way and task.fields.get("size", 0) > LARGE:
            return self._alone((task, ready), deadline)
        return self.gathering.send((task, ready), deadline)

    def store_or_explain(self, task: TaskRecord, *, ready: bool) -> None:
        """Store a record that was not stored, or find out why it is not.

        Args:
            task: The record.
            ready: Whether the task has ended.

        Raises:
            PermissionDenied: The user may not write.
        """
        text = statements.store_task_explained(tuple(task.more), ready)
        stored, yields = self._connection.run(text, **task.parameters) or ((), ())
        if not stored and (not yields or any(yields)):
            check_stored((), task.id.table_name)

    def _alone(self, what: tuple[TaskRecord, bool], deadline: float) -> Any:
        task, ready = what
        return self._connection.run(
            statements.store_task(tuple(task.more), ready), deadline=deadline, **task.parameters
        )

    def _together(self, stores: list[tuple[TaskRecord, bool]], deadline: float) -> list[Any]:
        variables: dict[str, Any] = {}
        for number, (task, _) in enumerate(stores):
            for name, value in task.parameters.items():
                variables[f"{name}{number}"] = value
        text = statements.store_tasks((tuple(task.more), ready) for task, ready in stores)
        statuses: list[Any] | None = self._connection.run(text, deadline=deadline, **variables)
        # None where there is no such table.
        return [ALONE] * len(stores) if statuses is None else statuses
