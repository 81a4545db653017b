"""The line damages what is sent: that is a broken line, whose request succeeds on a new one, and nobody's mistake."""

from __future__ import annotations

from typing import Any

import pytest

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database
from tests.support.faults.fake import FakeServer, ok
from tests.support.faults.proxy import Proxy, Request, message
from tests.support.states import MAX_WAIT

any_engine = pytest.mark.usefixtures("live_engine")

#: What engines answer to requests with a flipped bit, and what a flipped bit makes of their replies.
DAMAGED: dict[str, dict[str, Any]] = {
    "not CBOR": {"error": {"code": -32700, "message": "Parse error"}},
    "no request": {"error": {"code": -32600, "message": "Invalid Request", "kind": "Validation"}},
    "no method": {"error": {"code": -32601, "message": "Method not found", "kind": "NotFound"}},
    "wrong parameters, 2.x": {"error": {"code": -32602, "message": "Invalid params"}},
    "wrong parameters, 3.x": {"error": {"code": -32603, "message": "Expected (params:object)"}},
    "undecodable, 2.x": {"error": {"code": -32000, "message": "Failed to decode CBOR request: Parse error"}},
    "undecodable, 3.x": {"error": {"code": -32000, "message": "Syntax(27)", "kind": "Internal"}},
    "unknown tag": {"error": {"code": -32000, "message": "Encountered an unknown CBOR tag", "kind": "Internal"}},
    "a statement that does not parse": {"error": {"code": -32000, "message": "Parse error: Unexpected token `a`"}},
    "an error that is a number": {"error": 7},
    "neither result nor error": {"resulu": None},
}
#: Of replies to queries only.
ODD_REPLIES: dict[str, dict[str, Any]] = {
    "no list": {"result": 5},
    "no statements": {"result": []},
    "a statement that is a number": {"result": [7]},
    "a status that is none": {"result": [{"status": "OJ", "result": 1}]},
    "no status": {"result": [{"statut": "OK", "result": 1}]},
    "no value": {"result": [{"status": "OK", "resulu": 1}]},
}
REFUSED = {"error": {"code": -32002, "message": "There was a problem with authentication", "kind": "NotAllowed"}}


def damage(proxy: Proxy, method: str, reply: dict[str, Any], text: str = "") -> None:
    """The next reply to a request of this kind is this one."""
    done: list[Any] = []

    def asked(request: Request) -> None:
        if request.method == method and text in request.text and not done:
            done.append(request)
            proxy.answer_next_with(message({"id": request.id, **reply}))

    proxy.on_request = asked


@any_engine
@pytest.mark.parametrize("step", ["signin", "use", "query"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_at_each_step(kind: str, step: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """Whatever is damaged while the connection opens or in its first statement: the call succeeds on a new line."""
    connection = connect(fresh_database, endpoint=proxy.url)
    damage(proxy, step, DAMAGED[kind])
    assert connection.run("RETURN $value", value="whole") == "whole"
    assert proxy.accepted == 2


@any_engine
@pytest.mark.parametrize("kind", ODD_REPLIES)
def test_odd_replies_to_a_store(kind: str, proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A reply that has not the shape of one is a broken line, not a TypeError."""
    connection = connect(fresh_database, endpoint=proxy.url)
    connection.run("RETURN 1")
    damage(proxy, "query", ODD_REPLIES[kind], "UPSERT")
    assert connection.run("UPSERT task:one SET n = 1 RETURN VALUE n") == [1]
    assert proxy.accepted == 2


@any_engine
def test_sign_in_refused_once(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A flipped bit in a password looks like a wrong one: the same sign-in is tried once more before it is blamed."""
    connection = connect(fresh_database, endpoint=proxy.url)
    damage(proxy, "signin", REFUSED)
    assert connection.run("RETURN 1") == 1
    assert len(proxy.requests("signin")) == 2


@any_engine
def test_database_that_was_not_asked_for(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A flipped bit in the name of the database: the server says which it took, and nothing is stored there."""
    connection = connect(fresh_database, endpoint=proxy.url)
    damage(proxy, "use", {"result": {"namespace": fresh_database.namespace, "database": "other"}})
    assert connection.run("RETURN session::db()") == fresh_database.database
    assert proxy.accepted == 2


def test_damage_for_ever() -> None:
    """Where every answer is that one, it is the error, after one repetition; it is not asked for twice again."""
    refusal = {
        "error": {"code": -32000, "message": "Failed to decode CBOR request: Expected object key to be a string"}
    }

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        return {"result": None} if method != "query" else refusal if "bad" in params[0] else ok(1)

    with FakeServer(answer) as fake:
        connection = Connection(Settings(endpoint=fake.url, timeout=MAX_WAIT).options)
        for _ in range(3):
            with pytest.raises(errors.UnstorableValue, match="object key"):
                connection.run("RETURN 'bad'")
            assert connection.run("RETURN 1") == 1
        connection.close()
        assert sum(method == "query" and "bad" in params[0] for method, params in fake.asked) == 4
        assert fake.count("signin") == 2


@any_engine
def test_what_must_not_run_twice(proxy: Proxy, fresh_database: Database, connect: Any) -> None:
    """A statement that the server could not read did not run, so it is sent again even if it must not run twice."""
    connection = connect(fresh_database, endpoint=proxy.url)
    connection.run("RETURN 1")
    damage(proxy, "query", ODD_REPLIES["a status that is none"], "counter")
    with pytest.raises(errors.ServerUnavailable, match="not SurrealDB's protocol"):
        connection.run_all("UPSERT counter:one SET value += 1", repeatable=False)
    assert len(proxy.requests(text="counter:one")) == 1, "it may have run"
