"""Reading a table in the order of its ids, page by page: what is left where no index helps.

`id > $last` is a scan of the whole table to every engine; a range of ids is none. The function that makes one of
parameters is called `type::thing` in SurrealDB 2 and `type::record` in 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ...errors import SurrealDBBackendError
from . import statements

#: Where ids begin: before every number, text and list.
FIRST = -(2**63)
#: How many records one request reads: some 200 ms.
PAGE = 5000


class Runner(Protocol):
    """The connection, which runs statements."""

    def run(self, text: str, /, **variables: Any) -> Any:
        """Run a text and return the value of its last statement."""
        ...  # pragma: no cover

    def run_all(self, text: str, /, **variables: Any) -> list[Any]:
        """Run a text and return the value of each statement."""
        ...  # pragma: no cover


class Ranges:
    """Runs statements on ranges of ids, with the function that the server has.

    Args:
        runner: The connection that runs statements.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._function: str | None = None

    def run(self, text: Callable[[str], str], variables: Mapping[str, Any]) -> Any:
        """Run a statement on a range of ids.

        Args:
            text: Makes the statement from the name of the function that makes a range.
            variables: Its parameters.

        Returns:
            Its value; an empty list for NONE.
        """
        functions = [self._function] if self._function else list(statements.RANGE_FUNCTIONS)
        for number, function in enumerate(functions):
            try:
                found = self._runner.run(text(function), **variables)
            except SurrealDBBackendError:
                if number == len(functions) - 1:
                    raise
                continue
            self._function = function
            return found or []
        raise AssertionError("unreachable")


class Scan:
    """Runs statements on a whole table, a page of its records at a time.

    Args:
        runner: The connection that runs statements.
        table: The table.
    """

    def __init__(self, runner: Runner, table: str) -> None:
        self._ranges, self._table = Ranges(runner), table

    def pages(self, text: str, variables: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
        """Yield of each page how many records it has and the value of a statement.

        Args:
            text: A statement that reads the table along an index, with a limit.
            variables: Its parameters.
        """
        after: Any = FIRST
        while True:
            page = {**variables, "table": self._table, "after": after, "limit": PAGE}
            found = self._ranges.run(lambda function: statements.of_page(text, self._table, function), page)
            if not found or not found[1]:
                return
            last, read, value = found
            yield read, value
            if read < PAGE:
                return
            after = last.id
