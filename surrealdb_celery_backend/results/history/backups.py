"""Backups: an export of everything to a new file in a folder, and the end of old ones."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from .transfer import Exported

#: The name of a backup. It has the time, so that a copied file keeps it.
_NAME = "surrealdb-celery-{at:%Y%m%dT%H%M%SZ}.jsonl.gz"
_NAMED = re.compile(r"surrealdb-celery-(\d{8}T\d{6})Z\.jsonl\.gz")
#: The ending of a backup that is being written.
_PART = ".part"


@dataclass(frozen=True)
class Backup:
    """The result of a backup.

    Attributes:
        exported: The records written.
        deleted: Older backups that were deleted.
    """

    exported: Exported
    deleted: tuple[Path, ...]


def back_up(folder: Path, keep: float, export: Callable[[Path], Exported], now: datetime | None = None) -> Backup:
    """Write a backup, and delete those that are too old once it is there.

    Args:
        folder: Where; it is made if it is not there.
        keep: For how long backups are kept, in seconds. The new one is, in any case.
        export: Writes a file.
        now: The time now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    at = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    path = folder / _NAME.format(at=at)
    # Under another name until it is whole: a copy of all backups takes no half of one.
    part = path.with_name(f"{path.name}.{os.getpid()}{_PART}")
    try:
        exported = export(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    deleted = []
    for other in sorted(folder.iterdir()):
        made = _time_of(other)
        if made is not None and other != path and made < at - timedelta(seconds=keep):
            other.unlink(missing_ok=True)
            deleted.append(other)
    return Backup(Exported(path, exported.records, exported.size, exported.resumed), tuple(deleted))


def _time_of(path: Path) -> datetime | None:
    found = _NAMED.fullmatch(path.name)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
