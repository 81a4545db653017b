"""Users of every level, tokens, the least rights that suffice, and what happens with less."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery, chord, states

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.values import Pairs, RecordID
from surrealdb_celery_backend.results import statements
from surrealdb_celery_backend.results.cleanup import WHOLE_RECORDS
from tests.engines import Database, RunningEngine
from tests.support.faults import rights
from tests.support.faults.proxy import Proxy
from tests.support.paths import CHECKOUT
from tests.support.states import MAX_WAIT, until
from tests.support.waits import in_background

AS_WORKER = {"username": "worker", "password": "secret"}


def store_and_fetch(connection: Connection) -> None:
    """What a backend does all day, with this connection's rights."""
    record = RecordID(statements.TASK, "one")
    task = Pairs({"task_id": "one", "status": "SUCCESS", "result": "1", "encoding": "application/json"})
    connection.run(statements.store_task((), ready=True), r=record, t=task)
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
    with pytest.raises(errors.AuthenticationFailed, match=f"'{user}' at surrealdb_auth_level '{asked}'"):
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
    with pytest.raises(errors.AuthenticationFailed, match="surrealdb_token") as error:
        connection.run("RETURN 1")
    assert token not in str(error.value)


def test_anonymous_only_when_asked(engine: RunningEngine, fresh_database: Database, connect: Any) -> None:
    """Without a user the sign-in is refused; nobody becomes anonymous by leaving something out."""
    for nobody in ({"username": None, "password": None}, {"username": "", "password": ""}):
        connection = connect(fresh_database, **nobody)
        with pytest.raises(errors.AuthenticationFailed):
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
    with pytest.raises(errors.AuthenticationFailed, match="surrealdb_access 'workers'"):
        connection.run("RETURN 1")


def test_tables_that_may_not_be_defined(fresh_database: Database, connect: Any, caplog: Any) -> None:
    """A user who may not DEFINE but has the tables: a warning that names the setting, and work goes on."""
    connection = connect(fresh_database, **{**least(fresh_database), "define_schema": True})
    store_and_fetch(connection)
    assert "surrealdb_define_schema" in caplog.text


@pytest.fixture
def viewer(fresh_database: Database, closing: Any) -> Celery:
    """An app whose user may read and not write, with a result and a group that somebody else stored."""
    root, app = (Celery(user, backend="surrealdb", broker="memory://", set_as_current=False) for user in ("a", "b"))
    root.conf.update(fresh_database.settings)
    closing.callback(root.backend.close)
    root.backend.store_result("done", 1, states.SUCCESS)
    root.backend.store_result("running", 1, states.STARTED)
    root.GroupResult("saved", [root.AsyncResult("done")]).save()
    root.backend.set("key", 1)
    fresh_database.query("DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER")
    app.conf.update(
        fresh_database.settings,
        surrealdb_username="viewer",
        surrealdb_password="secret",
        surrealdb_auth_level="database",
        surrealdb_define_schema=False,
    )
    closing.callback(app.backend.close)
    return app


WRITES = {
    "a result": lambda app: app.backend.store_result("new", 1, states.SUCCESS),
    "a result of a task that runs": lambda app: app.backend.store_result("running", 1, states.SUCCESS),
    "a state of a task that runs": lambda app: app.backend.store_result("running", 1, "PROGRESS"),
    "forget": lambda app: app.AsyncResult("done").forget(),
    "a group": lambda app: app.GroupResult("new", [app.AsyncResult("done")]).save(),
    "a group again": lambda app: app.GroupResult("saved", [app.AsyncResult("done")]).save(),
    "delete a group": lambda app: app.GroupResult("saved", []).delete(),
    "set": lambda app: app.backend.set("new", 1),
    "set again": lambda app: app.backend.set("key", 2),
    "set a task": lambda app: app.backend.set(
        app.backend.get_key_for_task("done"), app.backend.encode({"status": "SUCCESS", "result": 2})
    ),
    "set a group": lambda app: app.backend.set(
        app.backend.get_key_for_group("saved"), app.backend.encode({"result": [["saved", None], []]})
    ),
    "incr": lambda app: app.backend.incr("counter"),
    "expire": lambda app: app.backend.expire("key", 10),
    "expire never": lambda app: app.backend.expire("key", None),
    "expire a task": lambda app: app.backend.expire(app.backend.get_key_for_task("done"), 10),
    "delete": lambda app: app.backend.delete("key"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_user_who_may_only_look(write: Any, viewer: Celery) -> None:
    """A viewer can fetch; a write that the database drops without a word is one clear error, not a lost write."""
    assert viewer.AsyncResult("new").state == states.PENDING
    assert viewer.AsyncResult("done").get(timeout=30) == 1
    with pytest.raises(errors.PermissionDenied, match=r"may not .* table '(task|group|key)'"):
        write(viewer)
    assert viewer.AsyncResult("done").result == 1
    assert viewer.AsyncResult("running").state == states.STARTED
    assert viewer.GroupResult.restore("saved") is not None
    assert viewer.backend.get("key") == 1


def test_writes_that_have_nothing_to_do(viewer: Celery) -> None:
    """What is not there needs no right to be forgotten, deleted or expired; a SUCCESS stays whoever stores over it."""
    backend = viewer.backend
    viewer.AsyncResult("absent").forget()
    viewer.GroupResult("absent", []).delete()
    backend.delete("absent")
    backend.expire("absent", 10)
    backend.store_result("done", ValueError("late"), states.FAILURE)
    assert viewer.AsyncResult("done").state == states.SUCCESS


@pytest.mark.timeout(300)
def test_a_late_failure_meets_a_success_that_is_forgotten(fresh_database: Database, closing: Any) -> None:
    """Fifty threads store a SUCCESS, a late FAILURE over it, and forget it: nobody is told that it may not write."""
    app = Celery("root", backend="surrealdb", broker="memory://", set_as_current=False)
    # A slow machine needs longer than `surrealdb_timeout` for writes that meet so often.
    app.conf.update(fresh_database.settings, surrealdb_timeout=2 * MAX_WAIT)
    backend = app.backend
    closing.callback(backend.close)
    ids = [f"hot-{number}" for number in range(5)]
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        task_id = ids[number % len(ids)]
        try:
            for _ in range(8):
                if number % 3 == 0:
                    backend.store_result(task_id, 1, states.SUCCESS)
                elif number % 3 == 1:
                    backend.store_result(task_id, ValueError("late"), states.FAILURE)
                else:
                    backend.forget(task_id)
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


#: Users who may not delete, or not everything.
WITHOUT_DELETE = {
    "viewer": None,
    "no delete": "FOR select, create, update WHERE $access = 'workers' FOR delete NONE",
    "no update": "FOR select, create WHERE $access = 'workers' FOR update, delete NONE",
    "some": "FOR select, create, update WHERE $access = 'workers' FOR delete WHERE own_expires = true",
}


@pytest.mark.parametrize("before", [False, True], ids=["", "seen before"])
@pytest.mark.parametrize("kind", WITHOUT_DELETE)
def test_cleanup_by_a_user_who_may_not_delete(kind: str, before: bool, fresh_database: Database, closing: Any) -> None:
    """Clean-up ends, with an error that says what the user may not; what may be deleted is."""
    user = {**least(fresh_database), "result_expires": 3600}
    permissions = WITHOUT_DELETE[kind]
    if permissions is None:
        fresh_database.query("DEFINE USER viewer ON DATABASE PASSWORD 'secret' ROLES VIEWER")
        user |= {"username": "viewer", "access": None}
    else:
        for table in rights.TABLES:
            fresh_database.query(f"DEFINE TABLE OVERWRITE {table} TYPE NORMAL SCHEMALESS PERMISSIONS {permissions}")
    # All within one second: across its end an index is not read in the order of time, which costs another pass.
    ended = datetime.now(timezone.utc).replace(microsecond=1) - timedelta(hours=1)
    expired = [
        {
            "id": f"task-{n}",
            "task_id": f"task-{n}",
            "status": "SUCCESS",
            "own_expires": n % 5 == 0,
            "date_done": ended - timedelta(hours=1),
            "expires_at": ended + timedelta(milliseconds=n),
        }
        for n in range(500)
    ]
    fresh_database.query("INSERT INTO task $expired RETURN NONE", {"expired": expired})
    app = Celery("clean", backend="surrealdb", broker="memory://", set_as_current=False)
    app.conf.update(fresh_database.settings, result_expires=user.pop("result_expires"))
    app.conf.update({f"surrealdb_{name}": value for name, value in user.items()})
    closing.callback(app.backend.close)
    assert app.backend.cleanup(dry_run=True).records == {"task": 500}
    before_count = app.backend.connection.request_count
    with pytest.raises(errors.PermissionDenied, match=r"'task' still has \d+ records|IAM|permission"):
        app.backend.cleanup(before_delete=(lambda records: None) if before else None)
    # One pass deletes, another finds nothing more to delete; a batch is at least WHOLE_RECORDS, seen and then deleted.
    assert app.backend.connection.request_count - before_count < 2 * 2 * 1.3 * len(expired) / WHOLE_RECORDS
    (tasks,) = fresh_database.query("SELECT task_id FROM task")
    assert len(tasks) == (400 if kind == "some" else 500)


def test_user_of_another_database(engine: RunningEngine, fresh_database: Database, connect: Any) -> None:
    """A user of another database is refused where it has nothing to do, with one clear error."""
    fresh_database.query(rights.DATABASE_USER)
    elsewhere = engine.database()
    connection = connect(elsewhere, auth_level="database", **AS_WORKER)
    with pytest.raises(errors.AuthenticationFailed):
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
) -> None:
    """Tasks, a chord, push, forget and clean-up all work with the rights that docs/reliability.md names."""
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
    later = in_background(lambda: app.AsyncResult("later").get(timeout=60))
    dispatcher = app.backend.result_consumer.dispatcher
    until(lambda: dispatcher.standing, "LIVE needs no more rights than reading does")
    app.backend.store_result("later", "pushed", states.SUCCESS)
    assert later() == "pushed"
    body = chord([echo.s(number) for number in range(5)], collect.s()).apply_async()
    assert body.get(timeout=30) == list(range(5))
    task.forget()
    assert app.AsyncResult(task.id).state == states.PENDING
    app.backend.cleanup()
    assert "ermission" not in worker.log


@pytest.mark.parametrize(
    "name", ["DATABASE_USER", "TABLE_PERMISSIONS", "SCHEDULE_PERMISSIONS", "RECORD_ACCESS", "JWT_ACCESS"]
)
def test_documentation_has_these_rights(name: str) -> None:
    """What docs/reliability.md tells people to run is what the tests here ran."""
    page = (CHECKOUT / "docs" / "reliability.md").read_text()
    assert f"```surql\n{getattr(rights, name).strip()}\n```" in page
