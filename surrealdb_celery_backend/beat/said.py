"""Which of the code's changes an entry takes, and which app's code put it there. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import statements

#: The field of a record that keeps what code last said of it: a digest, `active` and the app's name.
SAID = "code"

#: The fields that code and database are compared by. `active` is compared by itself, so that a paused entry
#: still takes new code.
COMPARED = tuple(name for name in statements.SCHEDULE_FIELDS if name not in ("name", "source", "active"))


def digest_of(fields: Mapping[str, Any]) -> str:
    """Return a digest of a definition.

    Args:
        fields: The fields as a record holds them.
    """
    parts = [_written(fields.get(name)) for name in COMPARED]
    # The address of an object is another one in each process.
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(parts))
    return hashlib.blake2s(text.encode(), digest_size=12).hexdigest()


def _written(value: Any) -> Any:
    """Return a value so that its text does not depend on its type's details or the order of keys."""
    if isinstance(value, Mapping):
        return sorted((str(name), _written(part)) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return [_written(part) for part in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def said(fields: Mapping[str, Any], app_name: str | None) -> dict[str, Any]:
    """Return what has to be kept of what code says.

    Args:
        fields: The entry's fields, as code gives them.
        app_name: The name of the app.
    """
    kept: dict[str, Any] = {"digest": digest_of(fields), "active": bool(fields.get("active", True))}
    return kept if app_name is None else {**kept, "app": app_name}


def said_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what code last said of a record; empty if that is not known.

    Args:
        record: The record's fields, by name.
    """
    kept = record.get(SAID)
    return kept if isinstance(kept, Mapping) else {}


def is_of_another_app(record: Mapping[str, Any], app_name: str | None) -> bool:
    """Return whether the code of another app put a record there.

    Args:
        record: The record.
        app_name: The name of this app.
    """
    return record.get("source") == "code" and said_of(record).get("app") not in (None, app_name)


def taken(
    record: Mapping[str, Any], wanted: Mapping[str, Any], *, code_wins: bool, knows: Callable[[Any], bool]
) -> dict[str, Any]:
    """Return the fields of the code that a record takes.

    Args:
        record: The record as it is stored.
        wanted: The fields of the entry, as code gives them now.
        code_wins: Whether code overrides changes in the database.
        knows: Whether the app knows a task.

    Returns:
        The new value of each field that changes; None for one that goes.
    """
    last = said_of(record)
    new = digest_of(wanted)
    fields: dict[str, Any] = {}
    stored = digest_of(record)
    if stored != new and (code_wins or stored == last.get("digest")):
        fields = {
            name: wanted.get(name) for name in COMPARED if _written(record.get(name)) != _written(wanted.get(name))
        }
    elif not knows(record.get("task")) and knows(wanted["task"]):
        # The task was renamed, and the entry was edited otherwise: it must not end as broken.
        fields = {"task": wanted["task"]}
    was, now = last.get("active"), bool(wanted.get("active", True))
    if was is not None and was != now and record.get("active") == was:
        fields["active"] = now
    return fields
