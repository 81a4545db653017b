"""The console within other applications, in a real browser: links, forms, live updates and files stay below its path."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.engines import RunningEngine
from tests.support.states import until

from .conftest import MAX_WAIT

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.browser, pytest.mark.timeout(400)]

PREFIX = "/ops/celery"
HERE = Path(__file__).parent


class Proxy(BaseHTTPRequestHandler):
    """A proxy that takes the prefix away and hands each answer on as it comes."""

    protocol_version = "HTTP/1.0"
    upstream = 0

    def do_GET(self) -> None:
        """Hand a request on."""
        length = int(self.headers.get("content-length") or 0)
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=MAX_WAIT)
        if not self.path.startswith(PREFIX):
            self.send_error(404)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        upstream.request(self.command, self.path.removeprefix(PREFIX) or "/", self.rfile.read(length), headers)
        answer = upstream.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        self.end_headers()
        try:
            while chunk := answer.read1(65536):
                self.wfile.write(chunk)
                self.wfile.flush()
        except OSError:
            pass  # the page was left
        finally:
            upstream.close()

    do_POST = do_GET  # noqa: N815 - the name that the base class looks for

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def app(live_engine: RunningEngine) -> Iterator[Celery]:
    """The app whose results are shown."""
    app = Celery("mounted", broker="memory://", backend=live_engine.database().backend_url, set_as_current=False)
    yield app
    app.backend.close()


@pytest.fixture(scope="module", params=["starlette_app", "fastapi_app", "django_app", "proxied_app"])
def url(request: pytest.FixtureRequest, app: Celery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the console within an application that uvicorn serves."""
    log = tmp_path_factory.mktemp("mounted") / "uvicorn.log"
    command = [sys.executable, "-m", "uvicorn", f"mounted:{request.param}", "--port", "0", "--app-dir", str(HERE), "--factory",
               "--timeout-graceful-shutdown", "2"]  # fmt: skip
    proxied = request.param == "proxied_app"
    if proxied:
        command += ["--root-path", PREFIX]
    environment = {**os.environ, "MOUNTED_BACKEND": app.backend.url or "", "PYTHONPATH": str(HERE.parents[1])}
    with log.open("wb") as output:
        serving = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            found = until(
                lambda: re.search(r"running on http://[^:]+:(\d+)", log.read_text()) or serving.poll() is not None,
                "the application listens",
                MAX_WAIT,
            )
            assert isinstance(found, re.Match), log.read_text()
            if not proxied:
                yield f"http://127.0.0.1:{found[1]}{PREFIX}"
                return
            handler = type("Handler", (Proxy,), {"upstream": int(found[1])})
            with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
                proxy.daemon_threads = True
                threading.Thread(target=proxy.serve_forever, daemon=True).start()
                yield f"http://127.0.0.1:{proxy.server_port}{PREFIX}"
                proxy.shutdown()
        finally:
            serving.terminate()
            serving.wait(MAX_WAIT)


def test_a_mounted_console_works(url: str, app: Celery, browser: Any) -> None:
    """Files load, links lead on, a change appears by itself, and a form does what it says, all below the path."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(MAX_WAIT * 1000)
    page = context.new_page()
    outside: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(f"{url}/") else outside.append(request.url))
    try:
        page.goto(f"{url}/")
        assert page.evaluate("getComputedStyle(document.querySelector('header')).display") == "flex"
        page.get_by_role("link", name="Tasks", exact=True).click()
        page.get_by_text("This list is live.").wait_for()
        name = f"mounted {url}"
        app.backend.store_result(name, {"answer": 42}, "SUCCESS")
        page.get_by_role("link", name=name).click()
        page.get_by_text('"answer": 42').wait_for()
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Forget").click()
        page.get_by_text("The result was deleted.").wait_for()
        assert page.get_by_role("link", name=name).count() == 0
        page.get_by_role("link", name="Schedules").click()
        page.get_by_role("link", name="Add an entry").click()
        page.get_by_label("Name", exact=True).fill("never")
        page.get_by_label("Task", exact=True).fill("shop.report")
        page.get_by_label("Runs", exact=True).fill("every now and then, or so")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("alert").get_by_text("schedule is 'every now and then, or so'").wait_for()
        assert outside == []
    finally:
        context.close()


@pytest.mark.parametrize("url", ["starlette_app"], indirect=True)
def test_many_tabs_are_live(url: str, app: Celery, browser: Any) -> None:
    """More tabs than a browser opens connections to one server are loaded and live: those that nobody sees hold none."""
    context = browser.new_context()
    context.set_default_timeout(MAX_WAIT * 1000)
    try:
        for _ in range(8):
            page = context.new_page()
            page.goto(f"{url}/tasks")
            page.get_by_text("This list is live.").wait_for()
            # Headless, every tab counts as seen: the page is told otherwise, as a browser would tell it.
            page.evaluate(
                "Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true});"
                "document.dispatchEvent(new Event('visibilitychange'))"
            )
        app.backend.store_result(f"seen again {url}", 1, "SUCCESS")
        page.evaluate(
            "Object.defineProperty(document, 'visibilityState', {value: 'visible', configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.get_by_role("link", name=f"seen again {url}").wait_for()
    finally:
        context.close()
