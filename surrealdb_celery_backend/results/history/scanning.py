"""Reading a table in the order of its ids, page by page: what is left where no index helps.

`id > $last` is a scan of the whole table to every engine; a range of ids is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ...client.values import FIRST_ID, records_behind
from . import statements

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


class Scan:
    """Runs statements on a whole table, a page of its records at a time.

    Args:
        runner: The connection that runs statements.
        table: The table.
    """

    def __init__(self, runner: Runner, table: str) -> None:
        self._runner, self._table = runner, table

    def pages(self, text: str, variables: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
        """Yield of each page how many records it has and the value of a statement.

        Args:
            text: A statement that reads the table along an index, with a limit.
            variables: Its parameters.
        """
        of_page = statements.of_page(text, self._table)
        after: Any = FIRST_ID
        while True:
            page = {**variables, "range": records_behind(self._table, after), "limit": PAGE}
            found = self._runner.run(of_page, **page)
            if not found or not found[1]:
                return
            last, read, value = found
            yield read, value
            if read < PAGE:
                return
            after = last.id
