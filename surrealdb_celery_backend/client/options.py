"""Options of a connection: its address, user and time limit."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote, urlencode, urlsplit

from ..errors import SettingsError
from .secret import MASK, Secret, mask, texts

#: The port that a URL of each scheme leaves out.
DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
NETWORK_SCHEMES = frozenset(DEFAULT_PORTS)
#: Served by an engine inside this process.
EMBEDDED_SCHEMES = frozenset({"mem", "memory", "surrealkv", "surrealkv+versioned", "rocksdb", "file"})
IN_MEMORY = frozenset({"mem", "memory"})
#: Not masked in messages: everybody knows SurrealDB's development password.
PUBLIC_PASSWORD = "root"  # noqa: S105 - not a secret


@dataclass(frozen=True)
class TLS:
    """How a `wss` or `https` server is verified, and what is shown to it.

    Attributes:
        ca_file: PEM file of the certificate authorities to trust; the system's when None.
        cert_file: PEM file of the client certificate, for servers that ask for one.
        key_file: PEM file of the client certificate's key, where `cert_file` does not hold it.
        verify: False accepts any certificate and any host name.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """The context for one connection.

        Returns:
            A client's context.

        Raises:
            SettingsError: A file does not exist or is no PEM file.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as exc:
            raise SettingsError(
                f"surrealdb_tls: ca_file={self.ca_file!r}, cert_file={self.cert_file!r}, "
                f"key_file={self.key_file!r} cannot be loaded ({exc}); name readable PEM files"
            ) from exc
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class Options:
    """One SurrealDB and one user. Everything is checked already; `settings` reads it from the user.

    Attributes:
        endpoint: Where requests go: `ws://host:8000/rpc`, `http://…/rpc`, `mem://`, `surrealkv:///path`; without
            credentials.
        namespace: The namespace.
        database: The database.
        timeout: Seconds that one call may take, its retries and reconnects included.
        username: The user's name; None where a token is used.
        password: The user's password.
        auth_level: Where the user is defined: `root`, `namespace`, `database`; `anonymous` signs in as nobody.
        token: A JSON web token, in the place of name and password.
        access: The name of a record access method.
        access_variables: The variables of the access method; name and password when None.
        tls: How the server is verified; None for the system's rules.
        define: Whether a missing namespace and database are created.
        slow_call: From how many seconds on a call is logged; None for never.
    """

    endpoint: str
    namespace: str
    database: str
    timeout: float
    username: str | None = None
    password: Secret | None = field(default=None, repr=False)
    auth_level: str = "root"
    token: Secret | None = field(default=None, repr=False)
    access: str | None = None
    access_variables: Mapping[str, Secret] | None = field(default=None, repr=False)
    tls: TLS | None = None
    define: bool = True
    slow_call: float | None = None

    @property
    def scheme(self) -> str:
        """The endpoint's scheme: `ws`, `https`, `mem`, …."""
        return self.endpoint.partition("://")[0]

    @property
    def embedded(self) -> bool:
        """True where the engine runs inside this process."""
        return self.scheme in EMBEDDED_SCHEMES

    @cached_property
    def _secrets(self) -> tuple[str, ...]:
        found = {*texts(self.password), *texts(self.token), *texts(self.access_variables)}
        return tuple(found - {PUBLIC_PASSWORD, self.username})

    def mask(self, text: str) -> str:
        """A text fit to be shown, from any source.

        Args:
            text: A message of the server, of a library or of the operating system.

        Returns:
            The text without these options' secrets.
        """
        return mask(text, self._secrets)

    def uri(self, *, include_password: bool = False) -> str:
        """These options as one URL.

        Args:
            include_password: Show the secrets, which are masked otherwise.

        Returns:
            A `surrealdb…://` URL that leads to the same database.
        """
        if self.embedded:
            place = urlencode({"namespace": self.namespace, "database": self.database})
            return f"surrealdb+{self.endpoint}?{place}"
        parts = urlsplit(self.endpoint)
        scheme = "surrealdb" if parts.scheme == "ws" else f"surrealdb+{parts.scheme}"
        user = ""
        if self.username and self.auth_level != "anonymous" and not self.token:
            shown = quote(self.password.reveal() if self.password else "", safe="") if include_password else MASK
            user = f"{quote(self.username, safe='')}:{shown}@"
        query: dict[str, str] = {}
        if self.token:
            query["token"] = self.token.reveal() if include_password else MASK
        if self.auth_level != "root":
            query["auth_level"] = self.auth_level
        path = f"/{quote(self.namespace, safe='')}/{quote(self.database, safe='')}"
        if parts.path != "/rpc":  # behind a proxy, where the path is the server's place
            path = parts.path
            query.update(namespace=self.namespace, database=self.database)
        # Where none is written, the port of `surrealdb…://` is 8000.
        place = parts.netloc if parts.port else f"{parts.netloc}:{DEFAULT_PORTS[parts.scheme]}"
        return f"{scheme}://{user}{place}{path}" + (f"?{urlencode(query, safe='*')}" if query else "")
