"""docs/comparison.md: each claim about a peer cites a line that says it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import celery
import pytest

from tests.support.paths import CHECKOUT

#: The versions that the page is about.
CELERY, DJANGO_CELERY_RESULTS = "5.7.0", "2.6.0"
PAGE = (CHECKOUT / "docs" / "comparison.md").read_text(encoding="utf-8")
CITED = re.findall(r'\[[^\]]+\]\(https://github\.com/celery/([\w-]+)/blob/v([\d.]+)/(\S+)#L(\d+) "([^"]+)"\)', PAGE)


def test_every_cell_of_a_peer_cites_a_line() -> None:
    """No claim stands there without its source, and of no other version than the page names."""
    table = re.findall(r"^\| (?!backend|---)(.+) \|$", PAGE.partition("## Only here")[0], re.MULTILINE)
    assert len(table) == 19
    for row in table:
        name, *cells = row.split(" | ")
        assert len(cells) == 6, name
        for cell in cells:
            assert re.fullmatch(r'\[[^\]]+\]\((\S+#L\d+ "[^"]+"|[\w./]+)\)', cell), f"{name}: {cell}"
    assert {(project, version) for project, version, *_ in CITED} == {
        ("celery", CELERY),
        ("django-celery-results", DJANGO_CELERY_RESULTS),
    }


def test_the_cited_lines_of_celery_say_so() -> None:
    """The installed Celery has the cited text in the cited line."""
    if importlib.metadata.version("celery") != CELERY:
        pytest.skip(f"the page is about Celery {CELERY}")
    folder = Path(celery.__file__).parent.parent
    cited = [(path, int(line), text) for project, _, path, line, text in CITED if project == "celery"]
    assert len(cited) > 80
    for path, line, text in cited:
        assert text in (folder / path).read_text(encoding="utf-8").splitlines()[line - 1], f"{path}:{line}"


def test_the_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    """Each figure of the README's comparison stands in the tables that it leads to."""
    figures = (CHECKOUT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [
        line
        for line in (CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and "docs/benchmarks.md#" in line and "round trips" not in line
    ]
    assert len(rows) == 3
    for row in rows:
        cells = re.sub(r"\]\([^)]*\)", "]", row).split(" | ")[1:]
        numbers = [number for cell in cells for number in re.findall(r"\d[\d,.]*\d", cell) if number != "0.5"]
        assert len(numbers) >= 2
        for number in numbers:
            assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.,])", figures), f"{number} of {row}"
