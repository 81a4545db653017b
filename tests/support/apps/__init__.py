"""The Celery apps and tasks that tests run."""
