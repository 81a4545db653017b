"""Settings come from app.conf, one URL or the environment, and are checked before anything is connected."""

from __future__ import annotations

import dataclasses
import logging
import re
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.errors import SettingsError
from surrealdb_celery_backend.settings import TLS, Settings
from tests.support.settings import settings

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("clean_environment")]


def test_defaults() -> None:
    """Without any setting results go to a server on this machine."""
    found = settings()
    assert found == Settings(endpoint="ws://localhost:8000/rpc")
    assert (found.namespace, found.database, found.username, found.password) == ("celery", "results", "root", "root")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("ws://h:1", "ws://h:1/rpc"),
        ("ws://h:1/", "ws://h:1/rpc"),
        ("ws://h:1/rpc", "ws://h:1/rpc"),
        ("WS://h:1/rpc", "ws://h:1/rpc"),
        ("ws://h", "ws://h/rpc"),
        ("wss://h:443", "wss://h/rpc"),
        ("http://h:8000", "http://h:8000/rpc"),
        ("https://h/behind/a/proxy/rpc", "https://h/behind/a/proxy/rpc"),
        ("ws://[::1]:8000", "ws://[::1]:8000/rpc"),
        ("surrealdb://h", "ws://h:8000/rpc"),
        ("surrealdb+wss://h", "wss://h:8000/rpc"),
        ("surrealdb+http://h:1", "http://h:1/rpc"),
        ("mem://", "mem://"),
        ("memory://", "memory://"),
        ("surrealkv:///a/b%20c", "surrealkv:///a/b c"),
        ("surrealkv://relative", "surrealkv://relative"),
        ("rocksdb:///a", "rocksdb:///a"),
    ],
)
def test_endpoint(url: str, endpoint: str) -> None:
    """The URL may leave out /rpc and the port, and may be of any supported scheme."""
    assert settings(surrealdb_url=url).endpoint == endpoint


@pytest.mark.parametrize("name", ["namespace", "database"])
def test_names_over_http_are_ascii(name: str) -> None:
    """Over HTTP a namespace and a database travel in headers, which other letters do not survive."""
    for value in ("näm", "🙂", "a\nb"):
        assert getattr(settings(**{f"surrealdb_{name}": value}), name) == value
        for url in ("http://h", "https://h", "surrealdb+http://h"):
            with pytest.raises(SettingsError, match=f"surrealdb_{name} is .*, but over https? it has to be ASCII"):
                settings(**{"surrealdb_url": url, f"surrealdb_{name}": value})
    assert getattr(settings(surrealdb_url="http://h", **{f"surrealdb_{name}": "a`b d/b"}), name) == "a`b d/b"


def test_everything_in_one_url() -> None:
    """A URL may hold user, password, namespace, database and options, percent-encoded."""
    found = settings(
        "surrealdb+wss://m%40e:p%2F%3A%40ss@example.org:9/my%20ns/d%2Fb?auth_level=database&timeout=3&tls_verify=no"
    )
    assert found.endpoint == "wss://example.org:9/rpc"
    assert (found.username, found.password) == ("m@e", "p/:@ss")
    assert (found.namespace, found.database) == ("my ns", "d/b")
    assert (found.auth_level, found.timeout, found.tls) == ("database", 3.0, TLS(verify=False))


def test_what_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL wins over app.conf, which wins over the environment, which wins over the default."""
    monkeypatch.setenv("SURREALDB_NAMESPACE", "environment")
    monkeypatch.setenv("SURREALDB_DATABASE", "environment")
    monkeypatch.setenv("SURREALDB_TIMEOUT", "7")
    found = settings("ws://h/url", surrealdb_namespace="conf", surrealdb_database="conf")
    assert (found.namespace, found.database, found.timeout) == ("url", "conf", 7.0)


@pytest.mark.parametrize("url", ["surrealdb://", "SURREALDB://", "surrealdb://?timeout=3", "surrealdb:///n/d"])
def test_bare_url_leaves_the_place_to_the_settings(url: str) -> None:
    """result_backend = surrealdb:// names the backend; the server is that of surrealdb_url."""
    assert settings(url, surrealdb_url="wss://h:1").endpoint == "wss://h:1/rpc"


@pytest.mark.parametrize(
    "password", ["s3cr3t/", "12/s3cr3t", "s3cr3t?", "12?s3cr3t", "12?a=s3cr3t", "s3cr3t#", "12#s3cr3t", "[s3cr3t"]
)
def test_password_that_is_not_escaped(password: str) -> None:
    """An unescaped password is refused, not taken for host, port or namespace, and no part of it is shown."""
    for place in ("h", "h:8000", "h/n", "h:8000/n/d"):
        with pytest.raises(SettingsError, match=r"is not a URL: .*; write / : @") as caught:
            settings(f"surrealdb://root:{password}@{place}")
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
        assert repr(f"surrealdb://root:**@{place}") in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown", "why"),
    [
        ("ws://h:0", "ws://h:0", "its port is not a number from 1 to 65535"),
        ("ws://h:99999", "ws://h:99999", "its port is not a number from 1 to 65535"),
        # What stands in the port's place may be a password whose host was forgotten.
        ("ws://h:8000x", "ws://**", "its port is not a number from 1 to 65535"),
        ("ws://::1:8000", "ws://**", "an IPv6 address stands in brackets"),
        ("ws://[::1:8000", "ws://**", "its host is not one"),
        ("ws://h/rpc#there", "ws://**", "it has a # or an @ behind its host"),
        ("ws://h /rpc", "ws://**", "it has white space in it"),
        ("ws://a@b@h", "ws://**", "it has more than one @"),
        ("surrealkv://", "surrealkv://", "names no directory; write surrealkv://PATH"),
        ("rocksdb://?namespace=n", "rocksdb://?namespace=n", "names no directory; write rocksdb://PATH"),
        ("localhost:8000", "localhost:8000", "is not a URL such as 'ws://localhost:8000/rpc'"),
        ("db.example:8000", "**", "is not a URL such as 'ws://localhost:8000/rpc'"),
        ("wsss://h", "wsss://**", "has an unknown scheme; use one of http, https, ws, wss, mem"),
        ("postgresql://h", "**://**", "has an unknown scheme; use one of http, https, ws, wss, mem"),
    ],
)
def test_urls_that_lead_nowhere(url: str, shown: str, why: str) -> None:
    """The message names the setting, shows the URL as far as that is no secret, and says what is wrong with it."""
    with pytest.raises(SettingsError, match=re.escape(why)) as caught:
        settings(surrealdb_url=url)
    assert str(caught.value).startswith(f"surrealdb_url ({shown!r}) ")


@pytest.mark.parametrize("level", ["root", "namespace", "database", "anonymous"])
def test_uri_leads_back(level: str) -> None:
    """The URI of settings, password included, gives the same settings."""
    found = settings(
        surrealdb_url="wss://h:1", surrealdb_username="m@e", surrealdb_password="p/ss", surrealdb_auth_level=level
    )
    again = settings(found.uri(include_password=True))
    assert dataclasses.replace(again, username="m@e", password="p/ss") == found
    assert "p/ss" not in found.uri()
    assert "p%2Fss" not in found.uri()


@pytest.mark.parametrize(
    "url", ["ws://h", "https://h", "ws://h:8000/db/rpc", "https://proxy/a/b%20c/rpc", "wss://[::1]"]
)
def test_uri_has_the_port_and_the_path_of_the_server(url: str) -> None:
    """Also a port that the URL left out, and a path behind which a proxy has the server, lead back."""
    found = settings(surrealdb_url=url, surrealdb_namespace="n/1", surrealdb_database="d")
    assert settings(found.uri(include_password=True)) == found


def test_nothing_shows_a_secret() -> None:
    """Neither the settings' repr nor their URI holds the password, the token or what goes with an access method."""
    found = settings(
        surrealdb_password="s3cr3t",
        surrealdb_token="s3cr3t",
        surrealdb_access="users",
        surrealdb_access_variables={"key": "s3cr3t"},
    )
    assert "s3cr3t" not in repr(found) + str(found) + found.uri()
    assert "s3cr3t" not in repr(settings(surrealdb_password="s3cr3t"))


def test_what_celery_masks() -> None:
    """``celery report`` and ``celery inspect conf`` mask password, token and result_backend, and not surrealdb_url."""
    app = Celery("settings", set_as_current=False)
    app.conf.update(
        result_backend="surrealdb://root:s3cr3t@h/n/d",
        surrealdb_url="ws://root:shown@h",
        surrealdb_password="s3cr3t",
        surrealdb_token="s3cr3t",
        surrealdb_access_variables={"password": "s3cr3t", "word": "shown"},
    )
    told = app.conf.humanize()
    assert "s3cr3t" not in told
    assert told.count("shown") == 2


@pytest.mark.parametrize(
    ("value", "seconds"), [(1, 1.0), (0.5, 0.5), ("2.5", 2.5), (timedelta(minutes=1), 60.0)], ids=repr
)
def test_times(value: Any, seconds: float) -> None:
    """Times are seconds as number or text, or a timedelta."""
    assert settings(surrealdb_timeout=value).timeout == seconds


@pytest.mark.parametrize("value", [0, -1, "soon", None, True, float("inf"), float("nan"), [1]], ids=repr)
def test_times_that_are_none(value: Any) -> None:
    """A time that is not one is refused with the setting's name; None is the default."""
    if value is None:
        assert settings(surrealdb_timeout=None).timeout == 10.0
        return
    with pytest.raises(SettingsError, match="surrealdb_timeout must be a number of seconds above 0"):
        settings(surrealdb_timeout=value)


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({}, "mine-"),
        ({"global_keyprefix": "app"}, "app_mine-"),
        ({"global_keyprefix": "app:"}, "app:mine-"),
        ({"global_keyprefix": None}, "mine-"),
    ],
    ids=repr,
)
def test_prefix(options: dict[str, Any], prefix: str) -> None:
    """global_keyprefix, with Celery's separator, stands before surrealdb_table_prefix."""
    found = settings(surrealdb_table_prefix="mine-", result_backend_transport_options=options)
    assert found.table("task") == f"{prefix}task"


@pytest.mark.parametrize(
    ("value", "tls", "scheme"),
    [
        (None, None, "ws"),
        (False, None, "ws"),
        (True, TLS(), "wss"),
        ("yes", TLS(), "wss"),
        ("/ca.pem", TLS(ca_file="/ca.pem"), "wss"),
        (Path("/ca.pem"), TLS(ca_file="/ca.pem"), "wss"),
        ({"cert_file": "c", "key_file": "k", "verify": False}, TLS(cert_file="c", key_file="k", verify=False), "wss"),
        ({"ca_file": Path("/ca.pem"), "verify": "no"}, TLS(ca_file="/ca.pem", verify=False), "wss"),
    ],
    ids=repr,
)
def test_tls(value: Any, tls: TLS | None, scheme: str) -> None:
    """surrealdb_tls makes the line a TLS one; it may be True, a CA file or a dict."""
    found = settings(surrealdb_url="ws://h:1", surrealdb_tls=value)
    assert (found.tls, found.scheme) == (tls, scheme)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"surrealdb_tls": {"ca_file": 5}}, "surrealdb_tls ca_file must be a text that is not empty, not 5"),
        ({"surrealdb_tls": {"verify": "perhaps"}}, "surrealdb_tls verify must be True or False, not 'perhaps'"),
        (
            {"result_backend_transport_options": {"global_keyprefix": 5}},
            "global_keyprefix of result_backend_transport_options must be a text, not 5",
        ),
    ],
    ids=repr,
)
def test_wrong_types_inside_a_dict(conf: dict[str, Any], message: str) -> None:
    """What a dict holds is checked like a setting of its own."""
    with pytest.raises(SettingsError, match=message):
        settings(**conf)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("surrealdb_namspace", "surrealdb_namespace"),
        ("surrealdb_user", "surrealdb_username"),
        ("surrealdb_pass", "surrealdb_password"),
        ("surrealdb_prefix", "surrealdb_table_prefix"),
        ("SURREALDB_TIMEOUTS", "surrealdb_timeout"),
        ("SURREALDB_TIMEOUT", "surrealdb_timeout"),  # Celery finds no names in capitals
    ],
)
def test_unknown_settings_are_refused(given: str, meant: str) -> None:
    """A setting that does not exist is an error that suggests the nearest one."""
    with pytest.raises(SettingsError, match=f"'{given}'; did you mean '{meant}'"):
        settings(**{given: "x"})


def test_namespace() -> None:
    """With Celery's namespace, as in Django, only names that begin with it are the backend's."""

    class Project:
        CELERY_SURREALDB_TIMEOUT = 3
        SURREALDB_HOST = "of the project's own"

    app = Celery("settings", set_as_current=False)
    app.config_from_object(Project, namespace="CELERY")
    assert Settings.from_app(app).timeout == 3.0
    Project.CELERY_SURREALDB_TIMEOUTS = 4  # type: ignore[attr-defined]
    app = Celery("settings", set_as_current=False)
    app.config_from_object(Project, namespace="CELERY")
    with pytest.raises(SettingsError, match="'surrealdb_timeouts'; did you mean 'surrealdb_timeout'"):
        Settings.from_app(app)


def test_default_password_elsewhere_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """The development password towards another machine gives a warning; on this machine, and where set, none."""
    for quiet in ("ws://localhost:1", "ws://127.0.0.1:1", "ws://[::1]:1", "mem://"):
        settings(surrealdb_url=quiet)
    settings(surrealdb_url="ws://example.org", surrealdb_password="own")
    assert caplog.records == []
    for host in ("example.org", "localhost.example.org"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            settings(surrealdb_url=f"ws://{host}")
        assert f"surrealdb_password is the default one, meant for development, and {host} is" in caplog.text
