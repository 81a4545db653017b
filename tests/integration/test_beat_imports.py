"""Large imports on real engines: bounded requests, and an outcome that is known whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery

from surrealdb_celery_backend.beat import ScheduleEntry, Schedules
from surrealdb_celery_backend.beat.store import imports
from surrealdb_celery_backend.errors import ImportIncomplete, ScheduleExists, SurrealDBBackendError
from tests.support.beats import MAX_WAIT, Beats, forwarding

pytestmark = [pytest.mark.integration, pytest.mark.timeout(4 * MAX_WAIT)]

PIECE = imports.IMPORT_AT_ONCE


def entries(count: int, every: Any = 60) -> list[ScheduleEntry]:
    """So many entries, the same each time. Their descriptions travel in nothing but the import itself."""
    return [
        ScheduleEntry(f"entry {n:05}", "shop.report", every, args=[n], description=f"described {n:05}")
        for n in range(count)
    ]


@pytest.fixture
def way(beats: Beats) -> Iterator[Any]:
    """A pipe to the database, over HTTP so that it can read along."""
    address = urlsplit(beats.database.engine.http_url)
    with forwarding((address.hostname, address.port)) as way:
        way.open()
        way.url = address._replace(netloc=f"127.0.0.1:{way.port}").geturl()
        yield way


@pytest.fixture
def through(beats: Beats, way: Any) -> Celery:
    """An app whose way to the database is the pipe."""
    return beats.new_app(surrealdb_url=way.url)


def test_a_large_import_is_made_of_bounded_requests(beats: Beats) -> None:
    """4,000 entries take a request per 250, with one that reads them back; replacing them takes the same."""
    with beats.schedules() as schedules:
        schedules.entries()
        for replace in (False, True):
            before = schedules.request_count
            schedules.import_entries(entries(4000), replace=replace)
            assert schedules.request_count - before == 4 + 2 * 4000 // PIECE
            assert len(schedules.entries()) == 4000
        with pytest.raises(ScheduleExists):
            schedules.import_entries(entries(4000))


def test_a_lost_reply_is_no_lost_import(beats: Beats, way: Any, through: Celery) -> None:
    """A piece that was written although its reply got lost counts as written, also when it was sent again."""
    with Schedules(through) as schedules:
        schedules.entries()
        way.loses = f"described {PIECE + 7:05}".encode()
        schedules.import_entries(entries(3 * PIECE))
        assert way.loses == b"", "the reply got lost"
        assert len(schedules.entries()) == 3 * PIECE


def test_an_import_that_stops_says_how_far_it_came(beats: Beats, way: Any, through: Celery) -> None:
    """When the database goes away in between, the error says how many entries are there; replacing writes the rest."""
    through.conf.surrealdb_timeout = 3
    with Schedules(through) as schedules:
        schedules.entries()
        way.stops = f"described {2 * PIECE + 7:05}".encode()
        with pytest.raises(ImportIncomplete) as raised:
            schedules.import_entries(entries(4 * PIECE))
    assert f"{2 * PIECE} of {4 * PIECE} entries are imported, up to 'entry {2 * PIECE - 1:05}'" in str(raised.value)
    assert isinstance(raised.value.__cause__, SurrealDBBackendError)
    with beats.schedules() as schedules:
        assert len(schedules.entries()) == 2 * PIECE
        schedules.import_entries(entries(4 * PIECE), replace=True)
        assert len(schedules.entries()) == 4 * PIECE


def test_a_small_import_is_whole_or_not_at_all(beats: Beats, way: Any, through: Celery) -> None:
    """When the database goes away during one of up to 250 entries, none is written."""
    through.conf.surrealdb_timeout = 3
    with Schedules(through) as schedules:
        schedules.entries()
        way.stops = b"described 00007"
        with pytest.raises(SurrealDBBackendError) as raised:
            schedules.import_entries(entries(PIECE))
    assert not isinstance(raised.value, ImportIncomplete)
    with beats.schedules() as schedules:
        assert schedules.entries() == []
