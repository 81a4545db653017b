"""An embedded SurrealDB engine, served on loopback for development and tests.

``python -m surrealdb_celery_backend.devserver`` serves the engine that comes with the installed SDK the way
a SurrealDB server would: CBOR-RPC over WebSocket and HTTP at ``/rpc``. The replies are the real engine's; this
package only carries messages and gives every connection a session of its own.

Development only: one machine, one process, no TLS, no LIVE notifications (the embedded engines have none).

It imports nothing else of the library but the lock of a directory, so that it also runs where only the SDK is
installed.
"""

from .engine import DevServerError
from .server import DevServer

__all__ = ["DevServer", "DevServerError"]
