"""Which of the results that are waited for a LIVE query brings, and what it is asked for next.

Pure: times are handed in, in seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from .addresses import FIELD
from .live_trust import LiveTrust
from .own_tasks import OwnTasks
from .polling import Coverage
from .push import LiveQuery, RecordFilter

#: How many ids one LIVE query names. Each write to the table is compared with all of them: 1,000 cost a store
#: 0.04 ms on SurrealDB 3.0.2, 4,000 cost 0.5 ms.
MAX_IDS = 1024
#: The query is replaced at most so often: the pause in seconds, and in multiples of what replacing it took.
REPLACE_PAUSE, REPLACE_SHARE = 0.02, 4
#: So many results in a row have to come by their address before the next ones are looked for later.
PROVEN = 3


class LiveCover:
    """Decides what the LIVE query of this process's waits names.

    Results for the process's addresses are always asked for. Those waited for by name as well come first where the
    process did not send the task, because nothing else brings them.

    Args:
        table: The task table's full name.
    """

    def __init__(self, table: str) -> None:
        self.trust = LiveTrust()
        self._table = table
        self._replace_after = float("-inf")
        #: How many results of tasks that this process sent came by their address, since one did not.
        self._by_address = 0

    def coverage(self, task_id: str, standing: LiveQuery | None, sent: OwnTasks, now: float) -> Coverage:
        """Return what a LIVE query has to do with a task's result.

        Args:
            task_id: The task's id.
            standing: The query that stands.
            sent: The tasks that this process sent.
            now: The time.
        """
        if standing is None or not self.trust.is_kept(now):
            return Coverage.NONE
        if task_id in standing.named("task_id"):
            return Coverage.ID
        if task_id not in sent or not standing.named(FIELD):
            return Coverage.NONE
        return Coverage.PROVEN_ADDRESS if self._by_address >= PROVEN else Coverage.ADDRESS

    def came(self, task_id: str, address: object, standing: LiveQuery | None, *, waited_for: bool) -> None:
        """Note a notification of a task.

        Args:
            task_id: The task's id.
            address: The address in its record.
            standing: The query that stands.
            waited_for: Whether somebody waits for the task.
        """
        self.trust.came(task_id, useful=waited_for)
        if waited_for and standing is not None and isinstance(address, str) and address in standing.named(FIELD):
            self._by_address += 1

    def did_not_come(self) -> None:
        """Note that a look found the result of a task that this process sent, which its address had to bring."""
        self._by_address = 0

    def wanted(
        self,
        due: Iterable[str],
        waited_for: Iterable[str],
        standing: LiveQuery | None,
        sent: OwnTasks,
        *,
        address: str,
    ) -> LiveQuery | None:
        """Return the query to ask for; None where the one that stands will do.

        Args:
            due: Ids that were looked for in vain before.
            waited_for: All ids that are waited for.
            standing: The query that stands.
            sent: The tasks that this process sent.
            address: The process's own address.
        """
        waiting = list(waited_for)
        named = standing.named("task_id") if standing is not None else frozenset()
        kept = named.intersection(waiting)
        room = max(MAX_IDS - len(kept), 0)
        asked = RecordFilter.of(**{FIELD: sent.addresses | {address}}) if len(sent) else None
        # More wait than can be named: a few free places are not worth another query.
        is_full = len(waiting) > MAX_IDS and room < MAX_IDS // 4
        # Neither are other threads' addresses: messages have the process's.
        addressed = standing is not None and (asked is None or standing.named(FIELD))
        if addressed and (is_full or named.issuperset(due)):
            return None
        new = chain(
            (each for each in waiting if each not in sent and each not in kept),
            (each for each in waiting if each in sent and each not in kept),
        )
        ids = kept.union(each for each, _ in zip(new, range(room), strict=False))
        by_id = RecordFilter.of(task_id=ids)
        return LiveQuery(self._table, (by_id,) if asked is None else (asked, by_id))

    def may_replace(self, now: float) -> bool:
        """Return whether the query may be replaced already.

        Args:
            now: The time.
        """
        return now >= self._replace_after

    def replaced(self, began: float, ended: float) -> None:
        """Note that the query was replaced.

        Args:
            began: When asking began.
            ended: When it was over.
        """
        self._replace_after = ended + max(REPLACE_PAUSE, REPLACE_SHARE * (ended - began))
