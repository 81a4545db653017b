"""The pinned packages are what they claim to be: the oldest are the lowest that pyproject.toml allows."""

from __future__ import annotations

import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.paths import CHECKOUT

pytestmark = pytest.mark.unit

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


def declared() -> list[Requirement]:
    """What the package and its extras need, as pyproject.toml says it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    return [Requirement(each) for each in texts]


def pinned(name: str) -> dict[str, set[Version]]:
    """The versions in a file of pins: several where they depend on the Python."""
    found: dict[str, set[Version]] = {}
    text = (CHECKOUT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    for package, version in re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)", text, flags=re.MULTILINE):
        found.setdefault(canonicalize_name(package), set()).add(Version(version))
    return found


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_lower_bound_is_tested(requirement: Requirement) -> None:
    """`oldest.txt` has each package in the lowest version that is allowed: a bound is a promise."""
    lowest = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
    if not lowest and canonicalize_name(requirement.name) == "celery":
        pytest.skip("an extra of Celery's: its own line has the bound")
    assert len(lowest) == 1, f"{requirement} has no lower bound"
    assert pinned("oldest")[canonicalize_name(requirement.name)] == {lowest[0]}


@pytest.mark.parametrize("name", ["sdk2", "sdk3", "oldest", "demo"])
def test_pins_are_allowed(name: str) -> None:
    """Each file of pins holds only versions that the package allows."""
    pins = pinned(name)
    outside = [
        f"{package} {version}"
        for requirement in declared()
        for package in [canonicalize_name(requirement.name)]
        for version in pins.get(package, ())
        if not requirement.specifier.contains(version, prereleases=True)
    ]
    assert outside == []
