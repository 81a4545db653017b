"""Records with a value that the server cannot send: lists show it as its text, and no page fails for it."""

from __future__ import annotations

from typing import Any

from ...errors import UnreadableRecord
from .scanning import Runner
from .text_statements import as_text


class ReadableRunner:
    """Runs statements, and those again of which the server refuses the reply.

    A regex or a closure, which only a person writes into a record, makes it refuse the reply as a whole.

    Args:
        runner: The connection that runs statements.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, text: str, /, **variables: Any) -> Any:
        """Run a text and return the value of its last statement.

        Args:
            text: SurrealQL.
            **variables: Its parameters.

        Raises:
            UnreadableRecord: The server cannot send it as text either.
        """
        try:
            return self._runner.run(text, **variables)
        except UnreadableRecord:
            shown = as_text(text)
            if shown == text:
                raise
            return self._runner.run(shown, **variables)

    def run_all(self, text: str, /, **variables: Any) -> list[Any]:
        """Run a text without summaries and return the value of each statement.

        Args:
            text: SurrealQL.
            **variables: Its parameters.
        """
        return self._runner.run_all(text, **variables)
