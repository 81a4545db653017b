"""The data set: made once in a folder, and used again from there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from celery import Celery, states

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.results.chords.records import Header, HeaderPart
from tests.engines import Database
from tests.engines import start as start_engine

from .records import Maker, Part, Place, now
from .tasks import KINDS, TOTAL

#: What says that the folder is ours, and what the data set is once it is complete.
BEGUN, COMPLETE = "begun", "data-set.json"
#: The namespace and the database.
NAMES = ("million", "results")
#: Threads that make and insert records: one makes some while the engine inserts another's.
THREADS = 3
#: Chords whose body was not sent: of so many results one, and how many there are at the most.
UNFINISHED_EACH, UNFINISHED_MOST = 25_000, 40
ENTRIES = 24
#: So old a data set has few results of the last 24 hours, in seconds.
OLD = 6 * 3600


class NotUsable(Exception):
    """The folder holds something else."""


@dataclass(frozen=True)
class DataSet:
    """What was made.

    Attributes:
        results: How many results.
        engine: In which engine, as options name it.
        indexes: `surrealdb_indexes`.
        end: When the newest ended, as ISO 8601.
        seconds: How long it took to make it.
        known: Ids of some of its records, by what they are.
    """

    results: int
    engine: str
    indexes: str
    end: str
    seconds: float
    known: dict[str, str]

    def back(self, span: timedelta) -> str:
        """The time so long before its end, as filters take it."""
        return (datetime.fromisoformat(self.end) - span).isoformat()


@contextlib.contextmanager
def data_set(folder: Path, results: int, engine_name: str, indexes: str) -> Iterator[tuple[DataSet, Database]]:
    """The data set on a running engine. It is made where it is not there.

    Args:
        folder: Where it is kept.
        results: How many results it has.
        engine_name: An engine of tests/engines with a store that keeps its data.
        indexes: `surrealdb_indexes`.

    Raises:
        NotUsable: The folder holds another, or something else.
    """
    found = _found(folder, results, engine_name, indexes)
    version, _, store = engine_name.partition("-")
    (folder / "engine").mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).touch()
    with start_engine(version, store or None, kept=folder / "engine") as engine:
        if engine.store == "mem":
            raise NotUsable(f"engine {engine_name} keeps its data in memory: name a store, such as {version}-rocksdb")
        database = Database(engine, *NAMES)
        if found is None:
            found = _make(database, results, engine_name, indexes)
            (folder / COMPLETE).write_text(json.dumps(asdict(found), indent=1) + "\n")
        yield found, database


def _found(folder: Path, results: int, engine_name: str, indexes: str) -> DataSet | None:
    """The complete data set of a folder. One that is not complete is removed."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not (folder / BEGUN).exists():
        raise NotUsable(f"{folder} holds something else: give --data an empty folder")
    if not (folder / COMPLETE).exists():
        print("the data set was not completed: made anew", file=sys.stderr)
        shutil.rmtree(folder / "engine", ignore_errors=True)
        return None
    found = DataSet(**json.loads((folder / COMPLETE).read_text()))
    if (found.results, found.engine, found.indexes) != (results, engine_name, indexes):
        raise NotUsable(
            f"{folder} holds {found.results} results in {found.engine} with the indexes {found.indexes!r}: "
            "give these, or another folder"
        )
    age = (now() - datetime.fromisoformat(found.end)).total_seconds()
    if age > OLD:
        print(f"the newest result is {age / 3600:.0f} h old, so the last hours are empty", file=sys.stderr)
    return found


def environment(database: Database, indexes: str) -> dict[str, str]:
    """The environment of the app's processes."""
    checkout = str(Path(__file__).parents[2])
    separator = "&" if "?" in database.backend_url else "?"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (checkout, os.environ.get("PYTHONPATH", "")))),
        "CELERY_RESULT_BACKEND": f"{database.backend_url}{separator}indexes={indexes}",
    }


def app_of(database: Database, indexes: str) -> Celery:
    """The app in this process."""
    os.environ["CELERY_RESULT_BACKEND"] = environment(database, indexes)["CELERY_RESULT_BACKEND"]
    from .app import app

    return app


# -- making it ------------------------------------------------------------------------------------------


def _make(database: Database, results: int, engine_name: str, indexes: str) -> DataSet:
    began, end = time.monotonic(), now()
    app = app_of(database, indexes)
    # The first session creates tables and indexes.
    app.backend.connection.run("RETURN true")
    _add_entries(app)
    chords = _Chords(app, results)
    chords.add_all(end)
    maker = Maker(app, results - chords.tasks, end)
    known = {**_insert(app, maker), **chords.known}
    return DataSet(results, engine_name, indexes, end.isoformat(), time.monotonic() - began, known)


def _insert(app: Celery, maker: Maker) -> dict[str, str]:
    """Insert all parts, some at once; ids of the one in the middle, and of others where that has none of a kind."""
    numbers = iter(range(maker.parts))
    lock = threading.Lock()
    failed: list[BaseException] = []
    known: dict[str, str] = {}
    done, began, middle = 0, time.monotonic(), maker.parts // 2

    def work() -> None:
        nonlocal done
        try:
            while not failed:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                part = maker.part(number)
                _insert_part(app, part)
                with lock:
                    done += 1
                    known.update(part.known if number == middle else {**part.known, **known})
                    if done % 10 == 0 or done == maker.parts:
                        _tell(done, maker.parts, time.monotonic() - began)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failed:
        raise failed[0]
    return known


def _insert_part(app: Celery, part: Part) -> None:
    for table, rows in part.rows.items():
        if rows:
            app.backend.connection.run_all(f"INSERT INTO {table} $rows RETURN NONE", rows=rows)


def _tell(done: int, parts: int, seconds: float) -> None:
    left = seconds / done * (parts - done)
    print(f"made {done:,} of {parts:,} thousand results, {left:.0f} s left", file=sys.stderr, flush=True)


class _Chords:
    """Chords whose body waits: through the backend's own store, as they are few.

    Args:
        app: The app.
        results: How many results the data set has.
    """

    def __init__(self, app: Celery, results: int) -> None:
        self._app, self._results = app, results
        self.known: dict[str, str] = {}
        #: How many tasks they have a record of.
        self.tasks = 0

    def add_all(self, end: datetime) -> None:
        """Add them."""
        chance = random.Random("chords")
        part = Part()
        maker = Maker(self._app, self._results, end)
        store = self._app.backend.chords._store
        for number in range(max(3, min(UNFINISHED_MOST, self._results // UNFINISHED_EACH))):
            group, size = str(uuid.UUID(int=chance.getrandbits(128), version=4)), chance.randrange(4, 60)
            members = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(size)]
            store.start(group, size, Header(tasks=members, body_id=members[0], body_name=TOTAL.name))
            self.known["waiting"] = group
            at = end - timedelta(minutes=5 * number + 1)
            for index, task_id in enumerate(members):
                lot = chance.random()
                if lot < 0.1 or not index:
                    continue  # it waits, and nothing is stored of it
                state = states.SUCCESS if lot < 0.8 else states.STARTED
                place = Place(members[0], None, group, index)
                record = maker.task(KINDS[0], task_id, place, at, state, chance)
                part.tasks.append(record)
                if state == states.SUCCESS:
                    store.add_part(HeaderPart(group, task_id, index, state, record["result"], record["encoding"]))
        _insert_part(self._app, part)
        self.tasks = len(part.tasks)


def _add_entries(app: Celery) -> None:
    with contextlib.closing(Schedules(app, by="benchmarks.million")) as schedules:
        named = {kind.periodic: kind.name for kind in KINDS if kind.periodic}
        named |= {f"entry-{number}": KINDS[number % len(KINDS)].name for number in range(ENTRIES - len(named))}
        for number, (name, task) in enumerate(named.items()):
            schedules.add(ScheduleEntry(name=str(name), task=task, schedule=timedelta(minutes=number + 1)))
