"""A server of this protocol for answers that no real engine can be made to give, such as that it is ancient."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from surrealdb.data.cbor import decode, encode
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from typing_extensions import Self

Answer = Callable[[str, list[Any]], dict[str, Any]]


def ok(*values: Any) -> dict[str, Any]:
    """The answer to a query of so many statements."""
    return {"result": [{"status": "OK", "time": "1µs", "result": value} for value in values]}


def err(text: str, **more: Any) -> dict[str, Any]:
    """The answer to a query whose one statement failed."""
    return {"result": [{"status": "ERR", "time": "1µs", "result": text, **more}]}


class FakeServer:
    """Answers what it is told to.

    Args:
        answer: Makes ``{result: …}`` or ``{error: …}`` from method and parameters.
        limit: Bytes of the largest message it takes.
    """

    def __init__(self, answer: Answer, limit: int | None = None) -> None:
        self.asked: list[tuple[str, list[Any]]] = []
        self._answer = answer
        self._server = serve(self._talk, "127.0.0.1", 0, subprotocols=[Subprotocol("cbor")], max_size=limit)
        self._thread = threading.Thread(target=self._server.serve_forever, name="fake server")
        self._thread.start()

    @property
    def url(self) -> str:
        """Its `surrealdb_url`."""
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/rpc"

    def count(self, method: str) -> int:
        """How often it was asked for a method."""
        return sum(asked == method for asked, _ in self.asked)

    def _talk(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for data in connection:
                assert isinstance(data, bytes)
                request = decode(data)
                asked = request["method"], request.get("params") or []
                self.asked.append(asked)
                connection.send(encode({"id": request["id"], **self._answer(*asked)}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()


def server(query: Answer | dict[str, Any], version: str = "surrealdb-3.0.2") -> FakeServer:
    """A server that takes every sign-in and answers queries as told."""

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "version":
            return {"result": version}
        if method != "query":
            return {"result": None}
        return query(method, params) if callable(query) else query

    return FakeServer(answer)
