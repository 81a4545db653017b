"""URLs of settings: taken apart, and shown without secrets, however malformed they are."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ..client.options import DEFAULT_PORTS, EMBEDDED_SCHEMES, IN_MEMORY, NETWORK_SCHEMES, TLS
from ..client.secret import MASK
from ..errors import SettingsError
from . import kinds
from .kinds import PREFIX
from .names import nearest

#: The user of a development server.
DEFAULT_USER = "root"
DEFAULT_URL = "ws://localhost:8000/rpc"
#: The port of `surrealdb://` and `surrealdb+…://`, where none is given.
SURREALDB_PORT = 8000
#: The parts of TLS that a URL's query can set one by one: `?tls_ca=…&tls_verify=no`.
TLS_OPTIONS = {"tls_ca": "ca_file", "tls_cert": "cert_file", "tls_key": "key_file", "tls_verify": "verify"}
#: Options whose value is never shown, and those that a URL cannot have.
_SECRET, _ELSEWHERE = frozenset({"password", "token"}), frozenset({"url", "access_variables"})

LOOPBACK = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")
_NETWORK = re.compile(
    r"(?:(?P<user>[^/?#@:\[\]\s]*)(?::(?P<password>[^/?#@\[\]\s]*))?@)?"
    r"(?P<host>[\w.%-]*|\[[0-9a-fA-F:.]+\])(?::(?P<port>\d{0,5}))?"
    r"(?P<path>/[^?#@\s]*)?(?:\?(?P<query>[^#@\s]*))?"
)
_SCHEMES = ("surrealdb", *sorted(NETWORK_SCHEMES | EMBEDDED_SCHEMES))
_ESCAPE = "write / : @ ? # % in a password as %2F %3A %40 %3F %23 %25"


@dataclass
class ParsedURL:
    """The parts of a URL.

    Attributes:
        endpoint: Where requests go, free of secrets.
        given: The settings that the URL gives, by their names without `surrealdb_`.
    """

    endpoint: str
    given: dict[str, Any] = field(default_factory=dict)


def parse(source: str, url: Any, names: Collection[str]) -> ParsedURL:
    """Take a URL apart.

    Args:
        source: The setting that held it, for the message.
        url: The URL.
        names: The names of all settings, without `surrealdb_`.

    Returns:
        The parts of the URL.

    Raises:
        SettingsError: It is no URL of ours; the message shows no secret of it.
    """
    url = url.strip() if isinstance(url, str) else url
    shown = f"{source} ({without_secrets(url, names)!r})"
    if not isinstance(url, str) or "://" not in url:
        raise SettingsError(f"{shown} is not a URL such as {DEFAULT_URL!r}")
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    default_port = DEFAULT_PORTS.get(scheme, SURREALDB_PORT)
    scheme = "ws" if scheme == "surrealdb" else scheme.removeprefix("surrealdb+")
    if scheme in EMBEDDED_SCHEMES:
        path, _, query = rest.partition("?")
        if not path and scheme not in IN_MEMORY:
            raise SettingsError(f"{shown} names no directory; write {scheme}://PATH")
        return ParsedURL(f"{scheme}://{unquote(path)}", _options(shown, query, names))
    if scheme not in NETWORK_SCHEMES:
        raise SettingsError(
            f"{shown} has an unknown scheme; use one of {', '.join(sorted(NETWORK_SCHEMES))}, mem, surrealkv, rocksdb"
        )
    return _network(shown, scheme, rest, default_port, names)


def _network(shown: str, scheme: str, rest: str, default_port: int, names: Collection[str]) -> ParsedURL:
    parts = _NETWORK.fullmatch(rest)
    wrong = _mistake(rest) if parts is None else ""
    if parts is not None and not _is_port(parts["port"]):
        wrong = "its port is not a number from 1 to 65535"
    if parts is None or wrong:
        raise SettingsError(f"{shown} is not a URL: {wrong}; {_ESCAPE}")
    given: dict[str, Any] = {}
    if parts["user"]:
        given["username"] = unquote(parts["user"])
    if parts["password"] is not None:
        given["password"] = unquote(parts["password"])
    segments = [unquote(segment) for segment in (parts["path"] or "").split("/") if segment]
    base = ""
    if segments and segments[-1] == "rpc":
        # A path before /rpc is the server's place behind a proxy, not a namespace.
        base, segments = "".join(f"/{quote(segment)}" for segment in segments[:-1]), []
    if len(segments) > 2:
        raise SettingsError(f"{shown} has a path of {len(segments)} parts; it is /namespace/database or /rpc")
    given.update(zip(("namespace", "database"), segments, strict=False))  # either may be left out
    given.update(_options(shown, parts["query"] or "", names))
    host = parts["host"].lower() or "localhost"
    port = int(parts["port"]) if parts["port"] else default_port
    netloc = host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"
    return ParsedURL(f"{scheme}://{netloc}{base}/rpc", given)


def _is_port(port: str | None) -> bool:
    return not port or 0 < int(port) <= 65535


def _mistake(rest: str) -> str:
    """Name the mistake in the part of a URL behind `://`. It quotes nothing: it may be a part of the password."""
    if re.search(r"\s", rest):
        return "it has white space in it"
    # Where an unescaped / ? or # ends a password early, its beginning may even look like a port.
    place = re.split("[/?#]", rest)[0]
    if "#" in rest or "@" in rest[len(place) :]:
        return "it has a # or an @ behind its host"
    host = place.rpartition("@")[2]
    if "[" not in host and host.count(":") > 1:
        return "an IPv6 address stands in brackets, as [::1]"
    if "@" in place.rpartition("@")[0]:
        return "it has more than one @"
    if re.fullmatch(r"([\w.%-]*|\[[0-9a-fA-F:.]+\]):[^:]*", host):
        return "its port is not a number from 1 to 65535"
    return "its host is not one"


def _options(shown: str, query: str, names: Collection[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    known = [name for name in names if name not in _ELSEWHERE] + list(TLS_OPTIONS)
    for key, value in parse_qsl(query, keep_blank_values=True):
        name = key.removeprefix(PREFIX)
        if name in TLS_OPTIONS:
            tls[TLS_OPTIONS[name]] = kinds.flag(key, value) if name == "tls_verify" else value
        elif name in known:
            given[name] = value
        else:
            # An unescaped & makes a part of a password look like an option: it is named only if it looks like one.
            meant = nearest(name, known, cutoff=0.6)
            said = f"{key!r}; did you mean {meant!r}?" if meant else f"that is none of {', '.join(sorted(known))}"
            raise SettingsError(f"{shown} has an unknown option {said}")
    if tls:
        given["tls"] = replace(kinds.tls("tls", given.get("tls")) or TLS(), **tls)
    return given


def without_secrets(url: Any, names: Collection[str]) -> str:
    """A URL fit to be shown.

    Args:
        url: Anything that stood in the place of a URL.
        names: The names of all settings, without `surrealdb_`.

    Returns:
        The URL with its secrets masked; of one that cannot be taken apart for certain, only the scheme.
    """
    if not isinstance(url, str):
        return f"a value of type {type(url).__name__}"
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if re.fullmatch(rf"({LOOPBACK.pattern})(:\d{{1,5}})?(/rpc)?", url) else MASK
    bare = scheme.lower().removeprefix("surrealdb+")
    if bare not in _SCHEMES:
        return f"{scheme if nearest(bare, _SCHEMES, cutoff=0.6) else MASK}://{MASK}"
    if bare in EMBEDDED_SCHEMES:
        path, question, query = rest.partition("?")
        return f"{scheme}://{MASK if '@' in path else path}{question}{_shown_query(query, names)}"
    parts = _NETWORK.fullmatch(rest)
    if parts is None:
        return f"{scheme}://{_shown_remains(rest)}"
    # A user alone may be a token that stands in the wrong place.
    user = "" if parts["user"] is None else f"{parts['user']}:{MASK}@" if parts["password"] is not None else f"{MASK}@"
    port = "" if parts["port"] is None else f":{parts['port']}"
    query = "" if parts["query"] is None else f"?{_shown_query(parts['query'], names)}"
    return f"{scheme}://{user}{parts['host']}{port}{parts['path'] or ''}{query}"


def _shown_remains(rest: str) -> str:
    """Return the safe part of a URL that cannot be parsed: an unescaped / ? # or @ may be part of its password."""
    remains = re.fullmatch(r"([\w.-]+):.*@([\w.-]+(?::\d{1,5})?(?:/[\w./-]*)?)", rest, re.DOTALL)
    if remains is None or re.search(r"(password|token)=", rest):
        return MASK
    return f"{remains[1]}:{MASK}@{remains[2]}"


def _shown_query(query: str, names: Collection[str]) -> str:
    shown = []
    for key, value in parse_qsl(query, keep_blank_values=True):
        name = key.removeprefix(PREFIX)
        public = name in TLS_OPTIONS or (name in names and name not in _SECRET | _ELSEWHERE)
        shown.append((key if public or name in _SECRET else MASK, value if public else MASK))
    return urlencode(shown, safe="*")
