"""Where the tests' engines are installed, and how they get there.

Both SDK lines are called ``surrealdb``, so at most one of their engines can be in the environment that runs
the tests. The other lies in a directory of its own, together with what its SDK needs and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent

#: Node's package files and server.
NODE_SOURCE = HERE / "node"

#: Oldest Node that `@surrealdb/node` is built for.
OLDEST_NODE = 20

#: What an SDK imports. Versions and hashes come from the project's own requirements/sdk*.txt.
_SDK_PACKAGES = frozenset(
    {
        "aiohappyeyeballs",
        "aiohttp",
        "aiosignal",
        "async-timeout",
        "attrs",
        "certifi",
        "charset-normalizer",
        "frozenlist",
        "idna",
        "multidict",
        "propcache",
        "pydantic-core",
        "requests",
        "surrealdb",
        "surrealdb-embedded",
        "typing-extensions",
        "urllib3",
        "websockets",
        "yarl",
    }
)

_MARKER = "installed-from"

#: How often a download is tried, and how long it is waited before it is tried again, in seconds.
_TRIES, _TRY_AGAIN_AFTER = 4, 10

#: Patience of the tools themselves with a registry that is slow or out of order.
_PATIENT = {
    "PIP_RETRIES": "6",
    "PIP_DEFAULT_TIMEOUT": "60",
    "UV_HTTP_RETRIES": "6",
    "UV_HTTP_TIMEOUT": "60",
    "npm_config_fetch_retries": "5",
    "npm_config_fetch_timeout": "120000",
}


class NotInstalled(Exception):
    """An engine cannot run here; the message says why and what to do."""


def root() -> Path:
    """The directory of all installed engines: $SURREALDB_TEST_ENGINES, or .engines in the checkout."""
    return Path(os.environ.get("SURREALDB_TEST_ENGINES") or CHECKOUT / ".engines")


def sdk_directory(sdk: str) -> Path:
    """Where *sdk* (``sdk2`` or ``sdk3``) lies for this Python: its packages are built for one version."""
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}-{sysconfig.get_platform()}"
    return root() / f"{sdk}-{python}"


def node_directory() -> Path:
    """Where npm's packages lie."""
    return root() / "node"


def package() -> Path:
    """The folder of `surrealdb_celery_backend`, found without importing it."""
    spec = importlib.util.find_spec("surrealdb_celery_backend")
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) if locations else CHECKOUT / "surrealdb_celery_backend"


def sdk_of_this_environment() -> str | None:
    """``sdk2`` or ``sdk3`` if the SDK beside the tests brings its engine, else None."""
    try:
        major = importlib.metadata.version("surrealdb").partition(".")[0]
    except importlib.metadata.PackageNotFoundError:
        return None
    engine = {"2": "surrealdb._surrealdb_ext", "3": "surrealdb_embedded"}.get(major)
    if engine is None or importlib.util.find_spec(engine) is None:
        return None
    return f"sdk{major}"


def sdk_python_path(sdk: str) -> Path | None:
    """The directory to import *sdk* from; None where it is in the environment that runs the tests.

    Raises:
        NotInstalled: It is in neither.
    """
    if sdk_of_this_environment() == sdk:
        return None
    directory = sdk_directory(sdk)
    if _installed_from(directory) != _digest(_requirements(sdk)):
        raise NotInstalled("not installed: python -m tests.engines install")
    return directory


def node_command() -> str:
    """The path of Node.

    Raises:
        NotInstalled: No Node, too old, or the engine's package is not installed.
    """
    node = shutil.which("node")
    if node is None:
        raise NotInstalled(f"needs Node {OLDEST_NODE} or newer, and there is no `node` on PATH")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if not re.match(r"v\d+", version) or int(version[1:].partition(".")[0]) < OLDEST_NODE:
        raise NotInstalled(f"needs Node {OLDEST_NODE} or newer, and `node` on PATH is {version or 'broken'}")
    if _installed_from(node_directory()) != _digest((NODE_SOURCE / "package.json").read_text()):
        raise NotInstalled("not installed: python -m tests.engines install")
    return node


def install() -> list[str]:
    """Install what is missing, and return what could not be installed, a sentence each."""
    root().mkdir(parents=True, exist_ok=True)
    problems = []
    with _one_at_a_time():
        for sdk in ("sdk2", "sdk3"):
            if sdk_of_this_environment() == sdk:
                continue
            try:
                _install_sdk(sdk)
            except (NotInstalled, subprocess.CalledProcessError) as error:
                problems.append(f"{sdk}: {_reason(error)}")
        try:
            _install_node()
        except (NotInstalled, subprocess.CalledProcessError) as error:
            problems.append(f"node: {_reason(error)}")
    return problems


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one run install; others wait, and then find that all is there."""
    with (root() / "lock").open("w") as lock:
        if os.name != "nt":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install_sdk(sdk: str) -> None:
    requirements = _requirements(sdk)
    directory = sdk_directory(sdk)
    if _installed_from(directory) == _digest(requirements):
        return
    pip = _pip()
    with _NewDirectory(directory, requirements) as target:
        file = Path(target) / "requirements.txt"
        file.write_text(requirements)
        _run([*pip, "install", "--quiet", "--no-deps", "--require-hashes", "--target", target, "-r", str(file)])


def _install_node() -> None:
    package = (NODE_SOURCE / "package.json").read_text()
    if _installed_from(node_directory()) == _digest(package):
        return
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        raise NotInstalled(f"needs Node {OLDEST_NODE} or newer with npm: install it and start this again")
    with _NewDirectory(node_directory(), package) as target:
        (Path(target) / "package.json").write_text(package)
        # No peers: the JavaScript SDK is not used. No scripts: the engine is prebuilt.
        flags = ["--no-package-lock", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund"]
        _run([npm, "install", "--loglevel=error", *flags, "--prefix", target], cwd=target)


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip"]
    raise NotInstalled(f"needs pip in the environment of {sys.executable}, or uv on PATH")


def _requirements(sdk: str) -> str:
    """The pins and hashes of *sdk* and of what it imports, cut from the project's requirements."""
    text = (CHECKOUT / "requirements" / f"{sdk}.txt").read_text()
    blocks = re.findall(r"^[A-Za-z0-9].*(?:\n[ \t].*)*", text, re.MULTILINE)
    return "".join(f"{block}\n" for block in blocks if re.split(r"[\s=\[;]", block)[0].lower() in _SDK_PACKAGES)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _installed_from(directory: Path) -> str | None:
    try:
        return (directory / _MARKER).read_text()
    except FileNotFoundError:
        return None


class _NewDirectory:
    """A directory beside *final* that takes its place, whole, when the block ends well."""

    def __init__(self, final: Path, source: str) -> None:
        self._final = final
        self._source = source

    def __enter__(self) -> str:
        self._new = tempfile.mkdtemp(prefix=f".{self._final.name}-", dir=self._final.parent)
        return self._new

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                (Path(self._new) / _MARKER).write_text(_digest(self._source))
                old = tempfile.mkdtemp(prefix=".old-", dir=self._final.parent)
                if self._final.exists():
                    self._final.rename(Path(old) / "old")
                Path(self._new).rename(self._final)
                shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(self._new, ignore_errors=True)


def _run(command: list[str], cwd: str | None = None) -> None:
    """Run what downloads. A registry may be out of order for a moment, so it is asked more than once."""
    environment = {**_PATIENT, **os.environ}
    for left in reversed(range(_TRIES)):
        try:
            subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                check=True,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except subprocess.CalledProcessError as error:
            if left == 0:
                raise
            print(f"{_reason(error)}; once more in {_TRY_AGAIN_AFTER} s", file=sys.stderr, flush=True)
            time.sleep(_TRY_AGAIN_AFTER)
        else:
            return


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.output).splitlines() if line.strip()]
        return f"{Path(error.cmd[0]).name} failed: {lines[-1] if lines else 'no output'}"
    return str(error)
