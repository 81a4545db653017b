"""TLS with certificates that are good and bad: a TLS-terminating proxy in front of a real engine."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.settings import TLS
from tests.engines import Database, RunningEngine
from tests.support.faults.proxy import Proxy

TRANSPORTS = pytest.mark.parametrize("transport", ["url", "http_url"])


class Authority:
    """A private certificate authority, with its file."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, host: str = "localhost", *, expired: bool = False, ask_client: bool = False) -> ssl.SSLContext:
        """A server's side, for a host."""
        now = dt.datetime.now(dt.timezone.utc)
        dates: dict[str, Any] = {"not_before": now - dt.timedelta(days=9), "not_after": now - dt.timedelta(days=1)}
        certificate = self._ca.issue_cert(host, **(dates if expired else {}))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        if ask_client:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self) -> tuple[str, str]:
        """The files of a client's certificate and of its key."""
        certificate = self._ca.issue_cert("worker@celery.example")
        cert_file, key_file = str(self._folder / "client.pem"), str(self._folder / "client.key")
        certificate.cert_chain_pems[0].write_to_path(cert_file)
        certificate.private_key_pem.write_to_path(key_file)
        return cert_file, key_file


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody trusts who was not told to."""
    return Authority(tmp_path)


@pytest.fixture
def behind_tls(live_engine: RunningEngine, closing: Any) -> Callable[[ssl.SSLContext], Proxy]:
    """Put TLS in front of the engine."""

    def put(context: ssl.SSLContext) -> Proxy:
        proxy: Proxy = closing.enter_context(Proxy(live_engine.url, tls=context))
        return proxy

    return put


@TRANSPORTS
def test_private_authority(
    transport: str, authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any
) -> None:
    """A server whose certificate a private CA signed, with `ca_file`: works over wss and https."""
    proxy = behind_tls(authority.server())
    connection = connect(fresh_database, endpoint=getattr(proxy, transport), tls=TLS(ca_file=authority.file))
    value = "x" * 500_000
    assert connection.run("RETURN $value", value=value) == value


def refused(connection: Any, because: str) -> None:
    """The connection is refused for a reason that the one clear error says, and nothing is tried again."""
    with pytest.raises(errors.TLSFailed, match=rf"(?i)TLS handshake failed.*{because}.*check surrealdb_tls"):
        connection.run("RETURN 1")


@TRANSPORTS
def test_authority_that_nobody_trusts(
    transport: str, authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any
) -> None:
    """Without `ca_file` the same server is refused: verification is on by default."""
    proxy = behind_tls(authority.server())
    refused(connect(fresh_database, endpoint=getattr(proxy, transport)), "certificate verify failed")
    assert proxy.requests() == [], "no password went to a server that is not trusted"


@TRANSPORTS
def test_certificate_of_another_host(
    transport: str, authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any
) -> None:
    """A trusted certificate for another host name is refused."""
    proxy = behind_tls(authority.server("db.example"))
    connection = connect(fresh_database, endpoint=getattr(proxy, transport), tls=TLS(ca_file=authority.file))
    refused(connection, "(hostname mismatch|doesn't match)")


@TRANSPORTS
def test_certificate_that_expired(
    transport: str, authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any
) -> None:
    """A certificate that expired yesterday is refused, and the error says so."""
    proxy = behind_tls(authority.server(expired=True))
    connection = connect(fresh_database, endpoint=getattr(proxy, transport), tls=TLS(ca_file=authority.file))
    refused(connection, "certificate has expired")


@TRANSPORTS
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_verification_switched_off(
    transport: str, authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any
) -> None:
    """With `verify` False even a wrong certificate does, for whoever asks for that."""
    proxy = behind_tls(authority.server("db.example", expired=True))
    connection = connect(fresh_database, endpoint=getattr(proxy, transport), tls=TLS(verify=False))
    assert connection.run("RETURN 1") == 1


@TRANSPORTS
def test_client_certificate(
    transport: str, authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any
) -> None:
    """A server that asks for a client certificate gets the one of `cert_file` and `key_file`."""
    proxy = behind_tls(authority.server(ask_client=True))
    cert_file, key_file = authority.client()
    tls = TLS(ca_file=authority.file, cert_file=cert_file, key_file=key_file)
    assert connect(fresh_database, endpoint=getattr(proxy, transport), tls=tls).run("RETURN 1") == 1


def test_client_certificate_missing(
    authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any
) -> None:
    """A server that asks for a client certificate and gets none: an error of the line, within the time limit."""
    proxy = behind_tls(authority.server(ask_client=True))
    connection = connect(fresh_database, endpoint=proxy.url, tls=TLS(ca_file=authority.file), timeout=2.0)
    with pytest.raises((errors.TLSFailed, errors.ServerUnavailable)):
        connection.run("RETURN 1")
    assert proxy.requests() == []


def test_files_that_are_missing(fresh_database: Database, connect: Any, live_engine: RunningEngine) -> None:
    """A CA file that does not exist: one clear error that names the setting and the file."""
    connection = connect(fresh_database, endpoint="wss://localhost:1/rpc", tls=TLS(ca_file="nowhere.pem"))
    with pytest.raises(errors.SettingsError, match=r"surrealdb_tls: ca_file='nowhere.pem'.*cannot be loaded"):
        connection.run("RETURN 1")


def test_tls_where_there_is_none(live_engine: RunningEngine, fresh_database: Database, connect: Any) -> None:
    """wss:// to a server without TLS: one clear error."""
    connection = connect(fresh_database, endpoint=live_engine.url.replace("ws://", "wss://"), timeout=2.0)
    with pytest.raises((errors.TLSFailed, errors.ServerUnavailable)):
        connection.run("RETURN 1")


def test_lines_reset_under_tls(authority: Authority, behind_tls: Any, fresh_database: Database, connect: Any) -> None:
    """A TLS line that is reset is opened anew, as a plain one is."""
    proxy = behind_tls(authority.server())
    connection = connect(fresh_database, endpoint=proxy.url, tls=TLS(ca_file=authority.file))
    for number in range(5):
        assert connection.run("RETURN $number", number=number) == number
        proxy.break_lines()
    assert proxy.accepted == 5
    assert connection.run("RETURN 0") == 0
    proxy.cut_next_reply(40)
    assert connection.run("RETURN 1") == 1
