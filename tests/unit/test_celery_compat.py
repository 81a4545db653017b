"""What this package takes from inside Celery: where code runs, above all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, signals
from celery.utils.timer2 import Timer
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from surrealdb_celery_backend import SurrealDBBackend, celery_compat

pytestmark = pytest.mark.unit


@pytest.fixture
def loop() -> Iterator[Callable[..., Any]]:
    """Calls a function in the thread of a worker's event loop, and returns what it returned."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(signals.worker_init.send, sender=None).result()
        thread.submit(signals.worker_ready.send, sender=None).result()
        try:
            yield lambda function: thread.submit(function).result()
        finally:
            thread.submit(signals.worker_shutdown.send, sender=None).result()


def test_outside_a_worker() -> None:
    """A process without a worker has no main loop."""
    assert not celery_compat.in_worker_main_loop()
    assert not celery_compat.in_worker()


def test_the_event_loop(loop: Callable[..., Any]) -> None:
    """Only the thread that told of its event loop is one; another thread of the process is the user's own."""
    assert loop(celery_compat.in_worker_main_loop)
    assert loop(celery_compat.in_worker)
    assert not celery_compat.in_worker_main_loop()
    with ThreadPoolExecutor(1) as another:
        assert not another.submit(celery_compat.in_worker_main_loop).result()


def test_threads_of_celery(loop: Callable[..., Any]) -> None:
    """A thread that Celery runs beside the event loop must not wait either: a timer discards expired tasks."""
    found: list[bool] = []
    called = threading.Event()

    def look() -> None:
        found.append(celery_compat.in_worker_main_loop())
        called.set()

    timer = Timer()
    timer.call_after(0, look)
    try:
        assert called.wait(60)
    finally:
        timer.stop()
    assert found == [True]


def test_a_task_in_the_event_loop(loop: Callable[..., Any]) -> None:
    """A task that runs in the event loop (pool solo) waits as any task does."""
    app = Celery("compat", broker="memory://", set_as_current=False)

    @app.task(shared=False)
    def look() -> tuple[bool, bool]:
        return celery_compat.in_worker_main_loop(), celery_compat.in_worker()

    assert loop(lambda: look.apply().get()) == (False, True)


def test_the_end_of_a_worker(loop: Callable[..., Any]) -> None:
    """Once a worker has ended, its thread is any thread."""
    loop(lambda: signals.worker_shutdown.send(sender=None))
    assert not loop(celery_compat.in_worker_main_loop)


def test_encoding_says_what_celery_and_kombu_say() -> None:
    """What the shortcut cannot do ends in the exception of Celery's own way; compression and subclasses are kept to."""
    made = Celery("encoding", set_as_current=False)
    made.conf.update(result_accept_content=["json"])
    backend = SurrealDBBackend(app=made)
    assert backend.decode_as(backend.encode({"a": [1, None]}), "application/json") == {"a": [1, None]}
    with pytest.raises(EncodeError):
        backend.encode(object())
    with pytest.raises(DecodeError):
        backend.decode_as("{", "application/json")
    with pytest.raises(ContentDisallowed):
        backend.decode_as(b"", "application/x-python-serialize")

    class Shouting(SurrealDBBackend):
        def _encode(self, data: Any) -> Any:
            return "application/json", "utf-8", '"!"'

    assert Shouting(app=made).encode("quiet") == '"!"'


def test_a_setting_is_read_whatever_its_name_was() -> None:
    """The reader gives what the configuration gives, also once it changes, and in a namespace of capitals."""
    made = Celery("settings", set_as_current=False)
    made.config_from_object({"CELERY_RESULT_EXTENDED": True}, namespace="CELERY")
    read = celery_compat.setting_reader(made, "result_extended")
    assert read() is True
    made.conf.result_extended = False
    assert read() is made.conf.result_extended
    plain = Celery("plain", set_as_current=False)
    read = celery_compat.setting_reader(plain, "task_always_eager")
    assert read() is False
    plain.conf.task_always_eager = True
    assert read() is True
