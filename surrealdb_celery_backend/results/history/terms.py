"""The conditions that a filter is made of, in SurrealQL. Values are bound."""

from __future__ import annotations


def _lowered(field: str) -> str:
    return f"({field}.is_string() AND string::lowercase({field}) CONTAINS $text)"


def _holds(field: str) -> str:
    # The quotes of SurrealQL are not those of JSON, so none count in native values.
    bare = f"""string::replace(string::replace(<string>{field}, "'", ""), '"', '')"""
    return (
        f"({field}.is_string() AND {field} CONTAINS $argument) "
        f"OR (({field}.is_array() OR {field}.is_object()) AND {bare} CONTAINS $argument_bare)"
    )


def _like(field: str) -> str:
    return f"({field}.is_string() AND string::matches({field}, ${field}))"


#: The conditions that a filter is made of. Their parameters have the names of the filter's arguments.
TERMS = {
    "state": "status IN $state",
    "name": "name IN $name",
    "name_like": _like("name"),
    "worker": "worker IN $worker",
    "worker_like": _like("worker"),
    "queue": "queue IN $queue",
    "queue_like": _like("queue"),
    "root": "(root_id = $root OR task_id = $root)",
    "group": "group_id = $group",
    "parent": "parent_id = $parent",
    "periodic": "periodic_task_name = $periodic",
    "retry_of": "retry_of = $retry_of",
    "error": (
        "(error.type = $error OR string::concat(error.module ?? '', '.', error.type ?? '') = $error OR "
        "(error IS NONE AND status IN ['FAILURE', 'RETRY'] AND result.is_string() AND result CONTAINS $error_in_result))"
    ),
    "error_like": (
        "(string::matches(error.type ?? '', $error) OR "
        "string::matches(string::concat(error.module ?? '', '.', error.type ?? ''), $error))"
    ),
    "text": f"({_lowered('error.message')} OR {_lowered('error.type')} OR {_lowered('traceback')})",
    "tags": "tags CONTAINSALL $tags",
    "argument": f"({_holds('args')} OR {_holds('kwargs')})",
    "min_runtime": "runtime >= $min_runtime",
}
