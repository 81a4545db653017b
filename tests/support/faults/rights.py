"""Users of every kind, and the least that the backend needs: what docs/reliability.md says is read from here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from surrealdb_celery_backend.beat import statements as beat_statements
from surrealdb_celery_backend.results import statements
from tests.engines import Database

TABLES = (statements.TASK, statements.GROUP, statements.CHORD, statements.KEY)

#: A user of the database, who may create the tables but no users.
DATABASE_USER = "DEFINE USER worker ON DATABASE PASSWORD 'secret' ROLES EDITOR"

#: A record user: what it may do is what the tables say, and nothing else.
RECORD_ACCESS = """
DEFINE TABLE IF NOT EXISTS account SCHEMALESS PERMISSIONS NONE;
CREATE account:worker SET password = crypto::argon2::generate('secret');
DEFINE ACCESS workers ON DATABASE TYPE RECORD
    SIGNIN (SELECT * FROM account WHERE id = type::record('account', $username)
            AND crypto::argon2::compare(password, $password))
    DURATION FOR TOKEN 15m, FOR SESSION 12h;
"""

#: The same where ``type::record`` takes one argument (SurrealDB 2).
RECORD_ACCESS_2 = RECORD_ACCESS.replace("type::record(", "type::thing(")

#: What the record user needs of each table. Run behind the tables' own definitions.
TABLE_PERMISSIONS = ";\n".join(
    f"DEFINE TABLE OVERWRITE {table} TYPE NORMAL SCHEMALESS PERMISSIONS FOR select, create, update, delete "
    "WHERE $access = 'workers'"
    for table in TABLES
)

#: The same for beat and the commands that change schedules, on the tables of the schedules.
SCHEDULE_PERMISSIONS = ";\n".join(
    f"DEFINE TABLE OVERWRITE {table} TYPE NORMAL SCHEMALESS PERMISSIONS FOR select, create, update, delete "
    "WHERE $access = 'workers'"
    for table in beat_statements.SCHEDULE_TABLES
)

#: Tokens made elsewhere, signed with a key of ours.
JWT_ACCESS = "DEFINE ACCESS tokens ON DATABASE TYPE JWT ALGORITHM HS512 KEY 'a key of our own'"


def token(key: str, **claims: Any) -> str:
    """A JSON web token, signed with HS512."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(json.dumps({"alg": "HS512", "typ": "JWT"}).encode())
    body = part(json.dumps(claims).encode())
    signature = part(hmac.digest(key.encode(), head + b"." + body, hashlib.sha512))
    return (head + b"." + body + b"." + signature).decode()


def claims(database: Database, seconds: float) -> dict[str, Any]:
    """What a token for a database has to say, to be good for so many seconds."""
    expires = int(time.time() + seconds)
    return {"ns": database.namespace, "db": database.database, "ac": "tokens", "rl": ["Editor"], "exp": expires}
