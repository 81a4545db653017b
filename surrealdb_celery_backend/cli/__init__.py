"""The `celery surrealdb …` commands."""

from .group import surrealdb

__all__ = ["surrealdb"]
