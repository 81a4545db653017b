"""Results and schedules in Django's admin: what it shows to whom, and what it does."""

# ruff: noqa: E402 - Django's models can be imported when it is configured.

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

pytest.importorskip("django")

from tests.engines import RunningEngine
from tests.support import django_site

django_site.set_up()

from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client, override_settings

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.console import Access
from surrealdb_celery_backend.contrib.django import apps
from surrealdb_celery_backend.contrib.django.sign_in import access_of
from surrealdb_celery_backend.results import Results

pytestmark = [pytest.mark.integration, pytest.mark.one_sdk]

SCRIPT, IMAGE = "<script>alert('name')</script>", "<img src=x onerror=alert('result')>"
TASKS, SCHEDULES = "/admin/surrealdb_celery/task/", "/admin/surrealdb_celery/schedule/"


def store(app: Celery, task_id: str, name: str, result: Any, state: str = "SUCCESS", **request: Any) -> None:
    """Store a result as a worker does."""
    traceback, children = request.pop("traceback", None), request.pop("children", [])
    given = {
        "args": [IMAGE],
        "kwargs": {"customer": "Ada"},
        "hostname": "celery@web1",
        "delivery_info": {"routing_key": "celery"},
        "root_id": "root",
        **request,
    }
    context = Context(id=task_id, task=name, **given)
    context.children.extend(children)
    app.backend.store_result(task_id, result, state, traceback=traceback, request=context)


@pytest.fixture
def app(live_engine: RunningEngine) -> Iterator[Celery]:
    """A project's app with some results and an entry. Statements are tested on every engine elsewhere: one is enough."""
    app = Celery("shop", broker="memory://", backend=live_engine.database().backend_url, set_as_current=False)
    # A chord's lease that is not above the time limit of a request: the check advises against it.
    app.conf.update(surrealdb_timeout=60, surrealdb_chord_lease=30)
    app.conf.update(result_extended=True, surrealdb_beat_check_tasks=False)
    store(app, "root", SCRIPT, IMAGE)
    store(app, "child", "shop.ship", {"total": 4}, parent_id="root")
    store(app, "running", "shop.pack", None, "STARTED", parent_id="root", hostname="celery@web2")
    error = ValueError(IMAGE)
    store(app, "bad/one?", "shop.pay", error, "FAILURE", parent_id="child", traceback="Traceback: of the card")
    with Schedules(app) as schedules:
        schedules.add(ScheduleEntry(SCRIPT, "shop.report", {"timedelta": 3600}))
    with override_settings(SURREALDB_CELERY_APP=app):
        yield app
        apps.schedules().close()
    app.backend.close()


Visitor = Callable[..., Client]


@pytest.fixture
def visitor() -> Iterator[Visitor]:
    """Make the browser of a member of the staff with some permissions, or of one who may do everything."""

    def make(*permissions: str, checks: bool = False) -> Client:
        user = User(username="ada", is_staff=True, is_superuser=not permissions)
        user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client(enforce_csrf_checks=checks)
        client.force_login(user)
        return client

    yield make
    User.objects.all().delete()


def page(client: Client, path: str, *, status: int = 200, **query: Any) -> str:
    """What a page shows."""
    answer = client.get(path, query)
    assert answer.status_code == status, answer.content.decode()
    return str(answer.content.decode())


def listed(text: str) -> list[str]:
    """The ids that a list of results has rows for."""
    return [html.unescape(each) for each in re.findall(r'name="_selected_action" value="([^"]*)"', text)]


def act(client: Client, path: str, action: str, *ids: str, **more: str) -> str:
    """Do something about records, with the question answered; the page that comes then."""
    data = {"action": action, "_selected_action": list(ids), "sure": "yes", **more}
    answer = client.post(path, data, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


# -- what it shows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/admin/",
        TASKS,
        f"{TASKS}root/change/",
        f"{TASKS}{quote('bad/one?')}/change/",
        f"{TASKS}root/history/",
        f"{TASKS}root/delete/",
        SCHEDULES,
        f"{SCHEDULES}{quote(SCRIPT)}/change/",
        f"{SCHEDULES}{quote(SCRIPT)}/history/",
        f"{SCHEDULES}{quote(SCRIPT)}/delete/",
        f"{SCHEDULES}add/",
    ],
)
def test_nothing_stored_becomes_html(app: Celery, visitor: Visitor, path: str) -> None:
    """A task, a result and an entry whose names are HTML are shown as text on every page."""
    text = page(visitor(), path)
    assert SCRIPT not in text
    assert IMAGE not in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["running", "bad/one?", "child", "root"]),
        ({"state": "FAILURE"}, ["bad/one?"]),
        ({"name": "shop.*"}, ["running", "bad/one?", "child"]),
        ({"worker": "celery@web2"}, ["running"]),
        ({"queue": "none"}, []),
        ({"since": "1h", "state": "SUCCESS"}, ["child", "root"]),
        ({"q": "onerror"}, ["bad/one?"]),
        ({"q": "THE CARD", "within": "text"}, ["bad/one?"]),
        ({"q": "onerror", "within": "argument", "name": "shop.ship"}, ["child"]),
        ({"q": "bad", "within": "id"}, ["bad/one?"]),
    ],
)
def test_results_are_found(app: Celery, visitor: Visitor, query: dict[str, Any], found: list[str]) -> None:
    """Filters and searches show the results that they are for."""
    assert listed(page(visitor(), TASKS, **query)) == found


def test_pages_follow_the_order(app: Celery, visitor: Visitor) -> None:
    """Each result is on one page, whatever comes in between; the first page is a link away."""
    for number in range(120):
        store(app, f"more{number:03}", "shop.more", number, root_id=f"more{number:03}")
    client = visitor()
    path, seen = f"{TASKS}?name=shop.more", []
    while path:
        text = page(client, path)
        seen += listed(text)
        older = re.search(r'<a href="(\?[^"]+)" rel="next">', text)
        path = TASKS + html.unescape(older[1]) if older else ""
        store(app, f"new{len(seen)}", "shop.more", 0)
    assert seen == [f"more{number:03}" for number in reversed(range(120))]
    assert listed(page(client, TASKS, name="shop.more"))[0].startswith("new")


def test_a_result_is_shown_with_its_workflow(app: Celery, visitor: Visitor) -> None:
    """The error, its traceback, the arguments, the worker and all tasks of the workflow stand on its page."""
    text = page(visitor(), f"{TASKS}{quote('bad/one?')}/change/")
    for expected in ("Traceback: of the card", "ValueError: &lt;img", "Ada", "celery@web1", "4 tasks"):
        assert expected in text
    links = set(re.findall(rf'href="{TASKS}([^"/]+)/change/"', text))
    assert links >= {"root", "child", "running", quote("bad/one?")}


def test_a_task_of_a_workflow_that_is_not_stored_is_shown(app: Celery, visitor: Visitor) -> None:
    """A task that was sent and has not run yet has its place in the workflow."""
    store(app, "start", "shop.order", 1, root_id="start", children=[app.AsyncResult("later")])
    text = page(visitor(), f"{TASKS}start/change/")
    assert f'href="{TASKS}later/change/"' in text
    assert "2 tasks" in text


def test_attempts_are_shown(app: Celery, visitor: Visitor) -> None:
    """A task that was retried shows why."""
    store(app, "again", "shop.fetch", ConnectionError("refused once"), "RETRY", retries=0)
    store(app, "again", "shop.fetch", 3, retries=1)
    text = page(visitor(), f"{TASKS}again/change/")
    assert "Attempts" in text
    assert "ConnectionError: refused once" in text


def test_an_unknown_result_leads_to_the_list(app: Celery, visitor: Visitor) -> None:
    """An address of a result that is gone says so on the list."""
    answer = visitor().get(f"{TASKS}gone/change/", follow=True)
    assert answer.redirect_chain == [(TASKS, 302)]
    assert "Nothing is stored of task" in answer.content.decode()


def test_a_database_that_is_away_is_one_sentence(visitor: Visitor, dead_port: int) -> None:
    """The page says what is wrong, with status 503 and without the password."""
    app = Celery("away", backend=f"surrealdb://root:geheim@127.0.0.1:{dead_port}/a/b", set_as_current=False)
    app.conf.update(surrealdb_max_retries=0, surrealdb_timeout=60)
    with override_settings(SURREALDB_CELERY_APP=app):
        text = page(visitor(), TASKS, status=503)
    assert "That did not work" in text
    assert "geheim" not in text


# -- to whom -------------------------------------------------------------------------------------------------


def test_strangers_are_sent_to_the_sign_in(app: Celery) -> None:
    """Nobody sees anything without having signed in."""
    for path in (TASKS, f"{TASKS}root/change/", SCHEDULES, f"{SCHEDULES}add/"):
        assert Client().get(path).headers["location"].startswith("/admin/login/")


def test_permissions_say_what_is_seen_and_done(app: Celery, visitor: Visitor) -> None:
    """With the permission to look, nothing can be done; without it nothing is shown."""
    client = visitor("view_task")
    text = page(client, TASKS)
    assert "root" in text
    assert '<select name="action">' not in text
    for action in ("retry", "revoke", "forget"):
        data = {"action": action, "_selected_action": ["root"], "sure": "yes"}
        assert client.post(TASKS, data).status_code == 403
    for path in (SCHEDULES, f"{SCHEDULES}add/", f"{TASKS}add/", f"{TASKS}root/delete/"):
        assert client.get(path).status_code == 403
    with Results(app) as results:
        assert results.get("root").state == "SUCCESS"


def test_an_entry_that_may_only_be_seen_cannot_be_changed(app: Celery, visitor: Visitor) -> None:
    """Who may look at schedules sees a form that cannot be sent."""
    client = visitor("view_schedule")
    text = page(client, f"{SCHEDULES}{quote(SCRIPT)}/change/")
    assert 'value="Save"' not in text
    assert client.post(f"{SCHEDULES}{quote(SCRIPT)}/change/", {"task": "x"}).status_code == 403
    for action in ("pause", "run", "remove"):
        assert client.post(SCHEDULES, {"action": action, "_selected_action": [SCRIPT]}).status_code == 403


LOOKS, ACTS = ("view_task", "view_schedule"), ("retry_task", "revoke_task", "delete_task", "add_schedule",
                                               "change_schedule", "delete_schedule")  # fmt: skip


@pytest.mark.parametrize(
    ("permissions", "access"),
    [(LOOKS, Access.READ), ((*LOOKS, *ACTS), Access.ACT), ((*LOOKS, *ACTS[1:]), Access.READ), (ACTS, Access.NONE)],
)
def test_the_console_knows_djangos_users(visitor: Visitor, permissions: tuple[str, ...], access: Access) -> None:
    """Who may look at all may look at the console, who may do all may act there; strangers are nobody."""
    key = visitor(*permissions).cookies["sessionid"].value
    assert access_of(key) == ("ada", access)
    User.objects.update(is_staff=False)
    assert access_of(key) == ("ada", Access.NONE)
    User.objects.update(is_active=False)
    assert access_of(key) is None
    assert access_of("no such session") is None
    assert access_of(None) is None


def test_a_form_of_another_site_does_nothing(app: Celery, visitor: Visitor) -> None:
    """A request without the token of the page is refused."""
    client = visitor(checks=True)
    data = {"action": "forget", "_selected_action": ["root"], "sure": "yes"}
    assert client.post(TASKS, data).status_code == 403
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page(client, TASKS))
    assert token
    assert client.post(TASKS, data | {"csrfmiddlewaretoken": token[1]}).status_code == 302
    assert listed(page(client, TASKS, q="root", within="id")) == []


# -- what it does --------------------------------------------------------------------------------------------


def test_an_action_is_asked_about_first(app: Celery, visitor: Visitor) -> None:
    """Nothing is done before the question is answered; what would be left out is said."""
    client = visitor()
    answer = client.post(TASKS, {"action": "retry", "_selected_action": ["child", "running"]})
    text = answer.content.decode()
    assert "Send these tasks again?" in text
    assert "is left out: it has not ended, it is STARTED" in text
    with Results(app) as results:
        assert not results.find(retry_of="child").tasks


def test_tasks_are_sent_again(app: Celery, visitor: Visitor) -> None:
    """The message has the arguments of the first one; the log names who did it."""
    text = act(visitor(), TASKS, "retry", "child", "running")
    assert "Sent again: 1." in text
    assert "Not sent again: running: it has not ended" in text
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get("celery", no_ack=True)
    assert message.headers["task"] == "shop.ship"
    assert message.headers["retry_of"] == "child"
    entry = LogEntry.objects.get(object_id="child")
    assert (entry.user.username, entry.change_message) == ("ada", f"Sent again as {message.headers['id']}.")


def test_tasks_are_revoked(app: Celery, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers are asked, and to end those that run where that was ticked."""
    asked: list[Any] = []
    monkeypatch.setattr(app.control, "revoke", lambda ids, **how: asked.append((ids, how["terminate"])))
    client = visitor()
    act(client, TASKS, "revoke", "running")
    act(client, TASKS, "revoke", "running", terminate="yes")
    assert asked == [(["running"], False), (["running"], True)]


def test_results_are_deleted(app: Celery, visitor: Visitor) -> None:
    """A result that is forgotten is gone, the others stay, and the list keeps its filters."""
    client = visitor()
    data = {"action": "forget", "_selected_action": ["bad/one?"], "sure": "yes"}
    answer = client.post(f"{TASKS}?name=shop.*", data)
    assert answer.headers["location"] == f"{TASKS}?name=shop.%2A"
    assert listed(page(client, TASKS, name="shop.*")) == ["running", "child"]
    assert LogEntry.objects.get(object_id="bad/one?").is_deletion()


def form_of(text: str) -> dict[str, str]:
    """The fields of a page's form, as a browser would send them."""
    fields: dict[str, str] = {}
    form = text.partition('id="schedule_form"')[2].partition("</form>")[0]
    for tag in re.findall(r"<input [^>]*>", form):
        name, value = re.search(r'name="(\w+)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and ('type="checkbox"' not in tag or " checked" in tag):
            fields[name[1]] = html.unescape(value[1]) if value else "on" if 'type="checkbox"' in tag else ""
    for name, value in re.findall(r'<textarea[^>]*name="(\w+)"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL):
        fields[name] = html.unescape(value)
    return {name: value for name, value in fields.items() if name != "csrfmiddlewaretoken"}


NEW = {"name": "report", "task": "shop.report", "schedule": '{"crontab": "30 7 * * 1"}', "args": '["eu", 1]',
       "kwargs": "{}", "options": '{"queue": "slow"}', "active": "on", "start_time": "2026-12-01 08:00:00",
       "max_runs": "3", "description": IMAGE}  # fmt: skip


def test_an_entry_is_added_changed_paused_run_and_removed(app: Celery, visitor: Visitor) -> None:
    """The whole life of an entry in the admin, each step in the database."""
    client, change = visitor(), f"{SCHEDULES}report/change/"
    assert client.post(f"{SCHEDULES}add/", NEW).headers["location"] == SCHEDULES
    with Schedules(app) as schedules:
        entry = schedules.get("report")
        assert (entry.task, list(entry.args), entry.options["queue"], entry.max_runs) == (
            "shop.report",
            ["eu", 1],
            "slow",
            3,
        )
        assert dict(entry.schedule) == {"minute": "30", "hour": "7", "day_of_week": "1"}
        # A time of the form is one of Django's zone.
        assert entry.start_time
        assert entry.start_time == datetime(2026, 12, 1, 7, tzinfo=timezone.utc)
        assert entry.changed_by == "ada (Django)"

        fields = form_of(page(client, change))
        assert fields["task"] == "shop.report"
        client.post(change, fields | {"schedule": '{"timedelta": "90s"}', "max_runs": ""})
        changed = schedules.get("report")
        assert (dict(changed.schedule), changed.max_runs, list(changed.args)) == ({"timedelta": 90}, None, ["eu", 1])
        assert changed.start_time == entry.start_time
        assert LogEntry.objects.filter(object_id="report").latest("id").change_message == "Changed schedule, max_runs."

        assert "Paused: report." in act(client, SCHEDULES, "pause", "report")
        assert not schedules.get("report").active
        act(client, SCHEDULES, "resume", "report")
        assert schedules.get("report").active
        assert "No beat is active" in act(client, SCHEDULES, "run", "report")
        assert schedules.get("report").run_requested_at
        answer = client.post(SCHEDULES, {"action": "remove", "_selected_action": ["report"]})
        assert "Remove these schedule entries?" in answer.content.decode()
        act(client, SCHEDULES, "remove", "report")
        assert [each.name for each in schedules.entries()] == [SCRIPT]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("schedule", '{"crontab": "61 * * * *"}', "minute"),
        ("schedule", '{"timedelta"', "Enter a valid JSON"),
        ("schedule", '{"every": 5}', "unknown field"),
        ("task", "", "This field is required"),
        ("timezone", "Europe/Nowhere", "Europe/Nowhere"),
        ("options", '{"queueu": "slow"}', "queueu"),
        ("args", '{"a": 1}', "give a list"),
        ("max_runs", "0", "above 0"),
        ("start_time", "tomorrow", "Enter a valid date"),
        ("name", SCRIPT, "already"),
    ],
)
def test_a_wrong_entry_is_refused_in_the_form(app: Celery, visitor: Visitor, field: str, value: str, said: str) -> None:
    """The form says what is wrong beside the field, keeps what was typed, and nothing is stored."""
    answer = visitor().post(f"{SCHEDULES}add/", NEW | {field: value})
    assert answer.status_code == 200
    text = answer.content.decode()
    row = text.partition(f"field-{field}")[2].partition("form-row")[0]
    assert said in html.unescape(row if field != "name" else text)
    assert (
        html.escape("shop.report" if field == "task" else value) in text
        or value == ""
        or "&#x27;" in html.escape(value)
    )
    with Schedules(app) as schedules:
        assert [each.name for each in schedules.entries()] == [SCRIPT]


def test_a_change_writes_only_what_was_changed(app: Celery, visitor: Visitor) -> None:
    """A broken field that nobody touches does not stand in the way of mending another."""
    app.backend.connection.run_all("UPDATE schedule SET schedule = { timedelta: -1 }, broken = 'by hand'")
    client, change = visitor(), f"{SCHEDULES}{quote(SCRIPT)}/change/"
    text = page(client, change)
    assert "This entry does not run" in text
    answer = client.post(change, form_of(text) | {"schedule": '{"timedelta": 60}'})
    assert answer.status_code == 302, re.findall("errorlist.*?</ul>", answer.content.decode())
    with Schedules(app) as schedules:
        assert dict(schedules.get(SCRIPT).schedule) == {"timedelta": 60}


def test_an_entry_of_the_code_is_not_removed(app: Celery, visitor: Visitor) -> None:
    """What the code would add again is paused instead; the page says so."""
    app.backend.connection.run_all("UPDATE schedule SET source = 'code'")
    text = act(visitor(), SCHEDULES, "remove", SCRIPT)
    assert "is in the code, which adds it again" in text
    with Schedules(app) as schedules:
        assert schedules.get(SCRIPT).active


# -- commands, and what is around -----------------------------------------------------------------------------


def test_commands_check_and_clean_up(app: Celery) -> None:
    """`surrealdb_check` says what is found; `surrealdb_cleanup` deletes what has expired."""
    output = io.StringIO()
    call_command("surrealdb_check", stdout=output)
    assert "warn  settings: surrealdb_chord_lease" in output.getvalue()
    assert "-> raise surrealdb_chord_lease" in output.getvalue()
    app.conf.task_ignore_result = True
    output = io.StringIO()
    with pytest.raises(CommandError, match="checks failed"):
        call_command("surrealdb_check", "--json", stdout=output)
    good = [(each["subject"], each["good"]) for each in json.loads(output.getvalue())]
    assert ("connection", True) in good
    assert ("task_ignore_result", False) in good
    app.backend.connection.run_all("UPDATE task SET expires_at = time::now() - 1d WHERE task_id = 'child'")
    output = io.StringIO()
    call_command("surrealdb_cleanup", "--dry-run", stdout=output)
    assert "would delete 1 expired records" in output.getvalue()
    output = io.StringIO()
    call_command("surrealdb_cleanup", stdout=output)
    assert "deleted 1 expired records" in output.getvalue()
    with Results(app) as results:
        assert {task.id for task in results.find().tasks} == {"root", "running", "bad/one?"}


def test_a_command_without_a_database_fails(dead_port: int) -> None:
    """One sentence and an exit code, no password."""
    app = Celery("away", backend=f"surrealdb://root:geheim@127.0.0.1:{dead_port}/a/b", set_as_current=False)
    app.conf.update(surrealdb_max_retries=0, surrealdb_timeout=60)
    with override_settings(SURREALDB_CELERY_APP=app):
        for command in ("surrealdb_check", "surrealdb_cleanup"):
            with pytest.raises(CommandError) as caught:
                call_command(command, stdout=io.StringIO())
            assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("setting", ["nowhere.app", None])
def test_a_project_without_a_celery_app_is_told(setting: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the setting."""
    from django.apps import apps as django_apps

    config = django_apps.get_app_config("surrealdb_celery")
    monkeypatch.setattr(config, "_current", Celery("default", set_as_current=False))
    with (
        override_settings(SURREALDB_CELERY_APP=setting),
        pytest.raises(ImproperlyConfigured, match="SURREALDB_CELERY_APP"),
    ):
        apps.celery_app()


def test_django_makes_no_tables_and_reads_none() -> None:
    """The models have permissions and no tables; `dumpdata` and `makemigrations` pass over them."""
    from django.db import connection

    assert not [name for name in connection.introspection.table_names() if name.startswith("surrealdb")]
    call_command("makemigrations", "--check", "--dry-run", stdout=io.StringIO())
    call_command("check")
    for options in ([], ["--all"]):
        output = io.StringIO()
        call_command("dumpdata", "surrealdb_celery", *options, stdout=output)
        assert json.loads(output.getvalue()) == []
    codenames = Permission.objects.filter(content_type__app_label="surrealdb_celery").values_list("codename", flat=True)
    assert set(codenames) == {"view_task", "delete_task", "retry_task", "revoke_task", "add_schedule",
                              "change_schedule", "delete_schedule", "view_schedule"}  # fmt: skip
