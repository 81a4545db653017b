"""The Django project of examples/ runs as its page says: pages, worker, beat, admin and the console beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.engines import RunningEngine
from tests.support.processes import MAX_WAIT
from tests.support.programs import Programs, programs, variables
from tests.support.states import until

pytestmark = [pytest.mark.integration, pytest.mark.program, pytest.mark.worker, pytest.mark.timeout(600)]

pytest.importorskip("django")

ADMIN = "/admin/surrealdb_celery"


def form(client: httpx.Client, path: str, /, follow: str = "", **fields: str) -> httpx.Response:
    """Send a form of a page, with the token that the page carries."""
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', client.get(path).text)
    assert token
    data = {"csrfmiddlewaretoken": token[1], **fields}
    return client.post(follow or path, data=data, headers={"Referer": str(client.base_url)}, follow_redirects=True)


def order(client: httpx.Client, product: str, quantity: int) -> dict[str, str]:
    """Order something; what became of the task."""
    page = form(client, "/", product=product, quantity=str(quantity)).text
    task_id = re.search(rf"{quantity} {product}: .*?/tasks/([\w-]+)", page, re.DOTALL)
    assert task_id, page
    answer = client.get(f"/tasks/{task_id[1]}", params={"wait": "60"})
    while answer.status_code == 202:
        answer = client.get(f"/tasks/{task_id[1]}", params={"wait": "60"})
    return {"id": task_id[1], **answer.json()}


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A browser without JavaScript."""
    with httpx.Client(timeout=MAX_WAIT) as client:
        yield client


def signed_in(running: Programs, client: httpx.Client) -> None:
    """Make an administrator, and sign in."""
    running.environment["DJANGO_SUPERUSER_PASSWORD"] = "ada"
    running.python("manage.py", "createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.com")
    page = form(client, "/admin/login/", username="ada", password="ada", next="/admin/")
    assert "Log out" in page.text


def test_the_project_runs(live_engine: RunningEngine, tmp_path: Path, client: httpx.Client) -> None:
    """An order is shipped after its commit; results and schedules are in the admin; beat obeys it; the console is live."""
    database = live_engine.database()
    more = {"DJANGO_DATABASE": str(tmp_path / "shop.sqlite3")}
    with programs("django_shop", database, tmp_path, "web", "worker", "beat", **more) as running:
        client.base_url = httpx.URL(running.url)
        shipped, refused = order(client, "book", 2), order(client, "castle", 500)
        assert (shipped["state"], shipped["result"]) == ("SUCCESS", "shipped 2 book")
        assert (refused["state"], refused["error"]) == ("FAILURE", "OutOfStockError: there are no 500 of castle")
        assert "book: shipped" in client.get("/").text

        # Strangers see neither the admin's pages nor the console.
        assert client.get(f"{ADMIN}/task/").headers["location"].startswith("/admin/login/")
        assert client.get("/console/").status_code == 401
        signed_in(running, client)
        results = client.get(f"{ADMIN}/task/", params={"state": "FAILURE"}).text
        assert refused["id"] in results
        assert shipped["id"] not in results
        assert "castle" in client.get(f"{ADMIN}/task/{refused['id']}/change/").text

        # Beat wrote the entries of the settings into the database; it runs one because the admin asks for it.
        until(lambda: "report of the day" in client.get(f"{ADMIN}/schedule/").text, "beat has deployed", MAX_WAIT)
        asked = form(client, f"{ADMIN}/schedule/", action="run", _selected_action="report of the day")
        assert "The active beat was asked to run now: report of the day." in asked.text
        query = "SELECT VALUE result FROM task WHERE name = 'orders.tasks.report' AND status = 'SUCCESS'"
        until(lambda: database.query(query)[0], "beat and the worker ran the entry", MAX_WAIT)

        the_console_is_mounted(client)
        assert re.search(r"shipped 3 books\n", running.python("send.py"))
        assert re.search(r"^ok +connection", running.python("manage.py", "surrealdb_check"), re.MULTILINE)


def the_console_is_mounted(client: httpx.Client) -> None:
    """Its links stay below its prefix, its actions are a user's, and a task appears while a page is open."""
    for path in ("/console/", "/console/tasks", "/console/schedules"):
        page = client.get(path)
        assert page.status_code == 200
        links = [html.unescape(each) for each in re.findall(r'(?:href|src|action)="([^"]+)"', page.text)]
        assert links
        assert [each for each in links if not each.startswith(("/console/", "#"))] == []
        for each in set(links):
            if "/static/" in each:
                assert client.get(each).status_code == 200, each
    assert "ada" in page.text
    assert "Pause" in page.text
    with client.stream("GET", "/console/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        lines = events.iter_lines()
        assert next(lines) == "retry: 2000"
        assert next(line for line in lines if line.startswith("event: ")) == "event: following"
        with httpx.Client(base_url=client.base_url, timeout=MAX_WAIT) as other:
            shipped = order(other, "pen", 4)
        seen = next(line for line in lines if shipped["id"] in line)
        assert seen.startswith("data: ")


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_it_runs_on_a_real_broker(
    live_engine: RunningEngine, tmp_path: Path, client: httpx.Client, broker: str, request: pytest.FixtureRequest
) -> None:
    """`CELERY_BROKER_URL` names a server of one's own."""
    url = request.getfixturevalue(broker)
    more = {"DJANGO_DATABASE": str(tmp_path / "shop.sqlite3")}
    with programs("django_shop", live_engine.database(), tmp_path, "web", "worker", broker=url, **more) as running:
        client.base_url = httpx.URL(running.url)
        assert order(client, "book", 2)["result"] == "shipped 2 book"


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """`python manage.py test` needs no server."""
    nobody = "surrealdb://root:root@127.0.0.1:1/a/b"
    running = Programs("django_shop", variables("django_shop", nobody, tmp_path), tmp_path / "log")
    assert re.search(r"Ran 4 tests.*\n\nOK", running.python("manage.py", "test"))
