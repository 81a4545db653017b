"""Which run of a task a state is of.

A task may run again under its id after it failed: it is sent again, or its message is delivered again. What its
later run says (STARTED, PROGRESS, RETRY) has to be visible at once. A late message of the run that failed must not
be. So a state that is not SUCCESS is stored with the run that it is of, as `[retries, message]`, and a state of a
task that runs replaces a FAILURE or REVOKED whose run is known, is another and has not more retries.

What is not known is not guessed. A state without a request (a revoke command, or a store by hand) has no run, and
neither replaces a FAILURE nor, where it is one, is replaced by anything but the next end of the task.
"""

from __future__ import annotations

from typing import Any

from ..client.values import INTEGERS


def run_of(request: Any) -> list[Any] | None:
    """Tell the run of a task from its request.

    Args:
        request: The task's request, as a pool's process or its parent has it. None where there is none.

    Returns:
        The number of retries before, and the message that asked for the run, of which a second delivery is another
        run; None where there is no request.
    """
    retries = getattr(request, "retries", None)
    if not isinstance(retries, int) or retries not in INTEGERS:
        return None
    properties = getattr(request, "properties", None) or {}
    delivery = getattr(request, "delivery_info", None) or {}
    # Every transport of Kombu but AMQP has a tag for each message, which a second delivery keeps.
    message = f"{properties.get('delivery_tag') or ''}"
    return [retries, f"{message} redelivered" if delivery.get("redelivered") else message]
