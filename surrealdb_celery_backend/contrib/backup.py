"""The task `surrealdb_celery_backend.backup`: backups by beat.

The task exists in apps that import this module, for example with
`imports = ["surrealdb_celery_backend.contrib.backup"]`.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task

from ..results import Results

#: The name of the task, for entries of beat.
NAME = "surrealdb_celery_backend.backup"
DAY = 86_400

__all__ = ["NAME", "backup"]


@shared_task(name=NAME, bind=True)
def backup(self: Any, folder: str, keep_days: float = 7) -> dict[str, Any]:
    """Export all records to a new compressed file in a folder, and delete backups there that are too old.

    Args:
        self: The task.
        folder: A folder on the worker's host; it is made if it is not there.
        keep_days: For how many days backups are kept.

    Returns:
        `path` and `size` (in bytes) of the new file, the number of `records` of each table, the `deleted` files.

    Raises:
        ValueError: `keep_days` is no number above 0.
    """
    if isinstance(keep_days, bool) or not isinstance(keep_days, (int, float)) or not keep_days > 0:
        raise ValueError(f"keep_days must be a number of days above 0, not {keep_days!r}")
    with Results(self.app) as results:
        made = results.backup(folder, keep=keep_days * DAY)
    return {
        "path": str(made.exported.path),
        "size": made.exported.size,
        "records": dict(made.exported.records),
        "deleted": [str(path) for path in made.deleted],
    }
