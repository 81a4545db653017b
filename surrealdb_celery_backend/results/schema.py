"""The tables of the results: how a session of the backend's is prepared.

A table's indexes are created with it. Where there are records already, others may write to it, and each index is
built beside them: see `indexing`. Where there are many, creating one takes long, and it is left to
`celery surrealdb schema --apply`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from celery.utils.log import get_logger

from ..client import surrealql
from ..client.session import Prepare, Session
from ..errors import StatementFailed
from ..settings import Settings
from . import indexing, statements

logger = get_logger(__name__)

#: In a table with more records no index is created when a session is opened: so many take some 50 ms.
FEW = 2_000
#: How long opening a session waits for one index to be built, in seconds. Only a very slow server needs so much.
LONGEST = 5.0
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
    if "text" in settings.indexes.split(","):
        # Their names are those of both lines.
        indexes += statements.define_text_indexes(settings.prefix, line_2=False)
    texts_of_line_2 = {index.name: index for index in statements.define_text_indexes(settings.prefix, line_2=True)}

    def prepare(session: Session) -> None:
        described = session.define(look)[-len(tables) :]
        for name, table, information in zip(statements.TABLES, tables, described, strict=True):
            there = (information.get("indexes") or {}) if isinstance(information, Mapping) else None
            if there is None:
                continue  # the user may not look: what may not be defined has been said
            wanted = (index for index in indexes if index.table == name)
            missing = [index for index in wanted if not indexing.is_complete(there.get(index.name))]
            if not missing:
                continue
            if session.define(statements.many_in(table, FEW))[0]:
                _say(table, "has many records and lacks", [index.name for index in missing])
                continue
            has_texts = any(index.name in texts_of_line_2 for index in missing)
            line_2 = (has_texts or bool(there)) and _is_of_line_2(session)
            if has_texts:
                session.define(statements.DEFINE_ANALYZER)
            if line_2:
                missing = [texts_of_line_2.get(index.name, index) for index in missing]
            if not there or line_2:
                # Of a new table: nobody who stores in it has not asked for the same before.
                session.define(";".join(index.text for index in missing))
            else:
                _build(session, missing, table)

    return prepare


def _is_of_line_2(session: Session) -> bool:
    if session.version is not None:
        return session.version < (3, 0)
    return indexing.is_of_line_2(session.define)


def _build(session: Session, missing: list[statements.Index], table: str) -> None:
    """Build indexes beside those who write to the table; one that cannot be built hinders no store."""
    left = []
    for index in missing:
        deadline = min(session.deadline, time.monotonic() + LONGEST)
        try:
            is_built = indexing.build(session.define, index, table, deadline)
        except StatementFailed as exc:
            logger.warning("%s", exc)
            is_built = False
        if not is_built:
            left.append(index.name)
    if left:
        _say(table, "has not yet built", left)


def _say(table: str, what: str, missing: list[str]) -> None:
    names = ", ".join(missing)
    if names not in _said:
        _said.add(names)
        logger.warning(
            "the table %r %s %s: run `celery surrealdb schema --apply`; until then what follows them reads the whole table",
            table,
            what,
            names,
        )
