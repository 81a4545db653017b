"""The house rules that no linter checks: sizes, public names and their documentation, and no foreign names."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, current_app

import surrealdb_celery_backend
from tests.support.paths import CHECKOUT

#: Where it is imported from: the tests of a wheel run beside no package.
PACKAGE = Path(surrealdb_celery_backend.__file__).parent

#: The most lines of a class, and of a module, without their docstrings: nobody is to save lines there.
CLASS_LINES = 300
MODULE_LINES = 400

#: Classes that are longer, each with its limit and the reason. A limit is only ever lowered.
LONG_CLASSES = {
    "client/websocket.py:WebSocketTransport": (344, "Threads take turns at one socket; the turns share one lock."),
}

#: The same for modules.
LONG_MODULES: dict[str, tuple[int, str]] = {}

#: Packages that are no public API: others of the library import their modules.
INTERNAL = {"surrealdb_celery_backend.client", "surrealdb_celery_backend.results.history"}

#: Names that mean nothing to a reader of this repository. (Brackets keep a pattern from finding itself.)
FOREIGN = {
    "a path of one machine": r"(?<![\w.])/(?:wor[k]|roo[t]|User[s]|home/[a-z]+)/",
    "a document that is not in the repository": r"\bDESIG[N](?:\.md)? *§? *\d|\bDESIG[N]\.md",
    "an issue of no public tracker": r"(?<!celery )(?<!kombu )(?<!surrealdb )(?<!billiard )\b[Ii]ssu[e] \d+\b",
    "a label of no public tracker": r"(?<![\w%#&/.-])[A-HW][1-9]\d?(?![\w%.-])",
}
TEXT = {".css", ".html", ".in", ".js", ".json", ".md", ".mjs", ".py", ".toml", ".txt", ".yaml", ".yml"}


def modules() -> Iterator[tuple[str, str]]:
    """Each module of the package: its path in the package, and its source."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text()


def length(node: ast.AST, lines: int) -> int:
    """The lines of a class or a module, without the docstrings in it."""
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = inner.body[0] if inner.body else None
            if (
                isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                lines -= (text.end_lineno or 0) - text.lineno + 1
    return lines


def assert_within(lengths: dict[str, int], limit: int, exceptions: dict[str, tuple[int, str]]) -> None:
    """Nothing is longer than the limit or its own, and nothing has one of its own that needs none."""
    too_long = {name: length for name, length in lengths.items() if length > exceptions.get(name, (limit,))[0]}
    assert not too_long, f"longer than {limit} lines, or than the exception that this test states"
    needless = {name for name in exceptions if lengths.get(name, 0) <= limit}
    assert not needless, "no longer exceptions: remove them from this test"


def test_no_class_is_too_long() -> None:
    """A class that has outgrown the limit has more than one reason to change; the stated exceptions can only shrink."""
    lengths = {
        f"{path}:{node.name}": length(node, (node.end_lineno or 0) - node.lineno + 1)
        for path, source in modules()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }
    assert len(lengths) > 100, "the package was not found"
    assert_within(lengths, CLASS_LINES, LONG_CLASSES)


def test_no_module_is_too_long() -> None:
    """A module answers one question; the stated exceptions can only shrink."""
    lengths = {path: length(ast.parse(source), len(source.splitlines())) for path, source in modules()}
    assert len(lengths) > 100, "the package was not found"
    assert_within(lengths, MODULE_LINES, LONG_MODULES)


def packages() -> list[str]:
    """The library and all its packages that are public."""
    name = surrealdb_celery_backend.__name__
    found = [each.name for each in pkgutil.walk_packages([str(PACKAGE)], f"{name}.") if each.ispkg]
    return [name, *(each for each in found if each not in INTERNAL)]


@pytest.mark.parametrize("package", packages())
def test_public_names_are_stated_and_there(package: str) -> None:
    """Every public package states its names in `__all__`, and each can be imported, also where it comes lazily."""
    module = importlib.import_module(package)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


def public_functions(package: str) -> Iterator[tuple[str, Any, str]]:
    """Each public function and method of this library behind the names of a package, and its docstring.

    A method without a docstring is an override, which is documented where it comes from (ruff sees to the others).
    A class's docstring documents the parameters of `__init__`.
    """
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if not getattr(thing, "__module__", "").startswith(surrealdb_celery_backend.__name__):
            continue
        if inspect.isfunction(thing):
            yield f"{package}.{name}", thing, thing.__doc__ or ""
        elif inspect.isclass(thing):
            if inspect.isfunction(vars(thing).get("__init__")):
                yield f"{package}.{name}", thing.__init__, "\n".join(each.__doc__ or "" for each in thing.__mro__)
            for attribute, value in vars(thing).items():
                function = inspect.unwrap(value.__func__ if isinstance(value, (classmethod, staticmethod)) else value)
                is_ours = inspect.isfunction(function) and function.__module__.startswith(
                    surrealdb_celery_backend.__name__
                )
                if is_ours and not attribute.startswith("_") and function.__doc__:
                    yield f"{package}.{name}.{attribute}", function, function.__doc__


@pytest.mark.parametrize("package", packages())
def test_parameters_of_public_functions_are_documented(package: str) -> None:
    """The docstring of a public function names every parameter under `Args:` (for a dataclass, `Attributes:`)."""
    gaps = []
    for name, function, text in public_functions(package):
        documented = set(re.findall(r"^ +\**(\w+)(?: \([^)]*\))?:", text, re.MULTILINE))
        parameters = [each for each in inspect.signature(function).parameters if each not in {"self", "cls"}]
        gaps += [f"{name}({each})" for each in parameters if not each.startswith("_") and each not in documented]
    assert not gaps


@pytest.mark.parametrize("package", packages())
def test_values_of_public_functions_are_documented(package: str) -> None:
    """The docstring of a public function that returns something says what: `Returns:`, `Yields:`, or its first word."""
    gaps = []
    for name, function, text in public_functions(package):
        nothing = inspect.signature(function).return_annotation in {"None", None, inspect.Signature.empty}
        told = re.match(r"\s*(Return|Yield|Whether|See) ", text) or re.search(
            r"^ +(Returns|Yields):$", text, re.MULTILINE
        )
        if not nothing and not told:
            gaps.append(name)
    assert not gaps


def texts() -> Iterator[Path]:
    """Every text file of the project that a reader may open."""
    for folder in ("surrealdb_celery_backend", "docs", "examples", "tests", "benchmarks"):
        for path in sorted((CHECKOUT / folder).rglob("*")):
            inside = path.relative_to(CHECKOUT).parts
            if path.suffix in TEXT and not {"node_modules", "_build", "__pycache__"} & {*inside}:
                yield path
    yield from sorted(path for path in CHECKOUT.glob("*") if path.suffix in {".md", ".py", ".toml", ".yml"})


@pytest.mark.parametrize("turn", [1, 2])
def test_no_test_leaves_its_app_to_the_next(turn: int) -> None:
    """Celery's worker makes its app current and leaves it so: the tasks of other apps are not found in a closed one."""
    assert current_app.main != "left"
    app = Celery("left", set_as_current=False)
    app.set_current()
    app.set_default()
    app.close()
    assert current_app.main == "left", turn


def test_no_foreign_names() -> None:
    """No file names a path of one machine, a document or an issue that its reader cannot open."""
    found = []
    paths = list(texts())
    assert len(paths) > 100, "the files were not found"
    for path in paths:
        for at, line in enumerate(path.read_text().splitlines(), 1):
            found += [
                f"{path.relative_to(CHECKOUT)}:{at}: {what}: {match[0]}"
                for what, pattern in FOREIGN.items()
                for match in re.finditer(pattern, line)
            ]
    assert not found


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a path of one machine", "see /{}/wt/x".format("work")),
        ("a path of one machine", "open('/{}/somebody/x')".format("home")),
        ("a document that is not in the repository", "({} 4.7)".format("DESIGN")),
        ("an issue of no public tracker", "as {} 8 says".format("issue")),
        ("a label of no public tracker", "{}1: waiting".format("W")),
    ],
)
def test_foreign_names_are_seen(what: str, line: str) -> None:
    """The patterns find what they are for."""
    assert re.search(FOREIGN[what], line)


@pytest.mark.parametrize("line", ["celery issue 6437", "surrealdb://m%22e%40%C3%A5:root@", "docs/work/x", "#A1B2C3"])
def test_other_names_are_left_alone(line: str) -> None:
    """Public issues, escapes, colours and relative paths are no foreign names."""
    assert not [what for what, pattern in FOREIGN.items() if re.search(pattern, line)]
