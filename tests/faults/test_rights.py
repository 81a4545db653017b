"""Users of every level, tokens, the least rights that suffice, and what happens with less."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, chord, states

from surrealdb_celery_backend import consumer, errors, statements
from surrealdb_celery_backend.connection import Connection
from surrealdb_celery_backend.values import RecordID
from tests.engines import Database, RunningEngine
from tests.states import until

from . import rights
from .proxy import Proxy
from .worker import CHECKOUT

AS_WORKER = {"username": "worker", "password": "secret"}


def store_and_fetch(connection: Connection) -> None:
    """What a backend does all day, with this connection's rights."""
    record = RecordID(statements.TASK, "one")
    task = {"task_id": "one", "status": "SUCCESS", "result": "1", "encoding": "application/json"}
    connection.run(statements.STORE_READY_TASK, record=record, task=task)
    fetched = connection.run(statements.FETCH_TASKS, records=record)
    assert [(values["task_id"], values["status"], values["result"]) for values in fetched] == [("one", "SUCCESS", "1")]
    connection.run(statements.DELETE, records=record)


@pytest.mark.parametrize("transport", ["url", "http_url"])
@pytest.mark.parametrize("level", ["root", "namespace", "database"])
def test_levels(level: str, transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A user of root, of the namespace and of the database can each run the backend."""
    fresh_database.query(f"DEFINE USER OVERWRITE worker ON {level.upper()} PASSWORD 'secret' ROLES EDITOR")
    connection = connect(fresh_database, endpoint=getattr(proxy, transport), auth_level=level, **AS_WORKER)
    store_and_fetch(connection)


@pytest.mark.parametrize(("level", "asked"), [("database", "namespace"), ("namespace", "root"), ("root", "database")])
def test_wrong_level(level: str, asked: str, fresh_database: Database, connect: Any) -> None:
    """A user who is not at `surrealdb_auth_level` is refused, and the error names both settings."""
    user = f"only_{level}"
    fresh_database.query(f"DEFINE USER OVERWRITE {user} ON {level.upper()} PASSWORD 'secret' ROLES EDITOR")
    connection = connect(fresh_database, auth_level=asked, username=user, password="secret")
    with pytest.raises(errors.SignInRefused, match=f"'{user}' at surrealdb_auth_level '{asked}'"):
        connection.run("RETURN 1")


@pytest.mark.parametrize("transport", ["url", "http_url"])
def test_token(transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A JSON web token signed elsewhere runs the backend."""
    fresh_database.query(rights.JWT_ACCESS)
    token = rights.token("a key of our own", **rights.claims(fresh_database, 600))
    connection = connect(
        fresh_database, endpoint=getattr(proxy, transport), token=token, username=None, auth_level="database"
    )
    store_and_fetch(connection)


@pytest.mark.parametrize("transport", ["url", "http_url"])
@pytest.mark.parametrize("fault", ["expired", "signed with another key", "no token at all"])
def test_bad_token(fault: str, transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A token that expired or was never good: one clear error that names the setting, not the token."""
    fresh_database.query(rights.JWT_ACCESS)
    token = {
        "expired": rights.token("a key of our own", **rights.claims(fresh_database, -600)),
        "signed with another key": rights.token("another key", **rights.claims(fresh_database, 600)),
        "no token at all": "rubbish",
    }[fault]
    connection = connect(
        fresh_database, endpoint=getattr(proxy, transport), token=token, username=None, auth_level="database"
    )
    with pytest.raises(errors.SignInRefused, match="surrealdb_token") as error:
        connection.run("RETURN 1")
    assert token not in str(error.value)


def test_anonymous_only_when_asked(engine: RunningEngine, fresh_database: Database, connect: Any) -> None:
    """Without a user the sign-in is refused; nobody becomes anonymous by leaving something out."""
    for nobody in ({"username": None, "password": None}, {"username": "", "password": ""}):
        connection = connect(fresh_database, **nobody)
        with pytest.raises(errors.SignInRefused):
            connection.run("RETURN 1")


def test_anonymous_when_asked(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """With surrealdb_auth_level 'anonymous' nobody signs in; a server that takes no guests says so, once."""
    connection = connect(fresh_database, endpoint=proxy.url, auth_level="anonymous", define_schema=False)
    with pytest.raises(errors.SurrealDBBackendError, match=r"(?i)anonymous|permission"):
        connection.run("SELECT * FROM task")
    assert proxy.requests("signin") == []
    assert proxy.requests("authenticate") == []


def least(database: Database) -> dict[str, Any]:
    """Make the tables and the record user; its settings."""
    database.query(statements.define_schema(""))
    database.query(rights.TABLE_PERMISSIONS)
    access = rights.RECORD_ACCESS_2 if database.engine.version.startswith("2.") else rights.RECORD_ACCESS
    database.query(access)
    return {"access": "workers", "auth_level": "database", "define_schema": False, **AS_WORKER}


@pytest.mark.parametrize("transport", ["url", "http_url"])
def test_least_rights(transport: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A record user with permissions on the four tables is enough to store and fetch."""
    connection = connect(fresh_database, endpoint=getattr(proxy, transport), **least(fresh_database))
    store_and_fetch(connection)


def test_least_rights_are_the_least(fresh_database: Database, connect: Any) -> None:
    """The same user may neither read other tables, nor define anything, nor see the accounts."""
    connection = connect(fresh_database, **least(fresh_database))
    fresh_database.query("CREATE secret:one SET value = 1")
    assert connection.run("SELECT * FROM secret") in ([], None)
    assert connection.run("SELECT * FROM account") in ([], None)
    for text in ("DEFINE TABLE more", "DEFINE USER more ON DATABASE PASSWORD 'x' ROLES OWNER", "REMOVE TABLE task"):
        with pytest.raises(errors.SurrealDBBackendError):
            connection.run(text)


def test_wrong_record_user(fresh_database: Database, connect: Any) -> None:
    """A record user with a wrong password: refused, and the error names the access method."""
    connection = connect(fresh_database, **{**least(fresh_database), "password": "wrong"})
    with pytest.raises(errors.SignInRefused, match="surrealdb_access 'workers'"):
        connection.run("RETURN 1")


def test_tables_that_may_not_be_defined(fresh_database: Database, connect: Any, caplog: Any) -> None:
    """A user who may not DEFINE but has the tables: a warning that names the setting, and work goes on."""
    connection = connect(fresh_database, **{**least(fresh_database), "define_schema": True})
    store_and_fetch(connection)
    assert "surrealdb_define_schema" in caplog.text


def test_user_who_may_only_look(engine: RunningEngine, fresh_database: Database, closing: Any) -> None:
    """A viewer can fetch; a result that the database drops without a word is one clear error, not a lost result."""
    fresh_database.query(statements.define_schema(""))
    fresh_database.query("DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER")
    app = Celery("viewer", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(
        fresh_database.settings,
        surrealdb_username="viewer",
        surrealdb_password="secret",
        surrealdb_auth_level="database",
        surrealdb_define_schema=False,
    )
    closing.callback(app.backend.close)
    assert app.AsyncResult("one").state == states.PENDING
    with pytest.raises(errors.NotPermitted):
        app.backend.store_result("one", 1, states.SUCCESS)


def test_user_of_another_database(engine: RunningEngine, fresh_database: Database, connect: Any) -> None:
    """A user of another database is refused where it has nothing to do, with one clear error."""
    fresh_database.query(rights.DATABASE_USER)
    elsewhere = engine.database()
    connection = connect(elsewhere, auth_level="database", **AS_WORKER)
    with pytest.raises(errors.SignInRefused):
        connection.run("SELECT * FROM task")


@pytest.mark.worker
@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["record access", "database user"])
def test_worker_with_least_rights(
    kind: str,
    live_engine: RunningEngine,
    fresh_database: Database,
    start_worker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks, a chord, push, forget and clean-up all work with the rights that docs/reliability.md names."""
    # The result may be there before LIVE is; the push thread must not give up because nobody waits any more.
    monkeypatch.setattr(consumer, "LINGER", 600.0)
    if kind == "record access":
        user = least(fresh_database)
    else:
        fresh_database.query(rights.DATABASE_USER)
        user = {**AS_WORKER, "auth_level": "database"}
    settings = {f"surrealdb_{name}": value for name, value in user.items()}
    worker = start_worker(fresh_database, {**settings, "result_expires": 3600})
    app: Celery = worker.app
    echo, collect = app.tasks["faults.echo"], app.tasks["faults.collect"]
    task = echo.delay("pushed")
    assert task.get(timeout=30) == "pushed"
    push = app.backend.result_consumer._push
    assert push is not None
    until(lambda: push.subscribed, "LIVE needs no more rights than reading does")
    body = chord([echo.s(number) for number in range(5)], collect.s()).apply_async()
    assert body.get(timeout=30) == list(range(5))
    task.forget()
    assert app.AsyncResult(task.id).state == states.PENDING
    app.backend.cleanup()
    assert "ermission" not in worker.log


@pytest.mark.parametrize("name", ["DATABASE_USER", "TABLE_PERMISSIONS", "RECORD_ACCESS", "JWT_ACCESS"])
def test_documentation_has_these_rights(name: str) -> None:
    """What docs/reliability.md tells people to run is what the tests here ran."""
    page = (CHECKOUT / "docs" / "reliability.md").read_text()
    assert f"```surql\n{getattr(rights, name).strip()}\n```" in page
