"""Whether a value is what a JSON schema says: the keywords that our descriptions have, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

#: The Python types of each JSON type.
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
KEYWORDS = {
    "$ref", "type", "format", "anyOf", "items", "properties", "required", "additionalProperties", "description"
}  # fmt: skip


def mistakes(value: Any, schema: Mapping[str, Any], described: Mapping[str, Any], where: str = "$") -> Iterator[str]:
    """Yield what of a value is not as a schema says.

    Args:
        value: The value, as JSON gives it.
        schema: The schema.
        described: The description of the API, which references point into.
        where: The place of the value, for the messages.
    """
    assert set(schema) <= KEYWORDS, f"unknown keywords at {where}: {set(schema) - KEYWORDS}"
    if "$ref" in schema:
        found: Any = described
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        yield from mistakes(value, found, described, where)
    if "anyOf" in schema and all(any(mistakes(value, each, described, where)) for each in schema["anyOf"]):
        yield f"{where}: {value!r} is none of {schema['anyOf']}"
    if "type" in schema:
        kinds = TYPES[schema["type"]]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield f"{where}: {value!r} is no {schema['type']}"
            return
    if schema.get("format") == "date-time" and datetime.fromisoformat(value).tzinfo is None:
        yield f"{where}: {value!r} has no offset"
    if schema.get("type") == "array":
        for number, each in enumerate(value):
            yield from mistakes(each, schema.get("items", {}), described, f"{where}[{number}]")
    if schema.get("type") == "object":
        yield from _in_object(value, schema, described, where)


def _in_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], described: Mapping[str, Any], where: str
) -> Iterator[str]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    yield from (f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value)
    for name, each in value.items():
        if name in properties:
            yield from mistakes(each, properties[name], described, f"{where}.{name}")
        elif others is False:
            yield f"{where}: {name} is not described"
        else:
            yield from mistakes(each, others, described, f"{where}.{name}")
