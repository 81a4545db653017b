"""Actions on stored tasks: send them again, revoke them, forget them."""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from ...client.values import RecordID
from ...errors import InvalidFilter
from ..replies import check_deleted
from . import statements
from .model import TaskDetail
from .reading import Decoder, detail
from .scanning import Runner

if TYPE_CHECKING:
    from celery import Celery

#: How many tasks one request reads or deletes.
BATCH = 100
#: The longest time before a task that is sent again runs, in seconds: a year.
LONGEST_COUNTDOWN = 366 * 86_400
#: The header that says which task a task is a retry of.
RETRY_OF = "retry_of"


@dataclass(frozen=True)
class Retry:
    """The outcome of sending a task again.

    Attributes:
        task_id: The task.
        name: Its name; None where that was not stored.
        new_id: The id under which it was sent again; None where it was not.
        refused: Why it was not, or would not be; None where nothing speaks against it.
        args: The positional arguments that it is sent with.
        kwargs: The keyword arguments that it is sent with.
        queue: The queue that it is sent to; None leaves that to the app's routes.
    """

    task_id: str
    name: str | None = None
    new_id: str | None = None
    refused: str | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    queue: str | None = None

    @property
    def sent(self) -> bool:
        """Whether it was sent again."""
        return self.new_id is not None


@dataclass(frozen=True)
class Edit:
    """The changes to a task that is sent again; None leaves a field as it was.

    Attributes:
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        queue: Its queue.
        countdown: Seconds before which it does not run.
    """

    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    queue: str | None = None
    countdown: float | None = None


class Actions:
    """Acts on stored tasks.

    Args:
        app: The app that sends tasks and asks workers to revoke them.
        runner: The connection that runs statements.
        record_id: Makes the record's id of a task's.
        decoder: Decodes arguments.
    """

    def __init__(self, app: Celery, runner: Runner, record_id: Callable[[str], RecordID], decoder: Decoder) -> None:
        self._app, self._runner, self._record_id, self._decoder = app, runner, record_id, decoder

    def details(self, task_ids: Iterable[str]) -> dict[str, TaskDetail]:
        """Read tasks, by id; those that are not there are left out.

        Args:
            task_ids: The tasks' ids.
        """
        found: dict[str, TaskDetail] = {}
        for batch in _batches(task_ids):
            rows = self._runner.run(statements.DETAILS, records=[self._record_id(each) for each in batch])
            for fields in rows or ():
                task = detail(fields, self._decoder)
                found[task.id] = task
        return found

    def retry(self, task_ids: Iterable[str], edit: Edit, *, dry_run: bool, running: bool) -> list[Retry]:
        """Send tasks again, each as a new one that says what it is a retry of.

        Args:
            task_ids: The tasks.
            edit: The changes.
            dry_run: Only say what would be done.
            running: Also send those again that have not ended.

        Raises:
            kombu.exceptions.OperationalError: The message broker cannot be reached, and none was sent.
        """
        outcomes: list[Retry] = []
        away: str | None = None
        for task_id, task in self._read(list(dict.fromkeys(task_ids))):
            planned = _plan(task_id, task, edit, running=running)
            wanted = planned.refused is None and not dry_run
            if wanted and task is not None and away is None:
                # Whoever sends many has to know which were sent, whatever happens to one of them.
                try:
                    planned = replace(planned, new_id=self._send(task, planned, edit))
                except OperationalError as exc:
                    if not any(each.sent for each in outcomes):
                        raise
                    away = f"the message broker cannot be reached: {exc}"
                except Exception as exc:  # a serializer or a router may raise anything
                    planned = replace(planned, refused=f"it cannot be sent: {type(exc).__name__}: {exc}")
            outcomes.append(replace(planned, refused=away) if wanted and away is not None else planned)
        return outcomes

    def _read(self, task_ids: list[str]) -> Iterator[tuple[str, TaskDetail | None]]:
        """Each id with what is stored of its task, read in batches as they are needed."""
        for batch in _batches(task_ids):
            known = self.details(batch)
            yield from ((task_id, known.get(task_id)) for task_id in batch)

    def _send(self, task: TaskDetail, planned: Retry, edit: Edit) -> str:
        options: dict[str, Any] = {"headers": {RETRY_OF: task.id}}
        if task.tags:
            options["headers"]["tags"] = list(task.tags)
        # Of a task that has not ended it may be what the task said of its progress.
        if task.ready and task.meta is not None:
            options["headers"]["meta"] = task.meta
        if planned.queue is not None:
            options["queue"] = planned.queue
        if task.priority is not None:
            options["priority"] = task.priority
        if edit.countdown is not None:
            options["countdown"] = edit.countdown
        sent = self._app.send_task(planned.name, list(planned.args), dict(planned.kwargs or {}), **options)
        return str(sent.id)

    def revoke(self, task_ids: Iterable[str], *, terminate: bool, signal: str) -> list[str]:
        """Ask all workers not to run tasks, or to end them.

        Args:
            task_ids: The tasks' ids.
            terminate: Whether to end those that run.
            signal: The name of the signal that ends them.
        """
        ids = list(dict.fromkeys(task_ids))
        for batch in _batches(ids):
            self._app.control.revoke(list(batch), terminate=terminate, signal=signal)
        return ids

    def forget(self, task_ids: Iterable[str]) -> list[str]:
        """Delete what is stored of tasks. Returns the ids of those of which something was.

        Args:
            task_ids: The tasks' ids.

        Raises:
            PermissionDenied: The user may not delete.
        """
        found: list[str] = []
        for batch in _batches(dict.fromkeys(task_ids)):
            records = [self._record_id(each) for each in batch]
            there, left = self._runner.run(statements.FORGET, records=records) or ((), ())
            check_deleted(left, records[0].table_name)
            found += [record.id for record in there]
        return found

    def stored(self, task_ids: Iterable[str]) -> list[str]:
        """Return the ids of those of which something is stored.

        Args:
            task_ids: The tasks' ids.
        """
        found: list[str] = []
        for batch in _batches(dict.fromkeys(task_ids)):
            records = self._runner.run(statements.STORED, records=[self._record_id(each) for each in batch])
            found += [record.id for record in records or ()]
        return found


def _plan(task_id: str, task: TaskDetail | None, edit: Edit, *, running: bool) -> Retry:
    """Decide whether and how a task is sent again.

    Args:
        task_id: Its id.
        task: What is stored of it; None if nothing.
        edit: What is to be different.
        running: Whether one that has not ended may be sent again.
    """
    if task is None:
        return Retry(task_id, refused="nothing is stored of it")
    planned = Retry(task_id, task.name, queue=edit.queue or task.queue)
    if task.name is None:
        return replace(planned, refused="its name was not kept: set result_extended to True for tasks to come")
    if not task.ready and not running:
        return replace(planned, refused=f"it has not ended, it is {task.state}")
    args = edit.args if edit.args is not None else task.args
    kwargs = edit.kwargs if edit.kwargs is not None else task.kwargs
    given = edit.args is not None and edit.kwargs is not None
    if not given and not task.args_kept:
        lost = task.unreadable.get("args") or task.unreadable.get("kwargs")
        why = f"they cannot be read: {lost}" if lost else "they were not kept as they were"
        if task.args_redacted:
            why = "they were masked or cut before they were stored (surrealdb_redact, surrealdb_redact_limit)"
        elif isinstance(task.args, str) or isinstance(task.kwargs, str):
            why = "they are kept as text, not as values"
        return replace(planned, refused=f"its arguments are not known, {why}; give args and kwargs")
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
        return replace(planned, refused="its arguments are kept as text, not as values; give args and kwargs")
    return replace(planned, args=tuple(args), kwargs=dict(kwargs))


def check_edit(edit: Edit) -> None:
    """Check what is changed.

    Raises:
        InvalidFilter: It makes no sense.
    """
    if edit.args is not None and (isinstance(edit.args, (str, bytes)) or not isinstance(edit.args, Sequence)):
        raise InvalidFilter(f"args must be a list, not {edit.args!r}")
    if edit.kwargs is not None and not isinstance(edit.kwargs, Mapping):
        raise InvalidFilter(f"kwargs must be a dict, not {edit.kwargs!r}")
    if edit.queue == "":
        raise InvalidFilter("queue must be a text that is not empty, not ''")
    countdown = edit.countdown
    if countdown is not None and (
        isinstance(countdown, bool)
        or not isinstance(countdown, (int, float))
        or not 0 <= countdown <= LONGEST_COUNTDOWN
    ):
        raise InvalidFilter(f"countdown must be a number of seconds from 0 to {LONGEST_COUNTDOWN}, not {countdown!r}")


def check_signal(name: str) -> None:
    """Check the signal that ends tasks.

    Args:
        name: Its name, with or without `SIG`.

    Raises:
        InvalidFilter: There is none of that name.
    """
    known = {each.name for each in signals.Signals}
    if name.upper() not in known and f"SIG{name.upper()}" not in known:
        raise InvalidFilter(f"signal must be the name of a signal, such as SIGTERM or SIGKILL, not {name!r}")


def _batches(ids: Iterable[str]) -> list[list[str]]:
    known = list(ids)
    return [known[place : place + BATCH] for place in range(0, len(known), BATCH)]
