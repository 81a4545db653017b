"""The address of a process: a header of our own in each message, by which results find the process that waits.

Celery's address (``reply_to``) is one of each sending thread, of which a process may have any number. It is also lost
where a worker replaces a task, and the user's where one was given to `apply_async`. Records hold this one instead,
where the message has it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import MutableMapping
from typing import Any

from celery import signals

from .. import celery_compat
from ..client import forks

#: The message header with the address of the process that sent the task.
HEADER = "surrealdb_reply_to"
#: The record's field with the address of the process, or the thread, that the result is for.
FIELD = "reply_to"

_address: str | None = None


def process_address() -> str:
    """Return the address of this process."""
    global _address  # noqa: PLW0603 - a process has one
    if _address is None:
        _address = f"process-{uuid.uuid4().hex}"
    return _address


def _forget_address() -> None:
    global _address  # noqa: PLW0603 - the parent's
    _address = None


def address_of(request: Any) -> str | None:
    """Return the address that a task's result is for; None where it has none.

    Args:
        request: The task's request, in a worker.
    """
    return getattr(request, HEADER, None) or getattr(request, FIELD, None)


class _Sending(threading.local):
    """The task that this thread sends next, and may wait for."""

    task_id: str | None = None


_sending = _Sending()


def expect(task_id: str) -> None:
    """Give the message of the task that this thread sends next the address of this process.

    Args:
        task_id: The task's id.
    """
    _sending.task_id = task_id


@signals.before_task_publish.connect
def _add_header(headers: MutableMapping[str, Any] | None = None, body: Any = None, **_: Any) -> None:
    expected, _sending.task_id = _sending.task_id, None
    if headers is None:
        return
    facts = celery_compat.message_facts(headers, body)
    task_id = facts.get("id")
    if task_id is None:
        return
    running = celery_compat.running_task()
    if running is not None and running.request.id == task_id:
        # A task that is retried or replaced: waiters for the first wait for this one.
        address = address_of(running.request)
        if address:
            headers[HEADER] = address
    elif task_id == expected and not (facts.get("retries") and headers.get(HEADER)):
        # A retry that is sent outside of its task, for a pool process that was lost, has the address already.
        headers[HEADER] = process_address()


forks.register(_forget_address)
