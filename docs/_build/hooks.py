"""Hooks of the documentation's build: what the code says, links into the repository, and `llms.txt`."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

sys.path.insert(0, str(Path(__file__).parents[2]))

from docs._build import index_for_programs, reference

#: A Markdown link whose target leaves the folder of the documents.
_LEAVES = re.compile(r"\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Fill in what the code says, and let links out of the documents lead to the file in the repository."""
    folder = posixpath.dirname(page.file.src_uri)

    def lead(match: re.Match[str]) -> str:
        target, _, anchor = match.group(1).partition("#")
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return match.group(0)
        return f"]({config.repo_url}/blob/main/{path}{'#' + anchor if anchor else ''})"

    return _LEAVES.sub(lead, reference.filled(markdown))


def on_post_build(*, config: Any, **_: Any) -> None:
    """Write `llms.txt`, the index of all pages for programs that read, and see that it leads somewhere."""
    site = Path(config.site_dir)
    try:
        text = index_for_programs.text(config.site_name, config.site_description, config.nav, Path(config.docs_dir))
    except ValueError as error:
        raise PluginError(f"llms.txt: {error}") from None
    (site / "llms.txt").write_text(text, encoding="utf-8")
    for page in index_for_programs.targets(text):
        source = Path(config.docs_dir, page)
        (site / page).parent.mkdir(parents=True, exist_ok=True)
        (site / page).write_text(reference.filled(source.read_text(encoding="utf-8")), encoding="utf-8")
        address = site / page.removesuffix("index.md").removesuffix(".md") / "index.html"
        if not address.is_file():
            raise PluginError(f"llms.txt leads to {page}, of which there is no page")
