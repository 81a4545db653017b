"""Every private or version-dependent API of Celery, Kombu and billiard that this package uses.

Supported is Celery from 5.4 on. Differences between versions are detected by feature, never by version
number, and each function here says which version has what. A module of this package that needs a name with
an underscore, or one that not every supported version has, takes it from here; overriding a method of a
Celery class in a subclass is not meant.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from billiard.process import current_process
from celery import _state, signals
from celery.app.task import Context
from celery.backends import asynchronous, base
from celery.utils.functional import _regen
from kombu.serialization import loads
from kombu.serialization import registry as _serializers
from kombu.utils.compat import detect_environment
from vine import barrier, promise

from .client import forks

__all__ = [
    "active_apps",
    "cached_meta",
    "chord_expires",
    "content_encoding",
    "decode",
    "default_result_meta",
    "drains_in_greenlet",
    "fulfil",
    "given_setting_names",
    "has_plain_meta",
    "in_worker",
    "in_worker_main_loop",
    "in_worker_outside_task",
    "is_generator_header",
    "is_pool_process",
    "is_set",
    "join_would_block",
    "message_facts",
    "on_app_finalized",
    "on_callback_added",
    "on_pool_process_start",
    "on_worker_ready",
    "on_worker_shutdown",
    "plain_encoder",
    "publish",
    "request_fields",
    "result_cache",
    "retry_hook",
    "running_task",
    "setting_reader",
    "split_on_interval",
]

Result = TypeVar("Result")

# -- apps and tasks ----------------------------------------------------------------------------------


def active_apps() -> list[Any]:
    """Return the Celery apps of this process."""
    return list(_state._get_active_apps())


def on_app_finalized(callback: Callable[[Any], Any]) -> None:
    """Call a function with every app that is finalized from now on.

    Args:
        callback: Takes the app.
    """
    _state.connect_on_app_finalize(callback)


def join_would_block() -> bool:
    """Return whether a task runs here and may not wait for other tasks."""
    return bool(_state.task_join_will_block())


def running_task() -> Any:
    """Return the task that this thread or greenlet runs; None outside of a task."""
    return _state.get_current_task()


#: Of no request.
_NO_FIELDS: Mapping[str, Any] = {}


def request_fields(request: Any) -> Mapping[str, Any]:
    """Return what a task's request was given, the headers of its message among it.

    A task that runs eagerly has the headers that it was called with in `headers` alone.

    Args:
        request: The request; None where there is none.
    """
    given: Mapping[str, Any] = getattr(request, "__dict__", _NO_FIELDS)
    if given.get("is_eager"):
        headers = given.get("headers")
        if isinstance(headers, Mapping):
            return {**headers, **given}
    return given


def message_facts(headers: Mapping[str, Any], body: Any) -> Mapping[str, Any]:
    """Return what a message that is sent says of its task, as its headers have it since protocol 2.

    Messages of protocol 1 (``task_protocol = 1``) have it in the body, and no header but those of the sender's own.

    Args:
        headers: The message's headers.
        body: Its body.
    """
    return {**body, **headers} if isinstance(body, Mapping) and "id" not in headers else headers


# -- processes ---------------------------------------------------------------------------------------


def is_pool_process() -> bool:
    """Return whether this process belongs to a prefork pool, whose processes are daemons."""
    return bool(current_process().daemon)


def on_pool_process_start(callback: Callable[[], Any]) -> None:
    """Call a function when a pool starts, in each of its processes.

    A solo pool sends the signal too, in the worker's own process: ask :func:`is_pool_process`.

    Args:
        callback: Takes no argument. It is kept for the life of the process.
    """

    def received(**_: Any) -> None:
        callback()

    signals.worker_process_init.connect(received, weak=False)


class _Worker:
    """The worker that runs in this process, as far as Celery's signals tell."""

    #: The process in which a worker was made; a forked pool process has another id.
    process: int | None = None
    #: The threads in which a worker's event loop runs.
    loops: frozenset[int] = frozenset()


@signals.worker_init.connect(weak=False)
def _worker_made(**_: Any) -> None:
    _Worker.process, _Worker.loops = os.getpid(), frozenset()


# Sent by the consumer, in the thread of its event loop, before it takes the first message.
@signals.worker_ready.connect(weak=False)
def _loop_begins(**_: Any) -> None:
    _Worker.process, _Worker.loops = os.getpid(), _Worker.loops | {threading.get_ident()}


@signals.worker_shutdown.connect(weak=False)
def _loop_ends(**_: Any) -> None:
    _Worker.loops -= {threading.get_ident()}
    if not _Worker.loops:
        _Worker.process = None


def in_worker_main_loop() -> bool:
    """Return whether this code runs where a worker hears its broker and its pool, and so must not wait.

    That is the thread of the worker's event loop, and each thread that Celery or billiard runs beside it (timers,
    results and time limits of pools without an event loop); with gevent and eventlet, every greenlet of the
    worker. None of them counts while it runs a task: then it is the task that waits.
    """
    if _Worker.process != os.getpid() or running_task() is not None:
        return False
    if threading.get_ident() in _Worker.loops:
        return True
    thread: Any = threading.current_thread()
    if type(thread).__module__.partition(".")[0] in ("celery", "billiard", "kombu"):
        return True
    # A greenlet that no thread object was made for: one of Celery's.
    is_thread = isinstance(thread, threading.Thread) and type(thread).__name__ not in ("_MainThread", "_DummyThread")
    return detect_environment() != "default" and not is_thread and bool(_Worker.loops)


#: The requests that this worker holds, by task id: Celery's own registry has let go of one when its failure is stored.
_held: WeakValueDictionary[str, Any] = WeakValueDictionary()


@signals.task_received.connect(weak=False)
def _task_received(request: Any = None, **_: Any) -> None:
    _held[request.id] = request


def accepted_at(task_id: str) -> float | None:
    """Return when the pool of this process's worker began to run a task, by the host's clock; None where it did not.

    Args:
        task_id: The task's id.
    """
    started: float | None = getattr(_held.get(task_id), "time_start", None)
    return started


def in_worker() -> bool:
    """Return whether this code runs for a worker: in a process of its pool, in a task or in its event loop."""
    return is_pool_process() or (
        _Worker.process == os.getpid() and (running_task() is not None or in_worker_main_loop())
    )


def on_worker_ready(callback: Callable[[Any, str | None], Any]) -> Callable[[Any, str | None], Any]:
    """Call a function when a worker of this process takes tasks, its pool being there; fit to be a decorator.

    Args:
        callback: Takes the worker's app, and the module of its pool. It is kept for the life of the process.

    Returns:
        The function.
    """

    def received(sender: Any = None, **_: Any) -> None:
        app = getattr(sender, "app", None)
        if app is not None:
            pool = getattr(sender, "pool", None)
            callback(app, None if pool is None else type(pool).__module__)

    signals.worker_ready.connect(received, weak=False)
    return callback


def in_worker_outside_task() -> bool:
    """Return whether this code runs in a worker, but for no task.

    There Celery looks up a task's state to decide whether its message need not come again: the main process of a pool
    that lost a process (since 5.7), and `worker_deduplicate_successful_tasks` before it runs a redelivered task.
    """
    return (is_pool_process() or _Worker.process == os.getpid()) and running_task() is None


def on_worker_shutdown(callback: Callable[[], Any]) -> Callable[[], Any]:
    """Call a function when the worker in this process ends; fit to be a decorator.

    Args:
        callback: Takes no argument. It is kept for the life of the process.

    Returns:
        The function.
    """

    def received(**_: Any) -> None:
        callback()

    signals.worker_shutdown.connect(received, weak=False)
    return callback


# -- settings ----------------------------------------------------------------------------------------


def is_set(conf: Any, name: str) -> bool:
    """Return whether a Celery setting was set, in the place of its default.

    Args:
        conf: ``app.conf``.
        name: The setting's lower-case name.
    """
    return bool(conf.value_set_for(name))


def given_setting_names(conf: Any) -> Iterator[str]:
    """Yield the names that the user set, without the app's namespace.

    Names in capitals outside the namespace are those of the rest of Django's settings, and left out.

    Args:
        conf: ``app.conf``. Looking at it loads the configuration.
    """
    namespace = str(getattr(conf, "prefix", None) or "")
    for mapping in conf.maps[:-1]:  # the last one holds Celery's defaults
        try:
            keys = list(mapping)
        except TypeError:  # a module or an object
            keys = [name for name in dir(mapping) if not name.startswith("__")]
        for key in keys:
            if not isinstance(key, str):
                continue
            if namespace and key.startswith(namespace):
                yield key.removeprefix(namespace).lower()
            elif not namespace or key.islower():
                yield key


def setting_reader(app: Any, name: str) -> Callable[[], Any]:
    """Return a function that reads a setting as ``app.conf[name]`` does, in two calls instead of eighteen.

    Args:
        app: The Celery app.
        name: The setting's lower-case name.
    """
    known: Any = None
    names: tuple[str, ...] = ()

    def read() -> Any:
        nonlocal known, names
        conf = app.conf
        if conf is not known:
            # Since 5.7 the first has the second.
            known, names = conf, tuple({*conf._to_keys(name), *(rename(name) for rename in conf._keys or ())} - {None})
        *given, defaults = conf.maps
        for mapping in given:
            for each in names:
                if each in mapping:
                    return conf[name]
        return defaults[name]

    return read


# -- encoding ----------------------------------------------------------------------------------------

#: Undoes ``result_compression``, which Celery has since 5.7.
_decompress: Callable[[Any], Any] | None = getattr(base, "decompress_payload", None)
#: How many serializers Kombu knew when the content types were read, and the content encoding of each type.
_encodings: tuple[int, dict[str, str]] = (0, {})


def content_encoding(content_type: str) -> str:
    """Return how Kombu encodes a content type, such as ``utf-8`` or ``binary``.

    Args:
        content_type: The content type of a serializer that Kombu knows now.
    """
    global _encodings  # noqa: PLW0603 - replaced as a whole, so threads need no lock
    encoders = _serializers._encoders
    if _encodings[0] != len(encoders):
        _encodings = (len(encoders), {each: encoding for each, encoding, _ in list(encoders.values())})
    return _encodings[1].get(content_type, "utf-8")


def decode(payload: Any, content_type: str, accept: Collection[str] | None) -> Any:
    """Return the value of a payload, as Kombu's ``loads`` does.

    The usual payload is decoded without Kombu's context managers, which take half the time of a short one.

    Args:
        payload: Text or bytes, compressed (``result_compression``, since Celery 5.7) or not.
        content_type: The content type of its serializer.
        accept: The content types that may be decoded.

    Raises:
        kombu.exceptions.ContentDisallowed: `accept` does not have that type.
        kombu.exceptions.DecodeError: The payload is not of that type.
    """
    if _decompress is not None and type(payload) is not str:
        payload = _decompress(payload)
    decoder = _serializers._decoders.get(content_type)
    if decoder is not None and payload and accept is not None and content_type in accept:
        try:
            return decoder(payload)
        except Exception:  # noqa: S110 - Kombu says it below
            pass
    return loads(payload, content_type=content_type, content_encoding=content_encoding(content_type), accept=accept)


def plain_encoder(backend: Any) -> Callable[[Any], Any] | None:
    """Return the function that encodes a backend's results, where neither a subclass nor a compression does more.

    Args:
        backend: A backend based on Celery's.
    """
    if type(backend)._encode is not base.Backend._encode or getattr(backend, "compression", None):
        return None
    known = _serializers._encoders.get(backend.serializer)
    return None if known is None else known.encoder


# -- the base class of result backends -----------------------------------------------------------------

#: The fields of Celery's meta of a result where ``result_extended`` is off.
_PLAIN_META = frozenset({"status", "result", "traceback", "children", "date_done", "group_id", "parent_id"})


def default_result_meta(backend: Any, state: str) -> dict[str, Any]:
    """Return the meta that Celery's own code makes, of a result None and no request.

    ``date_done`` is a datetime in the app's time zone, before Celery 5.5 in UTC.

    Args:
        backend: A backend based on Celery's.
        state: The task's state.
    """
    meta: dict[str, Any] = base.Backend._get_result_meta(backend, None, state, None, None, format_date=False)
    return meta


def has_plain_meta(backend: Any) -> bool:
    """Return whether Celery's own code makes the meta of a result, with the fields known here and no other.

    Args:
        backend: A backend based on Celery's.
    """
    if type(backend)._get_result_meta is not base.Backend._get_result_meta:
        return False
    request = Context(id="id", group="group", parent_id="parent")
    return set(backend._get_result_meta(None, "SUCCESS", None, request)) == _PLAIN_META


def chord_expires(backend: Any) -> float | None:
    """Return how long a chord is kept, in seconds; None for ever.

    ``result_chord_expires`` exists since Celery 5.7; before, chords are kept as long as results.

    Args:
        backend: A backend based on Celery's key/value backend.
    """
    seconds = getattr(backend, "chord_expires", backend.expires)
    return float(seconds) if seconds else None


def retry_hook(backend: Any) -> Callable[[Exception], Any] | None:
    """Return the hook that Celery calls before it retries, since 5.7; None before.

    Args:
        backend: A backend based on Celery's.
    """
    return getattr(backend, "on_backend_retryable_error", None)


# -- results and those that wait for them ----------------------------------------------------------------


def cached_meta(result: Any) -> dict[str, Any] | None:
    """Return the meta that a result object holds once its task has ended; None before.

    Args:
        result: An ``AsyncResult``.
    """
    meta: dict[str, Any] | None = result._cache
    return meta


#: Whether a result object is fulfilled yet is decided by one thread at a time.
_fulfilling = threading.Lock()


def _renew_lock() -> None:
    global _fulfilling  # noqa: PLW0603 - another thread of the parent may have held it
    _fulfilling = threading.Lock()


forks.register(_renew_lock)


def fulfil(result: Any, meta: Mapping[str, Any]) -> bool:
    """Give a result object the meta of its task, which has ended, and run the callbacks added to it.

    Of several threads that do so at once one runs the callbacks.

    Args:
        result: An `AsyncResult`.
        meta: The meta, as Celery has it.

    Returns:
        Whether the object had none before.

    Raises:
        Exception: A callback raised.
    """
    with _fulfilling:
        if result._cache is not None:
            return False
        result._set_cache(dict(meta))
    result.on_ready(result)
    return True


def on_callback_added(result: Any, call: Callable[[], Any]) -> None:
    """Call a function if the `then()` of a result object that is under way adds a callback of a user's.

    A group's barrier is none: it is added to every member when the group is made.

    Args:
        result: An `AsyncResult` whose `then()` has just told its backend.
        call: Takes no argument.
    """
    promise = result.on_ready

    def then(callback: Any, on_error: Any = None) -> Any:
        vars(promise).pop("then", None)
        if not isinstance(callback, barrier):
            call()
        return promise.then(callback, on_error)

    promise.then = then


def split_on_interval(on_interval: Any) -> tuple[bool, Callable[[], Any] | None]:
    """Take apart what `AsyncResult.get()` has called now and then: Celery's look at parents, and the user's function.

    Celery's look is one request for each parent that has not ended, the parts of a chord's header included.

    Args:
        on_interval: What the backend is given: a function, None, or a promise of the look to which the user's
            function is added.

    Returns:
        Whether a failed parent ends the wait, and the user's function, if there is one.
    """
    if not isinstance(on_interval, promise):
        return False, on_interval
    method = on_interval.fun() if on_interval.weak and on_interval.fun is not None else on_interval.fun
    looks = getattr(method, "__name__", "") == "_maybe_reraise_parent_error"
    if method is not None and not looks:
        return False, on_interval
    functions = [each for each in on_interval.listeners or () if each is not None]

    def call() -> None:
        for function in functions:
            function()

    return looks, call if functions else None


def result_cache(backend: Any) -> Any:
    """Return the mapping of metas that a backend has read, which `result_cache_max` bounds.

    Args:
        backend: A backend based on Celery's.
    """
    return backend._cache


def drains_in_greenlet(drainer: Any) -> bool:
    """Return whether one greenlet drains for all that wait; an error that it raises ends it for good.

    Args:
        drainer: A result consumer's drainer.
    """
    return isinstance(drainer, asynchronous.greenletDrainer)


# -- canvas --------------------------------------------------------------------------------------------


def is_generator_header(results: Any) -> bool:
    """Return whether a chord's header is a generator whose tasks are sent while they are looked at.

    Args:
        results: The header's results.
    """
    return isinstance(results, _regen)


def publish(app: Any, send: Callable[..., Result], *args: Any) -> Result:
    """Call a function that publishes a message; Celery 5.7 retries it under ``task_publish_retry_policy``.

    Args:
        app: The Celery app.
        send: Publishes.
        *args: Its arguments.
    """
    with_retries: Callable[..., Result] | None = getattr(app.amqp, "_retry_publish", None)
    return send(*args) if with_retries is None else with_retries(send, *args)
