"""SurrealQL that every subject uses: quoting identifiers, choosing a database, the database's time."""

from __future__ import annotations


def quote(identifier: str) -> str:
    """An identifier as SurrealQL text.

    Args:
        identifier: Any text.

    Returns:
        It in backticks with doubled backslashes, which 2.x and 3.x read alike.
    """
    return "`" + identifier.replace("\\", "\\\\").replace("`", "\\`") + "`"


def define_database(namespace: str, database: str) -> str:
    """Create namespace and database where they do not exist.

    Args:
        namespace: The namespace.
        database: The database.

    Returns:
        The statements.
    """
    return (
        f"DEFINE NAMESPACE IF NOT EXISTS {quote(namespace)};"
        f"USE NS {quote(namespace)};"
        f"DEFINE DATABASE IF NOT EXISTS {quote(database)}"
    )


def describe_table(table: str) -> str:
    """The definitions of a table: its fields, indexes and LIVE queries. Parameters: none.

    Args:
        table: The table's name, prefix included.

    Returns:
        The statement.
    """
    return f"INFO FOR TABLE {quote(table)}"


#: The database's time.
NOW = "RETURN time::now()"
#: End a LIVE query. Parameters: live.
KILL = "KILL $live"
#: Which namespace and database the session is in.
CHOSEN_DATABASE = "RETURN [session::ns(), session::db()]"
