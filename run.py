#!/usr/bin/env python3
"""Set up what this project needs in a folder of its own, and run it.

    python3 run.py demo             a real worker on a real engine, start to end
    python3 run.py test             every test, on both lines of the SDK
    python3 run.py test --sdk 3 -k chord
    python3 run.py --help           the rest

Needs Python and nothing else. Environments are made under .venvs/ by `uv`, which is fetched into
.venvs/ too where it is missing, from requirements/*.txt, where every package has its version and its
hashes. Nothing is installed anywhere else, and deleting .venvs/ and .engines/ undoes it all.

This file is read by any `python3`, so it keeps to the syntax of Python 3.8.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"
REQUIREMENTS = ROOT / "requirements"
#: The Pythons that the project supports, as uv reads it.
PYTHONS = ">=3.10,<3.15"
SDKS = ("2", "3")
#: What `--sdk` takes: a line of the SDK, or the oldest packages that are supported.
ENVIRONMENTS = {"2": "sdk2", "3": "sdk3", "oldest": "oldest"}
#: How often a download is tried, and the pause before the next try, in seconds.
TRIES, PAUSE = 4, 10
#: Variables that would let packages of other environments in, or settings of the user's own.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV", "UV_PYTHON")
#: The folder of an environment's programs.
SCRIPTS = "Scripts" if os.name == "nt" else "bin"


def say(text: str) -> None:
    """Print one step."""
    print("-> " + text, flush=True)


def fail(text: str) -> NoReturn:
    """End with one clear sentence."""
    sys.exit("run.py: " + text)


def shown(path: Path) -> str:
    """A path as the reader knows it: relative to the checkout if it is inside."""
    return os.path.relpath(str(path), str(ROOT)) if ROOT in path.parents else str(path)


def variables(folder: Path | None = None, **more: str) -> dict[str, str]:
    """The environment of a process.

    Args:
        folder: The virtual environment that the process belongs to, if any.
        more: Further variables.
    """
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    kept.update(PYTHONNOUSERSITE="1", PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", UV_NO_CONFIG="1")
    if folder is not None:
        path = os.pathsep.join([str(folder / SCRIPTS), os.environ.get("PATH", os.defpath)])
        kept.update(VIRTUAL_ENV=str(folder), PATH=path)
    kept.update(more)
    return kept


def step(command: Sequence[str], tries: int = 1) -> None:
    """Run one step of a set-up; its output is shown only if it failed.

    Args:
        command: The program and its arguments.
        tries: How often a failed step is tried in all.
    """
    for left in reversed(range(tries)):
        done = subprocess.run(
            command,
            cwd=str(ROOT),
            env=variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode == 0:
            return
        sys.stderr.write(done.stdout.decode(errors="replace"))
        if left:
            say(f"That failed; once more in {PAUSE} s")
            time.sleep(PAUSE)
    fail(f"`{' '.join(command)}` failed, for the reason above; nothing outside {shown(VENVS)} was changed.")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process make environments; others wait for it."""
    VENVS.mkdir(exist_ok=True)
    with (VENVS / "lock").open("w") as lock:
        if os.name != "nt":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ------------------------------------------------------------------------------ uv


def uv() -> str:
    """The path of uv, in the pinned version; fetched into .venvs/uv with pip if it is not there."""
    folder = VENVS / "uv"
    pinned = REQUIREMENTS / "uv.txt"
    program = folder / SCRIPTS / ("uv.exe" if os.name == "nt" else "uv")
    found = re.search(r"^uv==(\S+)", pinned.read_text(), flags=re.MULTILINE)
    if found is None:
        fail(f"{shown(pinned)} does not pin uv.")
    version = found.group(1)
    if program.is_file() and is_version(program, version):
        return str(program)
    say(f"Fetching uv {version} into {shown(folder)}")
    shutil.rmtree(str(folder), ignore_errors=True)
    if importlib.util.find_spec("pip"):
        # --target: also where the system's Python refuses to have packages installed.
        pip = [sys.executable, "-m", "pip", "install", "--target", str(folder)]
    elif importlib.util.find_spec("ensurepip"):
        step([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / SCRIPTS / "python"), "-m", "pip", "install"]
    else:
        release = "{}.{}".format(*sys.version_info)
        fail(
            f"{sys.executable} has neither pip nor venv, which Debian and Ubuntu ship apart: run `sudo apt-get install"
            f" python{release}-venv` (without sudo as root) and start this again."
        )
    step([*pip, "--quiet", "--no-input", "--no-deps", "--require-hashes", "-r", str(pinned)], tries=TRIES)
    return str(program)


def is_version(program: Path, version: str) -> bool:
    """Whether a uv runs here and has this version."""
    try:
        answer = subprocess.run([str(program), "--version"], stdout=subprocess.PIPE, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.decode().split()[1:2] == [version]


# -------------------------------------------------------------------- environments


class Environment:
    """A virtual environment under .venvs/ that holds exactly what one file of pinned packages names."""

    def __init__(self, name: str, requirements: str, wheel: Path | None = None) -> None:
        """Name it.

        Args:
            name: The folder under .venvs/.
            requirements: The file in requirements/, without its ending.
            wheel: The wheel of this package to install; None installs the checkout itself, editable.
        """
        self.folder = VENVS / name
        self.pinned = REQUIREMENTS / (requirements + ".txt")
        self.wheel = wheel
        self.python = str(self.folder / SCRIPTS / "python")

    def prepare(self) -> Environment:
        """Make the environment, or bring it up to date: uv finds the difference in a moment."""
        with one_at_a_time():
            program = uv()
            sync = [program, "pip", "sync", "--quiet", "--python", self.python, "--no-build-isolation"]
            started = time.monotonic()
            new = not (self.folder / "pyvenv.cfg").is_file() or not works(self.python)
            if new:
                count = len(re.findall(r"^[\w.-]+==", self.pinned.read_text(), flags=re.MULTILINE))
                say(f"Making {shown(self.folder)}: {count} packages of {shown(self.pinned)}, 100 to 300 MB, once")
                step([program, "venv", "--quiet", "--clear", "--python", PYTHONS, str(self.folder)])
                # What builds the checkout is among the pinned packages: they come first.
                step([*sync, "--require-hashes", str(self.pinned)], tries=TRIES)
            with tempfile.TemporaryDirectory() as scratch:
                own = Path(scratch) / "own.txt"
                own.write_text(str(self.wheel) if self.wheel else f"-e {ROOT}")
                step([*sync, str(self.pinned), str(own)], tries=TRIES)
            if new:
                say(f"Made in {time.monotonic() - started:.0f} s")
        return self

    def run(self, *arguments: str, cwd: Path | None = None, **more: str) -> int:
        """Run this environment's Python; its exit code."""
        return subprocess.call([self.python, *arguments], cwd=str(cwd or ROOT), env=variables(self.folder, **more))

    def become(self, *arguments: str) -> NoReturn:
        """Run this environment's Python in this process's place, so that signals reach it."""
        sys.stdout.flush()
        if os.name == "nt":
            sys.exit(self.run(*arguments))
        os.chdir(str(ROOT))
        os.execve(self.python, [self.python, *arguments], variables(self.folder))


def works(python: str) -> bool:
    """Whether this Python runs: that of an environment may have been removed from the machine."""
    try:
        return subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def sdk(line: str) -> Environment:
    """The environment of one line of SurrealDB's SDK, or of the oldest, with the tools for tests."""
    return Environment(ENVIRONMENTS[line], ENVIRONMENTS[line]).prepare()


# ------------------------------------------------------------------------ commands


def demo(options: argparse.Namespace, rest: list[str]) -> int:
    """Run examples/demo."""
    Environment("demo", "demo").prepare().become("examples/demo/demo.py", *rest)


def counts(report: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped, from pytest's own report."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    if report.is_file():
        for suite in ET.parse(str(report)).getroot().iter("testsuite"):
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", 0))
            total["failed"] += failed
            total["skipped"] += skipped
            total["passed"] += int(suite.get("tests", 0)) - failed - skipped
    return total


def spelled(total: dict[str, int]) -> str:
    """Counts as a runner's closing line."""
    return "{passed} passed, {failed} failed, {skipped} skipped".format(**total)


def test(options: argparse.Namespace, rest: list[str]) -> int:
    """Run the tests in each line of the SDK; non-zero if any failed or none ran."""
    lines = SDKS if options.sdk == "both" else (options.sdk,)
    # What is measured is the checkout's own files, in the line that runs every test: it costs a quarter of the time.
    measured = lines[-1] if options.coverage and not options.wheel else None
    results = []
    scratch = Path(tempfile.mkdtemp(prefix="surrealdb-celery-tests-"))
    try:
        for line in lines:
            code, total = test_one(line, options.wheel, line == measured, options.everything, rest, scratch)
            results.append((line, code, total))
        if measured:
            show_coverage(measured, scratch)
    finally:
        # A process that a test left behind may still write its measurements: no reason to fail.
        shutil.rmtree(str(scratch), ignore_errors=True)
    print()
    for line, code, total in results:
        print(f"   SDK {line}: {spelled(total)}" + (f" (exit {code})" if code else ""))
    summed = {key: sum(total[key] for _, _, total in results) for key in results[0][2]}
    print(spelled(summed), flush=True)
    return next((code for _, code, _ in results if code), 0)


def test_one(
    line: str, wheel: bool, measured: bool, everything: bool, rest: list[str], scratch: Path
) -> tuple[int, dict[str, int]]:
    """Run the tests with one line of the SDK.

    Args:
        line: The line, or ``oldest``.
        wheel: Test the built wheel instead of the checkout.
        measured: Measure coverage.
        everything: Run also what is known to depend on no line of the SDK, and on no wheel. The oldest of all packages
            is more than a line of the SDK: always.
        rest: Arguments for pytest.
        scratch: A folder for reports.

    Returns:
        Pytest's exit code, and the counts.
    """
    if wheel:
        name = ENVIRONMENTS[line]
        environment = Environment("wheel-" + name, name, built_wheel(scratch)).prepare()
        where = checkout_without_package(scratch)
        inside = "import surrealdb_celery_backend as it, sys; sys.exit(not it.__file__.startswith(sys.prefix))"
        if environment.run("-c", inside, cwd=where):
            fail("what would be tested is not the installed wheel.")
    else:
        environment, where = sdk(line), ROOT
    # The copy of the checkout that a wheel is tested in uses the engines of the checkout.
    engines = os.environ.get("SURREALDB_TEST_ENGINES") or str(ROOT / ".engines")
    say(f"Engines for the tests, in {shown(Path(engines))} (200 MB)")
    code = environment.run("-m", "tests.engines", "install", cwd=where, SURREALDB_TEST_ENGINES=engines)
    if code:
        return code, counts(Path())
    say(f"Tests of {'the installed wheel' if wheel else 'the checkout'} with SDK {line}")
    report = scratch / f"sdk{line}.xml"
    runner = ["-m", "coverage", "run", "-m", "pytest"] if measured else ["-m", "pytest"]
    if everything or line == "oldest":
        runner += ["--everything"]
    elif wheel:
        # Whole programs are tested with the checkout; that they find what a wheel holds, `test_installed.py` shows.
        runner += ["-m", "not program"]
    if not rest:
        # All of them, side by side: each process has engines of its own, and much of the time is waiting.
        # In the order of tests/conftest.py, the longest files first, so that no process is left over at the end.
        runner += ["-n", str((os.cpu_count() or 1) + 2), "--dist", "loadfile", "--no-loadscope-reorder"]
    code = environment.run(
        *runner,
        f"--junitxml={report}",
        *rest,
        cwd=where,
        SURREALDB_TEST_ENGINES=engines,
        COVERAGE_FILE=str(scratch / f"coverage.sdk{line}"),
    )
    return code, counts(report)


def show_coverage(line: str, scratch: Path) -> None:
    """Join the measurements of every process of every run, and show what was not reached."""
    environment = sdk(line)
    together = str(scratch / "coverage")
    say("Coverage, lines and branches, of all the runs together (tests/README.md says why)")
    if environment.run("-m", "coverage", "combine", "--quiet", str(scratch), COVERAGE_FILE=together) == 0:
        environment.run("-m", "coverage", "report", COVERAGE_FILE=together)


def built_wheel(folder: Path) -> Path:
    """Build the source archive, and the wheel from it, into a folder; once per run."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        say("Building the source archive, and the wheel from it")
        code = sdk("2").run("-m", "build", "--no-isolation", "--outdir", str(folder))
        wheels = sorted(folder.glob("*.whl"))
        if code or not wheels:
            fail("the wheel could not be built, for the reason above.")
    return wheels[0]


def checkout_without_package(scratch: Path) -> Path:
    """A copy of the checkout whose package cannot be imported in the wheel's place."""
    copy = scratch / "checkout"
    if not copy.exists():
        without = shutil.ignore_patterns("surrealdb_celery_backend", "dist", ".*", "__pycache__", "node_modules")
        shutil.copytree(str(ROOT), str(copy), ignore=without)
    return copy


def lint(options: argparse.Namespace, rest: list[str]) -> int:
    """Ruff's rules, ruff's format, then the layers of imports."""
    environment = sdk("2")
    say("ruff")
    worst = environment.run("-m", "ruff", "check", *rest)
    worst = environment.run("-m", "ruff", "format", "--check") or worst
    say("Imports go one way")
    return environment.run(str(environment.folder / SCRIPTS / "lint-imports")) or worst


def types(options: argparse.Namespace, rest: list[str]) -> int:
    """Mypy, strict, against the types of both lines of the SDK."""
    worst = 0
    for line in SDKS:
        environment = sdk(line)
        say("mypy --strict with SDK " + line)
        worst = environment.run("-m", "mypy", *rest) or worst
    return worst


def check(options: argparse.Namespace, rest: list[str]) -> int:
    """Everything that looks at the code without running it."""
    return lint(options, []) or types(options, [])


def build(options: argparse.Namespace, rest: list[str]) -> int:
    """Build the source archive, and the wheel from it, into dist/, and check both."""
    environment = sdk("2")
    code = environment.run("-m", "build", "--no-isolation", *rest)
    built = [str(path) for path in sorted((ROOT / "dist").glob("surrealdb_celery_backend-*"))]
    return (
        code
        or environment.run("-m", "twine", "check", "--strict", *built)
        or environment.run(
            str(environment.folder / SCRIPTS / "check-wheel-contents"),
            *[path for path in built if path.endswith(".whl")],
        )
    )


def docs(options: argparse.Namespace, rest: list[str]) -> int:
    """Build the documentation into .site/, warnings as errors; `run.py docs serve` shows it while it is written."""
    environment = Environment("docs", "docs").prepare()
    command = rest or ["build"]
    return environment.run("-m", "mkdocs", *command, NO_MKDOCS_2_WARNING="1", DISABLE_MKDOCS_2_WARNING="true")


def pin(options: argparse.Namespace, rest: list[str]) -> int:
    """Make requirements/*.txt anew from pyproject.toml and requirements/*.in."""
    with one_at_a_time():
        program = uv()
    everything = ["--all-extras", "--group=dev"]
    for name, more in (
        ("uv", []),
        ("demo", ["pyproject.toml", "--extra=embedded", "--group=build"]),
        ("docs", ["pyproject.toml", "--group=build"]),
        ("sdk2", ["pyproject.toml", *everything]),
        ("sdk3", ["pyproject.toml", *everything]),
        ("oldest", ["pyproject.toml", *everything]),
    ):
        target = f"requirements/{name}.txt"
        say(target)
        options_of_uv = ["--universal", "--python-version=3.10", "--generate-hashes", "--upgrade"]
        options_of_uv += ["--quiet", "--no-header", "--no-annotate", "--no-config", f"--output-file={target}"]
        command = [program, "pip", "compile", f"requirements/{name}.in", *more, *options_of_uv, *rest]
        code = subprocess.call(command, cwd=str(ROOT), env=variables())
        if code:
            return code
    return 0


def python(options: argparse.Namespace, rest: list[str]) -> int:
    """Run Python, with everything installed: `run.py python -m celery --help`."""
    sdk("2" if options.sdk == "both" else options.sdk).become(*rest)


def version(options: argparse.Namespace, rest: list[str]) -> int:
    """Print the version of the checkout."""
    text = (ROOT / "surrealdb_celery_backend" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)
    print(found.group(1) if found else fail("there is no __version__."))
    return 0


def just(options: argparse.Namespace, rest: list[str]) -> int:
    """Run a recipe of the justfile."""
    environment = sdk("2")
    program = str(environment.folder / SCRIPTS / "just")
    return subprocess.call([program, *rest], cwd=str(ROOT), env=variables(environment.folder))


#: The commands, what each is for, and whether it answers --help by itself.
COMMANDS = (
    (demo, "a real worker on a real engine, start to end", True),
    (test, "the tests, on both lines of the SDK", False),
    (lint, "ruff, and the layers of imports", False),
    (types, "mypy, strict, on both lines of the SDK", False),
    (check, "lint and types", False),
    (build, "source archive and wheel into dist/, checked", False),
    (docs, "the documentation site into .site/, warnings as errors", False),
    (pin, "make requirements/*.txt anew", False),
    (just, "a recipe of the justfile: `run.py just --list`", True),
    (version, "the version of the checkout", False),
    (python, "a Python that has everything installed", True),
)


def main() -> int:
    """Read the command line and run its command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="run.py",
        description="Sets up what this project needs under .venvs/, and runs it.",
        epilog="What a command does not know is handed on: `run.py demo --help`, `run.py test -k chord`.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for function, help_text, answers_help in COMMANDS:
        name = function.__name__
        sub = commands.add_parser(name, help=help_text, add_help=not answers_help, allow_abbrev=False)
        sub.set_defaults(function=function)
        if function in (test, python):
            sub.add_argument("--sdk", choices=(*ENVIRONMENTS, "both"), default="both")
        if function is test:
            sub.add_argument("--wheel", action="store_true", help="test the built wheel, not the checkout")
            sub.add_argument("--no-coverage", dest="coverage", action="store_false", help="do not measure")
            sub.add_argument("--everything", action="store_true", help="every test with every line of the SDK")
    options, rest = parser.parse_known_args()
    if not options.command:
        parser.print_help()
        return 2
    try:
        code: int = options.function(options, rest)
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
