"""Celery result backend, beat scheduler and command line for SurrealDB."""

from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"
__all__ = ["SurrealDBBackend", "__version__"]

if TYPE_CHECKING:
    from .results.backend import SurrealDBBackend


def __getattr__(name: str) -> Any:
    # Lazily: `python -m surrealdb_celery_backend.devserver` needs neither Celery nor the backend.
    if name == "SurrealDBBackend":
        from .results.backend import SurrealDBBackend

        return SurrealDBBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
