"""The tree of exceptions is what the module's docstring shows."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from surrealdb_celery_backend import errors

pytestmark = pytest.mark.unit

#: Every exception of the module.
DEFINED = {
    name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and cls.__module__ == errors.__name__
}


def shown() -> dict[str, tuple[str | None, list[str]]]:
    """Name of each exception in the docstring, with its parent there and its other bases."""
    found: dict[str, tuple[str | None, list[str]]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ((?:│   |    )*)(?:[├└]── )?(\w+)(?: +(.*))?", line)
        if match is None or match[2] not in DEFINED:
            continue
        depth = 0 if not re.search("[├└]", line) else len(match[1]) // 4 + 1
        also = re.search(r"\(also ([^)]*)\)", match[3] or "")
        found[match[2]] = (
            above[depth - 1] if depth else None,
            re.findall(r"\w+$", also[1], re.MULTILINE) if also else [],
        )
        above[depth:] = [match[2]]
    return found


def test_the_docstring_shows_every_exception() -> None:
    """None is missing, and none is shown that does not exist."""
    assert set(shown()) == set(DEFINED)


@pytest.mark.parametrize("name", sorted(DEFINED))
def test_the_docstring_shows_the_true_tree(name: str) -> None:
    """Each exception's first base is the one above it; its other base is named beside it."""
    parent, also = shown()[name]
    bases = [base.__name__ for base in DEFINED[name].__bases__]
    assert bases == [parent or "Exception", *also]


@pytest.mark.parametrize("name", sorted(DEFINED))
def test_the_docstring_is_the_message(name: str) -> None:
    """Without a message an exception says what its docstring says."""
    cls: Any = DEFINED[name]
    assert str(cls()) == inspect.getdoc(cls)
    assert str(cls("more")) == "more"
