"""docs/reliability.md names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import CHECKOUT

pytestmark = pytest.mark.unit


def test_every_test_it_names_exists() -> None:
    """Each `file.py::test` of the page, of which `…` stands for the rest or the beginning, is a test in that file."""
    page = (CHECKOUT / "docs" / "reliability.md").read_text()
    file = ""
    named = 0
    for cell in re.findall(r"`([^`]*)`", page):
        match = re.fullmatch(r"(?:(test_\w+\.py)::)?(?:Test\w+::)?(…?_?\w*…?\w*)", cell)
        if match is None or ("test" not in cell and not cell.startswith("…_")):
            continue
        file = match[1] or file
        pattern = "def " + re.escape(match[2]).replace("…", r"\w*") + r"\("
        assert re.search(pattern, (CHECKOUT / "tests" / "faults" / file).read_text()), f"{file} has no {match[2]}"
        named += 1
    assert named > 40
