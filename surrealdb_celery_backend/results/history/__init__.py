"""The typed API over stored results; its names are exported by `surrealdb_celery_backend.results`."""
