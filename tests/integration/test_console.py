"""The console's pages and answers, on real engines: what they show, to whom, and what they never do."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from celery.app.task import Context

pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from starlette.testclient import TestClient

from surrealdb_celery_backend import console
from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.console import Access, Credentials
from surrealdb_celery_backend.console.events import Hub
from tests.engines import Database, RunningEngine
from tests.support import history_data
from tests.support.json_schemas import mistakes
from tests.support.states import until

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]

SCRIPT, IMAGE = "<script>alert('name')</script>", "<img src=x onerror=alert('result')>"


@pytest.fixture
def app(fresh_database: Database) -> Iterator[Celery]:
    """An app with some results and an entry."""
    app = Celery("shop", broker="memory://", backend=fresh_database.backend_url, set_as_current=False)
    app.conf.update(result_extended=True, surrealdb_beat_check_tasks=False)
    store(app, "root", SCRIPT, IMAGE)
    store(app, "child", "shop.ship", {"total": 4}, parent="root")
    store(app, "running", "shop.pack", None, "STARTED", parent="root")
    try:
        raise ValueError(IMAGE)
    except ValueError as error:
        store(
            app, "bad/one?", "shop.pay", error, "FAILURE", parent="child", traceback="Traceback (most recent call last)"
        )
    with Schedules(app) as schedules:
        schedules.add(ScheduleEntry(SCRIPT, "shop.report", {"timedelta": 3600}))
    yield app
    app.backend.close()


def store(
    app: Celery,
    task_id: str,
    name: str,
    result: Any,
    state: str = "SUCCESS",
    parent: str | None = None,
    traceback: str | None = None,
) -> None:
    """Store a task as a worker does."""
    request = Context(
        id=task_id,
        task=name,
        args=[IMAGE],
        kwargs={"customer": "Ada"},
        root_id="root",
        parent_id=parent,
        hostname="celery@web1",
        delivery_info={"routing_key": "celery"},
        children=[],
    )
    app.backend.store_result(task_id, result, state, traceback=traceback, request=request)


def client_of(app: Celery, **options: Any) -> TestClient:
    """A browser without JavaScript."""
    return TestClient(console.app(app, **options), base_url="http://127.0.0.1", follow_redirects=False)


def form_token(client: TestClient) -> dict[str, str]:
    """What a form of the console carries."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/schedules/new").text)
    assert found
    return {"csrf": found[1]}


PAGES = ("/", "/tasks", "/task?id=root", f"/task?id={quote('bad/one?', safe='')}", "/schedules", "/groups", "/group?id=nothing",
         f"/schedules/edit?name={quote(SCRIPT, safe='')}", "/task?id=" + quote(SCRIPT, safe=""))  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_nothing_stored_becomes_html(app: Celery, path: str) -> None:
    """A task named like a script and a result that is HTML are text on every page."""
    with client_of(app) as client:
        answer = client.get(path)
    assert answer.status_code in {200, 404}
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/static/console.js", "/nope", "/api/tasks", "/health"])
def test_a_browser_may_load_nothing_else(app: Celery, path: str) -> None:
    """Every answer has a policy without `unsafe`, and may stand in no frame and no cache."""
    with client_of(app) as client:
        headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_pages_need_no_javascript(app: Celery) -> None:
    """List, filters, task, workflow and schedule are there as plain HTML, with links that lead on."""
    with client_of(app) as client:
        listing = client.get("/tasks", params={"state": "FAILURE", "name": "shop.*"}).text
        assert 'href="/task?id=bad%2Fone%3F"' in listing
        assert "shop.ship" not in listing
        task = client.get("/task", params={"id": "child"}).text
        assert "3 of 4" not in task
        assert "4 tasks" in task
        assert "<svg" in task
        assert "&#34;total&#34;: 4" in task
        failed = client.get("/task", params={"id": "bad/one?"}).text
        assert "ValueError" in failed
        assert "Traceback" in failed
        assert "next runs" in client.get("/").text


def test_pages_are_walked_by_their_links(app: Celery) -> None:
    """A page's link leads to the next older one, until all were shown once."""
    for number in range(7):
        store(app, f"more{number}", "shop.more", number)
    with client_of(app) as client:
        path, seen = "/tasks?name=shop.more&limit=3", []
        while path:
            text = client.get(path).text
            seen += re.findall(r'<tr data-id="(more\d)"', text)
            found = re.search(r'rel="next" href="([^"]+)"', text)
            path = found[1].replace("&amp;", "&") if found else ""
            if path and "limit" not in path:
                path += "&limit=3"
    assert seen == [f"more{number}" for number in reversed(range(7))]


def test_a_rare_filter_says_how_far_it_looked_and_goes_on(app: Celery) -> None:
    """A page ends after some 1,000 records and says so; its links lead on until what is searched for is found."""
    now = datetime.now(timezone.utc)
    records = [history_data.record(date_done=now - timedelta(minutes=number)) for number in range(1, 3000)]
    history_data.write(app, [*records[:-1], {**records[-1], "task_id": "slow", "runtime": 99.0}])
    with client_of(app) as client:
        path, looked_at = "/tasks?min_runtime=60", []
        while True:
            text = client.get(path).text
            if "/task?id=slow" in text:
                break
            (read,) = re.findall(r"([\d,]+) records were looked at", text)
            looked_at.append(int(read.replace(",", "")))
            (onward,) = re.findall(r'rel="next" href="([^"]+)"', text)
            path = onward.replace("&amp;", "&")
            # No index is of how long a task ran.
            assert "surrealdb_indexes" not in text
        assert looked_at
        assert max(looked_at) < 2000
        assert "surrealdb_indexes" in client.get("/tasks?name=nobody").text


def test_an_export_has_every_page(app: Celery) -> None:
    """CSV and JSON hold all that the list would show, and no cell is a formula."""
    store(app, "formula", "=cmd()", 1)
    with client_of(app) as client:
        rows = list(csv.DictReader(io.StringIO(client.get("/tasks/export.csv").text)))
        tasks = client.get("/tasks/export.json", params={"state": "FAILURE"}).json()
    assert {row["id"] for row in rows} == {"root", "child", "running", "bad/one?", "formula"}
    assert next(row for row in rows if row["id"] == "formula")["name"] == "'=cmd()"
    assert [(task["id"], task["error"]["type"]) for task in tasks] == [("bad/one?", "ValueError")]


@pytest.mark.parametrize("path", ["/tasks?since=soon", "/?span=1y", "/task", "/tasks?after=rubbish", "/tasks?limit=0"])
def test_a_wrong_address_says_what_is_wrong(app: Celery, path: str) -> None:
    """One sentence, a status that says whose mistake it is, and no traceback."""
    with client_of(app) as client:
        answer = client.get(path)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert "Traceback" not in answer.text


def test_questions_are_answered_as_json(app: Celery) -> None:
    """The described questions answer, and every path of the description exists."""
    with client_of(app) as client:
        described = client.get("/api/openapi.json").json()
        assert set(described["paths"]) >= {"/api/tasks", "/api/task", "/api/workflow", "/api/stats", "/api/schedules"}
        for path, operations in described["paths"].items():
            needs_id = any(each["required"] for each in operations["get"]["parameters"])
            answer = client.get(path, params={"id": "root"} if needs_id else {})
            assert answer.status_code in {200, 202}, answer.text
        found = client.get("/api/tasks", params={"state": "FAILURE"}).json()
        assert [task["id"] for task in found["tasks"]] == ["bad/one?"]
        task = client.get("/api/task", params={"id": "child"}).json()
        assert task["result"] == {"total": 4}
        nodes = client.get("/api/workflow", params={"id": "child"}).json()["tasks"]
        assert {node["id"] for node in nodes} == {"root", "child", "running", "bad/one?"}
        unknown = client.get("/api/task", params={"id": "nobody"})
        assert (unknown.status_code, unknown.json()["error"]) == (404, "ResultNotFound")


def test_every_answer_is_as_it_is_described(app: Celery) -> None:
    """All answers to all questions, with every kind of record, conform to the schemas; no schema is a bare object."""
    history_data.write(app, history_data.many(60))
    data = {
        "progress": {"current": 3, "total": 4, "message": "packing"},
        "stamps": '{"by": "ada"}',
        "eta": history_data.NOW,
    }
    attempts = [{"at": history_data.NOW, "error": {"type": "OSError", "message": "gone"}, "retries": 0, "worker": "w"}]
    history_data.write(app, [history_data.record(task_id="full", attempts=attempts, priority=3, **data)])
    app.backend.set_chord_size("group", 2)
    with Schedules(app) as schedules:
        schedules.add(
            ScheduleEntry(
                "full", "shop.report", {"minute": "5"}, args=(1,), max_runs=3, jitter=2.5, timezone="Asia/Tokyo"
            )
        )
    app.backend.connection.run_all("CREATE schedule SET name = 'broken', task = 5, args = 'none'")
    questions = [
        *(("/api/tasks", query, 200) for query in ({}, {"limit": "3"}, {"state": "FAILURE"}, {"text": "nowhere"})),
        *(("/api/task", {"id": each}, 200) for each in ("root", "running", "bad/one?", "full")),
        ("/api/workflow", {"id": "root"}, 200),
        *(("/api/stats", {"by": each, "span": "7d"}, 200) for each in ("name", "hour")),
        ("/api/chords", {}, 200),
        ("/api/schedules", {}, 200),
        ("/api/task", {"id": "nobody"}, 404),
        ("/api/task", {}, 400),
        ("/api/stats", {"by": "colour"}, 400),
    ]
    with client_of(app) as client:
        described = client.get("/api/openapi.json").json()
        assert {path for path, _, _ in questions} == set(described["paths"])
        for path, query, status in questions:
            responses = described["paths"][path]["get"]["responses"]

            def ask(path: str = path, query: dict[str, str] = query, responses: Any = responses) -> Any:
                answer = client.get(path, params=query)
                schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]
                assert list(mistakes(answer.json(), schema, described)) == [], (path, query)
                return answer if answer.status_code != 202 else None

            answer = until(ask, "the figures are counted")
            assert answer.status_code == status
        assert {each["name"] for each in client.get("/api/schedules").json()["schedules"]} == {SCRIPT, "full", "broken"}
        assert [each["size"] for each in client.get("/api/chords").json()["chords"]] == [2]
    assert [name for name, schema in described["components"]["schemas"].items() if not schema["properties"]] == []


def test_it_is_mounted_anywhere(app: Celery) -> None:
    """Under a path of another application every link stays below that path."""
    outer = Starlette(routes=[Mount("/ops/celery", console.app(app))])
    with TestClient(outer, base_url="http://127.0.0.1") as client:
        for path in ("/ops/celery/", "/ops/celery/tasks", "/ops/celery/task?id=child"):
            text = client.get(path).text
            links = re.findall(r'(?:href|src|action|data-events)="([^"#][^"]*)"', text)
            assert links
            assert [each for each in links if not each.startswith("/ops/celery/")] == []
        assert client.get("/ops/celery/static/console.css").status_code == 200
        assert client.get("/ops/celery/health").json() == {"status": "ok"}


def test_open_pages_share_one_live_query(app: Celery, live_engine: RunningEngine) -> None:
    """Fifty open pages hear of a change, and cost the database one LIVE query."""
    page = console.app(app)
    hub: Hub = page.state.hub

    def lives() -> Any:
        return app.backend.connection.run("INFO FOR TABLE task")["lives"]

    async def open_pages() -> list[str]:
        pages = [hub.follow() for _ in range(50)]
        try:
            for each in pages:
                assert (await anext(each)).startswith("retry:")
            for each in pages:
                assert (await anext(each)).startswith("event: following")
            listening = [asyncio.ensure_future(_first_event(each)) for each in pages]
            await asyncio.to_thread(until, lambda: app.backend.feed.live, "changes are notified", 60)
            app.backend.store_result("seen", 1, "SUCCESS")
            told = await asyncio.wait_for(asyncio.gather(*listening), 60)
            # One that was replaced ends a moment after its successor stands.
            await asyncio.to_thread(until, lambda: len(lives()) == 1, "one LIVE query")
            assert hub.pages == 50
            return told
        finally:
            for each in pages:
                await each.aclose()

    assert all('"id": "seen"' in each for each in asyncio.run(open_pages()))
    assert hub.pages == 0
    page.state.data.close()


async def _first_event(page: AsyncIterator[str]) -> str:
    async for text in page:
        if text.startswith("event: task"):
            return text
    return ""


# -- rights ------------------------------------------------------------------------------------------


def basic(username: str, password: str) -> dict[str, str]:
    """The header of a user."""
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("ada", "geheim"), 200),
        (basic("ada", "falsch"), 401),
        (basic("", ""), 401),
        ({"Authorization": "Basic ???"}, 401),
        ({"Authorization": "Bearer t0ken"}, 200),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer geheim"}, 401),
    ],
)
def test_credentials_open_the_door(app: Celery, headers: dict[str, str], status: int) -> None:
    """Everything but the health probe needs them; a wrong one is told nothing."""
    credentials = Credentials("ada", "geheim", token="t0ken")
    with client_of(app, credentials=credentials) as client:
        for path in ("/", "/api/tasks", "/static/console.js", "/events-not-there"):
            answer = client.get(path, headers=headers)
            assert (answer.status_code == 401) is (status == 401), path
            if status == 401:
                assert "WWW-Authenticate" in answer.headers
                assert "geheim" not in answer.text
        assert client.get("/health", headers=headers).status_code == 200


def test_the_application_decides_by_itself(app: Celery) -> None:
    """A function of the embedding application says who it is and what they may do."""

    async def authenticate(request: Request) -> tuple[str, Access] | None:
        user = request.headers.get("x-user")
        return None if user is None else (user, Access.ACT if user == "admin" else Access.NONE)

    with client_of(app, authenticate=authenticate) as client:
        assert client.get("/tasks").status_code == 401
        assert client.get("/tasks", headers={"x-user": "guest"}).status_code == 403
        assert "Add an entry" in client.get("/schedules", headers={"x-user": "admin"}).text


def test_reading_changes_nothing(app: Celery) -> None:
    """Without the right to act there are no buttons, and a form that is sent all the same is refused."""
    with client_of(app) as client:
        assert "<button>Retry" not in client.get("/task", params={"id": "child"}).text
        token = form_token(client)
        for path in ("/task/forget", "/schedules/remove", "/schedules/save"):
            assert client.post(path, data={**token, "id": "child", "name": SCRIPT}).status_code == 403
        assert client.get("/task", params={"id": "child"}).status_code == 200


@pytest.mark.parametrize("sent", [{}, {"csrf": "guessed"}, {"csrf": ""}])
def test_a_form_of_another_site_is_refused(app: Celery, sent: dict[str, str]) -> None:
    """Without the token of our own page, or with another origin, nothing happens."""
    with client_of(app, allow_actions=True) as client:
        token = form_token(client)
        assert client.post("/task/forget", data={"id": "child", **sent}).status_code == 403
        other = {"Origin": "http://evil.example"}
        assert client.post("/task/forget", data={"id": "child", **token}, headers=other).status_code == 403
        other = {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"}
        assert client.post("/task/forget", data={"id": "child", **token}, headers=other).status_code == 403
        assert client.get("/task", params={"id": "child"}).status_code == 200


def test_a_proxy_may_change_scheme_and_host(app: Celery) -> None:
    """Behind a proxy that ends TLS and names another host, a form of our own page is taken."""
    with client_of(app, allow_actions=True) as client:
        token = form_token(client)
        seen = {"Sec-Fetch-Site": "same-origin", "Origin": "https://ops.example"}
        assert client.post("/task/forget", data={"id": "child", **token}, headers=seen).status_code == 303
        assert client.get("/task", params={"id": "child"}).status_code == 404


def test_a_forgotten_result_leaves_the_overview(app: Celery) -> None:
    """The figures are counted anew without it; no restart is needed."""
    done = datetime.now(timezone.utc) - timedelta(minutes=5)
    history_data.write(app, [history_data.record(task_id=each, date_done=done, name="shop.old") for each in ("a", "b")])
    with client_of(app, allow_actions=True) as client:

        def ended() -> str | None:
            row = re.search(r'shop\.old</a></td>\s*<td class="number">(\d+)<', client.get("/").text)
            return row and row[1]

        until(lambda: ended() == "2", "both are counted")
        client.post("/task/forget", data={**form_token(client), "id": "a"})
        until(lambda: ended() == "1", "one is left")


def test_actions_are_done_and_written_down(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """Forgetting, pausing, resuming, adding and removing do what they say; the log says who did it."""
    caplog.set_level(logging.INFO, logger="surrealdb_celery_backend.console")
    credentials = Credentials("ada", "geheim")
    with client_of(app, credentials=credentials, allow_actions=True) as client:
        client.headers.update(basic("ada", "geheim"))
        token = form_token(client)
        answer = client.post("/task/forget", data={**token, "id": "child"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/tasks?done=forgotten")
        assert client.get("/task", params={"id": "child"}).status_code == 404
        for action in ("pause", "resume"):
            assert client.post(f"/schedules/{action}", data={**token, "name": SCRIPT}).status_code == 303
        entry = {**token, "name": "poll", "task": "shop.poll", "schedule": '{"timedelta": 60}', "active": "on"}
        assert client.post("/schedules/save", data=entry).status_code == 303
        changed = {**entry, "original": "poll", "schedule": '{"timedelta": 5}', "max_runs": "3"}
        assert client.post("/schedules/save", data=changed).status_code == 303
        with Schedules(app) as schedules:
            poll = schedules.get("poll")
            assert (poll.max_runs, poll.active) == (3, True)
        wrong = client.post("/schedules/save", data={**entry, "name": "x", "schedule": "{nonsense"})
        assert wrong.status_code == 400
        assert "schedule is no JSON" in wrong.text
        assert 'value="{nonsense"' in wrong.text
        assert client.post("/schedules/remove", data={**token, "name": "poll"}).status_code == 303
        assert client.post("/schedules/remove", data={**token, "name": "poll"}).status_code == 404
    written = [record.getMessage() for record in caplog.records]
    assert "console: ada forget 'child'" in written
    assert f"console: ada pause schedule {SCRIPT!a}" in written


def test_a_task_is_sent_again(app: Celery) -> None:
    """Retrying sends a new task with the same arguments; one that cannot be sent says why."""
    with client_of(app, allow_actions=True) as client:
        token = form_token(client)
        answer = client.post("/task/retry", data={**token, "id": "bad/one?"})
        assert answer.status_code == 303, answer.text
        with app.connection_for_read() as connection:
            message = connection.default_channel.basic_get("celery", no_ack=True)
        assert message.headers["task"] == "shop.pay"
        assert json.loads(message.body)[0] == [IMAGE]
        app.backend.store_result("nameless", 1, "SUCCESS")
        refused = client.post("/task/retry", data={**token, "id": "nameless"})
        assert refused.status_code == 400
        assert "was not sent again" in refused.text


def test_no_secret_is_on_a_page(app: Celery, fresh_database: Database) -> None:
    """Neither pages nor errors show the database's password."""
    away = Celery("away", broker="memory://", backend="surrealdb://root:geheim@127.0.0.1:1/celery/results")
    with client_of(away) as client:
        for path in ("/", "/tasks", "/api/tasks"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "geheim" not in answer.text
        assert client.get("/health").status_code == 503
