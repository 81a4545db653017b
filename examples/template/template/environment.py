"""Celery's settings from `CELERY_…` variables, with their types."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from celery.app.defaults import NAMESPACES, flatten

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Every setting that Celery knows, by its name in lower case.
KNOWN = dict(flatten(NAMESPACES))
PREFIX = "CELERY_"
#: Variables that are no settings: two name a module and a loader, the others a worker leaves to its processes.
OTHERS = {"config_module", "loader", "log_file", "log_level", "log_redirect", "log_redirect_level"}


def settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the settings.

    Args:
        environment: Usually `os.environ`.

    Returns:
        The values by setting: JSON where the text is JSON (`true`, `3600`, `["json"]`), else the text itself.

    Raises:
        ValueError: A variable has a name that is no setting of Celery.
    """
    found = {}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        # The backend reads CELERY_SURREALDB_… by itself.
        if not variable.startswith(PREFIX) or name.startswith("surrealdb_") or name in OTHERS:
            continue
        if name not in KNOWN:
            message = f"{variable} is no setting of Celery; remove it or correct its name"
            raise ValueError(message)
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
