"""A browser, and the console beside a real worker and beat."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.engines import RunningEngine, matrix
from tests.support.paths import CHECKOUT
from tests.support.processes import end
from tests.support.states import until

#: Where a Chromium may be: it is not fetched by the tests.
BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
#: A browser that asks nobody outside for anything.
ALONE = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
#: How long a program may take to get somewhere, in seconds.
MAX_WAIT = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --screenshots."""
    parser.addoption("--screenshots", type=Path, help="write the screenshots of the documentation into this folder")


# Not for the session: until playwright ends, its event loop counts as running in this thread, and no other can run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine; missing, it is a visible skip at home and a failure in CI."""
    missing = "playwright is not installed" if not _has_playwright() else ""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not missing and path is None:
        missing = "no Chromium on PATH: install the package chromium"
    if missing:
        if matrix.in_ci():
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ALONE)
        yield running
        running.close()


def _has_playwright() -> bool:
    import importlib.util

    return importlib.util.find_spec("playwright") is not None


@dataclass
class Shop:
    """A project that runs: its app, the address of its console, and how to start more of it."""

    app: Celery
    url: str
    start: Callable[..., subprocess.Popen[bytes]]
    log_of: Callable[[str], str]


@pytest.fixture(scope="module")
def shop(live_engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The project with a worker of two processes and a console that may act; it takes seconds to start."""
    tmp_path = tmp_path_factory.mktemp("shop")
    backend, broker = live_engine.database().backend_url, f"folder://{tmp_path / 'broker'}"
    environment = {
        **os.environ,
        "SHOP_BACKEND": backend,
        "SHOP_BROKER": broker,
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT / "examples"), str(CHECKOUT)]),
    }
    with contextlib.ExitStack() as stack:

        def log_of(name: str) -> str:
            return (tmp_path / f"{name}.log").read_text(errors="replace")

        def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
            output = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            command = [sys.executable, "-m", "celery", "-A", "tests.support.apps.shop", *arguments]
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
            stack.callback(end, process, MAX_WAIT)
            return process

        worker = start("worker", "worker", "--concurrency", "2", "--loglevel", "INFO")
        serving = start("console", "surrealdb", "console", "--port", "0", "--allow-actions", "--title", "shop")
        until(lambda: " ready." in log_of("worker") or worker.poll() is not None, "the worker is ready", MAX_WAIT)
        found = until(
            lambda: re.search(r"running on (http://\S+)", log_of("console")) or serving.poll() is not None,
            "the console listens",
            MAX_WAIT,
        )
        assert isinstance(found, re.Match), log_of("console")
        app = Celery("shop", broker=broker, backend=backend, set_as_current=False)
        sys.path.insert(0, str(CHECKOUT / "examples"))
        try:
            import folder_broker  # noqa: F401 - makes `folder:///path` a broker here, too
        finally:
            sys.path.pop(0)
        yield Shop(app, found[1], start, log_of)
        app.backend.close()


@pytest.fixture
def screenshot(request: pytest.FixtureRequest) -> Callable[[Any, str], None]:
    """Keep what a page shows, if asked to."""
    folder = request.config.getoption("--screenshots")

    def keep(page: Any, name: str) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(folder / f"{name}.png"))

    return keep
