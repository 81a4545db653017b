"""`python -m surrealdb_celery_backend.devserver`."""

from .command import run

run()
