"""Beats in the process of a test, their messages, and a clock that the test moves."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import Celery

from surrealdb_celery_backend.beat import Schedules, SurrealDBScheduler
from tests.engines import Database

UTC = timezone.utc

#: How long a state may take to be reached before the test fails, in seconds.
MAX_WAIT = 60
#: No longer are the bytes that a :class:`ForwardingServer` looks for, but for one.
MARK = 100


class Endless(AssertionError):
    """There is no end to what is due."""


class SteppedClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, start: datetime | None = None) -> None:
        self.moment = start or datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        return self.moment

    def observe(self, moment: datetime, asked_at: float, answered_at: float) -> None:
        """Nothing: the database's time is not this test's."""

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Beats:
    """A Celery app with its beats, all in this process, and the messages that they sent."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.queue = f"beat-{uuid.uuid4()}"
        self.clock = SteppedClock()
        self.schedulers: list[SurrealDBScheduler] = []
        self.app = self.new_app()

    def new_app(self, **settings: Any) -> Celery:
        """An app of the same project: another process's, or that of the next deployment."""
        app = Celery("shop", broker="memory://", set_as_current=False)
        app.conf.update(
            self.database.settings,
            task_default_queue=self.queue,
            result_backend="disabled://",
            result_expires=None,
            surrealdb_beat_lease=30,
            # A beat that is answered late goes on later, which is not what these tests are about.
            surrealdb_timeout=MAX_WAIT,
        )
        app.conf.update(settings)

        @app.task(name="shop.report", shared=False)
        def report(*args: Any, **kwargs: Any) -> None:
            """Nothing: what is tested is that it is sent."""

        return app

    def start(self, app: Celery | None = None, **settings: Any) -> SurrealDBScheduler:
        """Start a beat."""
        scheduler = SurrealDBScheduler(app or self.app, clock=settings.pop("clock", self.clock))
        scheduler.max_interval = 0.01  # how long a tick may listen for changes
        self.schedulers.append(scheduler)
        scheduler.tick()
        return scheduler

    def sent(self) -> list[Any]:
        """Take the messages that were sent since the last time."""
        found = []
        with self.app.connection_for_read() as connection:
            queue = self.app.amqp.queues[self.queue](connection.default_channel)
            queue.declare()
            while (message := queue.get(no_ack=True)) is not None:
                found.append(message)
        return found

    def schedules(self) -> Schedules:
        return Schedules(self.app)

    def records(self) -> dict[str, dict[str, Any]]:
        """The table as it is."""
        return {each["name"]: each for each in self.database.query("SELECT * FROM schedule")[0]}


def tick_until_idle(scheduler: SurrealDBScheduler) -> None:
    """Have a beat fire all that is due."""
    for _ in range(1000):
        if not scheduler.agenda.is_anything_due(scheduler.clock.now()):
            return
        scheduler.tick()
    raise Endless


def due_at(message: Any) -> datetime:
    """When the firing that sent a message was due."""
    return datetime.fromisoformat(message.headers["due_at"])


class Pipe(socketserver.BaseRequestHandler):
    """One connection through a :class:`ForwardingServer`."""

    server: ForwardingServer

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as other:
            ends = {self.request: other, other: self.request}
            self.server.requests.append(self.request)
            is_lost, before = False, b""
            while True:
                for ready in select.select(list(ends), [], [])[0]:
                    data = ready.recv(65536)
                    if not data or (is_lost and ready is other):
                        return
                    if ready is self.request:
                        # What is looked for may come in two pieces.
                        seen = before + data
                        before = seen[-MARK:]
                        self.server.note_stop(seen)
                        is_lost = self.server.note_loss(seen) or is_lost
                    if self.server.is_stopped:
                        return
                    ends[ready].sendall(data)


class ForwardingServer(socketserver.ThreadingTCPServer):
    """A port that passes connections on to an address.

    Args:
        target: The address, host and port.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    is_open = False

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Pipe, bind_and_activate=False)
        self.target = target
        #: The URL of what is behind, through this port; for the test that sets it.
        self.url = ""
        self.requests: list[socket.socket] = []
        #: The reply to the first request with these bytes gets lost, with the connection.
        self.loses = b""
        #: A request with these bytes, and whatever comes after it, does not get through any more.
        self.stops = b""
        self.is_stopped = False

    def note_stop(self, data: bytes) -> None:
        """Stop for good where a request holds the bytes of `stops`."""
        if self.stops and self.stops in data:
            self.is_stopped = True

    def note_loss(self, data: bytes) -> bool:
        """Whether the reply to this request is to get lost, which happens once."""
        if not self.is_stopped and self.loses and self.loses in data:
            self.loses = b""
            return True
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: connections are cut on purpose."""

    def cut(self) -> None:
        """Break the connections that there are."""
        while self.requests:
            with contextlib.suppress(OSError):
                self.requests.pop().shutdown(socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        return self.server_address[1]

    def open(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        self.is_open = True


@contextmanager
def forwarding(target: tuple[str | None, int | None]) -> Iterator[ForwardingServer]:
    """A port that nobody else can have, where connections are refused, and after `open` passed on to an address."""
    host, port = target
    assert host is not None
    assert port is not None
    with ForwardingServer((host, port)) as server:
        server.server_bind()
        try:
            yield server
        finally:
            if server.is_open:
                server.shutdown()


def take_in_changes(scheduler: SurrealDBScheduler) -> None:
    """Have a beat look for changes now; it fires what is due, too."""
    scheduler.changes.look_at_once()
    scheduler.tick()
