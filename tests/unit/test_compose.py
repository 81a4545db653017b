"""The compose files of the examples: what they name exists, and Docker's client takes them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten
from celery.bin.base import CLIContext
from celery.bin.celery import celery as celery_command

from surrealdb_celery_backend.settings.declared import names as settings_names
from tests.support.paths import CHECKOUT, EXAMPLES

pytestmark = pytest.mark.unit

PROJECTS = sorted(path.parent.name for path in EXAMPLES.glob("*/compose.yaml"))
VARIANTS = ("compose.override.yaml", "compose.production.yaml")
#: The entry point of the image, which commands of health checks begin with.
ENTRYPOINT = ["python", "-m", "deployment.entrypoint"]


def read(path: Path) -> dict[str, Any]:
    """A compose file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A service with what another file says of it: variables and lists are added, all else replaced."""
    result = {**base, **more}
    for key in ("environment", "build"):
        if key in base and key in more:
            result[key] = {**base[key], **more[key]}
    for key in ("secrets", "volumes", "ports"):
        if key in base and key in more:
            result[key] = [*base[key], *more[key]]
    return result


def services(project: str, *files: str) -> dict[str, dict[str, Any]]:
    """The services of a project, with what they extend."""
    found: dict[str, dict[str, Any]] = {}
    for file in ("compose.yaml", *files):
        for name, service in read(EXAMPLES / project / file)["services"].items():
            extended = service.get("extends")
            if extended:
                base = read(EXAMPLES / project / extended["file"])["services"][extended["service"]]
                service = merged(base, service)  # noqa: PLW2901 - the same service, complete
            found[name] = merged(found.get(name, {}), service)
    return found


def complete() -> Iterator[Any]:
    """Each service of each variant of each project."""
    for project in PROJECTS:
        for variant in VARIANTS:
            for name, service in services(project, variant).items():
                yield pytest.param(project, service, id=f"{project}-{variant.split('.')[1]}-{name}")


def commands(service: dict[str, Any]) -> Iterator[list[str]]:
    """The commands of a service's own image: what it runs, and what looks whether it is well."""
    if "build" not in service:
        return
    yield service["command"]
    kind, *words = service.get("healthcheck", {}).get("test", ["NONE"])
    if kind == "CMD":
        yield words
    elif kind == "CMD-SHELL":
        yield shlex.split(words[0].replace("$$", "$"))


def check_celery(project: str, words: list[str]) -> None:
    """A `celery` command has options that there are, and an app that there is."""
    option, app, *rest = words
    assert option == "-A"
    assert (EXAMPLES / project / app / "__init__.py").is_file(), f"{project} has no package {app}"
    context = CLIContext(app=Celery(set_as_current=False), no_color=True, workdir=None)
    command: click.Command = celery_command
    name = ""
    while isinstance(command, click.Group):
        name, *rest = rest
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name!r}"
        command = found
    if name == "flower":
        options = pytest.importorskip("flower.options").options
        assert all(each.removeprefix("--").split("=")[0] in options for each in rest)
        return
    # Raises what the command line would print of an unknown option or a wrong value.
    command.make_context(name, list(rest), obj=context)


def check(project: str, words: list[str]) -> None:
    """What a command names is there."""
    if words[:3] == ENTRYPOINT:
        words = words[3:]
    program, *rest = words
    if program == "celery":
        check_celery(project, rest)
    elif program == "uvicorn":
        module, _, attribute = rest[0].partition(":")
        assert attribute
        assert (EXAMPLES / project / f"{module.replace('.', '/')}.py").is_file()
        click_command: click.Command = pytest.importorskip("uvicorn").main
        click_command.make_context(program, list(rest))
    elif program == "python":
        folder = EXAMPLES if rest[1:] and rest[1].startswith("deployment.") else EXAMPLES / project
        if rest[0] == "-c":
            compile(rest[1], "health check", "exec")
        else:
            named = f"{rest[1].replace('.', '/')}.py" if rest[0] == "-m" else rest[0]
            assert (folder / named).is_file(), f"there is no {named}"
    else:
        assert program in {"test", "sh"}, f"{program} is not looked at"


def test_there_are_compose_files() -> None:
    """Each project has one, with its two variants."""
    assert {"schedules", "template", "workflows"} <= set(PROJECTS)
    for project in PROJECTS:
        assert all((EXAMPLES / project / variant).is_file() for variant in VARIANTS)


@pytest.mark.parametrize(("project", "service"), list(complete()))
def test_what_a_service_names_exists(project: str, service: dict[str, Any]) -> None:
    """Commands parse, variables are settings, secrets are declared, volumes are, and images have versions."""
    for words in commands(service):
        check(project, words)
    whole = read(EXAMPLES / project / "compose.yaml")
    assert set(service.get("secrets", ())) <= set(whole["secrets"])
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        assert (EXAMPLES / project / source).exists() if source.startswith(".") else source in whole["volumes"]
    assert re.search(r":v?\d+\.\d+", service["image"]), service["image"]
    known = {f"CELERY_{name.upper()}" for name in dict(flatten(NAMESPACES))}
    known |= {f"CELERY_SURREALDB_{name.upper()}" for name in settings_names()}
    for variable, value in service.get("environment", {}).items():
        if str(value).startswith("/run/secrets/"):
            assert str(value).removeprefix("/run/secrets/") in service["secrets"], variable
        if variable.startswith("CELERY_"):
            assert variable.removesuffix("_FILE") in known, variable
    if service.get("restart") != "no":
        assert "healthcheck" in service


@pytest.mark.parametrize("project", PROJECTS)
def test_nothing_is_reached_from_elsewhere(project: str) -> None:
    """Ports are on loopback in every variant; a proxy with TLS stands in front of what others reach."""
    for variant in VARIANTS:
        ports = [port for service in services(project, variant).values() for port in service.get("ports", ())]
        assert ports
        assert all(str(port).startswith("127.0.0.1:") for port in ports)


@pytest.mark.skipif(not (CHECKOUT / ".dockerignore").exists(), reason="only in a whole checkout")
def test_the_image_copies_what_there_is() -> None:
    """Each COPY of the Dockerfile is of something that is there, and that .dockerignore lets through."""
    text = (EXAMPLES / "deployment/Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE):
        for project in PROJECTS:
            for source in line.replace("${EXAMPLE}", project).split():
                assert list(CHECKOUT.glob(source)), source
    allowed = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sources = {
        word.split("/")[0] for line in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE) for word in line.split()
    }
    assert {f"!{source}" for source in sources} <= set(allowed)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples elsewhere, with secrets, made as the page says."""
    folder = tmp_path_factory.mktemp("compose") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("secrets", "__pycache__"))
    made = subprocess.run([sys.executable, "make_secrets.py"], cwd=folder / "deployment", capture_output=True)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("project", PROJECTS)
def test_secrets_are_made(copied: Path, project: str) -> None:
    """Every file of a secret that a compose file names is made, and only its owner looks into the folder."""
    for secret in read(copied / project / "compose.yaml")["secrets"].values():
        assert (copied / project / secret["file"]).read_text().strip()
    assert (copied / "deployment/secrets").stat().st_mode & 0o077 == 0


def client() -> list[str] | None:
    """Docker's client with compose, or the older program of that name."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return None


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("project", PROJECTS)
def test_the_client_takes_them(copied: Path, project: str, variant: str) -> None:
    """`docker compose config` finds nothing wrong."""
    command = client()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is here")
    files = ["-f", "compose.yaml", "-f", variant]
    done = subprocess.run([*command, *files, "config", "--quiet"], cwd=copied / project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_secrets_become_variables(tmp_path: Path) -> None:
    """The entry point puts the text of each file of a secret into its variable, and runs the command."""
    secret = tmp_path / "password"
    secret.write_text("geheim\n")
    program = (
        "import os, sys; from deployment.entrypoint import with_secrets;"
        f"print(with_secrets(os.environ, {str(tmp_path)!r})['SHOP_PASSWORD'])"
    )
    environment = {**os.environ, "SHOP_PASSWORD_FILE": str(secret), "OTHER_FILE": "/nowhere"}
    read_it = [sys.executable, "-c", program]
    through = [sys.executable, "-m", "deployment.entrypoint", *read_it]
    done = subprocess.run(through, cwd=EXAMPLES, env=environment, capture_output=True, text=True)
    assert done.stdout == "geheim\n", done.stderr
