"""The finding of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from ... import errors
from ...settings import Settings

#: The words of OpenSSL for a server that answers a TLS handshake with something else.
_NO_TLS = ("WRONG_VERSION_NUMBER", "record layer failure", "HTTP_REQUEST", "packet length too long")


class Severity(Enum):
    """How bad a finding is."""

    #: As it should be.
    OK = "ok"
    #: A matter of choice.
    NOTE = "note"
    #: Works; with another setting it would work better.
    ADVICE = "advice"
    #: Works, but not as well as it could, or may work later: the database is away.
    WARNING = "warning"
    #: The first task fails.
    ERROR = "error"


#: `Finding.good` of each severity.
_GOOD = {
    Severity.OK: True,
    Severity.NOTE: None,
    Severity.ADVICE: None,
    Severity.WARNING: False,
    Severity.ERROR: False,
}
#: `Finding.mark` of each severity.
_MARKS = {
    Severity.OK: "ok",
    Severity.NOTE: "-",
    Severity.ADVICE: "warn",
    Severity.WARNING: "FAIL",
    Severity.ERROR: "FAIL",
}


@dataclass(frozen=True)
class Finding:
    """The finding of one check.

    Attributes:
        subject: The thing checked, in a word or two: `connection`, `rights`, `clocks`.
        severity: How bad the finding is.
        text: The finding, in one sentence.
        advice: The remedy; empty where none is needed.
    """

    subject: str
    severity: Severity
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text

    @property
    def good(self) -> bool | None:
        """Whether all is as it should be; None where that is a matter of choice."""
        return _GOOD[self.severity]

    @property
    def mark(self) -> str:
        """The word before the finding in a list for people, of four letters at most."""
        return _MARKS[self.severity]

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for JSON: `subject`, `good`, `severity`, `text` and `advice`."""
        return {
            "subject": self.subject,
            "good": self.good,
            "severity": self.severity.value,
            "text": self.text,
            "advice": self.advice,
        }


class Checked(Protocol):
    """A result backend, as far as it is checked."""

    settings: Settings
    connection: Any

    def as_uri(self) -> str:
        """Return the backend's URL without secrets."""
        ...  # pragma: no cover

    def set(self, key: str, value: str) -> None:
        """Set the value of a key of the key/value table.

        Args:
            key: The key.
            value: Its value.
        """
        ...  # pragma: no cover


def failure(subject: str, exc: errors.SurrealDBBackendError) -> Finding:
    """Make a finding of the error that a check met.

    Args:
        subject: The thing checked.
        exc: The error.

    Returns:
        A warning where the error passes by itself, else an error.
    """
    if isinstance(exc, errors.TransientError):
        return Finding(subject, Severity.WARNING, str(exc), "it is tried again when the first result is stored")
    if isinstance(exc, errors.TLSFailed) and any(text in str(exc) for text in _NO_TLS):
        return Finding(
            subject,
            Severity.ERROR,
            "the server speaks no TLS at this port",
            "use ws:// (http://) in surrealdb_url and no surrealdb_tls, or the port at which TLS is served",
        )
    return Finding(subject, Severity.ERROR, str(exc))
