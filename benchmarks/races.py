"""How exact is a store when writers race? ``python -m benchmarks.races [--engine 3.2.4] [--store surrealkv]``.

Eight connections write at one moment, and each request is sent again until its reply says that it took effect or that
the record exists. Counted are increments that are lost although every reply was good, and races that more than one
writer was told to have won. Nothing is timed, so a busy machine does no harm.

``--inside mem://`` or ``--inside surrealkv://DIR`` does the same with the engine of the installed SDK inside this process.
The development server, which the tests make of those engines, lets only one request write at a time where the store
is not exact, so nothing races behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from surrealdb_celery_backend.client.connection import Connection
from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.errors import RecordExists, StatementFailed, WriteConflict
from surrealdb_celery_backend.settings import Settings
from tests.engines import Database, EngineFailed, RunningEngine, Unavailable, matrix
from tests.engines import start as start_engine

#: Connections that write at one moment.
WRITERS = 8
#: For how long one request may be sent again, in seconds: however slow the machine.
PATIENCE = 120.0
SCHEMA = (
    "DEFINE TABLE IF NOT EXISTS claim; DEFINE TABLE IF NOT EXISTS lease; DEFINE TABLE IF NOT EXISTS counter;"
    "DEFINE TABLE IF NOT EXISTS named; DEFINE INDEX IF NOT EXISTS named_name ON named FIELDS name UNIQUE"
)
INCREMENT = "UPDATE ONLY $counter SET n += 1 RETURN VALUE n"
#: Statements of which one writer wins a race, by what the table calls them.
CLAIMS = {
    "CREATE of one id": "CREATE $claim SET writer = $writer RETURN VALUE writer",
    "unique index": "CREATE named SET name = $race, writer = $writer RETURN VALUE writer",
    "UPSERT … WHERE owner IS NONE": "UPSERT $lease SET owner = $writer WHERE owner IS NONE RETURN VALUE owner",
}


@dataclass(frozen=True)
class Found:
    """What the races of one engine and store came to.

    Attributes:
        engine: Its name.
        store: The store.
        increments: How many increments were made.
        lost: How many of them are missing.
        races: How many races there were of each kind.
        several: In how many of them more than one writer won, by kind.
    """

    engine: str
    store: str
    increments: int
    lost: int
    races: int
    several: dict[str, int]

    @property
    def exact(self) -> bool:
        """Whether nothing went wrong."""
        return not self.lost and not any(self.several.values())

    def row(self) -> str:
        """A row of the table in docs/stores.md."""
        cells = [f"{self.engine} `{self.store}`", f"{self.lost} of {self.increments}"]
        cells += [f"{number} of {self.races}" for number in self.several.values()]
        return "| " + " | ".join(cells) + " |"


def probe(engine: RunningEngine, races: int, increments: int) -> Found:
    """Let writers race on a running engine.

    Args:
        engine: The engine.
        races: How many races of each kind.
        increments: How many increments all writers together make.
    """
    database = engine.database()
    with ExitStack() as stack:
        writers = [stack.enter_context(_writer(database)) for _ in range(WRITERS)]
        pool = stack.enter_context(ThreadPoolExecutor(WRITERS))
        writers[0].run_all(SCHEMA)
        counter = RecordID("counter", "one")
        writers[0].run("CREATE $counter SET n = 0", counter=counter)

        def add(writer: Connection) -> None:
            for _ in range(increments // WRITERS):
                _decided(writer, INCREMENT, counter=counter)

        list(pool.map(add, writers))
        stored = writers[0].run("SELECT VALUE n FROM $counter", counter=counter)[0]
        several = {}
        for name, text in CLAIMS.items():
            several[name] = sum(won > 1 for won in _races(pool, writers, text, races))
    made = increments // WRITERS * WRITERS
    return Found(engine.spec.name, engine.spec.store, made, made - stored, races, several)


def _races(pool: ThreadPoolExecutor, writers: Sequence[Connection], text: str, races: int) -> Iterator[int]:
    """How many writers each race was won by."""
    together = threading.Barrier(len(writers))

    def race(number: int) -> Callable[[tuple[int, Connection]], bool]:
        records = {"claim": RecordID("claim", number), "lease": RecordID("lease", number)}

        def take_part(writer: tuple[int, Connection]) -> bool:
            together.wait()
            return bool(_decided(writer[1], text, writer=writer[0], race=number, **records) == [writer[0]])

        return take_part

    for number in range(races):
        yield sum(pool.map(race(number), enumerate(writers)))


def _decided(connection: Connection, text: str, **variables: Any) -> Any:
    """Send a statement until the reply says that it took effect, or that another writer was first: None."""
    while True:
        try:
            return connection.run(text, repeatable=False, **variables)
        except WriteConflict:
            continue
        except RecordExists:
            return None
        except StatementFailed as error:
            if "already contains" not in str(error):
                raise
            return None


def _writer(database: Database) -> closing[Connection]:
    settings = Settings(
        endpoint=database.engine.url,
        namespace=database.namespace,
        database=database.database,
        username=database.engine.username,
        password=database.engine.password,
        timeout=PATIENCE,
    )
    return closing(Connection(settings.options))


async def probe_inside(url: str, races: int, increments: int) -> Found:
    """Let coroutines race on the engine of the installed SDK, in this process.

    Args:
        url: Which store: ``mem://`` or ``surrealkv://DIR``.
        races: How many races of each kind.
        increments: How many increments all writers together make.
    """
    from surrealdb.data.cbor import decode, encode

    try:
        module = importlib.import_module("surrealdb_embedded._ext")
    except ImportError:  # SDK 2 has its engine in its own wheel
        module = importlib.import_module("surrealdb._surrealdb_ext")
    from surrealdb import RecordID as SDKRecordID

    engine = module.AsyncEmbeddedDB(url)
    await engine.connect()
    numbers = itertools.count(1)

    async def call(method: str, *params: Any) -> Any:
        request = {"id": str(next(numbers)), "method": method, "params": list(params)}
        return decode(await engine.execute(encode(request)))["result"]

    async def decided(text: str, **variables: Any) -> Any:
        while True:
            reply = (await call("query", text, variables))[-1]
            if reply["status"] == "OK":
                return reply["result"]
            if "already" in str(reply["result"]):
                return None

    await call("use", "races", "races")
    counter = SDKRecordID("counter", "one")
    await call("query", SCHEMA, {})
    await call("query", "CREATE $counter SET n = 0", {"counter": counter})

    async def add() -> None:
        for _ in range(increments // WRITERS):
            await decided(INCREMENT, counter=counter)

    await asyncio.gather(*[add() for _ in range(WRITERS)])
    stored = (await call("query", "SELECT VALUE n FROM ONLY $counter", {"counter": counter}))[0]["result"]
    several = dict.fromkeys(CLAIMS, 0)
    for name, text in CLAIMS.items():
        for race in range(races):
            records = {"claim": SDKRecordID("claim", race), "lease": SDKRecordID("lease", race)}
            replies = await asyncio.gather(
                *[decided(text, writer=writer, race=race, **records) for writer in range(WRITERS)]
            )
            several[name] += sum(reply == [writer] for writer, reply in enumerate(replies)) > 1
    made = increments // WRITERS * WRITERS
    return Found("inside", url.partition(":")[0], made, made - stored, races, several)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.races", description=__doc__)
    parser.add_argument("--engine", action="append", help="an engine of tests/engines; may be repeated (default: all)")
    parser.add_argument("--store", action="append", help="a store; may be repeated (default: all of each engine)")
    parser.add_argument("--races", type=int, default=300, help="races of each kind (default: %(default)s)")
    parser.add_argument("--increments", type=int, default=400, help="increments in all (default: %(default)s)")
    parser.add_argument("--inside", metavar="URL", help="the engine of the installed SDK, in this process")
    options = parser.parse_args(arguments)
    print("| engine and store | increments lost | " + " | ".join(CLAIMS) + " |")
    print("|---" * (2 + len(CLAIMS)) + "|")
    if options.inside:
        print(asyncio.run(probe_inside(options.inside, options.races, options.increments)).row())
        return 0
    ran = 0
    for name in options.engine or matrix.names():
        for store in matrix.stores(name):
            if options.store and store not in options.store:
                continue
            try:
                with start_engine(name, store) as engine:
                    print(probe(engine, options.races, options.increments).row(), flush=True)
                ran += 1
            except (Unavailable, EngineFailed) as error:
                print(f"{name} {store} cannot run here: {error}", file=sys.stderr)
    return 0 if ran else 1


if __name__ == "__main__":
    sys.exit(main())
