"""A process of a benchmark's own, which ends with it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

spawn = multiprocessing.get_context("spawn")


class Child:
    """The process, used as a context manager.

    :param work: what it does.
    :param args: what that is given; it can be pickled, or handed on to a process that is spawned.
    """

    def __init__(self, work: Callable[..., Any], *args: Any) -> None:
        self._process = spawn.Process(target=work, args=args, daemon=True)
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()
