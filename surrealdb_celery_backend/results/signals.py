"""Signals of the result backend, connected to as to Celery's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.dispatch import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Sent by clean-up before results are deleted, with `records`: a list of them as they are stored, of 20 at the most.
#: The sender is the backend; its `meta_of(record)` gives Celery's meta. Where a receiver raises, the records stay
#: and come again with the next clean-up, so that nothing goes that was not archived. One that the server cannot send
#: (somebody wrote such a value into it) stays as well, and is named in the log.
results_expiring = Signal(name="results_expiring", providing_args={"records"})


def announce(sender: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """Send `results_expiring`.

    Args:
        sender: The backend.
        records: The records.

    Raises:
        Exception: The exception of the first receiver that failed; Celery's signals only log it.
    """
    for _, response in results_expiring.send(sender=sender, records=records):
        if isinstance(response, Exception):
            raise response
