"""What the console may do and for whom."""

from __future__ import annotations

import enum
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError

if TYPE_CHECKING:
    from starlette.requests import Request


class Access(enum.Enum):
    """The rights of a visitor."""

    #: Nothing.
    NONE = "none"
    #: Look at everything.
    READ = "read"
    #: Retry, revoke and forget tasks, and change schedules, too.
    ACT = "act"


#: Says who sent a request and what they may do: a name and an access; None for a stranger. May be a coroutine.
Authenticate = Callable[["Request"], "tuple[str, Access] | Awaitable[tuple[str, Access] | None] | None"]


@dataclass(frozen=True)
class Credentials:
    """Who may look: a user with a password (HTTP basic), or the holder of a token (HTTP bearer), or either.

    Attributes:
        username: The user's name.
        password: The user's password.
        token: The token.
    """

    username: str | None = None
    password: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        if (self.username is None) != (self.password is None):
            raise SettingsError("the console's user needs a name and a password: give both or neither")
        if self.username is None and self.token is None:
            raise SettingsError("the console's credentials are empty: give a user with a password, or a token")
        if self.username is not None and ":" in self.username:
            raise SettingsError("the console's user name holds a colon, which HTTP basic credentials cannot carry")

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"

    def is_user(self, username: str, password: str) -> bool:
        """Whether these are the user's name and password; takes as long for wrong ones.

        Args:
            username: The name given.
            password: The password given.
        """
        if self.username is None or self.password is None:
            return False
        same_name = _same(username, self.username)
        return _same(password, self.password) and same_name

    def is_token(self, token: str) -> bool:
        """Whether this is the token; takes as long for a wrong one.

        Args:
            token: The token given.
        """
        return self.token is not None and _same(token, self.token)


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogatepass"), known.encode(errors="surrogatepass"))


@dataclass(frozen=True)
class ConsoleOptions:
    """The options of the console.

    Attributes:
        allow_actions: Whether those with credentials may retry, revoke and forget tasks, and change schedules. An
            `authenticate` of the application decides by itself.
        credentials: The credentials of visitors; None lets everybody look, which only loopback should.
        authenticate: A function of the embedding application, in the place of `credentials`.
        title: The name that stands above every page.
        refresh: Seconds between two looks at the database for live updates, where it has no LIVE queries.
        longest_text: Characters of a result, an argument or a traceback that a page shows.
    """

    allow_actions: bool = False
    credentials: Credentials | None = None
    authenticate: Authenticate | None = None
    title: str = "Celery"
    refresh: float = 1.0
    longest_text: int = 20_000

    def __post_init__(self) -> None:
        if self.credentials is not None and self.authenticate is not None:
            raise SettingsError("the console has both credentials and authenticate: give one of them")
        if not isinstance(self.refresh, (int, float)) or not self.refresh > 0:
            raise SettingsError(f"the console's refresh is {self.refresh!r}: give seconds above 0")

    def access_of(self, known: bool) -> Access:
        """Return the access of a visitor whose credentials were checked.

        Args:
            known: Whether the credentials were right.
        """
        if not known:
            return Access.NONE
        return Access.ACT if self.allow_actions else Access.READ


def is_pair(answer: Any) -> bool:
    """Whether an `authenticate` gave a name and an access."""
    return isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Access)
