"""JSON schemas of dataclasses, as `views.plain` writes them: what the JSON API says of its answers."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from typing import Any, Union, get_args, get_origin, get_type_hints

#: A field of a docstring's list, with the lines that go on with it.
_FIELD = re.compile(r"^    (\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class Schemas:
    """The schemas of a description: each dataclass is described once, under its name.

    Args:
        sparse: The dataclasses of which an answer leaves out fields that are None or empty.
    """

    def __init__(self, *sparse: type) -> None:
        self._sparse = sparse
        #: The schemas by name.
        self.found: dict[str, dict[str, Any]] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type.

        Args:
            kind: A dataclass, or what may stand in one: text, number, time, None, and collections and unions of these.

        Raises:
            TypeError: JSON has no form for it.
        """
        if kind is Any:
            return {}
        if kind in _PLAIN:
            return {"type": _PLAIN[kind]}
        if kind is datetime:
            return {"type": "string", "format": "date-time"}
        if is_dataclass(kind) and isinstance(kind, type):
            if kind.__name__ not in self.found:
                # First the name: a node of a tree has nodes.
                self.found[kind.__name__] = {}
                self.found[kind.__name__].update(self.object(kind))
            return {"$ref": f"#/components/schemas/{kind.__name__}"}
        origin, parts = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(part) for part in parts]}
        if origin is not None and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(parts[1])}
        if origin is not None and issubclass(origin, Sequence) and (origin is not tuple or parts[1:] == (...,)):
            return {"type": "array", "items": self.of(parts[0])}
        raise TypeError(f"JSON has no form for {kind!r}")

    def object(self, kind: type) -> dict[str, Any]:
        """The schema of a dataclass itself, not by its name.

        Args:
            kind: The dataclass.
        """
        hints, said = get_type_hints(kind), _described(kind)
        properties, required = {}, []
        for field in fields(kind):
            if not field.repr:
                continue
            known, sparse = hints[field.name], kind in self._sparse
            if sparse and get_origin(known) in (Union, types.UnionType):
                known = Union[tuple(part for part in get_args(known) if part is not type(None))]  # noqa: UP007 - made here
            properties[field.name] = {**self.of(known), **said.get(field.name, {})}
            if not sparse or (field.default is MISSING and field.default_factory is MISSING):
                required.append(field.name)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _described(kind: type) -> dict[str, dict[str, str]]:
    """What the docstrings of a dataclass and of its bases say of its fields."""
    found: dict[str, dict[str, str]] = {}
    for each in reversed(kind.__mro__):
        for name, text in _FIELD.findall(inspect.cleandoc(each.__doc__ or "")):
            found[name] = {"description": " ".join(text.split()).replace("`", "")}
    return found
