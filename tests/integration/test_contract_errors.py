"""What goes wrong says so in one clear sentence that names the setting, and never shows a password."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.exceptions import BackendGetMetaError, ImproperlyConfigured
from kombu.exceptions import EncodeError

from surrealdb_celery_backend import SurrealDBBackend, errors
from surrealdb_celery_backend.client.connection import Connection
from tests.engines import Database
from tests.support.apps import contract_apps, tasks_worker
from tests.support.apps.contract_apps import request
from tests.support.paths import CHECKOUT

pytestmark = pytest.mark.integration

#: A password that would be found in any output, also percent-encoded in part.
SECRET = "s3cr3t-Z/9@:?#%"
#: Errors show at once, without retries, and none because the machine is slow.
QUICK = {"result_backend_max_retries": 0, "surrealdb_timeout": 60}


@pytest.fixture
def app_with(fresh_database: Database) -> Iterator[Callable[..., Celery]]:
    """Make apps on one database."""
    made: list[Celery] = []

    def make(**conf: Any) -> Celery:
        made.append(contract_apps.ours(fresh_database, **{**QUICK, **conf}))
        return made[-1]

    yield make
    for app in made:
        contract_apps.close(app)


@pytest.fixture
def nothing_leaks(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Any], str]]:
    """Call it with an exception or object; the secret is in none of its forms, in no log and no output."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []

    def look(what: Any) -> str:
        if isinstance(what, BaseException):
            shown.append("".join(traceback.format_exception(what)))
            cause: BaseException | None = what
            while cause is not None:
                shown.append(f"{cause} {cause!r} {cause.args!r}")
                cause = cause.__cause__ or cause.__context__
        else:
            shown.append(f"{what} {what!r}")
        return str(what)

    yield look
    output = capfd.readouterr()
    for text in (*shown, caplog.text, output.out, output.err):
        for part in (SECRET, "s3cr3t", "Z%2F9"):
            assert part not in text


def test_nobody_listens(app_with: Callable[..., Celery], nothing_leaks: Callable[[Any], str], dead_port: int) -> None:
    """A server that is down gives one sentence that names surrealdb_url, also through Celery's own wrapper."""
    app = app_with(surrealdb_url=f"ws://127.0.0.1:{dead_port}", surrealdb_password=SECRET)
    with pytest.raises(BackendGetMetaError) as raised:
        app.AsyncResult("a").state  # noqa: B018 - asks the server
    nothing_leaks(raised.value)
    cause = raised.value.__cause__ or raised.value.__context__
    assert isinstance(cause, errors.ServerUnavailable)
    assert "surrealdb_url" in str(cause)
    nothing_leaks(app.backend)
    nothing_leaks(app.backend.connection)
    nothing_leaks(app.backend.settings)


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_wrong_password(app_with: Callable[..., Celery], nothing_leaks: Callable[[Any], str], scheme: str) -> None:
    """A refused sign-in names the user and the settings, at once and without retries, over WebSocket and HTTP."""
    url = app_with().backend.settings.endpoint.replace("ws://", f"{scheme}://")
    app = app_with(surrealdb_url=url, surrealdb_password=SECRET, result_backend_max_retries=20)
    with pytest.raises(errors.AuthenticationFailed) as raised:
        app.backend.store_result("a", 1, states.SUCCESS)
    message = nothing_leaks(raised.value)
    assert "surrealdb_username 'root'" in message
    assert "surrealdb_auth_level" in message
    assert app.backend.connection.request_count <= 2


@pytest.mark.parametrize("missing", ["namespace", "database"])
def test_missing_namespace_or_database(app_with: Callable[..., Celery], missing: str) -> None:
    """Where tables may not be created, a database that is not there is named, unless the engine makes it itself."""
    app_with().backend.store_result("a", 1, states.SUCCESS)
    app = app_with(**{f"surrealdb_{missing}": f"no-such-{missing}", "surrealdb_define_schema": False})
    said = rf"surrealdb_{missing} 'no-such-{missing}'.*surrealdb_define_schema"
    try:
        app.backend.store_result("a", 1, states.SUCCESS)
    except errors.DatabaseNotFound as exc:
        assert re.search(said, str(exc))  # noqa: PT017 - some engines make a database for whom may
    else:
        assert app.AsyncResult("a").result == 1


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"surrealdb_url": "htp://localhost"}, "surrealdb_url .*unknown scheme.*wss"),
        ({"surrealdb_url": "localhost:8000"}, "surrealdb_url .*is not a URL"),
        ({"surrealdb_url": "ws://localhost:port"}, "surrealdb_url .*is not a URL"),
        ({"surrealdb_url": "ws://localhost/a/b/c"}, "surrealdb_url .*path of 3 parts"),
        ({"surrealdb_timeout": "soon"}, "surrealdb_timeout .*seconds.*'soon'"),
        ({"surrealdb_timeout": 0}, "surrealdb_timeout .*above 0"),
        ({"surrealdb_live": "maybe"}, "surrealdb_live .*auto, on, off.*'maybe'"),
        ({"surrealdb_auth_level": "king"}, "surrealdb_auth_level .*root.*'king'"),
        ({"surrealdb_namespace": ""}, "surrealdb_namespace .*not empty"),
        ({"surrealdb_databse": "x"}, "'surrealdb_databse'.*'surrealdb_database'"),
        ({"surrealdb_user": "x"}, "'surrealdb_user'.*'surrealdb_username'"),
        ({"surrealdb_password": 7}, "surrealdb_password .*int"),
        ({"surrealdb_tls": {"ca": "x"}}, "surrealdb_tls.*'ca'.*'ca_file'"),
        ({"surrealdb_tls": {"ca_file": "/no/such/file"}}, "surrealdb_tls.*/no/such/file"),
        ({"surrealdb_table_prefix": "a\x00"}, "surrealdb_table_prefix .*NUL"),
        ({"surrealdb_define_schema": "perhaps"}, "surrealdb_define_schema .*True or False"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_settings_that_cannot_be_used(app_with: Callable[..., Celery], conf: dict[str, Any], said: str) -> None:
    """Each setting that is not usable is named with what it held and what it may be."""
    app = contract_apps.app_on(contract_apps.BACKEND, **conf)
    with pytest.raises(ImproperlyConfigured, match=said) as raised:
        app.backend.get_task_meta("a")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "surrealdb+htp://user:{secret}@localhost",
        "surrealdb://user:{secret}@localhost:port/ns/db",
        "surrealdb://user:{secret}@localhost/a/b/c/d",
        "surrealdb://user:{secret}@localhost/a/b?unknown=1",
        "surrealdb://localhost/a/b?passwort={secret}",
        "surrealdb://localhost/a/b?tokn={secret}",
    ],
)
def test_bad_urls_never_show_their_password(url: str, nothing_leaks: Callable[[Any], str]) -> None:
    """An error about a URL shows the URL with its password masked, percent-encoded or not."""
    for secret in ("s3cr3t", "s3cr3t-Z%2F9%40", "s3cr3t/@x"):
        app = contract_apps.app_on(url.format(secret=secret))
        with pytest.raises(ImproperlyConfigured) as raised:
            app.backend  # noqa: B018 - made here
        nothing_leaks(raised.value)


def test_result_that_cannot_be_serialised(app_with: Callable[..., Celery]) -> None:
    """The serializer's own error reaches the caller, nothing is stored, and the connection goes on working."""
    app = app_with()
    with pytest.raises(EncodeError):
        app.backend.store_result("a", object(), states.SUCCESS)
    assert app.AsyncResult("a").state == states.PENDING


@pytest.mark.parametrize("mask", [False, True])
def test_uri(app_with: Callable[..., Celery], mask: bool) -> None:
    """as_uri() shows where results go; the password only where it is asked for."""
    backend = contract_apps.app_on("surrealdb://me:p%40ss@example.org:8000/ns/db").backend
    assert backend.as_uri() == "surrealdb://me:**@example.org:8000/ns/db"
    assert backend.as_uri(include_password=True) == "surrealdb://me:p%40ss@example.org:8000/ns/db"
    token = contract_apps.app_on("surrealdb://example.org:8000/ns/db?token=s3cr3t").backend
    assert "s3cr3t" not in token.as_uri()
    assert "s3cr3t" in token.as_uri(include_password=True)


# -- every way of naming the backend -----------------------------------------------------------------


def test_every_way_of_naming_the_backend(fresh_database: Database) -> None:
    """The class, the class with a URL, and the entry point's URL all lead to the same settings."""
    url = fresh_database.backend_url
    rest = url.partition("://")[2]
    names = {
        "class and settings": (contract_apps.BACKEND, fresh_database.settings),
        "class and URL": (f"{contract_apps.BACKEND}+ws://{rest}", {}),
        "entry point": (url, {}),
        "entry point and settings": ("surrealdb://", fresh_database.settings),
        "entry point's name": ("surrealdb", fresh_database.settings),
        "entry point with scheme": (f"surrealdb+ws://{rest}", {}),
        "wss": (f"{contract_apps.BACKEND}+wss://{rest}", {}),
    }
    for what, (name, conf) in names.items():
        app = contract_apps.app_on(name, **QUICK, **conf)
        backend = app.backend
        assert isinstance(backend, SurrealDBBackend), what
        assert backend.settings.namespace == fresh_database.namespace, what
        assert backend.settings.database == fresh_database.database, what
        if what == "wss":
            assert backend.settings.endpoint.startswith("wss://127.0.0.1")
        else:
            backend.store_result("a", what, states.SUCCESS)
            assert backend.get_state("a") == states.SUCCESS
        contract_apps.close(app)


def test_configured_by_the_environment_alone(fresh_database: Database) -> None:
    """CELERY_RESULT_BACKEND is all that a program needs."""
    program = (
        "from celery import Celery; app = Celery('a'); app.backend.store_result('a', 5, 'SUCCESS');"
        "print(type(app.backend).__name__, app.AsyncResult('a').get(timeout=10))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "CELERY_RESULT_BACKEND": fresh_database.backend_url},
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=60,
    )
    assert done.stdout == "SurrealDBBackend 5\n", done.stderr


def test_settings_from_the_environment(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting may come from the environment; app.conf wins over it, and a URL over both."""
    for name, value in fresh_database.settings.items():
        monkeypatch.setenv(name.upper(), value)
    app = contract_apps.app_on(contract_apps.BACKEND)
    app.backend.store_result("a", 5, states.SUCCESS)
    assert app.AsyncResult("a").result == 5
    contract_apps.close(app)


def test_django_style_settings(fresh_database: Database) -> None:
    """Settings are read from an object with a namespace, as Django projects have them."""
    holder: Any = type("settings", (), {f"CELERY_{k.upper()}": v for k, v in fresh_database.settings.items()})
    holder.CELERY_RESULT_BACKEND = contract_apps.BACKEND
    app = Celery("django", set_as_current=False)
    app.config_from_object(holder, namespace="CELERY")
    assert app.backend.settings.namespace == fresh_database.namespace
    holder.CELERY_SURREALDB_NAMSPACE = "x"
    wrong = Celery("django", set_as_current=False)
    wrong.config_from_object(holder, namespace="CELERY")
    with pytest.raises(ImproperlyConfigured, match=r"surrealdb_namspace.*surrealdb_namespace"):
        wrong.backend  # noqa: B018 - made here
    contract_apps.close(app)


# -- round trips -------------------------------------------------------------------------------------


def test_round_trips(app_with: Callable[..., Celery]) -> None:
    """Storing is one round trip, fetching one, fetching any number together one, each group operation one."""
    app = app_with(result_expires=60)
    backend: Any = app.backend
    connection: Connection = backend.connection
    backend.get_task_meta("opens the connection")
    ids = [f"task-{number}" for number in range(200)]
    for name in ids:
        backend.store_result(name, name, states.SUCCESS)
    group = app.GroupResult("a-group", [app.AsyncResult(name) for name in ids])

    def trips(act: Callable[[], Any]) -> int:
        before = connection.request_count
        act()
        return connection.request_count - before

    assert trips(lambda: backend.store_result("a", 1, states.STARTED, request=request("a"))) == 1
    assert trips(lambda: backend.mark_as_done("a", 1, request=request("a"))) == 1
    assert trips(lambda: backend.get_task_meta("a")) == 1
    assert trips(lambda: app.AsyncResult("a").get(timeout=5)) == 1
    assert trips(lambda: list(backend.get_many(ids, timeout=5))) == 1
    assert trips(lambda: backend.mget([backend.get_key_for_task(name) for name in ids])) <= 2
    assert trips(group.save) == 1
    assert trips(lambda: app.GroupResult.restore("a-group")) == 1
    assert trips(group.delete) == 1
    assert trips(app.AsyncResult("a").forget) == 1
    assert trips(lambda: backend.set_chord_size("a-chord", 3)) == 1
    assert trips(lambda: backend.add_to_chord("a-chord", app.AsyncResult("b"))) == 1


# -- an empty database, and a user who may not define ------------------------------------------------

FIRST_CALLS: dict[str, Callable[[Celery], Any]] = {
    "state": lambda app: app.AsyncResult("a").state,
    "store": lambda app: app.backend.store_result("a", 1, states.SUCCESS),
    "started": lambda app: app.backend.mark_as_started("a", pid=1),
    "exists": lambda app: app.backend.task_result_exists("a"),
    "forget": lambda app: app.AsyncResult("a").forget(),
    "get many": lambda app: list(app.backend.get_many(["a"], max_iterations=1, interval=0.01)),
    "restore group": lambda app: app.GroupResult.restore("a"),
    "save group": lambda app: app.GroupResult("a", [app.AsyncResult("b")]).save(),
    "delete group": lambda app: app.GroupResult("a", []).delete(),
    "chord size": lambda app: app.backend.set_chord_size("a", 2),
    "add to chord": lambda app: app.backend.add_to_chord("a", app.AsyncResult("b")),
    "chord part": lambda app: app.backend.on_chord_part_return(
        request("b", group="a", group_index=0, chord=dict(app.tasks["contract.total"].s())), states.SUCCESS, 1
    ),
    "cleanup": lambda app: app.backend.cleanup(),
    "get": lambda app: app.backend.get("a"),
    "set": lambda app: app.backend.set("a", 1),
    "incr": lambda app: app.backend.incr("a"),
    "delete": lambda app: app.backend.delete("a"),
    "expire": lambda app: app.backend.expire("a", 5),
    "uri": lambda app: app.backend.as_uri(),
}


@pytest.mark.parametrize("name", FIRST_CALLS)
@pytest.mark.parametrize("define", [True, False])
def test_first_call_against_an_empty_database(
    app_with: Callable[..., Celery], fresh_database: Database, name: str, define: bool
) -> None:
    """Every call works as the first one, where nothing was ever made, and where there is a database but no table."""
    if not define:
        fresh_database.query(
            f"DEFINE NAMESPACE IF NOT EXISTS `{fresh_database.namespace}`; USE NS `{fresh_database.namespace}`;"
            f"DEFINE DATABASE IF NOT EXISTS `{fresh_database.database}`"
        )
    FIRST_CALLS[name](app_with(surrealdb_define_schema=define))


@pytest.mark.parametrize("name", FIRST_CALLS)
def test_user_who_may_not_define(app_with: Callable[..., Celery], fresh_database: Database, name: str) -> None:
    """Once the tables are there, a user with the role EDITOR or of one database can do everything."""
    app_with().backend.get_task_meta("makes the tables")
    fresh_database.query("DEFINE USER viewer ON DATABASE PASSWORD 'x' ROLES EDITOR")
    FIRST_CALLS[name](
        app_with(
            surrealdb_username="viewer",
            surrealdb_password="x",
            surrealdb_auth_level="database",
            surrealdb_define_schema=False,
        )
    )


def test_user_who_may_only_read(app_with: Callable[..., Celery], fresh_database: Database) -> None:
    """A user with the role VIEWER reads results although he may define nothing, and is told that he may not store."""
    app_with().backend.store_result("a", 5, states.SUCCESS)
    fresh_database.query("DEFINE USER viewer ON DATABASE PASSWORD 'x' ROLES VIEWER")
    app = app_with(surrealdb_username="viewer", surrealdb_password="x", surrealdb_auth_level="database")
    assert app.AsyncResult("a").get(timeout=10) == 5
    with pytest.raises(errors.PermissionDenied, match="may not create and update records"):
        app.backend.store_result("b", 1, states.SUCCESS)


def test_what_may_not_be_defined_is_said_once(
    app_with: Callable[..., Celery], fresh_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no table exists and the user may make none, one warning says so, not one for each table."""
    fresh_database.query("DEFINE USER viewer ON DATABASE PASSWORD 'x' ROLES VIEWER")
    app = app_with(surrealdb_username="viewer", surrealdb_password="x", surrealdb_auth_level="database")
    with pytest.raises(errors.PermissionDenied):
        app.backend.store_result("a", 1, states.SUCCESS)
    assert caplog.text.count("may not define tables and indexes") == 1


def test_worker_module_is_configured_by_its_arguments(fresh_database: Database) -> None:
    """The app that worker processes run is the one that the tests talk to."""
    app = tasks_worker.make("memory://", fresh_database.backend_url, "a-queue")
    assert app.backend.settings.database == fresh_database.database
    assert app.conf.task_default_queue == "a-queue"
    contract_apps.close(app)
