from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrace.core.errors import StoreError
from difftrace.store import Record, Store, schema

Make = Callable[..., Record]

# Written by version 1: make_record(0) to make_record(2), the last without output, model and metadata.
VERSION_1 = Path(__file__).parent / "fixtures" / "version-1.difftrace"


@pytest.fixture
def version_1(path: Path) -> Path:
    shutil.copy(VERSION_1, path)
    return path


@pytest.fixture
def originals(make_record: Make) -> list[Record]:
    return [make_record(0), make_record(1), make_record(2, output=None, model=None, metadata={})]


def execute(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def pragma(path: Path, name: str) -> object:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_stores_of_version_1_are_read(version_1: Path, originals: list[Record]) -> None:
    with Store(version_1) as store:
        assert list(store.records()) == originals
        assert store.verify_all() == []
    with Store(version_1, read_only=True) as store:
        assert list(store.records()) == originals


def test_a_new_store_is_marked_as_ours(path: Path) -> None:
    Store(path).close()
    assert pragma(path, "application_id") == schema.APPLICATION_ID
    assert pragma(path, "user_version") == len(schema.MIGRATIONS)
    assert pragma(path, "journal_mode") == "wal"


def test_an_older_store_is_migrated_with_its_records(
    version_1: Path, originals: list[Record], make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = (
        ("ALTER TABLE record ADD COLUMN reviewed INTEGER NOT NULL DEFAULT 0",),
        ("CREATE INDEX record_by_review ON record (reviewed)",),
    )
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *later))
    with pytest.raises(StoreError, match="is a store of version 1; open it once for writing"):
        Store(version_1, read_only=True)
    with Store(version_1) as store:
        assert list(store.records()) == originals
        store.put(make_record(3))
        assert store.verify_all() == []
    assert pragma(version_1, "user_version") == 3
    with contextlib.closing(sqlite3.connect(version_1)) as connection:
        assert connection.execute("SELECT DISTINCT reviewed FROM record").fetchall() == [(0,)]
    with Store(version_1) as store:
        assert store.count() == 4


def test_a_migration_that_fails_leaves_the_older_store(
    version_1: Path, originals: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken = ("ALTER TABLE record ADD COLUMN reviewed INTEGER", "CREATE INDEX broken ON missing (number)")
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(StoreError, match="no such table"):
            Store(version_1)
    assert pragma(version_1, "user_version") == 1
    with Store(version_1) as store:
        assert list(store.records()) == originals


def test_a_newer_store_is_refused_and_left_alone(version_1: Path) -> None:
    execute(version_1, "PRAGMA user_version = 99")
    before = version_1.read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"is a store of version 99, written by a newer .* so update it"):
            Store(version_1, read_only=read_only)
    assert version_1.read_bytes() == before


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["CREATE TABLE notes (text TEXT)"], "is a SQLite database of something else"),
        (["PRAGMA application_id = 1"], "is a SQLite database of something else"),
        (["PRAGMA user_version = 1"], "is a SQLite database of something else"),
        (
            [f"PRAGMA application_id = {schema.APPLICATION_ID}", "PRAGMA user_version = 1"],
            "is no store, for its table lacks request_id, created_at",
        ),
    ],
)
def test_other_databases_are_refused_and_left_alone(path: Path, statements: list[str], message: str) -> None:
    execute(path, *statements)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message):
        Store(path, read_only=True)
    with pytest.raises(StoreError, match=message):
        Store(path)
    if "something else" in message:
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER quiet AFTER INSERT ON record BEGIN DELETE FROM record; END",
        "CREATE VIEW everything AS SELECT * FROM record",
    ],
)
def test_a_store_that_would_act_by_itself_is_refused(version_1: Path, statement: str) -> None:
    execute(version_1, statement)
    with pytest.raises(StoreError, match=r"holds the (trigger|view) .*, which no store does"):
        Store(version_1)


def test_an_index_of_ones_own_does_no_harm(version_1: Path, originals: list[Record]) -> None:
    execute(version_1, "CREATE INDEX mine ON record (num_steps)")
    with Store(version_1) as store:
        assert list(store.records()) == originals


@pytest.mark.parametrize("content", [b"not a database, " * 100, b"SQLite format 3\0" + bytes(200)])
def test_other_files_are_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"runs\.difftrace: .*it is no store or it is damaged"):
            Store(path, read_only=read_only)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_store_only_when_it_may_be_written(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreError, match="is empty, so there is nothing to read"):
        Store(path, read_only=True)
    with Store(path) as store:
        assert store.count() == 0


def test_a_missing_file_is_created_only_when_it_may_be_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "runs.difftrace"
    with pytest.raises(StoreError, match="unable to open database file; look whether its folder exists"):
        Store(path, read_only=True)
    assert not path.parent.exists()
    with Store(path) as store:
        assert store.path == path


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        Store(tmp_path)


def test_a_file_is_no_folder_for_stores(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="its folder cannot be created"):
        Store(tmp_path / "file" / "runs.difftrace")


@pytest.mark.parametrize("name", ["a b.db", "é.db", "50%.db", "what?.db", "a#b.db", ":memory:", "file:x"])
def test_any_file_name_will_do(tmp_path: Path, name: str, make_record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32" and set(name) & set("?:"):
        pytest.skip("no file name on Windows")
    monkeypatch.chdir(tmp_path)
    with Store(name) as store:
        store.put(make_record())
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_store_is_created_although_others_hold_the_lock_just_then(tmp_path: Path) -> None:
    """SQLite does not wait by itself where a database is switched to a write-ahead log."""

    class Contended:
        def __init__(self) -> None:
            self.refusals = 3

        def execute(self, statement: str) -> Contended:
            if "journal_mode" in statement and self.refusals:
                self.refusals -= 1
                raise sqlite3.OperationalError("database is locked")
            return self

        def fetchone(self) -> tuple[str]:
            return ("wal",)

    contended = Contended()
    schema._use_write_ahead_log(contended, "here", timeout=60)  # type: ignore[arg-type]
    assert contended.refusals == 0
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        schema._use_write_ahead_log(Contended(), "here", timeout=-1)  # type: ignore[arg-type]


def test_a_disk_that_allows_no_write_ahead_log_is_refused() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection, pytest.raises(StoreError, match="a local disk"):
        schema._use_write_ahead_log(connection, "here", timeout=1)
