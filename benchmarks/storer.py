"""Another process that stores results, as a worker would, when it is told to."""

from __future__ import annotations

import time
from typing import Any

from .child import Child, spawn
from .contenders import CeleryClient, Contender, request_of

#: The pause between two stores of :meth:`Storer.begin`, in seconds.
PAUSE = 0.005


class Storer(Child):
    """The process, used as a context manager."""

    def __init__(self) -> None:
        self._pipe, theirs = spawn.Pipe()
        super().__init__(_serve, theirs)

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
