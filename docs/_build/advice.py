"""What a reader can do about each error, by the name of its class. `tests/unit/test_reference.py` misses none."""

from __future__ import annotations

ADVICE = {
    "SurrealDBBackendError": (
        "Catch this one for all errors of the library. What it says names the setting or the statement."
    ),
    "SettingsError": (
        "Correct the [setting](settings.md) that the message names, and start again. Nothing was sent yet."
    ),
    "TransientError": (
        "Try again later. Inside a worker Celery's retries do that by themselves; in a web process answer with "
        "“503, try again”."
    ),
    "ServerUnavailable": (
        "Look whether SurrealDB runs at `surrealdb_url` and whether the network lets this host reach it: "
        "`celery -A proj surrealdb check`. Work goes on by itself when the server is back."
    ),
    "RequestTimedOut": (
        "The server is overloaded or stuck, or the result is too large for the line. See `surrealdb_slow_call` in "
        "[monitoring](../monitoring.md#logs), then give the server more CPU or raise `surrealdb_timeout`."
    ),
    "TLSFailed": (
        "Name the authority that signed the server's certificate as `surrealdb_tls` (`ca_file`), use the host name that "
        "the certificate has, and look whether it has expired: [TLS](../security.md#tls)."
    ),
    "ConnectionClosed": (
        "The program called `backend.close()` and went on. Call it last, or make a new app."
    ),
    "AuthenticationFailed": (
        "Correct `surrealdb_username`, `surrealdb_password` or `surrealdb_token`, and say in `surrealdb_auth_level` "
        "where the user is defined: `root`, `namespace` or `database`."
    ),
    "SessionExpired": (
        "A given token has ended: put a new one into `surrealdb_token`, or use a user or an access method, which "
        "sign in again by themselves."
    ),
    "PermissionDenied": (
        "Give the user the right that the message names: [least rights](../reliability.md#a-user-with-no-more-rights-than-needed)."
    ),
    "DatabaseNotFound": (
        "Create the namespace and database, or let a user do it who may `DEFINE`, with `surrealdb_define_schema` on."
    ),
    "UnsupportedServer": "Upgrade SurrealDB: [upgrading](../upgrading.md).",
    "EngineInUse": (
        "Another process has the directory open, or the process forked. Serve the engine instead: "
        "`python -m surrealdb_celery_backend.devserver --path DIR`, or a SurrealDB server."
    ),
    "WriteConflict": (
        "More than 60 tries met another writer. Look for programs that keep writing the same record; Celery's retries "
        "repeat the operation."
    ),
    "RecordExists": "Two programs created one record. Repeat the operation, which then finds it.",
    "StatementFailed": (
        "Read the server's words in the message. Where the statement is one of the library's own, "
        "the schema may have been changed by hand: `celery -A proj surrealdb schema`. Else report it."
    ),
    "StorageUnavailable": (
        "Free disk space, or end the read-only mode, on the server. A server on RocksDB has to be restarted after its "
        "disk was full; SurrealKV goes on by itself."
    ),
    "LiveNotSupported": (
        "Use `ws://` or `wss://`, or leave `surrealdb_live` at `auto`: results are then looked for instead of pushed."
    ),
    "ResultsUnavailable": "Its `__cause__` says what was wrong with the database; do what stands there.",
    "ReadFailed": (
        "As for its cause. In a web process it came after `surrealdb_read_timeout`, so answer with “503, try again”."
    ),
    "StoreFailed": (
        "The worker tried for as long as Celery's retries last, so the result is lost: run the task again when the "
        "database is back. For longer outages raise `result_backend_max_retries`."
    ),
    "WaitTimedOut": "The task may still run. Wait again later; its `__cause__` says what the database's trouble was.",
    "UnstorableValue": (
        "Use another id, or another value: the message says which text holds a NUL byte or half a surrogate pair."
    ),
    "UnreadableResult": (
        "Allow the content type in `result_accept_content`, or install the serializer that wrote it. A record that was "
        "changed by hand can only be forgotten."
    ),
    "ResultNotFound": (
        "The id is wrong, the result has expired, or `task_ignore_result` is on. The beginning of an id is enough for "
        "`celery -A proj surrealdb show`."
    ),
    "InvalidFilter": "Correct the argument that the message names.",
    "InvalidArchive": "Use another backup: this file is damaged, cut, or no export of this library.",
    "UnreadableRecord": (
        "Somebody wrote a value by hand that SurrealDB cannot send, or a record above 256 MiB: correct or delete it in "
        "SurrealQL."
    ),
    "InvalidSchedule": "Correct the field that the message names: [an entry](../scheduling.md#an-entry).",
    "ScheduleNotFound": "Look for the name with `celery -A proj surrealdb schedule list`.",
    "ScheduleExists": "Change the entry (`schedule set`), or choose another name.",
    "ImportIncomplete": "Run the import again with `--replace`: it writes the rest.",
    "LeaseLost": (
        "Nothing, as a rule: another beat is active and this one stands by. If it happens often, beat was paused for "
        "longer than `surrealdb_beat_lease`: give its host more CPU, or raise the setting."
    ),
}
