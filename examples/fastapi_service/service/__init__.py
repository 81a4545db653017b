"""A web service whose slow work is done by Celery."""

from .app import celery_app

__all__ = ["celery_app"]
