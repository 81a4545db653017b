"""Names are quoted so that nothing in them is taken for SurrealQL; values never stand in a text."""

from __future__ import annotations

import inspect

import pytest

from surrealdb_celery_backend import statements

pytestmark = pytest.mark.unit

#: A table name that would end its quotation if that were possible.
NASTY = "`; REMOVE TABLE x; \\"


@pytest.mark.parametrize("given", ["plain", "with-dash", "`", "\\", "\\`", "a`b\\", "⟩", "ü", NASTY])
def test_quotation_ends_where_it_should(given: str) -> None:
    """Read back by the rule for escapes, the quoted name is the given one and nothing follows it."""
    text = statements.name(given)
    assert text[0] == text[-1] == "`"
    read, rest = "", text[1:-1]
    while rest:
        assert rest[0] != "`"
        step = 2 if rest[0] == "\\" else 1
        read, rest = read + rest[step - 1], rest[step:]
    assert read == given


def functions() -> list[str]:
    """The statements that are made from table names or a prefix."""
    return [
        name
        for name, value in vars(statements).items()
        if callable(value)
        and not name.startswith("_")
        and name not in ("name", "lru_cache", "define_database")
        and getattr(inspect.unwrap(value), "__module__", "") == statements.__name__
    ]


@pytest.mark.parametrize("function", functions())
def test_table_names_are_quoted(function: str) -> None:
    """A table's name, whatever is in it, stands only quoted in every statement."""
    make = getattr(statements, function)
    parameters = inspect.signature(inspect.unwrap(make)).parameters
    if not parameters or any(parameter.annotation not in ("str", str) for parameter in parameters.values()):
        pytest.skip("not made from table names alone")
    text = make(*[NASTY] * len(parameters))
    quoted = statements.name(NASTY)[1:].partition("`;")[2] and "\\`; REMOVE TABLE x; \\\\"
    assert text.count("; REMOVE TABLE x; ") == text.count(quoted)


def test_database_is_quoted() -> None:
    """Namespace and database stand only quoted."""
    text = statements.define_database(NASTY, NASTY)
    assert text.count(statements.name(NASTY)) == text.count("REMOVE TABLE") == 3
