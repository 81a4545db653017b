"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port of loopback that a server may take and leave, and that no other program is given meanwhile."""
    with socket.socket() as holder:
        # Bound and never listening: who connects is refused, and who says SO_REUSEADDR too may listen there.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
