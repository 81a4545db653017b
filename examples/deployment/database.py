"""Make the tables, and the user of least rights that worker, beat and console sign in as.

    python -m deployment.database

Run with the rights of root, before anything else; a second run changes only the password. What it defines is in the
documentation, under "A user with no more rights than needed".
"""

from __future__ import annotations

import os

from celery import Celery

from surrealdb_celery_backend.beat.statements import SCHEDULE_TABLES, define_schedules
from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.results.statements import CHORD, GROUP, KEY, TASK, define_schema
from surrealdb_celery_backend.settings import Settings

PERMISSIONS = (
    "DEFINE TABLE OVERWRITE {table} TYPE NORMAL SCHEMALESS PERMISSIONS FOR select, create, update, delete "
    "WHERE $access = 'workers'"
)
#: A record user: what it may do is what the tables say, and nothing else.
USER = """
DEFINE TABLE IF NOT EXISTS account SCHEMALESS PERMISSIONS NONE;
UPSERT type::record('account', $username) SET password = crypto::argon2::generate($password) RETURN NONE;
DEFINE ACCESS OVERWRITE workers ON DATABASE TYPE RECORD
    SIGNIN (SELECT * FROM account WHERE id = type::record('account', $username)
            AND crypto::argon2::compare(password, $password))
    DURATION FOR TOKEN 15m, FOR SESSION 12h
"""


def set_up(connection: Connection, settings: Settings, username: str, password: str) -> None:
    """Define everything.

    Args:
        connection: A connection with the rights of root.
        settings: The indexes and the beginning of the tables' names.
        username: The name of the user of least rights.
        password: Its password.
    """
    connection.run(define_schema(settings.prefix, settings.indexes))
    connection.run(define_schedules(settings.prefix))
    for table in (TASK, GROUP, CHORD, KEY, *SCHEDULE_TABLES):
        connection.run(PERMISSIONS.format(table=f"`{settings.prefix}{table}`"))
    connection.run(USER, username=username, password=password)


def main() -> None:
    """Read the environment and set up: CELERY_RESULT_BACKEND, CELERY_SURREALDB_… of root, WORKER_PASSWORD."""
    app = Celery("set-up", backend=os.environ["CELERY_RESULT_BACKEND"], set_as_current=False)
    settings = Settings.from_app(app, app.backend.url)
    connection = Connection(settings.options)
    try:
        set_up(connection, settings, "worker", os.environ["WORKER_PASSWORD"])
    finally:
        connection.close()
    print("the tables are there, and the user `worker`")


if __name__ == "__main__":
    main()
