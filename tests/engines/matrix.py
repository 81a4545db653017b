"""Which engines the tests want, and from where each comes on this machine."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from . import installed
from .installed import NotInstalled
from .running import Command, DockerEngine, EngineSpec, ExternalEngine, ProcessEngine, RunningEngine

#: The engines that tests run against, the store they use unless told otherwise first.
MATRIX: dict[str, tuple[str, ...]] = {
    "3.0.2": ("rocksdb", "mem", "surrealkv"),
    "3.2.4": ("mem", "surrealkv"),
    "2.3.10": ("mem", "surrealkv"),
}

# Runs the development server with one SDK directory first on the path. The package around it is an empty one of
# that name: Celery need not be installed, and nothing beside the package gets on the path.
_RUN_DEVSERVER = (
    "import runpy, sys, types; sdk, folder, *sys.argv[1:] = sys.argv[1:]; sys.path[:1] = [sdk] if sdk else [];"
    " package = types.ModuleType('surrealdb_celery_backend'); package.__path__ = [folder];"
    " sys.modules[package.__name__] = package;"
    " runpy.run_module('surrealdb_celery_backend.devserver', run_name='__main__', alter_sys=True)"
)

# Where the embedded engine of each version is.
_SDKS = {"2.3.10": "sdk2", "3.2.4": "sdk3"}

_NODE_VERSION = "3.0.2"


class Start(Protocol):
    """Starts an engine on a port, 0 for a free one; with data that stay where `kept` names a folder for them."""

    def __call__(self, port: int, kept: Path | None = None) -> RunningEngine: ...


@dataclass(frozen=True)
class Provider:
    """One way to get an engine: what it would be, where from, and how to start it."""

    spec: EngineSpec
    source: str
    start: Start


class Unavailable(Exception):
    """No way to get an engine of this version here; the message says why, way by way."""


def external() -> Provider | None:
    """The server of $SURREALDB_TEST_URL, if that is set."""
    url = os.environ.get("SURREALDB_TEST_URL")
    if not url:
        return None
    username = os.environ.get("SURREALDB_TEST_USERNAME", "root")
    password = os.environ.get("SURREALDB_TEST_PASSWORD", "root")
    # Set to 0 for a cluster, where LIVE sees the writes of one node only.
    live = url.startswith("ws") and os.environ.get("SURREALDB_TEST_LIVE", "1") != "0"
    spec = EngineSpec("external", os.environ.get("SURREALDB_TEST_VERSION", "unknown"), "external", live)
    return Provider(spec, "SURREALDB_TEST_URL", lambda port, kept=None: ExternalEngine(spec, url, username, password))


def names() -> list[str]:
    """The engines that a run without options uses, whether they can run here or not."""
    if external() is not None:
        return ["external"]
    path_version = _surreal_version()
    extra = [path_version] if path_version and path_version not in MATRIX else []
    return [*MATRIX, *extra]


def stores(name: str) -> tuple[str, ...]:
    """The stores of an engine, its default first."""
    if name == "external":
        return ("external",)
    return MATRIX.get(name, ("rocksdb", "mem"))


def sdk() -> str:
    """The line of the SDK beside the tests: its major version."""
    return importlib.metadata.version("surrealdb").partition(".")[0]


def left_out() -> frozenset[str]:
    """The engines that a run leaves out unless it is told otherwise: with SDK 2 that of SDK 3's wheel.

    No SDK takes part where the library talks to a server, and with SDK 3 every engine is used.
    """
    return frozenset(name for name, line in _SDKS.items() if line == "sdk3" and sdk() == "2")


def required(left_out: frozenset[str] = frozenset()) -> frozenset[str]:
    """The engines without which a run has failed: $SURREALDB_TEST_REQUIRE, or in CI all that are not left out."""
    listed = os.environ.get("SURREALDB_TEST_REQUIRE")
    if listed is not None:
        return frozenset(name.strip() for name in listed.split(",") if name.strip())
    if in_ci() and external() is None:
        return frozenset(MATRIX) - left_out
    return frozenset()


def in_ci() -> bool:
    """Whether a missing server is a failure instead of a skip."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def find(name: str, store: str | None = None) -> Provider:
    """The first way to get engine *name* on *store* (None: its default) that is there.

    In this order: SURREALDB_TEST_URL, Docker, `surreal` on PATH, the npm package, the Python wheel.

    Raises:
        Unavailable: There is none.
    """
    there = external()
    if name == "external":
        if there is None:
            raise Unavailable("SURREALDB_TEST_URL is not set")
        return there
    store = store or stores(name)[0]
    if store not in stores(name):
        raise Unavailable(f"engine {name} has no store {store!r}: choose one of {', '.join(stores(name))}")
    spec = EngineSpec(name, name, store, live=True, exact=store == "rocksdb")
    reasons = []
    for way in (_docker, _path, _node, _python):
        try:
            return way(spec)
        except NotInstalled as error:
            reasons.append(str(error))
    # The nearest way is the last that this version has.
    raise Unavailable(next(reason for reason in reversed(reasons) if reason) or "no way to get it")


def start(name: str, store: str | None = None, *, kept: Path | None = None) -> RunningEngine:
    """Start a new engine; the caller closes it.

    Args:
        name: Which.
        store: Its store; None for its default.
        kept: A folder for its data, which stay; what is there from before is there again. Otherwise they go with it.

    Raises:
        Unavailable: It cannot be had here.
        EngineFailed: It did not start.
    """
    return find(name, store).start(0, kept)


def all_specs(every_store: bool = False, only: str | None = None) -> Iterator[tuple[str, Provider | Unavailable]]:
    """Each engine and store that a run is to use, with its way or why there is none.

    Args:
        every_store: All stores of each engine instead of its default one.
        only: A name, or ``name-store``.
    """
    for name in names():
        wanted = stores(name) if every_store or (only or "").startswith(f"{name}-") else stores(name)[:1]
        for store in wanted:
            label = f"{name}-{store}"
            if only is not None and only not in (name, label):
                continue
            try:
                yield label, find(name, store)
            except Unavailable as error:
                yield label, error


def _docker(spec: EngineSpec) -> Provider:
    if not _docker_answers():
        raise NotInstalled("")
    image = f"surrealdb/surrealdb:v{spec.version}"
    if not _docker_image(image):
        raise NotInstalled(f"Docker has no image {image}")
    return Provider(spec, f"Docker image {image}", lambda port, kept=None: DockerEngine(spec, image, port, kept))


@functools.cache
def _docker_answers() -> bool:
    if shutil.which("docker") is None or importlib.util.find_spec("testcontainers") is None:
        return False
    # Asked with the command: the Python client leaves its socket open when nobody answers.
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@functools.cache
def _docker_image(image: str) -> bool:
    for command in (["image", "inspect", image], ["pull", "--quiet", image]):
        if subprocess.run(["docker", *command], capture_output=True, check=False).returncode == 0:
            return True
    return False


@functools.cache
def _surreal_version() -> str | None:
    surreal = shutil.which("surreal")
    if surreal is None:
        return None
    output = subprocess.run([surreal, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+\.\d+", output)
    return found[0] if found else None


def _path(spec: EngineSpec) -> Provider:
    if _surreal_version() != spec.version:
        raise NotInstalled("")
    surreal = str(shutil.which("surreal"))

    def command(data: Path | None, port: int) -> list[str]:
        where = "memory" if data is None else f"{spec.store}://{data}"
        return [surreal, "start", "--user", "root", "--pass", "root", "--bind", f"127.0.0.1:{port}", where]

    source = f"`surreal` on PATH ({surreal})"
    return _process(spec, source, command, announces=False)


def _node(spec: EngineSpec) -> Provider:
    if spec.version != _NODE_VERSION:
        raise NotInstalled("")
    node = installed.node_command()
    return _announcing(
        spec,
        "npm @surrealdb/node",
        [node, str(installed.NODE_SOURCE / "server.mjs"), "--modules", str(installed.node_directory())],
    )


def _python(spec: EngineSpec) -> Provider:
    if spec.version not in _SDKS:
        raise NotInstalled("")
    path = installed.sdk_python_path(_SDKS[spec.version])
    # Isolated (-I) and without site-packages (-S), the other SDK cannot get in between.
    flags = [] if path is None else ["-I", "-S"]
    return _announcing(
        replace(spec, live=False, exact=True),
        "embedded in the SDK's wheel",
        [sys.executable, *flags, "-c", _RUN_DEVSERVER, str(path or ""), str(installed.package())],
    )


def _announcing(spec: EngineSpec, source: str, program: list[str]) -> Provider:
    def command(data: Path | None, port: int) -> list[str]:
        kept = [] if data is None else ["--path", str(data)]
        return [*program, "--store", spec.store, *kept, "--port", str(port), "--stop-with-parent"]

    return _process(spec, source, command, announces=True)


def _process(spec: EngineSpec, source: str, command: Command, *, announces: bool) -> Provider:
    def start(port: int, kept: Path | None = None) -> RunningEngine:
        return ProcessEngine(spec, source, command, announces=announces, port=port, kept=kept)

    return Provider(spec, source, start)
