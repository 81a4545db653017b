"""A SurrealDB client: connections, transports and values. It imports nothing of Celery."""
