"""Export and import on real engines: nothing is lost, interrupted ones go on, damage is found."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from surrealdb_celery_backend.client.values import RecordID
from surrealdb_celery_backend.errors import InvalidArchive, InvalidFilter
from surrealdb_celery_backend.results import Results
from surrealdb_celery_backend.results.history import transfer
from tests.support import history_data as data
from tests.support.apps.contract_apps import request

pytestmark = pytest.mark.integration


def stored(app: Celery, table: str = "task") -> dict[str, Any]:
    """All records of a table by their ids, without what the import may change."""
    rows = app.backend.connection.run(f"SELECT * FROM {table}") or []
    return {repr(row["id"].id): {k: v for k, v in row.items() if k != "id"} for row in rows}


def fill(app: Celery) -> None:
    """Records of all tables, with what is hard to keep."""
    data.write(app, data.many(60))
    data.write(
        app,
        [
            data.record(task_id="bytes", result=b"\x00\xff" * 50, encoding="application/x-python-serialize"),
            data.record(task_id="ä ⟩ `' \"\\", name="naïve ☂"),
            data.record(task_id="native", result={"total": 5, "$odd": [1.5, True, {"at": data.NOW}]}, native=True),
            data.record(task_id="decimal", amount=Decimal("1.10"), ratio=float("inf")),
        ],
    )
    app.backend.save_group("g", app.GroupResult("g", [app.AsyncResult("bytes")]))
    app.backend.set("a key", "a value")
    app.backend.on_chord_part_return(request("p", group="c", group_index=0, chord={"chord_size": 2}), "SUCCESS", 1)


def test_all_tables_come_back_as_they_were(app: Celery, results: Results, tmp_path: Path) -> None:
    """Every record of every table is in the file, and the same after an import into an empty database."""
    fill(app)
    before = {table: stored(app, table) for table in ("task", "group", "key", "chord")}
    exported = results.export(tmp_path / "all.gz")
    assert exported.records["task"] == len(before["task"]) == 64
    assert exported.records["group"] == exported.records["key"] == 1
    for table in before:
        app.backend.connection.run_all(f"DELETE `{table}` RETURN NONE")
    imported = results.import_file(tmp_path / "all.gz")
    assert imported.complete
    assert imported.records == exported.records
    assert imported.written == exported.records
    assert {table: stored(app, table) for table in before} == before


def test_another_prefix_is_another_place(
    app: Celery, app_with: Callable[..., Celery], results: Results, tmp_path: Path
) -> None:
    """A file may be imported under another table prefix."""
    data.write(app, [data.record(task_id="one")])
    results.export(tmp_path / "x.gz")
    other = app_with(surrealdb_table_prefix="other_", surrealdb_timeout=60)
    with Results(other) as there:
        assert there.import_file(tmp_path / "x.gz").written == {"task": 1}
        assert there.get("one").id == "one"


def test_filters_choose_tasks(app: Celery, results: Results, tmp_path: Path) -> None:
    """With filters only the tasks that match are in the file, whether they have ended or not."""
    records = data.many(200)
    data.write(app, records)
    since = data.NOW - timedelta(seconds=3000)
    exported = results.export(tmp_path / "x.gz", name="shop.*", since=since)
    expected = [
        fields
        for fields in records
        if (fields["name"] or "").startswith("shop.") and (data.listed_at(fields) or data.NOW) >= since
    ]
    assert exported.records == {"task": len(expected)}
    with gzip.open(tmp_path / "x.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    ids = {line["task_id"] for line in lines if "task_id" in line}
    assert ids == {fields["task_id"] for fields in expected}


def test_an_interrupted_export_goes_on(
    app: Celery, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was cut anywhere is completed; what it has is not read again, and nothing is in it twice."""
    monkeypatch.setattr(transfer, "RECORDS", 7)
    monkeypatch.setattr(transfer, "IDS", 20)
    fill(app)
    whole = tmp_path / "whole.gz"
    results.export(whole)
    content = whole.read_bytes()
    ids = _ids(whole)
    for part in (0.1, 0.35, 0.5, 0.8, 0.97):
        cut = tmp_path / f"cut{part}.gz"
        cut.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(InvalidArchive, match="is there already"):
            results.export(cut)
        exported = results.export(cut, resume=True)
        assert _ids(cut) == ids
        assert exported.records["task"] == 64
        assert exported.resumed < 64 + 10
    with pytest.raises(InvalidArchive, match="is complete"):
        results.export(whole, resume=True)
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidArchive, match="an export of something else"):
        results.export(cut, resume=True, name="x")


def _ids(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        return sorted(json.dumps(line["id"]) for line in map(json.loads, file) if "id" in line)


def test_an_interrupted_import_is_repeated(app: Celery, results: Results, tmp_path: Path) -> None:
    """What is there stays and is not counted; with `replace` it is written over."""
    data.write(app, [data.record(task_id=f"t{n}") for n in range(30)])
    results.export(tmp_path / "x.gz")
    app.backend.connection.run_all("UPDATE task SET name = 'changed' RETURN NONE")
    app.backend.connection.run_all("DELETE $ids RETURN NONE", ids=[RecordID("task", f"t{n}") for n in range(10)])
    assert results.import_file(tmp_path / "x.gz", dry_run=True).written == {}
    assert results.import_file(tmp_path / "x.gz").written == {"task": 10}
    assert results.get("t1").name == "shop.report"
    assert results.get("t20").name == "changed"
    assert results.import_file(tmp_path / "x.gz", replace=True).written == {"task": 30}
    assert results.get("t20").name == "shop.report"


def test_expired_records_are_counted_and_can_live_on(app: Celery, results: Results, tmp_path: Path) -> None:
    """Records whose end has passed are written but not seen: that is said, and a new end can be given."""
    data.write(app, [data.record(task_id="old", expires_at=data.NOW - timedelta(days=3)), data.record(task_id="kept")])
    results.export(tmp_path / "x.gz")
    app.backend.connection.run_all("DELETE task RETURN NONE")
    assert results.import_file(tmp_path / "x.gz").expired == 1
    assert [task.id for task in results.find().tasks] == ["kept"]
    imported = results.import_file(tmp_path / "x.gz", replace=True, expires=86_400)
    assert imported.expired == 0
    old = results.get("old")
    assert old.expires_in is not None
    assert 86_000 < old.expires_in <= 86_400
    assert results.get("kept").expires_in is None


def test_damage_is_found_before_it_is_written(app: Celery, results: Results, tmp_path: Path) -> None:
    """A changed byte, a missing chunk, another file: an error that says so, and nothing of a damaged chunk."""
    data.write(app, [data.record(task_id=f"t{n}") for n in range(30)])
    path = tmp_path / "x.gz"
    results.export(path)
    content = path.read_bytes()
    app.backend.connection.run_all("DELETE task RETURN NONE")
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    with pytest.raises(InvalidArchive, match="is damaged"):
        results.import_file(path)
    assert stored(app) == {}
    members = _members(content)
    path.write_bytes(members[0] + members[-1])
    with pytest.raises(InvalidArchive, match="chunks are missing"):
        results.import_file(path)
    lines = gzip.decompress(members[1]).replace(b"shop.report", b"shop.repost")
    path.write_bytes(members[0] + gzip.compress(lines) + members[-1])
    with pytest.raises(InvalidArchive, match="checksum"):
        results.import_file(path)
    path.write_bytes(content[: len(content) - 5])
    assert not results.import_file(path).complete
    for other, sentence in ((b"", "is empty"), (b"hello", "no gzip file"), (gzip.compress(b"{}\n"), "is no export")):
        path.write_bytes(other)
        with pytest.raises(InvalidArchive, match=sentence):
            results.import_file(path)
    with pytest.raises(InvalidFilter, match="there is no table 'tasks'"):
        results.export(tmp_path / "y.gz", tables=["tasks"])


def test_a_file_may_begin_with_the_mark_of_an_encoding(app: Celery, results: Results, tmp_path: Path) -> None:
    """A byte order mark in front, as editors and PowerShell put it there, is no damage; an export goes on behind it."""
    data.write(app, [data.record(task_id=f"t{n}") for n in range(3)])
    path = tmp_path / "x.gz"
    results.export(path)
    content = codecs.BOM_UTF8 + path.read_bytes()
    app.backend.connection.run_all("DELETE task RETURN NONE")
    path.write_bytes(content)
    imported = results.import_file(path)
    assert (imported.complete, imported.written) == (True, {"task": 3})
    path.write_bytes(content[:-5])
    results.export(path, resume=True)
    assert results.import_file(path, dry_run=True).records == {"task": 3}
    path.write_bytes(codecs.BOM_UTF8)
    with pytest.raises(InvalidArchive, match="is empty"):
        results.import_file(path)


@pytest.mark.parametrize("call", ["export", "import_file", "backup"])
def test_an_empty_path_is_not_the_current_directory(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """An empty path is refused, as a variable that is not set makes one; nothing is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidFilter, match=r"^(path|folder) must be a path that is not empty, not ''$"):
        getattr(results, call)("")
    assert list(tmp_path.iterdir()) == []


def _members(content: bytes) -> list[bytes]:
    import zlib

    members = []
    while content:
        unpacker = zlib.decompressobj(wbits=31)
        unpacker.decompress(content)
        members.append(content[: len(content) - len(unpacker.unused_data)])
        content = unpacker.unused_data
    return members


def test_large_results_are_fetched_in_small_requests(
    app: Celery, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request fetches more than a few megabytes, however many large results there are."""
    data.write(app, [data.record(task_id=f"t{n}", result=json.dumps("x" * 400_000)) for n in range(12)])
    sizes: list[int] = []
    run = app.backend.connection.run

    def measured(text: str, /, **variables: Any) -> Any:
        answer = run(text, **variables)
        sizes.append(sum(len(str(row)) for row in answer or ()) if isinstance(answer, list) else 0)
        return answer

    monkeypatch.setattr(app.backend.connection, "run", measured)
    results.export(tmp_path / "x.gz")
    assert 400_000 < max(sizes) < 3_000_000


def test_an_empty_database_is_exported(results: Results, tmp_path: Path) -> None:
    """A file without records is complete, too."""
    assert results.export(tmp_path / "x.gz").records == {}
    imported = results.import_file(tmp_path / "x.gz")
    assert (imported.records, imported.complete) == ({}, True)


def test_times_keep_their_microseconds() -> None:
    """A datetime is the same after it was text."""
    from surrealdb_celery_backend.results.history.archive import from_json, to_json

    moment = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
    assert from_json(json.loads(json.dumps(to_json({"at": [moment]})))) == {"at": [moment]}
