"""What damage does not hit is saved."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from difftrace.core.errors import BusyError, StoreError
from difftrace.store import Problem, Record, Salvaged, Store, export_jsonl, salvage

Make = Callable[..., Record]
PAGE = 8192


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "saved.difftrace") as opened:
        yield opened


def fill(path: Path, make_record: Make, count: int) -> None:
    with Store(path) as store:
        store.put_many([make_record(number) for number in range(count)])


def leaves(path: Path, name: str) -> list[int]:
    """Return the offsets of the leaf pages of a table or an index, by their first byte."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT pageno, pagetype FROM dbstat WHERE name = ? ORDER BY path", (name,))
        return [(page - 1) * PAGE for page, kind in found if kind == "leaf"]


def zero(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + PAGE] = bytes(PAGE)
    path.write_bytes(bytes(data))


def has_dbstat() -> bool:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        return ("ENABLE_DBSTAT_VTAB",) in connection.execute("PRAGMA compile_options").fetchall()


needs_dbstat = pytest.mark.skipif(not has_dbstat(), reason="needs SQLite's dbstat to find a page to damage")


def test_a_whole_store_is_copied_whole_and_twice_is_once(path: Path, make_record: Make, target: Store) -> None:
    fill(path, make_record, 300)
    with Store(path, read_only=True) as source:
        for _ in range(2):
            assert salvage(source, target) == Salvaged(copied=300, lost=())
        assert list(target.records()) == list(source.records())


def test_records_that_are_damaged_are_left_out_and_named(
    path: Path, make_record: Make, target: Store, tmp_path: Path
) -> None:
    fill(path, make_record, 5)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE record SET output = x'01000000' WHERE request_id = 'request/3'")
        connection.commit()
    with Store(path) as source:
        with pytest.raises(StoreError, match="is damaged"):
            export_jsonl(source, tmp_path / "out.jsonl")
        done = salvage(source, target)
    assert (done.copied, [problem.request_id for problem in done.lost]) == (4, ["request/3"])
    assert export_jsonl(target, tmp_path / "out.jsonl") == 4
    assert target.verify_all() == []


@needs_dbstat
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_lost_page_of_the_table_costs_its_records_alone(
    path: Path, make_record: Make, target: Store, tmp_path: Path, which: int
) -> None:
    fill(path, make_record, 300)
    zero(path, leaves(path, "record")[which])
    with Store(path, read_only=True) as source:
        with pytest.raises(StoreError, match=r"copy what can be read with difftrace\.store\.salvage\(\)"):
            export_jsonl(source, tmp_path / "out.jsonl")
        done = salvage(source, target)
    # One page of 8 KB holds less than twenty of them.
    assert 280 <= done.copied < 300
    assert done.copied + len(done.lost) == 300, "an index still says which there were"
    assert target.verify_all() == []
    assert target.count() == done.copied


@needs_dbstat
def test_lost_pages_of_the_table_and_of_every_index_hide_little_more(
    path: Path, make_record: Make, target: Store
) -> None:
    fill(path, make_record, 300)
    for name in ("record", "record_by_time", "record_by_model"):
        pages = leaves(path, name)
        zero(path, pages[len(pages) // 2])
    with Store(path, read_only=True) as source:
        done = salvage(source, target)
    assert done.copied >= 280
    assert all(problem.request_id is None for problem in done.lost)
    assert isinstance(done.lost[0], Problem)
    assert "nothing leads to any more" in done.lost[0].message


def test_other_records_of_the_target_stay(path: Path, make_record: Make, target: Store) -> None:
    fill(path, make_record, 4)
    other = make_record(9, "request/2")
    target.put(other)
    with Store(path) as source:
        done = salvage(source, target)
    assert (done.copied, [problem.request_id for problem in done.lost]) == (3, ["request/2"])
    assert target.get("request/2") == other


def test_a_store_is_not_saved_into_itself_and_one_in_use_is_not_damaged(store: Store, make_record: Make) -> None:
    store.put(make_record())
    with pytest.raises(StoreError, match="is a file of the store itself"):
        salvage(store, store)
    store.close()
    with pytest.raises(StoreError, match="has been closed") as raised:
        list(store.surviving())
    assert not isinstance(raised.value, BusyError)
