"""Checks: can the backend do its work, and what is to be done where it cannot?

Every check is here once. `check` makes those of a worker's start, `starting` reports them, and `check_everything` makes
all of them for `celery surrealdb check`.
"""

from .database import check
from .everything import check_everything
from .finding import Finding, Severity

__all__ = ["Finding", "Severity", "check", "check_everything"]
