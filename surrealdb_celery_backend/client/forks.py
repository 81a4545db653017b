"""After a fork: the one registry of functions that a child has to call.

A fork copies memory, not threads. In the child, locks may be held by threads that are not there, sockets belong to
the parent, and waits are the parent's. A module that keeps such things registers a function that drops them; it runs in the child
before anything else does. `os.fork`, `multiprocessing` and `billiard` all come through here.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable
from types import MethodType

#: A registered function; None once its object is gone.
_Reference = Callable[[], Callable[[], None] | None]

_numbers = itertools.count()
#: In the order of registration. A dict: one entry comes and goes without a lock that a fork could find held.
_callbacks: dict[int, _Reference] = {}


def register(callback: Callable[[], None]) -> None:
    """Run a function in each child that is forked from now on.

    Args:
        callback: Drops what belongs to the parent. A bound method is held weakly: it ends with its object. It runs
            while no other thread does, and must not wait for a lock.
    """
    number = next(_numbers)
    if not isinstance(callback, MethodType):
        _callbacks[number] = lambda: callback
        return
    # Not a WeakMethod: at the interpreter's end its own callback finds the module gone.
    callbacks, function = _callbacks, callback.__func__

    def forget(_: object) -> None:
        callbacks.pop(number, None)

    reference = weakref.ref(callback.__self__, forget)

    def method() -> Callable[[], None] | None:
        instance = reference()
        return None if instance is None else MethodType(function, instance)

    callbacks[number] = method


def _registered() -> list[_Reference]:
    while True:
        try:
            return list(_callbacks.values())
        except RuntimeError:  # the collector removed one meanwhile
            continue


def _run_in_child() -> None:
    for reference in _registered():
        callback = reference()
        if callback is not None:
            callback()


# Not on Windows, where nothing forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run_in_child)
