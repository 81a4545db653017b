"""Periodic tasks in SurrealDB: from the code, from the database, with a beat that takes over."""

from .app import app

__all__ = ["app"]
