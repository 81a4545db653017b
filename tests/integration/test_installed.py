"""The built wheel in empty environments: with no extra, and with each alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.engines import RunningEngine, matrix
from tests.support.paths import CHECKOUT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (CHECKOUT / "surrealdb_celery_backend").is_dir(), reason="the wheel is built from the checkout"
    ),
]

SDK = importlib.metadata.version("surrealdb").split(".")[0]
#: SDK 2 has the engine in its own wheel.
ALWAYS = {"server", "cli"} | ({"embedded"} if SDK == "2" else set())
#: What each extra makes work besides.
EXTRAS: dict[str, set[str]] = {
    "": set(),
    "embedded": {"embedded"},
    "console": {"console"},
    "metrics": {"metrics"},
    "django": {"django"},
    "cli": {"rich"},
    "msgpack": {"msgpack"},
    "yaml": {"yaml"},
    "opentelemetry": {"opentelemetry"},
}
#: What says by itself which extra is missing.
SAYS = {"embedded", "console", "metrics"}


def uv() -> str:
    """The program that makes environments; `run.py` has fetched it."""
    own = CHECKOUT / ".venvs/uv/bin/uv"
    found = str(own) if own.is_file() else shutil.which("uv")
    if found is None:
        if matrix.in_ci():
            pytest.fail("uv is not here: run the tests through run.py")
        pytest.skip("uv is not here: run the tests through run.py")
    return found


def done(*command: str | Path, **more: Any) -> str:
    """Run a step; what it printed."""
    finished = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=500, **more)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, CHECKOUT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_checkouts_package(wheel: Path) -> None:
    """Each file of the package is in the wheel as it is in the checkout, and the package there has no other."""
    package = CHECKOUT / "surrealdb_celery_backend"
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith(f"{package.name}/")}
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert held == {path.relative_to(CHECKOUT).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra or "none")
def test_each_extra_alone(live_engine: RunningEngine, wheel: Path, tmp_path: Path, extra: str) -> None:
    """What an extra is for works with it, and says without it which one is missing; results need none."""
    python = tmp_path / "environment/bin/python"
    pins = CHECKOUT / "requirements" / f"sdk{SDK}.txt"
    done(uv(), "venv", "--quiet", "--no-config", "--python", sys.executable, tmp_path / "environment")
    package = f"surrealdb-celery-backend{f'[{extra}]' if extra else ''} @ {wheel.as_uri()}"
    done(
        uv(), "pip", "install", "--quiet", "--no-config", "--prerelease=allow", "--python", python, "-c", pins, package
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = CHECKOUT / "tests/support/installed_program.py"
    printed = done(python, "-P" if sys.version_info >= (3, 11) else "-I", program, live_engine.database().backend_url,
                   cwd=tmp_path, env=environment)  # fmt: skip
    found = json.loads(printed.splitlines()[-1])
    assert Path(found.pop("where")).is_relative_to(tmp_path)
    working = {name for name, outcome in found.items() if "works" in outcome}
    assert working >= ALWAYS | EXTRAS[extra], found
    for name in SAYS - working:
        assert f"pip install 'surrealdb-celery-backend[{name}]'" in found[name]["fails"], found[name]
    # An extra brings what it is for, not what others are for.
    assert not working & (SAYS | {"django"}) - ALWAYS - EXTRAS[extra]
    assert found["server"]["works"] == {"answer": 42}
