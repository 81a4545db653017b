"""Whether the run before a due one still runs, as far as the results can tell. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from celery import states

from .plan import Firing

#: How long a run may keep the next ones from being sent: its worker may have died without a word.
LONGEST = timedelta(days=1)


def may_still_run(firing: Firing, state: str | None, now: datetime, kept_for: timedelta | None) -> bool:
    """Return whether a firing has to be left out because the run before it may still run.

    Args:
        firing: The firing.
        state: The state of the task that the entry sent last; None if there is no record of it.
        now: The time.
        kept_for: How long results are kept; None for ever.
    """
    planned = firing.planned
    if firing.is_asked or not planned.entry.no_overlap or planned.last_task_id is None or state in states.READY_STATES:
        return False
    longest = LONGEST
    if state is None and kept_for is not None:
        # For so long a run that has ended has a record: without one it waits or runs. Later nobody knows.
        longest = min(longest, kept_for)
    return planned.last_sent_at is None or now - planned.last_sent_at < longest
