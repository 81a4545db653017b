"""One registry says what happens in a forked child."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from surrealdb_celery_backend.client import forks
from tests.support.forking import in_fork

pytestmark = pytest.mark.unit


class Keeper:
    """Has something that belongs to the process that made it."""

    def __init__(self) -> None:
        self.forgotten = False
        forks.register(self._forget)

    def _forget(self) -> None:
        self.forgotten = True


def test_methods_run_in_the_child_only() -> None:
    """In the child each registered object has been told, before anything else; in the parent none is."""
    keeper = Keeper()

    def child() -> None:
        assert keeper.forgotten

    in_fork(child)
    assert not keeper.forgotten


def test_an_object_is_not_kept_alive() -> None:
    """The registry holds no object: what nobody else holds is collected, and leaves nothing behind."""

    class Mine(Keeper):
        """What threads of other tests register or drop meanwhile is not counted."""

    keepers = [Mine() for _ in range(100)]
    callbacks = forks._callbacks.copy()
    mine = {number for number, each in callbacks.items() if isinstance(getattr(each(), "__self__", None), Mine)}
    assert len(mine) == 100
    del keepers
    gc.collect()
    assert not mine & forks._callbacks.keys()


def test_the_end_of_the_interpreter_is_quiet() -> None:
    """Registered objects that live until the end cause no message there."""
    program = (
        "from surrealdb_celery_backend.client import forks\n"
        "class Keeper:\n"
        "    def __init__(self): forks.register(self.forget)\n"
        "    def forget(self): pass\n"
        "keepers = [Keeper() for _ in range(5)]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
