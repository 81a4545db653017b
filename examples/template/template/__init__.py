"""A Celery project whose whole configuration is in the environment."""

from .app import app

__all__ = ["app"]
