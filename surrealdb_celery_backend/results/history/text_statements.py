"""The SurrealQL of summaries that every server can send: a value that a summary has no place for is there as its text."""

from __future__ import annotations

from ..native import NATIVE
from .figure_statements import FIGURES
from .statements import PREVIEW, PREVIEWED, SUMMARY, SUMMARY_FIELDS


def _as_text(field: str) -> str:
    """A field, or how its value looks where a summary has no such values, of which the server cannot send some."""
    scalar = " OR ".join(f"{field}.is_{kind}()" for kind in ("string", "number", "datetime", "bool"))
    return f"IF {scalar} {{ {field} }} ELSE IF {field} IS NONE OR {field} IS NULL {{ NONE }} ELSE {{ <string>{field} }}"


def _members_as_text(field: str, *names: str) -> str:
    members = ", ".join(f"{name}: {_as_text(f'{field}.{name}')}" for name in names)
    return f"IF {field}.is_object() {{ {{ {members} }} }} ELSE {{ NONE }}"


def _beginning_as_text(field: str) -> str:
    native = f"string::starts_with(encoding ?? '', '{NATIVE}') AND {field} IS NOT NONE AND {field} IS NOT NULL"
    return (
        f"IF {field}.is_string() {{ string::slice({field}, 0, {PREVIEW}) }} "
        f"ELSE IF {native} {{ string::slice(<string>{field}, 0, {PREVIEW}) }} ELSE {{ NONE }}"
    )


#: Fields of a summary that are more than one value. No list comes out of an IF: 3.2 gives what is in a list of one.
_SEVERAL = {
    "error": _members_as_text("error", "type", "module", "message"),
    "progress": _members_as_text("progress", "current", "total", "message"),
    "tags": "array::flatten([tags ?? []]).map(|$tag| <string>$tag)",
    # Previews are text then.
    "encoding": "NONE",
}
#: A summary that every server can send, whatever a person wrote into the record: such values are there as text.
SUMMARY_AS_TEXT = (
    "{ "
    + ", ".join(
        [f"{field}: {_SEVERAL.get(field) or _as_text(field)}" for field in SUMMARY_FIELDS]
        + [f"{field}: {_beginning_as_text(field)}" for field in PREVIEWED]
    )
    + " }"
)


def as_text(text: str) -> str:
    """Return a statement with summaries and figures that every server can send.

    Args:
        text: A statement with `SUMMARY`, or of figures.
    """
    figures_as_text = ", ".join(map(_as_text, FIGURES.split(", ")))
    return text.replace(SUMMARY, SUMMARY_AS_TEXT).replace(f" {FIGURES}]", f" {figures_as_text}]")
