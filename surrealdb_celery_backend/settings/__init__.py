"""Everything that can be set, from `app.conf`, the URL and the environment, in one frozen object.

Where a setting is given more than once the URL wins, then `app.conf`, then the environment (`CELERY_SURREALDB_URL`,
then `SURREALDB_URL`: a setting's name in capitals), then the default.

A new setting is one line in `declared.Settings`.
"""

from __future__ import annotations

from ..client.options import TLS
from .declared import Settings

__all__ = ["TLS", "Settings"]
