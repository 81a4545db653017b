"""Everything that can be set, from ``app.conf``, the URL and the environment, in one frozen object.

Where a setting is given more than once the URL wins, then ``app.conf``, then the environment
(``SURREALDB_URL``, ``SURREALDB_PASSWORD``, …: a setting's name in capitals), then the default.
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from celery.utils.log import get_logger

from .errors import SettingsError

if TYPE_CHECKING:
    from celery import Celery

logger = get_logger(__name__)

PREFIX = "surrealdb_"
#: Shown wherever a secret would stand; Celery's own mask.
MASK = "**"
DEFAULT_URL = "ws://localhost:8000/rpc"
DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
NETWORK_SCHEMES = frozenset(DEFAULT_PORTS)
#: Served by an engine inside this process.
EMBEDDED_SCHEMES = frozenset({"mem", "memory", "surrealkv", "surrealkv+versioned", "rocksdb", "file"})
IN_MEMORY = frozenset({"mem", "memory"})
AUTH_LEVELS = ("root", "namespace", "database", "anonymous")
LIVE_MODES = ("auto", "on", "off")
LOOPBACK = re.compile(r"localhost|::1|127(\.\d+){3}")
SECRETS = frozenset({"password", "token", "access_variables"})


@dataclass(frozen=True)
class TLS:
    """How a ``wss`` or ``https`` server is verified, and what is shown to it.

    :param ca_file: PEM file of the certificate authorities to trust; the system's when None.
    :param cert_file: PEM file of the client certificate, for servers that ask for one.
    :param key_file: PEM file of the client certificate's key, where ``cert_file`` does not hold it.
    :param verify: False accepts any certificate and any host name.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """The context for one connection.

        :raises SettingsError: a file does not exist or is no PEM file.
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


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{PREFIX}{name} must be a text that is not empty, not {value!r}")
    return value


def _optional_text(name: str, value: Any) -> str | None:
    return None if value in (None, "") else _text(name, value)


def _secret(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise SettingsError(f"{PREFIX}{name} must be a text, not a value of type {type(value).__name__}")
    return value


def _prefix(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\x00" in value:
        raise SettingsError(f"{PREFIX}{name} must be a text without NUL bytes, not {value!r}")
    return value


def _seconds(name: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    try:
        seconds = float(seconds)
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise SettingsError(f"{PREFIX}{name} must be a number of seconds above 0, not {value!r}")
    return seconds


def _flag(name: str, value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    found = value if isinstance(value, bool) else words.get(str(value).lower())
    if found is None:
        raise SettingsError(f"{PREFIX}{name} must be True or False, not {value!r}")
    return found


def _choice(choices: tuple[str, ...], name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = "on" if value else "off"
    if str(value).lower() not in choices:
        raise SettingsError(f"{PREFIX}{name} must be one of {', '.join(choices)}, not {value!r}")
    return str(value).lower()


def _mapping(name: str, value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise SettingsError(f"{PREFIX}{name} must be a dict, not a value of type {type(value).__name__}")
    return value


def _file(name: str, value: Any) -> str | None:
    return _optional_text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _tls(name: str, value: Any) -> TLS | None:
    if value is None or isinstance(value, TLS):
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bool):
        return TLS() if value else None
    if isinstance(value, str):
        if value.lower() in ("true", "1", "yes", "on"):
            return TLS()
        return None if value.lower() in ("false", "0", "no", "off", "") else TLS(ca_file=value)
    if not isinstance(value, Mapping):
        raise SettingsError(f"{PREFIX}{name} must be True, a CA file or a dict, not {value!r}")
    parts: dict[str, Any] = {}
    for key, part in value.items():
        if key not in TLS.__dataclass_fields__:
            raise SettingsError(_unknown(f"{PREFIX}{name} key", str(key), TLS.__dataclass_fields__))
        parts[key] = _flag(f"{name} {key}", part) if key == "verify" else _file(f"{name} {key}", part)
    return TLS(**parts)


@dataclass(frozen=True)
class _Setting:
    name: str
    default: Any
    parse: Callable[[str, Any], Any]


_SETTINGS = {
    setting.name: setting
    for setting in (
        _Setting("url", DEFAULT_URL, _text),
        _Setting("namespace", "celery", _text),
        _Setting("database", "results", _text),
        _Setting("username", "root", _optional_text),
        _Setting("password", "root", _secret),
        _Setting("auth_level", "root", partial(_choice, AUTH_LEVELS)),
        _Setting("token", None, _secret),
        _Setting("access", None, _optional_text),
        _Setting("access_variables", None, _mapping),
        _Setting("table_prefix", "", _prefix),
        _Setting("tls", None, _tls),
        _Setting("timeout", 10.0, _seconds),
        _Setting("live", "auto", partial(_choice, LIVE_MODES)),
        _Setting("define_schema", True, _flag),
        # How long a worker may take to publish a chord's body before another takes over.
        _Setting("chord_lease", 30.0, _seconds),
        # How often beat looks for changed entries where no LIVE query tells it.
        _Setting("beat_sync_every", 10.0, _seconds),
        # How long the active beat may be silent before a standby takes over.
        _Setting("beat_lease", 30.0, _seconds),
        # How far back beat makes up for every due time that was missed; of older ones it makes up for one.
        _Setting("beat_catch_up", 60.0, _seconds),
        # Whether an entry is broken when beat's app does not know its task.
        _Setting("beat_check_tasks", True, _flag),
    )
}
#: The parts of TLS that a URL's query can set one by one: ``?tls_ca=…&tls_verify=no``.
_TLS_QUERY = {"tls_ca": "ca_file", "tls_cert": "cert_file", "tls_key": "key_file", "tls_verify": "verify"}


def _unknown(what: str, name: str, known: Any) -> str:
    longer = [candidate for candidate in known if candidate.startswith(name.lower())]
    nearest = longer or difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0)
    return f"unknown {what} {name!r}; did you mean {nearest[0]!r}?"


@dataclass(frozen=True)
class Settings:
    """The settings of one backend, validated. Times are seconds.

    :param endpoint: where requests go: ``ws://host:8000/rpc``, ``http://…/rpc``, ``mem://``,
        ``surrealkv:///path``; never with credentials in it.
    :param prefix: what stands before every table's name.
    """

    endpoint: str = DEFAULT_URL
    namespace: str = "celery"
    database: str = "results"
    username: str | None = "root"
    password: str | None = field(default="root", repr=False)
    auth_level: str = "root"
    token: str | None = field(default=None, repr=False)
    access: str | None = None
    access_variables: Mapping[str, Any] | None = field(default=None, repr=False)
    prefix: str = ""
    tls: TLS | None = None
    timeout: float = 10.0
    live: str = "auto"
    define_schema: bool = True
    chord_lease: float = 30.0
    beat_sync_every: float = 10.0
    beat_lease: float = 30.0
    beat_catch_up: float = 60.0
    beat_check_tasks: bool = True

    @property
    def scheme(self) -> str:
        """The endpoint's scheme: ``ws``, ``https``, ``mem``, …."""
        return self.endpoint.partition("://")[0]

    @property
    def embedded(self) -> bool:
        """True where the engine runs inside this process."""
        return self.scheme in EMBEDDED_SCHEMES

    def table(self, name: str) -> str:
        """The full name of one of our tables."""
        return self.prefix + name

    def uri(self, *, include_password: bool = False) -> str:
        """These settings as one URL, with every secret masked unless ``include_password``."""
        if self.embedded:
            place = urlencode({"namespace": self.namespace, "database": self.database})
            return f"surrealdb+{self.endpoint}?{place}"
        parts = urlsplit(self.endpoint)
        scheme = "surrealdb" if parts.scheme == "ws" else f"surrealdb+{parts.scheme}"
        user = ""
        if self.username and self.auth_level != "anonymous" and not self.token:
            secret = quote(self.password or "", safe="") if include_password else MASK
            user = f"{quote(self.username, safe='')}:{secret}@"
        query: dict[str, str] = {}
        if self.token:
            query["token"] = self.token if include_password else MASK
        if self.auth_level != "root":
            query["auth_level"] = self.auth_level
        path = f"/{quote(self.namespace, safe='')}/{quote(self.database, safe='')}"
        return f"{scheme}://{user}{parts.netloc}{path}" + (f"?{urlencode(query, safe='*')}" if query else "")

    @classmethod
    def from_app(cls, app: Celery, url: str | None = None) -> Settings:
        """Read the settings of an app.

        :param app: the Celery app; ``app.conf`` is read.
        :param url: what ``result_backend`` held behind the backend's name, if anything.
        :raises SettingsError: a setting is unknown or not usable; the message names it.
        """
        given: dict[str, Any] = {}
        for name in _SETTINGS:
            variable = os.environ.get(f"{PREFIX}{name}".upper())
            if variable:
                given[name] = variable
        for name in _SETTINGS:
            value = app.conf.get(PREFIX + name)
            if value is not None:
                given[name] = value
        _refuse_unknown(app)  # only now: the first look at app.conf is what loads it
        endpoint_url, from_own_url = _split_url(f"{PREFIX}url", given.pop("url", DEFAULT_URL))
        given.update(from_own_url)
        if url:
            from_url_endpoint, from_url = _split_url("result_backend", url)
            given.update(from_url)
            # One without a host, surrealdb:// alone for one, names the backend; where it is, surrealdb_url says.
            if not re.match(r"surrealdb://(?:[/?]|$)", url, re.IGNORECASE):
                endpoint_url = from_url_endpoint
        if given.get("token") and "auth_level" not in given:
            given.setdefault("username", None)
        values = {
            name: setting.parse(name, given.get(name, setting.default))
            for name, setting in _SETTINGS.items()
            if name != "url"
        }
        tls = values["tls"]
        if tls is not None and endpoint_url.startswith(("ws://", "http://")):
            endpoint_url = endpoint_url.replace("ws://", "wss://", 1).replace("http://", "https://", 1)
        keyprefix = (app.conf.get("result_backend_transport_options") or {}).get("global_keyprefix")
        if keyprefix is not None and not isinstance(keyprefix, str):
            raise SettingsError(
                f"global_keyprefix of result_backend_transport_options must be a text, not {keyprefix!r}"
            )
        if keyprefix and keyprefix[-1] not in ":_-.":
            keyprefix += "_"  # as celery.backends.base does
        prefix = (keyprefix or "") + values.pop("table_prefix")
        settings = cls(endpoint=endpoint_url, prefix=prefix, **values)
        if settings.scheme in ("http", "https"):
            # They travel in headers, of which a SurrealDB server reads nothing else.
            for name in ("namespace", "database"):
                if not (values[name].isascii() and values[name].isprintable()):
                    raise SettingsError(
                        f"{PREFIX}{name} is {values[name]!r}, but over {settings.scheme} it has to be ASCII; "
                        "choose another, or connect by ws or wss"
                    )
        settings._warn_of_defaults("password" not in given)
        return settings

    def _warn_of_defaults(self, default_password: bool) -> None:
        if self.embedded or self.token or self.auth_level == "anonymous" or not default_password:
            return
        host = urlsplit(self.endpoint).hostname or "localhost"
        if not LOOPBACK.fullmatch(host):
            logger.warning(
                "surrealdb_password is the default one, meant for development, and %s is another "
                "machine: set surrealdb_username and surrealdb_password",
                host,
            )

    def with_database(self, namespace: str, database: str) -> Settings:
        """The same settings for another namespace and database."""
        return replace(self, namespace=namespace, database=database)


def _given_names(app: Celery) -> Iterator[str]:
    """The names that the user set, without Celery's namespace (``CELERY_SURREALDB_URL``) where there is one."""
    conf = app.conf
    namespace = str(getattr(conf, "prefix", None) or "")
    for mapping in conf.maps[:-1]:  # the last one holds Celery's defaults
        try:
            keys = list(mapping)
        except TypeError:
            keys = [name for name in dir(mapping) if not name.startswith("__")]
        for key in keys:
            if not isinstance(key, str):
                continue
            if namespace and key.startswith(namespace):
                yield key.removeprefix(namespace).lower()
            elif not namespace or key.islower():  # other capitals are those of the rest of Django's settings
                yield key


def _refuse_unknown(app: Celery) -> None:
    known = [PREFIX + name for name in _SETTINGS]
    for name in _given_names(app):
        # Without a namespace Celery finds no names in capitals: they would be left out in silence.
        if name.lower().startswith(PREFIX) and name not in known:
            raise SettingsError(_unknown("setting", name, known))


def _split_url(source: str, url: Any) -> tuple[str, dict[str, Any]]:
    """An URL's endpoint, free of secrets, and the settings that the URL gives.

    :param source: the setting that held it, for the message.
    """
    # Never shown whole: it may hold a password.
    shown = f"{source} ({_without_secrets(url)!r})"
    if not isinstance(url, str) or "://" not in url:
        raise SettingsError(f"{shown} is not a URL such as {DEFAULT_URL!r}")
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme == "surrealdb":
        scheme, default_port = "ws", 8000
    elif scheme.startswith("surrealdb+"):
        scheme, default_port = scheme.removeprefix("surrealdb+"), 8000
    else:
        default_port = DEFAULT_PORTS.get(scheme, 0)
    if scheme in EMBEDDED_SCHEMES:
        path, _, query = rest.partition("?")
        if not path and scheme not in IN_MEMORY:
            raise SettingsError(f"{shown} names no directory; write {scheme}://PATH")
        return f"{scheme}://{unquote(path)}", _from_query(shown, query)
    if scheme not in NETWORK_SCHEMES:
        schemes = ", ".join([*sorted(NETWORK_SCHEMES), "mem", "surrealkv", "rocksdb"])
        raise SettingsError(f"{shown} has an unknown scheme; use one of {schemes}")
    parts = _parts(f"{scheme}://{rest}")
    if isinstance(parts, str):
        raise SettingsError(
            f"{shown} is not a URL: {parts}; write / : @ ? # % in a password as %2F %3A %40 %3F %23 %25"
        )
    host, port = parts.hostname or "localhost", parts.port
    given: dict[str, Any] = {}
    if parts.username:
        given["username"] = unquote(parts.username)
    if parts.password is not None:
        given["password"] = unquote(parts.password)
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    base = ""
    if segments and segments[-1] == "rpc":
        # What stands before /rpc is where a proxy keeps the server, not a namespace.
        base, segments = "".join(f"/{quote(segment)}" for segment in segments[:-1]), []
    if len(segments) > 2:
        raise SettingsError(f"{shown} has a path of {len(segments)} parts; it is /namespace/database or /rpc")
    given.update(zip(("namespace", "database"), segments, strict=False))  # either may be left out
    given.update(_from_query(shown, parts.query))
    host = f"[{host}]" if ":" in host else host
    port = port or default_port
    netloc = host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"
    return f"{scheme}://{netloc}{base}/rpc", given


def _parts(url: str) -> SplitResult | str:
    """The parts of a URL, or why it is none.

    The reason quotes nothing, nor is the parser's error raised: both may have a part of the password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "its host is not one"
    # Where an unescaped / ? or # ends a password early, its beginning may even look like a port.
    if "#" in url or "@" in parts.path + parts.query:
        return "it has a # or an @ behind its host"
    if "[" not in parts.netloc and parts.netloc.rpartition("@")[2].count(":") > 1:
        return "an IPv6 address stands in brackets, as [::1]"
    try:
        port = parts.port
    except ValueError:
        port = 0
    return "its port is not a number from 1 to 65535" if port == 0 else parts


def _from_query(shown: str, query: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    known = [name for name in _SETTINGS if name not in ("url", "access_variables")] + list(_TLS_QUERY)
    for key, value in parse_qsl(query, keep_blank_values=True):
        name = key.removeprefix(PREFIX)
        if name in _TLS_QUERY:
            tls[_TLS_QUERY[name]] = _flag(key, value) if name == "tls_verify" else value
        elif name in known:
            given[name] = value
        else:
            raise SettingsError(f"{shown} has an {_unknown('option', key, known)}")
    if tls:
        base = _tls("tls", given.get("tls")) or TLS()
        given["tls"] = replace(base, **tls)
    return given


def _without_secrets(url: Any) -> str:
    """A URL fit to be shown, even one that cannot be parsed."""
    text = str(url)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return MASK if "@" in text else text
    # Up to the last @, since an unescaped / ? or # may be part of the password.
    userinfo, at, place = rest.rpartition("@")
    user = re.split("[:/?#]", userinfo)[0]
    where, question, query = place.partition("?")
    public = (set(_SETTINGS) | set(_TLS_QUERY)) - SECRETS
    pairs = [
        (key, value if key.removeprefix(PREFIX) in public else MASK)
        for key, value in parse_qsl(query, keep_blank_values=True)
    ]
    shown = f"{scheme}://" + (f"{user}:{MASK}@" if at else "") + where
    return shown + (question + urlencode(pairs, safe="*") if question else "")
