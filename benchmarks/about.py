"""When, where and with which versions a run was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time

#: The packages whose versions count.
PACKAGES = ("celery", "surrealdb", "cbor2", "redis", "sqlalchemy", "psycopg")


def about(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """What a reader has to know of a run, by name.

    Args:
        packages: The packages whose versions are told, where they are installed.
    """
    versions = {name: _version(name) for name in packages}
    load = os.getloadavg()[0]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, load {load:.1f} at the end",
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
