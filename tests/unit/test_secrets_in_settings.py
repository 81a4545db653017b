"""Whatever is malformed, no message, chain of causes, repr, URI or local variable of a frame shows a secret."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from surrealdb_celery_backend.client.secret import MASK, Secret, mask
from surrealdb_celery_backend.errors import SettingsError
from surrealdb_celery_backend.settings import Settings
from tests.support.settings import settings, shown_by

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("clean_environment")]

SECRET = "s3cr3tW0rd"

#: URLs that cannot be used, and where the secret is.
MALFORMED = [
    SECRET,
    f"{SECRET}@h:8000",
    f"root:{SECRET}@h:8000/n/d",
    f"//root:{SECRET}@h",
    f"surrealdb:root:{SECRET}@h",
    f"surrealdb:/root:{SECRET}@h",
    f"surrealdb//root:{SECRET}@h",
    f"surrealdb://{SECRET}@h:0",
    f"surrealdb://{SECRET}@h:99999",
    f"surrealdb://{SECRET}@h:port",
    f"surrealdb://{SECRET}@h/a/b/c",
    f"surrealdb://{SECRET}@h?unknown=1",
    f"surrealdb://root:{SECRET}",
    f"surrealdb://root:{SECRET}/n/d",
    f"surrealdb://root:{SECRET}#@h",
    f"surrealdb://root:#{SECRET}@h",
    f"surrealdb://root:12#{SECRET}",
    f"surrealdb://h#{SECRET}",
    f"surrealdb://h/n/d#{SECRET}",
    f"surrealdb://root:12/{SECRET}@h",
    f"surrealdb://root:12?{SECRET}@h",
    f"surrealdb://root:12@{SECRET}@h",
    f"surrealdb://root:12@{SECRET}/@h",
    f"surrealdb://root:[{SECRET}@h",
    f"surrealdb://root:a\n{SECRET}@h",
    f"surrealdb://root:a {SECRET}@h",
    f"surrealdb://h?password={SECRET}&password=@x",
    f"surrealdb://h?password=a@{SECRET}",
    f"surrealdb://h:8000?password=a@{SECRET}",
    f"surrealdb://h:8000/n?token=a@{SECRET}/x",
    f"surrealdb://h?password=a&{SECRET}",
    f"surrealdb://h?password=a&{SECRET}=b",
    f"surrealdb://h?token={SECRET}&timeuot=never",
    f"surrealdb://h?passwort={SECRET}",
    f"surrealdb://h?access_variables={SECRET}",
    f"surrealdb+wsss://root:{SECRET}@h",
    f"{SECRET}://h",
    f"postgresql://root:{SECRET}@h",
    f"surrealkv://root:{SECRET}@h?unknown=1",
    f"mem://?password={SECRET}&unknown=1",
    f"ws://[::1:{SECRET}@h",
    f"ws://::1:{SECRET}",
    {"password": SECRET},
    SECRET.encode(),
]
#: Settings whose value is refused.
REFUSED = [
    {"surrealdb_password": [SECRET]},
    {"surrealdb_password": SECRET.encode()},
    {"surrealdb_token": f"{SECRET}\n{SECRET}"},
    {"surrealdb_token": f"{SECRET}ü"},
    {"surrealdb_token": f"{SECRET} {SECRET}"},
    {"surrealdb_token": f"\x00{SECRET}"},
    {"surrealdb_access_variables": SECRET},
    {"surrealdb_access_variables": [SECRET]},
    # The mistake is another setting's.
    {"surrealdb_password": SECRET, "surrealdb_token": SECRET, "surrealdb_timeout": "never"},
    {"surrealdb_access_variables": {"password": SECRET}, "surrealdb_live": "never"},
    {"surrealdb_password": SECRET, "surrealdb_url": "http://h", "surrealdb_namespace": "ü"},
]


@pytest.mark.parametrize("source", ["result_backend", "surrealdb_url", "CELERY_SURREALDB_URL"])
@pytest.mark.parametrize("url", MALFORMED, ids=repr)
def test_malformed_urls(
    url: Any, source: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A URL that cannot be used is refused without any part of its secret, wherever it is given."""
    conf: dict[str, Any] = {}
    if source == "surrealdb_url":
        conf = {source: url}
    elif source.startswith("CELERY"):
        if not isinstance(url, str):
            pytest.skip("the environment holds texts")
        monkeypatch.setenv(source, url)
    with pytest.raises(SettingsError) as caught:
        settings(url if source == "result_backend" else None, **conf)
    shown = shown_by(caught.value) + caplog.text
    assert SECRET not in shown
    assert source in str(caught.value) or "surrealdb_url" in str(caught.value) or "the URL has" in str(caught.value)


@pytest.mark.parametrize("conf", REFUSED, ids="+".join)
def test_refused_settings(conf: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """A setting that is refused, and those beside it, are not shown."""
    with pytest.raises(SettingsError) as caught:
        settings(**conf)
    assert SECRET not in shown_by(caught.value) + caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"surrealdb://root:{SECRET}@h:8000/n/d",
        f"surrealdb://:{SECRET}@h",
        f"surrealdb://u:{SECRET}%2F%0A@h",
        f"surrealdb://h?token={SECRET}",
        f"surrealdb://h?surrealdb_password={SECRET}&auth_level=database",
        f"mem://?password={SECRET}",
        f"http://u:{SECRET}@h?access=users",
    ],
)
def test_good_settings_show_nothing(url: str) -> None:
    """Settings and connection options that are used show no secret in repr, str or URI, unless asked to."""
    found = settings(url)
    for one in (found, found.options):
        assert SECRET not in repr(one) + str(one) + one.uri()
    if not found.embedded:
        assert SECRET in found.uri(include_password=True)


@pytest.mark.parametrize("token", [f"{SECRET}\n", f"\t {SECRET}\r\n"])
def test_tokens_from_files(token: str) -> None:
    """A token ends where its text ends: the line break of the file that held it is no part of it."""
    assert settings(surrealdb_token=token).token == SECRET
    assert settings(f"surrealdb://h?token={SECRET}%0A").token == SECRET


def test_secret_hides_its_value() -> None:
    """A Secret is a mask in every text, equal to one of the same value, and false where it is empty."""
    secret = Secret(SECRET)
    assert {str(secret), repr(secret), f"{secret}", repr([secret])[1:-1]} == {MASK}
    assert secret == Secret(SECRET)
    assert secret != SECRET
    assert hash(secret) == hash(Secret(SECRET))
    assert not Secret("")
    assert secret.reveal() == SECRET


@pytest.mark.parametrize("secret", [SECRET, "p/ss w%rd", "pa\nss", "q\"uo'te", "pässwörd"])
def test_messages_of_others_are_masked(secret: str) -> None:
    """What a library or a server quotes of a secret is masked: plain, percent-encoded and as in a repr."""
    options = Settings(password=secret, access_variables={"k": Secret(["x", {"y": secret}])}).options
    quoted = [secret, repr(secret), repr(secret.encode()), f"{secret!a}", options.uri(include_password=True)]
    for text in quoted:
        shown = options.mask(f"Invalid header value {text}")
        assert secret not in shown
        assert shown.startswith("Invalid header value ")
        assert MASK in shown


@pytest.mark.parametrize("secret", ["a", "1", "pw", "ab1", "é", "a ", "!"])
def test_a_short_secret_is_masked_where_it_stands_by_itself(secret: str) -> None:
    """A secret that is in every word leaves messages readable, and is shown nowhere that has it as a whole."""
    options = Settings(password=secret).options
    words = "namespace 'lab1' cannot be reached at 127.0.0.11:8001: pwd, épée, wait!"
    assert options.mask(words) == words
    escaped, quoted = f"{secret!a}"[1:-1], quote(secret, safe="")
    for text, form in [
        ("{}", secret),
        ("value '{}'", secret),
        ("value ({})", secret),
        ('{{"pass": "{}"}}', secret),
        ("?password={}&x", secret),
        ("value '{}'", escaped),
        (r"value '\n{}\n'", escaped),
        (r"value '\x00{}\x00'", escaped),
        (r"value '\u20ac{}\u20ac'", escaped),
        ("value b'{}'", repr(secret.encode())[2:-1]),
        ("ws://root:{}@db:8000", quoted),
        ("u=ws%3A%2F%2Froot%3A{}%40db", quoted),
    ]:
        assert options.mask(text.format(form)) == text.format(MASK)


def test_the_public_password_is_no_secret() -> None:
    """Messages that have the word root in them stay readable with SurrealDB's development password."""
    assert Settings().options.mask("user root at level root") == "user root at level root"
    assert mask("nothing to hide", []) == "nothing to hide"
