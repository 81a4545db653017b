"""The tables of the schedules on one connection."""

from __future__ import annotations

from datetime import datetime

from celery.utils.log import get_logger

from ... import errors
from ...client import surrealql
from ...client.connection import Connection
from ...settings import Settings
from .. import statements
from .claims import ClaimStore
from .entries import EntryStore
from .imports import Importer
from .leases import LeaseStore

logger = get_logger(__name__)


class Store:
    """The tables of the schedules: entries, claims of firings, and the lease.

    Args:
        connection: The session to use. The store closes it.
        settings: The names of the tables, and of the user.
    """

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        #: The settings of the tables and of the user.
        self.settings = settings
        self.entries = EntryStore(connection, settings)
        self.claims = ClaimStore(connection, settings)
        self.leases = LeaseStore(connection, settings)
        self.importer = Importer(connection, self.entries, settings)
        self._is_defined = not settings.define_schema

    @property
    def request_count(self) -> int:
        """Round trips made so far."""
        return self._connection.request_count

    def define(self) -> None:
        """Create the tables, once per store, unless the user may not or need not."""
        if self._is_defined:
            return
        try:
            prefix = self.settings.prefix
            text = f"{statements.define_schedules(prefix)};{statements.describe_schedules(prefix)}"
            if not statements.are_current(self._connection.run_all(text)[-1]):
                self._connection.run_all(statements.redefine_schedules(prefix))
        except errors.PermissionDenied as error:
            logger.warning(
                "the database user may not define the tables of the schedules (%s): define them once with "
                "a user who may, and set surrealdb_define_schema to False",
                error,
            )
        self._is_defined = True

    def now(self) -> datetime:
        """Return the database's time."""
        now: datetime = self._connection.run(surrealql.NOW)
        return now

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
