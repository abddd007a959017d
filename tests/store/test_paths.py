"""A store survives being named as the file of its own export, and notices when its file is taken away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.errors import RecordError, StoreError
from difftrace.store import (
    BackgroundWriter,
    Record,
    Store,
    export_jsonl,
    export_parquet,
    import_jsonl,
    import_parquet,
)

Make = Callable[..., Record]

posix = pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file can neither be linked so nor replaced")


@pytest.mark.parametrize("transfer", [export_jsonl, export_parquet, import_jsonl, import_parquet])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_file_of_the_store_is_no_export(
    store: Store, make_record: Make, transfer: Callable[[Store, Path], object], suffix: str
) -> None:
    store.put_many([make_record(number) for number in range(3)])
    with pytest.raises(StoreError, match="is a file of the store itself"):
        transfer(store, Path(f"{store.path}{suffix}"))
    store.put(make_record(3))
    with Store(store.path) as again:
        assert again.count() == 4
        assert again.verify_all() == []


@posix
def test_nor_is_it_by_another_name(
    store: Store, make_record: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(make_record(0))
    link, hard = tmp_path / "link", tmp_path / "hard"
    link.symlink_to(store.path)
    hard.hardlink_to(store.path)
    monkeypatch.chdir(tmp_path)
    for name in (link, hard, store.path.name, tmp_path / "kept" / ".." / store.path.name):
        with pytest.raises(StoreError, match="is a file of the store itself"):
            export_jsonl(store, name)
    assert export_jsonl(store, tmp_path / "other.jsonl") == 1


@pytest.mark.parametrize("transfer", [export_jsonl, export_parquet])
@pytest.mark.parametrize("impossible", ["a\0b", 3, b"bytes"])
def test_an_export_refuses_what_is_no_path(
    store: Store, transfer: Callable[[Store, Any], object], impossible: object
) -> None:
    with pytest.raises(StoreError, match=r"holds a NUL character|must be a text or a Path, not"):
        transfer(store, impossible)


def replace(path: Path) -> None:
    other = path.with_name("other")
    Store(other).close()
    other.replace(path)


@posix
@pytest.mark.parametrize("take", [Path.unlink, replace], ids=["deleted", "replaced"])
def test_nothing_is_acknowledged_once_the_file_is_gone(
    store: Store, make_record: Make, take: Callable[[Path], None]
) -> None:
    store.put(make_record(0))
    take(store.path)
    for _ in range(2):
        with pytest.raises(StoreError, match="was deleted or replaced while it was open"):
            store.put(make_record(1))
    assert [record.request_id for record in store.records()] == [make_record(0).request_id], "what is left can be read"
    with Store(store.path) as again:
        assert again.put(make_record(1))


@posix
def test_a_background_writer_says_so_too(path: Path, make_record: Make) -> None:
    writer = BackgroundWriter(path, on_sigterm=False)
    path.unlink()
    writer.put(make_record(0))
    with pytest.raises(StoreError, match="was deleted or replaced"):
        writer.flush()
    assert len(writer.unwritten) == 1
    with pytest.raises(StoreError, match="was deleted or replaced"):
        writer.close()


def test_a_store_refuses_what_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for impossible in ("a\0b", 3, None, b"bytes"):
        with pytest.raises(StoreError, match=r"holds a NUL character|must be a text or a Path, not"):
            Store(impossible)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("timeout", ["1", None, -1, float("nan"), float("inf"), True])
def test_a_store_refuses_a_timeout_that_is_none(path: Path, timeout: object) -> None:
    with pytest.raises(StoreError, match=r"timeout is .*; it must be a number of seconds from 0 to"):
        Store(path, timeout=timeout)  # type: ignore[arg-type]
    assert not path.exists()


def test_a_store_refuses_what_is_no_record(store: Store) -> None:
    with pytest.raises(RecordError, match="a store keeps records, not NoneType"):
        store.put(None)  # type: ignore[arg-type]
