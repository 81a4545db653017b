"""Names are quoted so that nothing in them is taken for SurrealQL; values never stand in a text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest

from surrealdb_celery_backend.beat import statements as beat_statements
from surrealdb_celery_backend.client import surrealql
from surrealdb_celery_backend.results import statements
from surrealdb_celery_backend.results.chords import statements as chord_statements

pytestmark = pytest.mark.unit

#: A table name that would end its quotation if that were possible.
NASTY = "`; REMOVE TABLE x; \\"


@pytest.mark.parametrize("given", ["plain", "with-dash", "`", "\\", "\\`", "a`b\\", "⟩", "ü", NASTY])
def test_quotation_ends_where_it_should(given: str) -> None:
    """Read back by the rule for escapes, the quoted name is the given one and nothing follows it."""
    text = surrealql.quote(given)
    assert text[0] == text[-1] == "`"
    read, rest = "", text[1:-1]
    while rest:
        assert rest[0] != "`"
        step = 2 if rest[0] == "\\" else 1
        read, rest = read + rest[step - 1], rest[step:]
    assert read == given


def functions() -> list[Callable[..., str]]:
    """The statements that are made from table names or a prefix."""
    return [
        value
        for module in (statements, beat_statements)
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(inspect.unwrap(value), "__module__", "") == module.__name__
    ]


@pytest.mark.parametrize("make", functions(), ids=lambda make: make.__name__)
def test_table_names_are_quoted(make: Callable[..., str]) -> None:
    """A table's name, whatever is in it, stands only quoted in every statement."""
    parameters = inspect.signature(inspect.unwrap(make)).parameters
    if not parameters or any(parameter.annotation not in ("str", str) for parameter in parameters.values()):
        pytest.skip("not made from table names alone")
    text = make(*[NASTY] * len(parameters))
    quoted = surrealql.quote(NASTY)[1:].partition("`;")[2] and "\\`; REMOVE TABLE x; \\\\"
    assert text.count("; REMOVE TABLE x; ") == text.count(quoted)


def test_database_is_quoted() -> None:
    """Namespace and database stand only quoted."""
    text = surrealql.define_database(NASTY, NASTY)
    assert text.count(surrealql.quote(NASTY)) == text.count("REMOVE TABLE") == 3


@pytest.mark.parametrize(
    "text", [chord_statements.complete_header("chord", mark_uneven=False), chord_statements.finish_chord("chord")]
)
def test_what_reads_nothing_reads_one(text: str) -> None:
    """No LIMIT of a chord is ever 0, which reads all parts (test_engines.py): a header that is not complete has many."""
    (fewest,) = re.findall(r"LET \$limit = IF .*? ELSE \{ (\d+) \};", text)
    assert int(fewest) > 0
