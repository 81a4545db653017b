"""Records whose values are SurrealDB's own: `surrealdb_result_format = "native"`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .native import JSON, NativeCodec, NotNative, length
from .records import SMALL, TaskRecord, TaskRecords


@dataclass(frozen=True)
class NativeTaskRecords(TaskRecords):
    """Builds records of values that can be asked for; of those that would not come back unchanged, encoded records.

    Attributes:
        nulls: Whether the engine has None inside a value: that of SDK 2 in this process has not.
    """

    nulls: bool = True

    def from_meta(self, task_id: Any, meta: Mapping[str, Any], **given: Any) -> TaskRecord:
        """Build the record of one result: see `TaskRecords.from_meta`.

        Args:
            task_id: The task's id.
            meta: Celery's meta.
            **given: Its other arguments.
        """
        codec = NativeCodec(tuples=self.codec.content_type == JSON, nulls=self.nulls)
        try:
            record = TaskRecords(codec, self.table, self.zone).from_meta(task_id, meta, **given)
            record.fields["encoding"] = codec.encoding
        except NotNative:
            return super().from_meta(task_id, meta, **given)
        size = codec.size + length(record.fields.get("traceback") or "")
        record.fields.pop("size", None)
        if size > SMALL:
            record.fields["size"] = size
        return record
