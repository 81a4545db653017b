"""The parts of the reference that are written when the site is built are complete."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from docs._build import index_for_programs, reference
from docs._build.advice import ADVICE
from surrealdb_celery_backend import errors
from surrealdb_celery_backend.settings.declared import names
from tests.support.paths import CHECKOUT

DOCS = CHECKOUT / "docs"


def test_every_setting_has_a_section_with_its_text() -> None:
    """No setting is left out, and each says what it is, what it takes and where it can be set."""
    text = "\n".join(reference.settings())
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [section.partition("\n")[0] for section in sections] == [f"`surrealdb_{name}`" for name in names()]
    for section in sections:
        assert re.search(r"\n\n[A-Z][^\n]{9,}\n\n\| \| \|\n", section), section
        assert "| takes | " in section
        assert "| environment | " in section


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("timeout", ["| default | `10` |", "`SURREALDB_TIMEOUT`", "`?timeout=`"]),
        ("unfinished_expires", ["`2592000` (30 days)", "or `None`"]),
        ("live", ["one of `auto`, `on`, `off`", "| default | `auto` |"]),
        ("access_variables", ["in `app.conf` only"]),
        ("url", ["| default | `ws://localhost:8000/rpc` |", "`CELERY_SURREALDB_URL`"]),
    ],
)
def test_a_setting_is_described_as_it_is_declared(name: str, lines: list[str]) -> None:
    """Types, defaults and names are those of the declaration."""
    text = "\n".join(reference.settings())
    (section,) = re.findall(rf"^### `surrealdb_{name}`\n(.*?)(?=^### |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    for line in lines:
        assert line in section


def test_every_error_has_advice() -> None:
    """No error is left out of the page, none of the page is gone, and each says what it means and what to do."""
    public = {
        name
        for name, each in vars(errors).items()
        if inspect.isclass(each) and issubclass(each, errors.SurrealDBBackendError)
    }
    assert set(ADVICE) == public
    text = "\n".join(reference.errors_())
    assert re.findall(r"^### `(\w+)`$", text, re.MULTILINE) == [each.__name__ for each in reference.error_classes()]
    assert text.count("**What to do.** ") == len(public)


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    """The page has each name of each public module's `__all__`."""
    told = re.findall(r"^::: (\S+)$", "\n".join(reference.api()), re.MULTILINE)
    for name in reference.PUBLIC:
        for public in importlib.import_module(name).__all__:
            value = getattr(importlib.import_module(name), public)
            assert isinstance(value, str) or f"{name}.{public}" in told


def test_every_page_with_a_place_for_the_code_is_filled() -> None:
    """No page asks for a part that does not exist, and every part has its page."""
    pages = [path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")]
    asked = [name for page in pages for name in re.findall(r"^<!-- generated: (\w+) -->$", page, re.MULTILINE)]
    assert sorted(asked) == sorted(reference.PARTS)
    for page in pages:
        assert "<!-- generated" not in reference.filled(page)


def test_the_index_for_programs_names_a_page_by_its_first_sentence(tmp_path: Path) -> None:
    """`llms.txt` has each page of the navigation with its heading, its address and what it is about."""
    (tmp_path / "a.md").write_text("# First\n\nWhat [it](b.md) is. More.\n")
    (tmp_path / "b.md").write_text("# Second\n\n`code` of\ntwo lines.\n\n## Part\n")
    index = index_for_programs.text("site", "about", [{"Start": "a.md"}, {"Guides": ["b.md"]}], tmp_path)
    assert (
        index.splitlines()
        == [
            "# site",
            "",
            "> about",
            "- [First](a.md): What it is.",
            "",
            "## Guides",
            "",
            "- [Second](b.md): `code` of two lines.",
            "",
        ][: len(index.splitlines())]
    )
    assert index_for_programs.targets(index) == ["a.md", "b.md"]
    (tmp_path / "b.md").write_text("# Second\n\n## No sentence\n")
    with pytest.raises(ValueError, match="a heading and a sentence"):
        index_for_programs.text("site", "about", ["b.md"], tmp_path)
