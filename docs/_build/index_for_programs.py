"""`llms.txt`: every page of the navigation with its address and its first sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def text(name: str, description: str, navigation: list[Any], folder: Path) -> str:
    """The whole file.

    Args:
        name: The site's name.
        description: What the site is about.
        navigation: The `nav` of mkdocs.yml.
        folder: Where the pages are.
    """
    return "\n".join([f"# {name}", "", f"> {description}", *_lines(navigation, folder), ""])


def targets(index: str) -> list[str]:
    """The pages that an index names.

    Args:
        index: The text of `llms.txt`.
    """
    return re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", index, re.MULTILINE)


def _lines(navigation: list[Any], folder: Path) -> Iterator[str]:
    for entry in navigation:
        ((title, value),) = entry.items() if isinstance(entry, dict) else ((None, entry),)
        if isinstance(value, list):
            yield from ("", f"## {title}", "")
            yield from _lines(value, folder)
        else:
            heading, sentence = beginning((folder / value).read_text(encoding="utf-8"))
            yield f"- [{heading}]({value}): {sentence}"


def beginning(page: str) -> tuple[str, str]:
    """The heading of a page and its first sentence, without formatting.

    Args:
        page: Its Markdown.

    Raises:
        ValueError: The page begins with no heading, or with no sentence below it.
    """
    found = re.match(r"# (.+)\n\n((?:(?!```|[#|!<]|[-*] ).+\n)+)", page)
    if found is None:
        raise ValueError(f"a page has to begin with a heading and a sentence, not with {page[:80]!r}")
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(found[2].split()))
    return found[1], re.split(r"(?<=[.!?:])\s", plain)[0].removesuffix(":")
