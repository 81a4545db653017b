"""The part of the result backend that chords use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from ..statements import Statement

Result = TypeVar("Result")


class Host(Protocol):
    """A result backend, as its chords see it."""

    #: The Celery app.
    app: Any
    #: The content type of what `encode` makes.
    content_type: str

    def encode(self, data: Any) -> str | bytes:
        """Serialise, and compress where that is set."""
        ...  # pragma: no cover

    def decode_as(self, payload: Any, content_type: str) -> Any:
        """Undo `encode`, whatever the serializer was then.

        Args:
            payload: The encoded value.
            content_type: The content type stored beside it.
        """
        ...  # pragma: no cover

    def encode_result(self, result: Any, state: str) -> Any:
        """Turn what a task returned or raised into what can be serialised."""
        ...  # pragma: no cover

    def exception_to_python(self, exc: Any) -> Any:
        """Turn a decoded exception into an exception."""
        ...  # pragma: no cover

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Store that a body failed, and call its errbacks."""
        ...  # pragma: no cover

    def retry(self, operation: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Run an operation again while its failure is one that passes by itself."""
        ...  # pragma: no cover

    def fetch(self, task_ids: Iterable[Any], *, only_ready: bool = False) -> list[tuple[Any, dict[str, Any]]]:
        """Fetch the metas of stored results."""
        ...  # pragma: no cover

    def saving_group(self, group_id: str, shape: str | bytes) -> Statement:
        """Return the statement that stores an encoded group for as long as its chord is unfinished, at least."""
        ...  # pragma: no cover

    def expiring_group(self, group_id: str) -> Statement:
        """Return the statement that lets a saved group expire as results do, counted from now.

        Args:
            group_id: The group's id.
        """
        ...  # pragma: no cover
