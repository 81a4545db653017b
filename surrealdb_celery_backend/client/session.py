"""A session on a transport: signed in, in its database, prepared by its user."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .. import errors
from . import surrealql
from .failures import Failure, Remedy
from .options import Options
from .request import Requester, RequestFailed
from .secret import Secret
from .transport import Transport

logger = logging.getLogger(__name__)

#: The oldest server that has what the statements use.
OLDEST_SERVER = (2, 0)
#: Errors of a sign-in that stay as they are: the sign-in was not refused.
_NOT_REFUSED = (Remedy.RECONNECT, Remedy.RETRY_NOW, Remedy.LATER)

#: Prepares a session that has just been opened: it defines the tables, with `Session.define`.
Prepare = Callable[["Session"], None]


class Session:
    """A session that is being opened.

    Args:
        requester: Sends its requests.
        transport: The transport that carries them.
        deadline: When it must be open, by the monotonic clock.

    Attributes:
        deadline: The same.
        version: The server's, major and minor; None where it does not say, and of an engine inside this process.
    """

    def __init__(self, requester: Requester, transport: Transport, deadline: float) -> None:
        self._requester = requester
        self._transport = transport
        self.deadline = deadline
        self.version: tuple[int, int] | None = None
        self._options: Options = requester.options
        self._is_denial_told = False

    def open(self, prepare: Prepare | None) -> None:
        """Sign in, choose the database, prepare the tables.

        Args:
            prepare: Called once the database is chosen; None for nothing.

        Raises:
            RequestFailed: A step failed.
            SurrealDBBackendError: The server cannot be used.
        """
        if not self._options.embedded:
            self._sign_in()
            self.version = self._check_version()
        try:
            self._use(self.version)
        except RequestFailed as failed:
            if failed.failure.error is not errors.DatabaseNotFound:
                raise
            self._define_database()
            self._use(self.version)
        if prepare is not None:
            prepare(self)

    def define(self, text: str) -> list[Any]:
        """Define what is missing. Several processes start at once, so a conflict is the usual case.

        Where the user may not define, a warning says so once: an administrator may have created everything.

        Args:
            text: `DEFINE … IF NOT EXISTS` statements, and others that only read.

        Returns:
            The value of each statement, or its failure.

        Raises:
            RequestFailed: The request failed.
            SurrealDBBackendError: A definition failed.
        """
        outcomes: list[Any] = self._request("query", [text, {}])
        if any(isinstance(one, Failure) and one.error is errors.DatabaseNotFound for one in outcomes):
            self._define_database()
            outcomes = self._request("query", [text, {}])
        failures = [one for one in outcomes if isinstance(one, Failure) and "already exists" not in one.message]
        if not failures:
            return outcomes
        failure = failures[0]
        if failure.remedy is Remedy.RETRY_NOW:
            raise errors.WriteConflict("the tables could not be created: other processes kept changing the schema")
        if failure.error is not errors.PermissionDenied:
            raise failure.exception("creating the tables")
        if not self._is_denial_told:
            self._is_denial_told = True
            logger.warning(
                "the database user may not define tables and indexes (%s): create them once with a user who "
                "may, and set surrealdb_define_schema to False",
                failure.message,
            )
        return outcomes

    def _request(self, method: str, params: list[Any]) -> Any:
        return self._requester.send(self._transport, method, params, self.deadline)

    def _sign_in(self) -> None:
        options = self._options
        if options.auth_level == "anonymous":
            return
        method, params, who = _credentials(options)
        try:
            self._request(method, params)
        except RequestFailed as failed:
            failure = failed.failure
            if failed.__cause__ is not None or failure.remedy in _NOT_REFUSED:
                raise  # not the server's answer, or one that is not about the user
            message = (
                f"{options.uri()} refused the sign-in of {who}: {failure.message}; check the name, "
                "the password or token, and surrealdb_auth_level"
            )
            # A damaged request looks alike: it is asked once more.
            refused = replace(failure, remedy=Remedy.ASK_AGAIN, error=errors.AuthenticationFailed, message=message)
            raise RequestFailed(refused, sent=False) from None
        except BaseException as exc:
            # Interrupted: the frames below have the encoded password in their local variables.
            raise exc.with_traceback(None) from None

    def _check_version(self) -> tuple[int, int] | None:
        """The server's version; None where it does not tell, or not in numbers."""
        try:
            answer = self._request("version", [])
        except RequestFailed as failed:
            if failed.failure.remedy in (Remedy.RECONNECT, Remedy.SIGN_IN):
                raise
            return None  # capabilities can forbid asking
        text = answer.get("version", "") if isinstance(answer, Mapping) else str(answer)
        numbers = str(text).removeprefix("surrealdb-").split(".")
        try:
            version = (int(numbers[0]), int(numbers[1]))
        except (ValueError, IndexError):
            return None
        if version < OLDEST_SERVER:
            raise errors.UnsupportedServer(
                f"{self._options.uri()} runs SurrealDB {text}; 2.0 or newer is needed: update the server"
            )
        return version

    def _use(self, version: tuple[int, int] | None) -> None:
        """Choose namespace and database, and see that the server took these and no others.

        Args:
            version: The server's, major and minor; None where it did not say.
        """
        wanted = [self._options.namespace, self._options.database]
        answer = self._request("use", wanted)
        taken: Any = wanted
        if isinstance(answer, Mapping):  # since SurrealDB 3
            taken = [answer.get("namespace"), answer.get("database")]
        elif version is not None and version[0] < 3:
            (taken,) = self._request("query", [surrealql.CHOSEN_DATABASE, {}])
        if isinstance(taken, list) and taken != wanted:
            message = f"the server chose the database {taken!r} instead of {wanted!r}: the request was damaged"
            raise RequestFailed(Failure(Remedy.RECONNECT, errors.ServerUnavailable, message), sent=True)

    def _define_database(self) -> None:
        options = self._options
        if not options.define:
            raise errors.DatabaseNotFound(
                f"surrealdb_namespace {options.namespace!r} or surrealdb_database {options.database!r} does not "
                "exist and surrealdb_define_schema is False: create them, or set it to True"
            )
        self.define(surrealql.define_database(options.namespace, options.database))


def _credentials(options: Options) -> tuple[str, list[Any], str]:
    """The request that signs in, and the user, in the words of the settings. Secrets stay in `Secret`."""
    if options.token:
        return "authenticate", [options.token], "surrealdb_token"
    credentials: dict[str, Any] = {}
    if options.access or options.auth_level in ("namespace", "database"):
        credentials["NS"] = options.namespace
    if options.access or options.auth_level == "database":
        credentials["DB"] = options.database
    password = options.password or Secret("")
    if not options.access:
        credentials |= {"user": options.username or "", "pass": password}
        who = f"surrealdb_username {options.username!r} at surrealdb_auth_level {options.auth_level!r}"
        return "signin", [credentials], who
    own = {"username": options.username, "password": password}
    credentials["AC"] = options.access
    credentials.update(own if options.access_variables is None else options.access_variables)
    return "signin", [credentials], f"surrealdb_access {options.access!r}"
