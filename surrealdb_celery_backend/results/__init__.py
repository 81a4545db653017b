"""The result backend: what Celery asks of it, on SurrealDB; and the typed API over what it stored."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .checks import Finding

if TYPE_CHECKING:
    from .history.actions import Retry
    from .history.api import Results
    from .history.backups import Backup
    from .history.following import Follower
    from .history.model import (
        Attempt,
        Distribution,
        Page,
        Progress,
        StatRow,
        Stats,
        TaskDetail,
        TaskError,
        TaskNode,
        TaskSummary,
        Workflow,
    )
    from .history.recent import FailureRow, Recent, RecentStats, TimeRow, Unready
    from .history.transfer import Exported, Imported
    from .history.unfinished import MissingPart, UnfinishedChord

__all__ = [
    "Attempt",
    "Backup",
    "Distribution",
    "Exported",
    "FailureRow",
    "Finding",
    "Follower",
    "Imported",
    "MissingPart",
    "Page",
    "Progress",
    "Recent",
    "RecentStats",
    "Results",
    "Retry",
    "StatRow",
    "Stats",
    "TaskDetail",
    "TaskError",
    "TaskNode",
    "TaskSummary",
    "TimeRow",
    "UnfinishedChord",
    "Unready",
    "Workflow",
]

#: Names that are not in `history.model`, each with its module.
_ELSEWHERE = {
    "Backup": "backups",
    "Exported": "transfer",
    "FailureRow": "recent",
    "Follower": "following",
    "Imported": "transfer",
    "MissingPart": "unfinished",
    "Recent": "recent",
    "RecentStats": "recent",
    "Results": "api",
    "Retry": "actions",
    "TimeRow": "recent",
    "UnfinishedChord": "unfinished",
    "Unready": "recent",
}


def __getattr__(name: str) -> Any:
    # Lazily: a worker imports this package for the backend and needs none of these.
    if name in __all__:
        return getattr(import_module(f"{__name__}.history.{_ELSEWHERE.get(name, 'model')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
