"""Another process that stores results, as a worker would, when it is told to."""

from __future__ import annotations

import multiprocessing
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .contenders import CeleryClient, Contender, request_of

if TYPE_CHECKING:
    from typing_extensions import Self

_spawn = multiprocessing.get_context("spawn")
#: The pause between two stores of :meth:`Storer.begin`, in seconds.
PAUSE = 0.005


class Storer:
    """The process, used as a context manager."""

    def __init__(self) -> None:
        self._pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()

    def store_later(self, contender: Contender, task_id: str, reply_to: str, pause: float) -> None:
        """Store one result after a pause; :meth:`stored_at` then says when that was."""
        self._pipe.send(("store", contender, task_id, reply_to, pause))

    def stored_at(self) -> float:
        """When storing began, by the machine's monotonic clock."""
        return float(self._receive())

    def begin(self, contender: Contender) -> None:
        """Store small results, one after the other, until :meth:`end`."""
        self._pipe.send(("begin", contender))
        self._receive()

    def end(self) -> list[float]:
        """Stop storing.

        :return: how long each store took, in seconds.
        """
        self._pipe.send(("end",))
        return list(self._receive())

    def _receive(self) -> Any:
        if not self._pipe.poll(120):
            raise RuntimeError("the storing process does not answer")
        return self._pipe.recv()


def _serve(pipe: Any) -> None:
    clients: dict[str, CeleryClient] = {}

    def client_of(contender: Contender) -> CeleryClient:
        if contender.name not in clients:
            clients[contender.name] = CeleryClient(contender)
            clients[contender.name].store("warm-up", "", request_of("warm-up"))
        return clients[contender.name]

    while True:
        command, contender, *rest = pipe.recv()
        client = client_of(contender)
        if command == "store":
            task_id, reply_to, pause = rest
            request = request_of(task_id, reply_to)
            time.sleep(pause)
            began = time.monotonic()
            client.store(task_id, "x" * 100, request)
            pipe.send(began)
        else:
            pipe.send(None)
            waits = []
            number = 0
            while not pipe.poll(PAUSE):
                number += 1
                request = request_of(f"{began_id(contender)}-{number}")
                began = time.monotonic()
                client.store(request.id, "x" * 100, request)
                waits.append(time.monotonic() - began)
            pipe.recv()
            pipe.send(waits)


def began_id(contender: Contender) -> str:
    """An id that no other run stores."""
    return f"wait-{contender.name}-{time.monotonic_ns()}"
