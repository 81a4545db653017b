#!/usr/bin/env python3
"""Sets up what this project needs in a folder of its own, and runs it.

    python3 run.py demo             a real worker on a real engine, start to end
    python3 run.py test             every test, on both lines of the SDK
    python3 run.py test --sdk 3 -k chord
    python3 run.py --help           the rest

Needs Python 3.10 or newer and nothing else. Environments are made under .venvs/
from requirements/*.txt, where every package has its version and its hashes;
nothing is installed anywhere else, and deleting .venvs/ undoes it all.

This file is read by whatever `python3` is, so it keeps to what Python 3.6
understands, to be able to say that it is too old or to find a newer one.
"""

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Dict, Iterator, List, NoReturn, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venvs"
OLDEST = (3, 10)
#: Names to look for on PATH when this Python will not do, newest last but one:
#: 3.13 is what most tests ran on.
NAMES = ("python3.13", "python3.12", "python3.11", "python3.10", "python3.14", "python3", "python")
SDKS = ("2", "3")
#: How often a download is tried, and how long it is waited before it is tried again, in seconds.
TRIES, TRY_AGAIN_AFTER = 4, 10
#: What `--sdk` takes: a line of the SDK, or the oldest packages that are supported.
ENVIRONMENTS = {"2": "sdk2", "3": "sdk3", "oldest": "oldest"}

PROBE = """
import importlib.util, sys
print("%d.%d.%d" % sys.version_info[:3], int(importlib.util.find_spec("ensurepip") is not None))
"""


def say(text: str) -> None:
    """Print one step."""
    print("-> " + text, flush=True)


def fail(text: str) -> NoReturn:
    """End with one clear sentence."""
    sys.exit("run.py: " + text)


def shown(path: Path) -> str:
    """A path as the reader knows it: relative to the checkout where it is in it."""
    return os.path.relpath(str(path), str(ROOT)) if ROOT in path.parents else str(path)


# ----------------------------------------------------------------- which Python


def look_at(python: str) -> Optional[Tuple[Tuple[int, ...], bool]]:
    """A Python's version and whether it can make environments; None where it does not run."""
    try:
        answer = subprocess.run(
            [python, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=120,
        ).stdout.decode()
        version, ensurepip = answer.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        # A name on PATH need not be a Python that runs: version managers leave shims.
        return None
    return tuple(int(part) for part in version.split(".")), ensurepip == "1"


def choose_python() -> str:
    """This Python, or the first on PATH, that is new enough and can make environments."""
    tried = []  # type: List[Tuple[str, Tuple[int, ...], bool]]
    for name in (sys.executable,) + NAMES:
        path = shutil.which(name) if name else None
        found = look_at(path) if path else None
        if path and found:
            if found[0] >= OLDEST and found[1]:
                return path
            tried.append((path, found[0], found[1]))
    for path, version, ensurepip in tried:
        if version >= OLDEST and not ensurepip:
            fail(
                "{0} cannot make virtual environments, which Debian and Ubuntu ship apart:"
                " run `sudo apt-get install python{1}.{2}-venv` (without sudo as root)"
                " and start this again.".format(path, *version[:2])
            )
    have = ", ".join("{0} is {1}".format(p, ".".join(map(str, v))) for p, v, _ in tried)
    fail(
        "Python 3.10 or newer is needed and none was found on PATH ({0}); install one and start this again.".format(
            have or "nothing was found"
        )
    )


# ------------------------------------------------------------------ environments


class Environment:
    """A virtual environment under .venvs/, made from one file of pinned packages."""

    def __init__(self, name: str, requirements: str, wheel: Optional[Path] = None) -> None:
        """Name it.

        Args:
            name: The folder under .venvs/.
            requirements: The file in requirements/, without its ending.
            wheel: Install this wheel; without it, the checkout itself, editable.
        """
        self.folder = VENVS / name
        self.requirements = ROOT / "requirements" / (requirements + ".txt")
        self.wheel = wheel
        self.bin = self.folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = str(self.bin / "python")

    def variables(self, **more: str) -> Dict[str, str]:
        """The process's environment without what would let other packages in."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")
        }
        kept.update(
            VIRTUAL_ENV=str(self.folder),
            PATH=os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)]),
            PYTHONNOUSERSITE="1",
            PIP_USER="0",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
        )
        kept.update(more)
        return kept

    def stamp(self, python: str) -> str:
        """Changes whenever the environment has to be made anew."""
        digest = hashlib.sha256(repr((python, str(ROOT), look_at(python))).encode())
        files = [self.requirements, ROOT / "pyproject.toml"] + ([self.wheel] if self.wheel else [])
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def prepare(self) -> "Environment":
        """Make the environment where it is missing, half made or out of date."""
        python = choose_python()
        mark = self.folder / "ready"
        with one_at_a_time():
            stamp = self.stamp(python)
            if mark.is_file() and mark.read_text() == stamp and look_at(self.python):
                return self
            started = time.monotonic()
            pinned = self.requirements.read_text()
            count = len(re.findall(r"^[\w.-]+==", pinned, flags=re.MULTILINE))
            say(
                "Making {0} with {1}: {2} packages pinned in {3}; this is done once".format(
                    shown(self.folder), python, count, shown(self.requirements)
                )
            )
            if self.folder.exists():
                shutil.rmtree(str(self.folder))
            self.step([python, "-m", "venv", str(self.folder)])
            pip = [self.python, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
            patient = ["--retries", "6", "--timeout", "60"]
            # What came before a registry failed is in pip's cache: trying again goes on from there.
            self.step(pip + patient + ["--require-hashes", "-r", str(self.requirements)], tries=TRIES)
            if self.wheel:
                self.step(pip + [str(self.wheel)])
            else:
                self.step(pip + ["--no-build-isolation", "-e", str(ROOT)])
            mark.write_text(stamp)
            say("Made in {0:.0f} s".format(time.monotonic() - started))
        return self

    def step(self, command: Sequence[str], tries: int = 1) -> None:
        """Run one step of the making; what it printed is shown only if it failed."""
        for left in reversed(range(tries)):
            done = subprocess.run(
                command,
                cwd=str(ROOT),
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if done.returncode == 0:
                return
            sys.stderr.write(done.stdout.decode(errors="replace"))
            if left:
                say("That failed; once more in {0} s".format(TRY_AGAIN_AFTER))
                time.sleep(TRY_AGAIN_AFTER)
        fail(
            "`{0}` failed, for the reason above; nothing outside {1} was changed.".format(
                " ".join(command), shown(self.folder)
            )
        )

    def run(self, *arguments: str, cwd: Optional[Path] = None, variables: Optional[Dict[str, str]] = None) -> int:
        """Run this environment's Python; its exit code."""
        command = [self.python] + list(arguments)
        return subprocess.call(command, cwd=str(cwd or ROOT), env=self.variables(**(variables or {})))

    def become(self, *arguments: str) -> NoReturn:
        """Run this environment's Python in this process's place, so that signals reach it."""
        sys.stdout.flush()
        if os.name == "nt":
            sys.exit(self.run(*arguments))
        os.chdir(str(ROOT))
        os.execve(self.python, [self.python] + list(arguments), self.variables())


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process make environments; others wait for it."""
    VENVS.mkdir(exist_ok=True)
    with (VENVS / "lock").open("w") as lock:
        if os.name != "nt":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sdk(line: str) -> Environment:
    """The environment of one line of SurrealDB's SDK, or of the oldest, with the tools for tests."""
    return Environment(ENVIRONMENTS[line], ENVIRONMENTS[line]).prepare()


# ---------------------------------------------------------------------- commands


def demo(options: argparse.Namespace, rest: List[str]) -> int:
    """Run examples/demo.py."""
    Environment("demo", "demo").prepare().become("examples/demo.py", *rest)


def counts(report: Path) -> Dict[str, int]:
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


def spelled(total: Dict[str, int]) -> str:
    """Counts as a runner's closing line."""
    return "{passed} passed, {failed} failed, {skipped} skipped".format(**total)


def test(options: argparse.Namespace, rest: List[str]) -> int:
    """Run the tests in each line of the SDK; non-zero if any failed or none ran."""
    lines = SDKS if options.sdk == "both" else (options.sdk,)
    results = []  # type: List[Tuple[str, int, Dict[str, int]]]
    scratch = Path(tempfile.mkdtemp(prefix="surrealdb-celery-tests-"))
    try:
        results.extend(test_one(line, options, rest, scratch) for line in lines)
        if options.coverage:
            show_coverage(lines[0], scratch)
    finally:
        # A process that a test left behind may still write what it measured: that is no reason to fail.
        shutil.rmtree(str(scratch), ignore_errors=True)
    print()
    for line, code, total in results:
        print("   SDK {0}: {1}{2}".format(line, spelled(total), " (exit %d)" % code if code else ""))
    summed = {key: sum(total[key] for _, _, total in results) for key in results[0][2]}
    print(spelled(summed), flush=True)
    return next((code for _, code, _ in results if code), 0)


def test_one(line: str, options: argparse.Namespace, rest: List[str], scratch: Path) -> Tuple[str, int, Dict[str, int]]:
    """Run the tests with one line of the SDK.

    Returns:
        The line, pytest's exit code and the counts.
    """
    if options.wheel:
        name = ENVIRONMENTS[line]
        environment = Environment("wheel-" + name, name, built_wheel(scratch)).prepare()
        where = checkout_without_package(scratch)
        what = "the installed wheel"
        where_is = "import surrealdb_celery_backend as it, sys; sys.exit(not it.__file__.startswith(sys.prefix))"
        if environment.run("-c", where_is, cwd=where):
            fail("what would be tested is not the installed wheel.")
    else:
        environment, where, what = sdk(line), ROOT, "the checkout"
    say("Engines for the tests")
    # The copy of the checkout that a wheel is tested in uses the engines of the checkout.
    engines = {"SURREALDB_TEST_ENGINES": os.environ.get("SURREALDB_TEST_ENGINES") or str(ROOT / ".engines")}
    code = environment.run("-m", "tests.engines", "install", cwd=where, variables=engines)
    if code:
        return line, code, counts(Path())
    say("Tests of {0} with SDK {1}".format(what, line))
    report = scratch / "sdk{0}.xml".format(line)
    runner = ["-m", "pytest"]
    if options.coverage:
        runner = ["-m", "coverage", "run", *runner]
    if not rest:
        # All of them, side by side: each process has engines of its own, and much of the time is waiting.
        runner += ["-n", str((os.cpu_count() or 1) + 2), "--dist", "loadfile"]
    code = environment.run(
        *runner,
        "--junitxml={0}".format(report),
        *rest,
        cwd=where,
        variables=dict(engines, COVERAGE_FILE=str(scratch / "coverage.sdk{0}".format(line))),
    )
    return line, code, counts(report)


def show_coverage(line: str, scratch: Path) -> None:
    """Join what every process of every run measured, and show what was not reached."""
    environment = sdk(line)
    together = {"COVERAGE_FILE": str(scratch / "coverage")}
    say("Coverage, lines and branches, of all the runs together (tests/README.md says why)")
    if environment.run("-m", "coverage", "combine", "--quiet", str(scratch), variables=together) == 0:
        environment.run("-m", "coverage", "report", variables=together)


def built_wheel(folder: Path) -> Path:
    """Build the wheel into a folder; once per run."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        say("Building the wheel")
        code = sdk("2").run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder))
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


def lint(options: argparse.Namespace, rest: List[str]) -> int:
    """Ruff: rules, then format."""
    environment = sdk("2")
    say("ruff")
    rules = environment.run("-m", "ruff", "check", *rest)
    return environment.run("-m", "ruff", "format", "--check") or rules


def types(options: argparse.Namespace, rest: List[str]) -> int:
    """Mypy, strict, against the types of both lines of the SDK."""
    worst = 0
    for line in SDKS:
        environment = sdk(line)
        say("mypy --strict with SDK " + line)
        worst = environment.run("-m", "mypy", *rest) or worst
    return worst


def check(options: argparse.Namespace, rest: List[str]) -> int:
    """Everything that looks at the code without running it."""
    return lint(options, []) or types(options, [])


def build(options: argparse.Namespace, rest: List[str]) -> int:
    """Build the source archive and the wheel into dist/."""
    return sdk("2").run("-m", "build", "--no-isolation", *rest)


def pin(options: argparse.Namespace, rest: List[str]) -> int:
    """Make requirements/*.txt anew from pyproject.toml and requirements/*.in."""
    if not shutil.which("uv"):
        fail("pinning needs uv, which is not on PATH: `pip install uv` in an environment of your own.")
    everything = ["--extra=embedded", "--extra=msgpack", "--extra=yaml", "--group=dev"]
    for name, groups in (
        ("demo", ["--extra=embedded", "--group=build"]),
        ("sdk2", everything),
        ("sdk3", everything),
        ("oldest", everything),
    ):
        target = "requirements/" + name + ".txt"
        say(target)
        code = subprocess.call(
            ["uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.10"]
            + ["--generate-hashes", "--upgrade", "--no-header", "--no-annotate", "--no-config"]
            + ["pyproject.toml", "requirements/" + name + ".in", "--output-file=" + target]
            + groups
            + rest,
            cwd=str(ROOT),
        )
        if code:
            return code
    return 0


def python(options: argparse.Namespace, rest: List[str]) -> int:
    """Run Python, with everything installed: `run.py python -m celery --help`."""
    sdk("2" if options.sdk == "both" else options.sdk).become(*rest)


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="run.py",
        description="Sets up what this project needs under .venvs/, and runs it.",
        epilog="What a command does not know is handed on: `run.py demo --help`, `run.py test -k chord`.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for function, help_text in (
        (demo, "a real worker on a real engine, start to end"),
        (test, "the tests, on both lines of the SDK"),
        (lint, "ruff"),
        (types, "mypy, strict, on both lines of the SDK"),
        (check, "lint and types"),
        (build, "source archive and wheel into dist/"),
        (pin, "make requirements/*.txt anew"),
        (python, "a Python that has everything installed"),
    ):
        # The demo, pytest and the rest answer --help themselves.
        sub = commands.add_parser(function.__name__, help=help_text, add_help=function is test, allow_abbrev=False)
        sub.set_defaults(function=function)
        if function in (test, python):
            sub.add_argument("--sdk", choices=(*ENVIRONMENTS, "both"), default="both")
        if function is test:
            sub.add_argument("--wheel", action="store_true", help="test the built wheel, not the checkout")
            sub.add_argument("--no-coverage", dest="coverage", action="store_false", help="do not measure")
    options, rest = parser.parse_known_args()
    if not options.command:
        parser.print_help()
        return 2
    if getattr(options, "wheel", False):
        # What is measured is the checkout's own files.
        options.coverage = False
    try:
        code = options.function(options, rest)  # type: int
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
