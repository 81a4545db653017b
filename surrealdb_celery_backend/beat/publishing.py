"""Sending the task of a firing to the broker, through what Celery's own scheduler calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from celery import Celery
from celery import schedules as celery_schedules
from celery.beat import SchedulingError
from kombu.exceptions import OperationalError

from . import recurrence as rules
from .entry import ScheduleEntry
from .firings import BrokerAway, NotSent


@dataclass
class Outgoing:
    """An entry as Celery's scheduler takes it to send it: with the attributes of Celery's own entries.

    Attributes:
        name: The entry's name.
        task: The name of the task.
        schedule: The schedule as an object of Celery's, where Celery has the like; monitors look at it.
        args: The task's arguments.
        kwargs: The same, by name.
        options: The options of `apply_async`; monitors add headers.
        failure: The error that kept it from being sent.
    """

    name: str
    task: str
    schedule: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: dict[str, Any]
    failure: Exception | None = None


def outgoing(entry: ScheduleEntry, task_id: str, due: datetime, zone: tzinfo) -> Outgoing:
    """Return what Celery's scheduler takes for an entry to send.

    Args:
        entry: The entry.
        task_id: The id of the task.
        due: The due time, which goes into a header.
        zone: The app's zone.
    """
    headers = {
        **(entry.options.get("headers") or {}),
        "periodic_task_name": entry.name,
        "due_at": due.isoformat(),
    }
    return Outgoing(
        name=entry.name,
        task=entry.task,
        schedule=schedule_of_celery(entry, zone),
        args=entry.args,
        kwargs=entry.kwargs,
        options={**entry.options, "headers": headers, "task_id": task_id},
    )


def schedule_of_celery(entry: ScheduleEntry, zone: tzinfo) -> Any:
    """Return an entry's schedule as an object of Celery's, or its data where Celery has none of that kind.

    Args:
        entry: The entry.
        zone: The app's zone.
    """
    if entry.schedule_in_code is not None:
        return entry.schedule_in_code
    rule = entry.recurrence(zone)
    if isinstance(rule, rules.Interval):
        return celery_schedules.schedule(rule.every)
    if isinstance(rule, rules.Crontab):
        try:
            made = celery_schedules.crontab(**entry.schedule)
        except (ValueError, TypeError, celery_schedules.ParseException):
            return dict(entry.schedule)  # fields that only we have
        made.tz = entry.zone(zone)
        return made
    return dict(entry.schedule)


class Publisher:
    """Sends messages, and tells a broker that is away from a mistake of the entry's own.

    Args:
        app: The Celery app.
        send: Sends what :func:`outgoing` made.
        connect: Opens the connection to the broker if it is not open.
        drop: Closes it.
    """

    def __init__(
        self, app: Celery, *, send: Callable[[Any], Any], connect: Callable[[], Any], drop: Callable[[], None]
    ) -> None:
        self._app = app
        self._send = send
        self._connect = connect
        self._drop = drop

    def publish(self, message: Any) -> None:
        """Send a message.

        Args:
            message: The message that :func:`outgoing` made.

        Raises:
            BrokerAway: The broker does not take it.
            NotSent: A mistake of the entry's own.
        """
        for is_last in (False, True):
            try:
                self._send(message)
            except Exception as error:
                cause = error.__context__ if isinstance(error, SchedulingError) else error
                if not self._is_brokers(cause):
                    raise NotSent(f"it cannot be sent: {cause}") from error
                self._drop()
                if isinstance(cause, OperationalError) or not self._is_broker_there():
                    raise BrokerAway(str(cause)) from error
                # Also an entry's own mistake may be of a kind that a broker's are (with
                # Redis a KeyError is): where a new connection does not help it is.
                if is_last:
                    raise NotSent(f"it cannot be sent: {cause}") from error
            else:
                return

    def _is_broker_there(self) -> bool:
        try:
            self._connect()
        except Exception:  # a transport may raise anything
            return False
        return True

    def _is_brokers(self, error: BaseException | None) -> bool:
        known = (OperationalError, OSError, *self._app.connection_for_write().connection_errors)
        return isinstance(error, known)
