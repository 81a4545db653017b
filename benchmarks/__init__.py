"""The backend measured side by side with Celery's own, in one run: ``python -m benchmarks``. See docs/benchmarks.md."""
