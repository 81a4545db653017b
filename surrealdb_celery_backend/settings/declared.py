"""The settings: each is declared once, with its default, its kind and whether it is a secret."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from celery.utils.log import get_logger

from ..client.options import EMBEDDED_SCHEMES, TLS, Options
from ..client.secret import MASK, Secret
from ..errors import SettingsError
from . import kinds, urls
from .kinds import PREFIX
from .retention import Rules, rules
from .sources import from_conf, from_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

logger = get_logger(__name__)

#: Celery's own settings that are lifetimes.
_LIFETIMES = ("result_expires", "result_failure_expires", "result_chord_expires")


def _setting(
    default: Any, kind: kinds.Kind, *, name: str | None = None, secret: bool = False, none: bool = False
) -> Any:
    """Declare a setting.

    Args:
        default: Its value where none is given.
        kind: Checks what is given; see `kinds`.
        name: Its name without `surrealdb_`, where that is not the field's.
        secret: Whether it is never shown.
        none: Whether None in `app.conf` is a value; elsewhere it is as if nothing were given.

    Returns:
        The field of the dataclass.
    """
    return field(default=default, repr=not secret, metadata={"kind": kind, "name": name, "none": none})


@dataclass(frozen=True)
class Settings:
    """The settings of one backend, validated. Times are seconds.

    Attributes:
        endpoint: Where requests go: `ws://host:8000/rpc`, `http://…/rpc`, `mem://`, `surrealkv:///path`; never with
            credentials in it.
        namespace: The namespace.
        database: The database.
        username: The user's name; None where a token is used.
        password: The user's password.
        auth_level: The level that the user is defined on: `root`, `namespace`, `database`, or `anonymous`.
        token: A JSON web token, in the place of a name and a password.
        access: The name of an access method, for record users.
        access_variables: The variables of that method; name and password when None.
        tls: How the server is verified; None for the system's rules.
        timeout: How long one call may take, its retries and reconnects included.
        live: Whether results are notified by LIVE queries: `auto`, `on` or `off`.
        define_schema: Whether missing tables and indexes are created.
        prefix: The beginning of every table's name.
        slow_call: From how many seconds on a call is logged; None for never.
        read_timeout: How long one read outside a worker may take, its retries included.
        unfinished_expires: How long the state of a task that has not ended is kept; None for ever.
        retention: Patterns of task names, and how long and how many of their results are kept.
        track_sent: Whether a task has a record from when it is sent.
        result_format: Whether values of JSON's types are stored as SurrealDB's own (`native`) or all encoded.
        indexes: The fields that tasks are indexed by besides their end, with commas in between.
        redact: Names of arguments that are masked before they are stored, or a function that masks.
        redact_limit: How many characters of a task's arguments are stored at most; 0 for all.
        chord_lease: How long a worker may take to publish a chord's body before another takes over.
        beat_sync_every: How often beat looks for changed entries where no LIVE query tells it.
        beat_lease: How long the active beat may be silent before a standby takes over.
        beat_catch_up: How far back beat makes up for every due time that was missed; of older ones for one.
        beat_code_wins: Whether the code's version of an entry replaces what was changed in the database.
        beat_heartbeat: The file that beat writes at each tick, for liveness probes.
        beat_check_tasks: Whether an entry is broken when beat's app does not know its task.
    """

    # A new setting is one line here and one row in docs/configuration.md.
    endpoint: str = _setting(urls.DEFAULT_URL, kinds.text, name="url")
    namespace: str = _setting("celery", kinds.text)
    database: str = _setting("results", kinds.text)
    username: str | None = _setting(urls.DEFAULT_USER, kinds.optional_text)
    password: str | None = _setting("root", kinds.secret, secret=True)
    auth_level: str = _setting("root", kinds.choice("root", "namespace", "database", "anonymous"))
    token: str | None = _setting(None, kinds.token, secret=True)
    access: str | None = _setting(None, kinds.optional_text)
    access_variables: Mapping[str, Secret] | None = _setting(None, kinds.secrets, secret=True)
    prefix: str = _setting("", kinds.prefix, name="table_prefix")
    tls: TLS | None = _setting(None, kinds.tls)
    timeout: float = _setting(10.0, kinds.seconds)
    slow_call: float | None = _setting(None, kinds.threshold)
    live: str = _setting("auto", kinds.choice("auto", "on", "off"))
    define_schema: bool = _setting(True, kinds.flag)
    read_timeout: float = _setting(5.0, kinds.seconds)
    unfinished_expires: float | None = _setting(30 * 86_400.0, kinds.lifetime, none=True)
    retention: Rules = _setting((), rules)
    track_sent: bool = _setting(False, kinds.flag)
    result_format: str = _setting("encoded", kinds.choice("encoded", "native"))
    indexes: str = _setting(
        "date_done",
        kinds.choices("date_done", "name", "status", "worker", "queue", "root_id", "group_id", "error", "text"),
    )
    redact: Any = _setting((), kinds.redaction)
    redact_limit: int = _setting(0, kinds.count)
    chord_lease: float = _setting(30.0, kinds.seconds)
    beat_sync_every: float = _setting(10.0, kinds.seconds)
    beat_lease: float = _setting(30.0, kinds.seconds)
    beat_catch_up: float = _setting(60.0, kinds.seconds)
    beat_check_tasks: bool = _setting(True, kinds.flag)
    beat_code_wins: bool = _setting(False, kinds.flag)
    beat_heartbeat: str | None = _setting(None, kinds.file)

    @property
    def scheme(self) -> str:
        """The endpoint's scheme: `ws`, `https`, `mem`, …."""
        return self.endpoint.partition("://")[0]

    @property
    def embedded(self) -> bool:
        """True where the engine runs inside this process."""
        return self.scheme in EMBEDDED_SCHEMES

    @cached_property
    def options(self) -> Options:
        """The options of a connection, from these settings."""
        return Options(
            endpoint=self.endpoint,
            namespace=self.namespace,
            database=self.database,
            timeout=self.timeout,
            username=self.username,
            password=None if self.password is None else Secret(self.password),
            auth_level=self.auth_level,
            token=None if self.token is None else Secret(self.token),
            access=self.access,
            access_variables=self.access_variables,
            tls=self.tls,
            define=self.define_schema,
            slow_call=self.slow_call,
        )

    def table(self, name: str) -> str:
        """The full name of one of our tables.

        Args:
            name: Its name without the prefix: `task`.

        Returns:
            The name with the prefix.
        """
        return self.prefix + name

    def uri(self, *, include_password: bool = False) -> str:
        """These settings as one URL.

        Args:
            include_password: Show the secrets, which are masked otherwise.

        Returns:
            A `surrealdb…://` URL that leads to the same database.
        """
        return self.options.uri(include_password=include_password)

    def with_database(self, namespace: str, database: str) -> Settings:
        """The same settings for another namespace and database.

        Args:
            namespace: The namespace.
            database: The database.

        Returns:
            A copy.
        """
        return replace(self, namespace=namespace, database=database)

    @classmethod
    def from_app(cls, app: Celery, url: str | Secret | None = None) -> Settings:
        """Read the settings of an app.

        Args:
            app: The Celery app; `app.conf` is read.
            url: The text behind the backend's name in `result_backend`, if any.

        Returns:
            The settings, all checked.

        Raises:
            SettingsError: A setting is unknown or not usable; the message names it, and shows no secret.
        """
        # Error trackers keep the local variables of an exception's frames: no frame that stays has a secret.
        url = url if isinstance(url, Secret) else Secret(url)
        try:
            return _read(app, url)
        except SettingsError as exc:
            cause = exc.__cause__
            if cause is not None:
                cause = cause.with_traceback(None)
            raise exc.with_traceback(None) from cause


@cache
def names() -> Mapping[str, str]:
    """The names of all settings without `surrealdb_`, with the fields of `Settings` that hold them."""
    return {one.metadata["name"] or one.name: one.name for one in fields(Settings)}


def _read(app: Celery, url: Secret) -> Settings:
    given: dict[str, Any] = {}
    from_variables, doubts = from_environment(os.environ, names())
    given |= from_variables
    given |= from_conf(app, names(), {one.name for one in fields(Settings) if one.metadata["none"]})
    for name in _LIFETIMES:
        kinds.full_lifetime(name, app.conf.get(name))
    parsed = urls.parse(f"{PREFIX}url", given.pop("url", urls.DEFAULT_URL), names())
    endpoint = parsed.endpoint
    given |= parsed.given
    if url:
        parsed = urls.parse("result_backend", url.reveal(), names())
        given |= parsed.given
        # One without a host, surrealdb:// alone for one, names the backend; where it is, surrealdb_url says.
        if not re.match(r"\s*surrealdb://(?:[/?]|\s*$)", url.reveal(), re.IGNORECASE):
            endpoint = parsed.endpoint
    if "username" in parsed.given:
        _refuse_user_alone(given)
    if given.get("token") and "auth_level" not in given:
        given.setdefault("username", None)
    values = {
        declared.name: declared.metadata["kind"](name, given.get(name, declared.default))
        for name, declared in zip(names(), fields(Settings), strict=True)
    }
    if values["tls"] is not None and endpoint.startswith(("ws://", "http://")):
        endpoint = endpoint.replace("ws://", "wss://", 1).replace("http://", "https://", 1)
    values |= {"endpoint": endpoint, "prefix": _key_prefix(app) + values["prefix"]}
    settings = Settings(**values)
    _check_header_names(settings)
    for warning in (*doubts, *_doubts(settings, default_password="password" not in given)):
        _warn_once(warning)
    return settings


def _refuse_user_alone(given: Mapping[str, Any]) -> None:
    """Refuse a URL's user without any password: SurrealDB has none, and it may be a password in the wrong place."""
    needless = given.get("token") or given.get("access_variables") or given.get("auth_level") == "anonymous"
    if needless or "password" in given or given["username"] == urls.DEFAULT_USER:
        return
    raise SettingsError(
        f"the URL has a user ({MASK}) and no password: write user:password@host in it, or set {PREFIX}password"
    )


def _key_prefix(app: Celery) -> str:
    prefix = (app.conf.get("result_backend_transport_options") or {}).get("global_keyprefix")
    if prefix is not None and not isinstance(prefix, str):
        raise SettingsError(f"global_keyprefix of result_backend_transport_options must be a text, not {prefix!r}")
    if prefix and prefix[-1] not in ":_-.":
        prefix += "_"  # as celery.backends.base does
    return prefix or ""


def _check_header_names(settings: Settings) -> None:
    if settings.scheme not in ("http", "https"):
        return
    # They travel in headers, of which a SurrealDB server reads nothing else.
    for name in ("namespace", "database"):
        value = getattr(settings, name)
        if not (value.isascii() and value.isprintable()):
            raise SettingsError(
                f"{PREFIX}{name} is {value!r}, but over {settings.scheme} it has to be ASCII; "
                "choose another, or connect by ws or wss"
            )


def _doubts(settings: Settings, *, default_password: bool) -> list[str]:
    """Warnings of settings that work and are probably not meant."""
    if settings.embedded:
        return []
    doubts = []
    host = urlsplit(settings.endpoint).hostname or "localhost"
    own_user = not settings.token and settings.auth_level != "anonymous"
    if default_password and own_user and not urls.LOOPBACK.fullmatch(host):
        doubts.append(
            f"surrealdb_password is the default one, meant for development, and {host} is another machine: "
            "set surrealdb_username and surrealdb_password"
        )
    if settings.tls is not None and not settings.tls.verify:
        doubts.append(
            f"surrealdb_tls has verify=False: anybody between here and {host} can read and change everything, "
            "the password included; name the server's CA as ca_file, and leave verify out"
        )
    return doubts


#: Warnings that this process has logged: every backend instance and every unpickled result reads the settings.
_warned: set[str] = set()


def _warn_once(warning: str) -> None:
    if warning not in _warned:
        _warned.add(warning)
        logger.warning("%s", warning)
