"""No block of the documentation is left to itself: each is run by a test, and each command is one that there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from celery.bin.celery import celery as celery_command

from surrealdb_celery_backend.cli import surrealdb
from tests.support.guides import FOLLOWED, SNIPPETS, Block, blocks, elsewhere
from tests.support.paths import CHECKOUT

PAGES = ["README.md", *sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").rglob("*.md"))]
#: Pages with blocks that a test of their own runs, by the test's file.
OWN = {
    ("docs/history.md", "console"): "integration/test_history_docs.py",
    ("docs/scheduling.md", "console"): "integration/test_beat_docs.py",
    ("docs/scheduling.md", "python"): "integration/test_beat_docs.py",
    ("docs/scheduling.md", "surql"): "integration/test_beat_docs.py",
    ("docs/querying.md", "surql"): "integration/test_docs.py",
    ("docs/configuration.md", "surql"): "integration/test_docs.py",
    ("README.md", "surql"): "integration/test_docs.py",
    ("docs/reliability.md", "surql"): "faults/test_rights.py",
}


def commands() -> Iterator[tuple[str, str]]:
    """Every command of every page, in blocks and within the text, and the page."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "console":
                yield from ((page, command.partition("  #")[0].strip()) for command, _ in block.commands())
        for inline in re.findall(r"(?<!`)`(celery [^`]+)`(?!`)", (CHECKOUT / page).read_text(encoding="utf-8")):
            yield page, inline


def test_every_block_is_run_by_a_test() -> None:
    """A block is a guide's, a snippet's or another test's; a page that is none of these has none."""
    left: list[tuple[str, Block]] = []
    for page in PAGES:
        for block in blocks(page):
            if block.language in {"", "text", "mermaid"} or page in FOLLOWED:
                continue
            own = OWN.get((page, block.language))
            if own is not None:
                assert Path(page).name in (CHECKOUT / "tests" / own).read_text(encoding="utf-8")
            elif (
                block.title
                or block.language not in {"console", "python"}
                or (block.language == "python" and page not in SNIPPETS)
            ):
                left.append((page, block))
    assert not left


def test_every_command_of_the_library_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `celery … surrealdb …` on a page has a command and options that click accepts."""
    monkeypatch.chdir(tmp_path)
    seen = 0
    for page, text in commands():
        found = re.search(r"\bcelery (?:-A \S+ )?surrealdb (.+)", text)
        if found is None or "…" in found[1]:
            continue
        words = shlex.split(found[1].partition("|")[0].replace('"$(ls -t backups/*.gz', "file.gz"))
        group, name = surrealdb, words.pop(0)
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            name = words.pop(0) if words else ""
            command = command.get_command(click.Context(command), name) if name else command
        assert command is not None, f"{page}: {text}"
        for word in words:
            if word.endswith((".json", ".gz")):
                Path(word).touch()  # the reader's files
        try:
            command.make_context(name, words).close()
        except click.MissingParameter:
            continue  # a command that the text names
        except click.ClickException as error:
            pytest.fail(f"{page}: {text}: {error.format_message()}")
        seen += 1
    assert seen > 40


def test_every_command_of_celery_exists() -> None:
    """Each `celery worker`, `beat`, `inspect` … on a page is a command of Celery's."""
    known = set(celery_command.commands)
    for page, text in commands():
        found = re.match(r"(?:\w+=\S+ )*celery (?:-A \S+ )?([a-z]\w*)", text)
        if found is not None:
            assert found[1] in known | {"surrealdb"}, f"{page}: {text}"


def test_commands_that_are_run_elsewhere_are_right() -> None:
    """What a guide does not run is a command of run.py that there is, or of a program that is not ours."""
    told = subprocess.run(
        [sys.executable, str(CHECKOUT / "run.py"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for page, text in commands():
        if text.startswith("python3 run.py "):
            assert re.search(rf"^ +{text.split()[2]}\b", told, re.MULTILINE), f"{page}: {text}"
        elif not text.startswith(("celery ", "$")) and page not in FOLLOWED:
            assert elsewhere(text) or re.search(r"\bcelery ", text), f"{page}: {text}"
