"""What the environment gives, what it only seems to give, and what is said once."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.errors import SettingsError
from surrealdb_celery_backend.settings import Settings, declared
from surrealdb_celery_backend.settings.sources import from_environment
from tests.support.paths import CHECKOUT
from tests.support.settings import settings

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("clean_environment")]

DOCUMENTED = (CHECKOUT / "docs" / "configuration.md").read_text(encoding="utf-8")


def of_settings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the settings said, not what threads of earlier tests say meanwhile."""
    return [record for record in caplog.records if record.name == declared.__name__]


@pytest.mark.parametrize("before", ["SURREALDB_", "CELERY_SURREALDB_"])
def test_every_setting_has_a_variable(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no configuration in code each setting is read from the environment, in both forms of its name."""
    given = {
        "URL": "wss://h:1",
        "NAMESPACE": "n",
        "DATABASE": "d",
        "USERNAME": "u",
        "PASSWORD": "p",
        "AUTH_LEVEL": "database",
        "TOKEN": "t",
        "ACCESS": "a",
        "TABLE_PREFIX": "x",
        "TLS": "/ca.pem",
        "TIMEOUT": "3",
        "LIVE": "off",
        "DEFINE_SCHEMA": "no",
    }
    assert {name.lower() for name in given} <= set(declared.names())
    for name, value in given.items():
        monkeypatch.setenv(before + name, value)
    found = settings()
    assert (found.endpoint, found.namespace, found.database) == ("wss://h:1/rpc", "n", "d")
    assert (found.username, found.password, found.auth_level, found.token, found.access) == (
        "u",
        "p",
        "database",
        "t",
        "a",
    )
    assert (found.prefix, found.timeout, found.live, found.define_schema) == ("x", 3.0, "off", False)
    assert found.tls is not None
    assert found.tls.ca_file == "/ca.pem"


def test_celerys_form_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both forms CELERY_SURREALDB_… wins: it can only be meant for Celery. app.conf wins over both."""
    monkeypatch.setenv("SURREALDB_NAMESPACE", "plain")
    monkeypatch.setenv("CELERY_SURREALDB_NAMESPACE", "celery's")
    assert settings().namespace == "celery's"
    assert settings(surrealdb_namespace="conf").namespace == "conf"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SURREALDB_USER", "SURREALDB_USERNAME"),
        ("SURREALDB_PASS", "SURREALDB_PASSWORD"),
        ("SURREALDB_PASSWROD", "SURREALDB_PASSWORD"),
        ("SURREALDB_URI", "SURREALDB_URL"),
        ("SURREALDB_NAMESPACES", "SURREALDB_NAMESPACE"),
        ("SURREALDB_TABLEPREFIX", "SURREALDB_TABLE_PREFIX"),
        ("surrealdb_password", "SURREALDB_PASSWORD"),
        ("CELERY_SURREALDB_PASWORD", "CELERY_SURREALDB_PASSWORD"),
        ("CELERY_SURREALDB_NS", "CELERY_SURREALDB_NAMESPACE"),
        ("CELERY_SURREAL_URL", "CELERY_SURREALDB_URL"),
        ("CELERY_SURREALDB_CONNECTION", None),
    ],
)
def test_close_names_are_warned_of(
    variable: str, meant: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A name close to a setting's is a warning that suggests it, once; its value is not shown."""
    monkeypatch.setenv(variable, "s3cr3t")
    for _ in range(2):
        settings()
    (record,) = of_settings(caplog)
    assert f"environment variable {variable} is no setting and is not used; did you mean " in record.getMessage()
    assert meant is None or f"did you mean {meant}?" in record.getMessage()
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize("variable", ["SURREALDB_TEST_URL", "SURREAL_PASS", "SURREALDB_VERSION", "SURREALDB_LOG"])
def test_names_of_other_programs(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What belongs to other programs is left alone."""
    monkeypatch.setenv(variable, "theirs")
    settings()
    assert of_settings(caplog) == []


@pytest.mark.parametrize("name", sorted(declared.names()))
def test_no_setting_is_taken_for_another(name: str) -> None:
    """The variables of the settings themselves cause no warning."""
    _, doubts = from_environment({f"SURREALDB_{name}".upper(): "x", f"CELERY_SURREALDB_{name}".upper(): "x"}, [name])
    assert doubts == []


@pytest.mark.parametrize(("name", "field"), sorted(declared.names().items()))
def test_documentation_has_every_setting(name: str, field: str) -> None:
    """Each setting has a row in docs/configuration.md, with its default."""
    rows = [row for row in DOCUMENTED.splitlines() if row.startswith("|") and f"`surrealdb_{name}`" in row]
    assert len(rows) == 1, f"docs/configuration.md has {len(rows)} rows for surrealdb_{name}"
    setting_names, defaults = (cell.strip() for cell in rows[0].split("|")[1:3])
    default = getattr(Settings(), field)
    if default is None:
        assert not defaults
    elif default in ("", ()):
        assert defaults == "empty"
    elif isinstance(default, float):
        assert str(int(default)) in defaults
    else:
        position = re.findall(r"`surrealdb_(\w+)`", setting_names).index(name)
        assert re.findall(r"`([^`]+)`", defaults)[position] == str(default)


@pytest.mark.parametrize("url", ["wss://h", "https://h"])
def test_verification_that_is_off_is_said(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """TLS without verification is one warning per process."""
    for _ in range(2):
        settings(surrealdb_url=url, surrealdb_password="own", surrealdb_tls={"verify": False})
    (record,) = of_settings(caplog)
    assert record.levelno == logging.WARNING
    assert "surrealdb_tls has verify=False" in record.getMessage()


@pytest.mark.parametrize(
    "name", ["surrealdb_timeout", "surrealdb_chord_lease", "surrealdb_beat_lease", "surrealdb_beat_sync_every"]
)
@pytest.mark.parametrize("value", [1_000_001, 3e6, 1e12, 10**400, "1e9", timedelta(days=400)], ids=repr)
def test_waits_that_no_timer_takes(name: str, value: Any) -> None:
    """A wait that would overflow the operating system's timers is refused when it is read, not at each call."""
    with pytest.raises(SettingsError, match=f"{name} must be a number of seconds above 0 and at most 1,000,000"):
        settings(**{name: value})
    assert settings(surrealdb_timeout=1_000_000).timeout == 1_000_000.0


@pytest.mark.parametrize("name", ["result_expires", "result_chord_expires", "result_failure_expires"])
@pytest.mark.parametrize(
    "value", ["abc", -1, 1e12, 10**400, float("inf"), float("nan"), timedelta(days=999_999), [1]], ids=repr
)
def test_lifetimes_that_are_none(name: str, value: Any) -> None:
    """Celery's own lifetimes are checked too: what is no time, or ends after the last year, is refused by name."""
    with pytest.raises(SettingsError, match=rf"{name} must be a number of seconds from 0 \(for ever\) to"):
        settings(**{name: value})


@pytest.mark.parametrize("value", [None, 0, 60, "60", 0.5, timedelta(days=1), 1e10], ids=repr)
def test_lifetimes(value: Any) -> None:
    """Seconds in any form, 0 and None for ever."""
    assert settings(result_expires=value) == settings()


def test_user_without_any_password() -> None:
    """A URL's user without a password is refused, and not shown: a token may stand in the wrong place."""
    for url in ("surrealdb://s3cr3t@h", "surrealdb://s3cr3t@h:8000/n/d", "wss://s3cr3t@h"):
        with pytest.raises(SettingsError, match=r"has a user .* and no password") as caught:
            settings(url)
        assert "s3cr3t" not in str(caught.value)
        assert settings(url, surrealdb_password="own").username == "s3cr3t"
    assert settings("surrealdb://root@h", surrealdb_url="ws://h").username == "root"


def test_settings_of_an_app_are_read_by_its_backend_and_its_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment reaches a real backend of an app without configuration."""
    monkeypatch.setenv("CELERY_SURREALDB_URL", "ws://127.0.0.1:1")
    monkeypatch.setenv("CELERY_SURREALDB_TABLE_PREFIX", "mine_")
    app = Celery("environment", backend="surrealdb_celery_backend:SurrealDBBackend", set_as_current=False)
    assert app.backend.settings.endpoint == "ws://127.0.0.1:1/rpc"
    assert app.backend.settings.table("task") == "mine_task"
