"""The tables of the results: how a session of the backend's is prepared.

A table's indexes are created with it. Where there are many records already, creating an index reads all of them, for
which no store can wait, and it is left to `celery surrealdb schema --apply`. SurrealDB can do it in the background, but an
index whose building was interrupted by the end of the server counts as ready then, and finds only a part.
"""

from __future__ import annotations

from collections.abc import Mapping

from celery.utils.log import get_logger

from ..client import surrealql
from ..client.request import RequestFailed
from ..client.session import Prepare, Session
from ..errors import StatementFailed
from ..settings import Settings
from . import statements

logger = get_logger(__name__)

#: In a table with more records no index is created when a session is opened: so many take some 50 ms.
FEW = 2_000
#: Indexes of which this process has said that they are missing.
_said: set[str] = set()


def preparation(settings: Settings) -> Prepare | None:
    """Return the function that creates missing tables and indexes.

    Args:
        settings: Whose prefix the tables have, and whether they are created.

    Returns:
        A function that prepares a session; None where an administrator creates the tables.
    """
    if not settings.define_schema:
        return None
    indexes = statements.define_indexes(settings.prefix, settings.indexes)
    tables = [settings.table(name) for name in statements.TABLES]
    look = ";".join([*statements.define_tables(settings.prefix), *map(surrealql.describe_table, tables)])
    of_texts = statements.define_text_indexes(settings.prefix) if "text" in settings.indexes.split(",") else ()

    def prepare(session: Session) -> None:
        described = session.define(look)[-len(tables) :]
        for name, table, information in zip(statements.TABLES, tables, described, strict=True):
            there = (information.get("indexes") or {}) if isinstance(information, Mapping) else None
            if there is None:
                continue  # the user may not look: what may not be defined has been said
            missing = [index for index in indexes if index.table == name and index.name not in there]
            texts = of_texts if name == statements.TASK and not set(statements.TEXT_INDEXES) <= there.keys() else ()
            if not missing and not texts:
                continue
            if session.define(statements.many_in(table, FEW))[0]:
                _say(table, [index.name for index in missing] + list(statements.TEXT_INDEXES if texts else ()))
                continue
            if missing:
                session.define(";".join(index.text for index in missing))
            _define_first(session, texts)

    return prepare


def _define_first(session: Session, texts: tuple[str, ...]) -> None:
    """Define indexes of texts in the way of this engine's line."""
    for one in texts:
        try:
            session.define(one)
        except (StatementFailed, RequestFailed):
            continue  # the way of engines of the other line
        break


def _say(table: str, missing: list[str]) -> None:
    names = ", ".join(missing)
    if names not in _said:
        _said.add(names)
        logger.warning(
            "the table %r has many records and lacks %s: run `celery surrealdb schema --apply`; until then what "
            "follows them reads the whole table",
            table,
            names,
        )
