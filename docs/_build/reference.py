"""The parts of the reference that the code itself says: settings, errors and tables, as Markdown."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from datetime import timedelta
from typing import Any

from surrealdb_celery_backend import errors
from surrealdb_celery_backend.beat import statements as beat_statements
from surrealdb_celery_backend.results import statements
from surrealdb_celery_backend.settings import Settings
from surrealdb_celery_backend.settings.declared import names
from surrealdb_celery_backend.settings.sources import VARIABLES

from .advice import ADVICE

#: What kind of value a setting takes, by the name of the function that checks it.
TYPES = {
    "choice": "one of {}",
    "choices": "any of {}, as a list or with commas",
    "count": "whole number",
    "file": "path",
    "flag": "`True` or `False`",
    "lifetime": "seconds or timedelta",
    "optional_text": "text",
    "prefix": "text",
    "redaction": "names, or a function",
    "rules": "dict, or JSON",
    "seconds": "seconds or timedelta",
    "secret": "text, secret",
    "secrets": "dict, secret",
    "text": "text",
    "threshold": "seconds or timedelta",
    "tls": "`True`, path or dict",
    "token": "text, secret",
}
#: What only `app.conf` can hold.
NOT_IN_THE_ENVIRONMENT = {"access_variables"}
#: What stands in a URL under another name, or not at all.
IN_A_URL = {"url": "", "access_variables": "", "tls": "`tls_ca`, `tls_cert`, `tls_key`, `tls_verify`"}
IN_A_URL |= {
    "namespace": "the path's first part",
    "database": "the path's second part",
    "username": "before `@`",
    "password": "before `@`",
}


def attributes(thing: type) -> dict[str, str]:
    """The texts of a class's `Attributes:` section, by name.

    Args:
        thing: The class.
    """
    _, _, section = (inspect.getdoc(thing) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for line in section.splitlines():
        start = re.match(r" {4}(\w+): (.*)", line)
        if start is not None:
            found[start[1]] = start[2]
        elif line.startswith(" " * 8) and found:
            found[list(found)[-1]] += " " + line.strip()
        elif line.strip():
            break
    return found


def setting_type(field: Field[Any]) -> str:
    """What values a setting takes, in words.

    Args:
        field: The field that declares it.

    Raises:
        KeyError: Its kind has no words yet: add them to `TYPES`.
    """
    kind = field.metadata["kind"]
    name = kind.__qualname__.partition(".")[0]
    allowed = inspect.getclosurevars(kind).nonlocals if "<locals>" in kind.__qualname__ else {}
    words = next((value for value in allowed.values() if isinstance(value, tuple)), ())
    return TYPES[name].format(", ".join(f"`{word}`" for word in words))


def default(field: Field[Any]) -> str:
    """The default of a setting as a reader would write it.

    Args:
        field: The field that declares it.
    """
    value = field.default
    if value is MISSING or value is None or value in ("", ()):
        return ""
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`" + (f" ({timedelta(seconds=value).days} days)" if value >= 86_400 else "")
    return f"`{value}`"


def settings() -> Iterator[str]:
    """One section for each setting."""
    texts = attributes(Settings)
    declared = {field.name: field for field in fields(Settings)}
    for name, attribute in names().items():
        field = declared[attribute]
        yield f"### `surrealdb_{name}`"
        yield ""
        yield texts[attribute]
        yield ""
        yield "| | |"
        yield "|---|---|"
        yield f"| takes | {setting_type(field)}{', or `None`' if field.metadata['none'] else ''} |"
        yield f"| default | {default(field) or 'none'} |"
        if name in NOT_IN_THE_ENVIRONMENT:
            yield "| environment | in `app.conf` only |"
        else:
            yield f"| environment | {', '.join(f'`{before}{name.upper()}`' for before in VARIABLES)} |"
        in_a_url = IN_A_URL.get(name, f"`?{name}=`")
        if in_a_url:
            yield f"| in a URL | {in_a_url} |"
        yield ""


def error_classes() -> list[type[errors.SurrealDBBackendError]]:
    """Every error of the library, in the order of the module."""
    found = [each for each in vars(errors).values() if inspect.isclass(each)]
    return [each for each in found if issubclass(each, errors.SurrealDBBackendError)]


def errors_() -> Iterator[str]:
    """One section for each error: what it says, what it is, and what to do."""
    for each in error_classes():
        bases = [base for base in each.__bases__ if base is not Exception]
        yield f"### `{each.__name__}`"
        yield ""
        yield inspect.getdoc(each) or ""
        yield ""
        if bases:
            yield "Also a " + ", ".join(_base(base) for base in bases) + "."
            yield ""
        yield f"**What to do.** {ADVICE[each.__name__]}"
        yield ""


def _base(base: type) -> str:
    if issubclass(base, errors.SurrealDBBackendError):
        return f"[`{base.__name__}`](#{base.__name__.lower()})"
    return f"`{base.__module__}.{base.__name__}`".replace("`builtins.", "`")


def schema() -> Iterator[str]:
    """The statements that make the tables and indexes, with the default settings."""
    for text in (statements.define_schema(""), beat_statements.define_schedules("")):
        yield "```surql"
        yield from (f"{line.replace('`', '')};" for line in text.split(";"))
        yield "```"
        yield ""


#: The modules that programs import, in the order of the page; of each what its `__all__` names.
PUBLIC = (
    "surrealdb_celery_backend",
    "surrealdb_celery_backend.results",
    "surrealdb_celery_backend.aio",
    "surrealdb_celery_backend.beat",
    "surrealdb_celery_backend.console",
    "surrealdb_celery_backend.settings",
    "surrealdb_celery_backend.contrib.backup",
    "surrealdb_celery_backend.devserver",
)


def api() -> Iterator[str]:
    """The public names of each module, for mkdocstrings."""
    for name in PUBLIC:
        module = importlib.import_module(name)
        yield f"## `{name}`"
        yield ""
        yield (inspect.getdoc(module) or "").partition("\n")[0]
        yield ""
        for public in module.__all__:
            if not public.startswith("__") and not isinstance(getattr(module, public), str):
                yield f"::: {name}.{public}"
                yield "    options:"
                yield "      heading_level: 3"
                yield ""


#: What `<!-- generated: NAME -->` on a page becomes.
PARTS: Mapping[str, Any] = {"settings": settings, "errors": errors_, "schema": schema, "api": api}
_PLACE = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def filled(markdown: str) -> str:
    """Fill the places of a page that the code says.

    Args:
        markdown: The page.

    Returns:
        The page with each `<!-- generated: NAME -->` replaced.
    """
    return _PLACE.sub(lambda place: "\n".join(PARTS[place[1]]()), markdown)
