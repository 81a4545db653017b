"""Tests of surrealdb-celery-backend. See README.md."""
