"""A Celery broker in a folder, so that the examples need no other service.

Kombu's own file system transport shows a message file before its text is in it:
on a busy machine a worker reads a few in ten thousand empty, and loses them. Here
a message is written under another name and appears whole. For demonstrations and
tests: one machine, a few messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu.transport import TRANSPORT_ALIASES, filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSPORT_ALIASES["folder"] = f"{__name__}:Transport"


def options(folder: Path) -> dict[str, Any]:
    """Give the `broker_transport_options` that keep everything in one folder.

    Args:
        folder: Made where it is missing.

    Returns:
        What goes with `broker_url = "folder://"`.
    """
    messages = folder / "messages"
    messages.mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(folder / "queues"),
        "polling_interval": 0.02,
    }


class Channel(filesystem.Channel):
    """Kombu's, with files that appear whole."""

    @property
    def transport_options(self) -> dict[str, Any]:
        """What the app sets; for `folder:///path` the path alone is enough."""
        client = self.connection.client
        path = (client.virtual_host or "").strip("/")
        return {**(options(Path("/", path)) if path else {}), **client.transport_options}

    def _put(self, queue: str, payload: dict[str, Any], **_kwargs: object) -> None:
        # Kombu reads the files in the order of their names.
        name = f"{time.monotonic_ns():020}_{uuid.uuid4()}.{queue}.msg"
        folder = Path(self.data_folder_out)
        unfinished = folder / f"{name}.unfinished"
        unfinished.write_text(json.dumps(payload), encoding="utf-8")
        unfinished.rename(folder / name)

    def _queue_bind(self, *args: Any) -> None:
        with self._queues_locked():
            super()._queue_bind(*args)

    def get_table(self, exchange: str) -> list[Any]:
        """Read an exchange's queues when nobody is half way through writing them."""
        with self._queues_locked():
            table: list[Any] = super().get_table(exchange)
        return table

    @contextlib.contextmanager
    def _queues_locked(self) -> Iterator[None]:
        self.control_folder.mkdir(parents=True, exist_ok=True)
        with (self.control_folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Transport(filesystem.Transport):
    """What `broker_url = "folder:///path"` names; `folder://` alone goes with `broker_transport_options`."""

    Channel = Channel
    #: How often a worker looks for messages, in seconds.
    polling_interval = 0.02

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Wait for messages, but for 0.2 s at most: a worker looks between two waits whether it is to stop."""
        super().drain_events(connection, timeout if timeout is None else min(timeout, 0.2))
