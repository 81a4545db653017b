"""Every database call of the schedules, for beat and for :class:`~..schedules.Schedules`.

Each write looks at its reply: a database refuses a write without the right to it in silence, by an empty reply.
"""

from __future__ import annotations

from .claims import Claim, Claimed, ClaimStore, Firing, Settled
from .entries import Changes, EntryStore, Found
from .imports import Imported, Importer
from .leases import LeaseRow, LeaseStore
from .store import Store

__all__ = [
    "Changes",
    "Claim",
    "ClaimStore",
    "Claimed",
    "EntryStore",
    "Firing",
    "Found",
    "Imported",
    "Importer",
    "LeaseRow",
    "LeaseStore",
    "Settled",
    "Store",
]
