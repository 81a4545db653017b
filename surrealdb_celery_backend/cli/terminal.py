"""Output of the commands: tables, JSON, CSV, progress. Stored text never reaches a terminal as it is.

A task's name or error may hold anything, such as the escape sequences that move a terminal's cursor, or characters
that turn the direction of a line. They are shown by their codes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

#: Longer values are cut in a table.
CELL_WIDTH = 60
#: The columns of a plain table are this far apart.
GAP = "  "
#: How long a command is silent before it says how far it is, in seconds, and how often it does then.
SILENT, TELL_EVERY, TELL_EVERY_PLAIN = 0.7, 0.2, 5.0
#: What a terminal may take for a command, or what changes the direction of text: control characters, among them
#: those of Latin-1, line and paragraph separators, and marks of bidirectional text. Also halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]"
)
_UNSAFE_LINES = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def safe(text: str, *, lines: bool = False) -> str:
    """A text without what a terminal would act upon.

    Args:
        text: The text.
        lines: Leave tabs and line feeds as they are.
    """
    return (_UNSAFE_LINES if lines else _UNSAFE).sub(lambda found: _code(found[0]), text)


def _code(character: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    number = ord(character)
    return known.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def echo(text: str, *, error: bool = False) -> None:
    """Print lines of text, made safe."""
    click.echo(safe(text, lines=True), err=error)


# -- tables ---------------------------------------------------------------------------------------------


def colors(context: click.Context | None = None) -> bool:
    """Whether to print colors: on a terminal, unless `NO_COLOR` or Celery's `--no-color` says otherwise."""
    found = context or click.get_current_context(silent=True)
    off = bool(getattr(found.obj, "no_color", False)) if found is not None else False
    return not off and not os.environ.get("NO_COLOR") and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, styles: Mapping[str, str] | None = None
) -> None:
    """Print a table: with `rich` on a terminal where it is installed, else plain and aligned.

    Args:
        columns: The headings.
        rows: The cells, made text.
        styles: Colors of cells with a certain text.
    """
    texts = [[_cell(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and _print_rich(columns, texts, styles or {}):
        return
    cut = [[*(_shortened(cell) for cell in row[:-1]), row[-1]] for row in ([*columns], *texts)]
    widths = [max(len(row[place]) for row in cut) for place in range(len(columns))]
    for row in cut:
        click.echo(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=place < len(columns) - 1, max_width=CELL_WIDTH)
    for row in rows:
        # Text and not markup: a name such as [red] is a name.
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    Console(no_color=not colors(), highlight=False).print(table)
    return True


def _cell(value: Any) -> str:
    return "" if value is None else safe(str(value))


def _shortened(text: str) -> str:
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"


def print_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line; what is None is left out. A text of several lines stands below its name."""
    shown = [(name, str(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        if "\n" in text:
            click.echo(name)
            for line in text.splitlines():
                click.echo(f"    {safe(line)}")
        else:
            click.echo(f"{name.ljust(width)}{GAP}{safe(text)}")


# -- JSON and CSV ---------------------------------------------------------------------------------------


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """A value as JSON that is safe to be printed; what JSON has no form for is described."""
    text = json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return safe_json(text)


def safe_json(text: str) -> str:
    """JSON with JSON's own escapes for what a terminal would act upon: the same data.

    Args:
        text: The JSON.
    """
    # JSON escapes control characters below 0x20 itself; the line breaks are its own.
    return _UNSAFE_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else repr(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    return repr(value)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON."""
    click.echo(json_text(value, indent=indent))


def csv_line(cells: Iterable[Any]) -> str:
    """A line of CSV, without its end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([_csv_cell(cell) for cell in cells])
    return buffer.getvalue()


def _csv_cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (tuple, list, Mapping)):
        return json_text(value, indent=None) if value else ""
    return _cell(value)


# -- progress -------------------------------------------------------------------------------------------


class Progress:
    """Says on standard error how far something is, once it takes a while: one line that changes, on a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._told = 0.0
        self._shown = 0
        self._terminal = sys.stderr.isatty()

    def tell(self, text: str) -> None:
        """Say how far it is."""
        now = time.monotonic()
        pause = TELL_EVERY if self._terminal else TELL_EVERY_PLAIN
        if now - self._began < SILENT or now - self._told < pause:
            return
        self._told = now
        if not self._terminal:
            click.echo(safe(text), err=True)
            return
        line = safe(text)[:200]
        click.echo("\r" + line.ljust(self._shown), err=True, nl=False)
        self._shown = len(line)

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            click.echo("\r" + " " * self._shown + "\r", err=True, nl=False)
            self._shown = 0
