from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.errors import ConflictError, FormatError, NewerFormatError, StoreError
from difftrace.core.trajectory import Trajectory
from difftrace.store import Changes, Query, Record, Store, export_parquet, import_parquet

Make = Callable[..., Record]

NEEDED = 'needs pyarrow (pip install "pytest-difftrace[parquet]")'


@pytest.fixture
def arrow() -> Any:
    return pytest.importorskip("pyarrow", reason=NEEDED)


@pytest.fixture
def parquet(arrow: Any) -> Any:
    return pytest.importorskip("pyarrow.parquet", reason=NEEDED)


@pytest.fixture
def filled(store: Store, make_record: Make) -> Store:
    odd = make_record(3, "a/..\0\u202e\U0001f600", output=None, model=None, metadata={"é": 1.5, "n": None})
    store.put_many([make_record(2), make_record(0), make_record(1, output=[]), odd])
    return store


@pytest.fixture
def exported(filled: Store, tmp_path: Path, arrow: Any) -> Path:
    file = tmp_path / "export.parquet"
    assert export_parquet(filled, file) == 4
    return file


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "other.difftrace") as opened:
        yield opened


def test_records_survive_the_journey(filled: Store, exported: Path, other: Store) -> None:
    assert import_parquet(other, exported) == Changes(added=4)
    assert list(other.records()) == list(filled.records())
    assert import_parquet(other, exported) == Changes(unchanged=4)
    assert other.verify_all() == []


def test_columns_have_the_types_that_other_programs_expect(exported: Path, parquet: Any) -> None:
    schema = parquet.read_schema(exported)
    # Older pyarrow calls the element of a list "item".
    types = {field.name: (str(field.type).replace("item:", "element:"), field.nullable) for field in schema}
    assert types == {
        "request_id": ("string", False),
        "created_at": ("timestamp[us, tz=UTC]", False),
        "model": ("string", True),
        "metadata": ("string", False),
        "prompt_length": ("int32", False),
        "canvas_length": ("int32", False),
        "num_steps": ("int32", False),
        "num_events": ("int32", False),
        "trajectory_digest": ("string", False),
        "digest": ("string", False),
        "trajectory": ("binary", False),
        "output": ("list<element: int32>", True),
    }


def test_a_row_can_be_read_without_a_store(exported: Path, parquet: Any, make_record: Make) -> None:
    row, *_ = parquet.read_table(exported).to_pylist()
    assert row["request_id"] == "request/0"
    assert row["created_at"] == make_record(0).created_at
    assert json.loads(row["metadata"]) == dict(make_record(0).metadata)
    trajectory = Trajectory.from_bytes(row["trajectory"])
    assert trajectory == make_record(0).trajectory
    assert trajectory.final[5:].tolist() == row["output"]


def test_large_exports_are_written_and_read_in_pieces(
    store: Store, other: Store, make_record: Make, tmp_path: Path, parquet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftrace.store.parquet._ROW_GROUP", 4)
    monkeypatch.setattr("difftrace.store.parquet._BATCH", 3)
    store.put_many([make_record(number) for number in range(10)])
    file = tmp_path / "export.parquet"
    assert export_parquet(store, file) == 10
    assert parquet.ParquetFile(file).metadata.num_row_groups == 3
    assert import_parquet(other, file) == Changes(added=10)
    assert list(other.records()) == list(store.records())


def test_only_the_records_asked_for_are_exported(filled: Store, tmp_path: Path, parquet: Any) -> None:
    file = tmp_path / "some.parquet"
    assert export_parquet(filled, file, Query(model="model-1")) == 1
    assert parquet.read_table(file).column("request_id").to_pylist() == ["request/1"]


def test_an_empty_store_can_be_exported(store: Store, other: Store, tmp_path: Path, arrow: Any) -> None:
    assert export_parquet(store, tmp_path / "none.parquet") == 0
    assert import_parquet(other, tmp_path / "none.parquet") == Changes()


def test_what_another_program_wrote_with_the_same_columns_is_read(
    filled: Store, exported: Path, other: Store, parquet: Any
) -> None:
    table = parquet.read_table(exported)
    reordered = table.select([*reversed(table.column_names)]).replace_schema_metadata(None)
    parquet.write_table(reordered.append_column("note", [["x"] * 4]), exported, compression="gzip")
    assert import_parquet(other, exported) == Changes(added=4)
    assert list(other.records()) == list(filled.records())


def test_duckdb_reads_and_writes_exports(filled: Store, exported: Path, other: Store) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB (dependency group dev)")
    written = exported.with_name("duckdb.parquet")
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT request_id, json_extract_string(metadata, '$.tenant'), len(output) FROM read_parquet(?)"
            " WHERE model = 'model-2' AND created_at > TIMESTAMPTZ '2026-03-01 12:00:01+00'",
            [str(exported)],
        ).fetchall()
        connection.execute(f"COPY (SELECT * FROM read_parquet('{exported}')) TO '{written}' (FORMAT parquet)")
    assert found == [("request/2", "t0", 32)]
    assert import_parquet(other, written) == Changes(added=4)
    assert list(other.records()) == list(filled.records())


def test_damage_does_not_spread(filled: Store, exported: Path) -> None:
    with filled._database.writing() as connection:
        connection.execute("UPDATE record SET model = 'other' WHERE request_id = 'request/2'")
    before = exported.read_bytes()
    with pytest.raises(StoreError, match="'request/2' is damaged"):
        export_parquet(filled, exported)
    assert exported.read_bytes() == before
    assert list(exported.parent.glob(".difftrace-*")) == []


def test_a_different_record_stops_the_whole_import_unless_told(
    filled: Store, exported: Path, other: Store, make_record: Make
) -> None:
    mine = make_record(7, "request/2")
    other.put(mine)
    with pytest.raises(ConflictError, match="'request/2' is taken"):
        import_parquet(other, exported)
    assert list(other.records()) == [mine]
    assert import_parquet(other, exported, replace=True) == Changes(added=3, replaced=1)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("request_id", "", "request_id is empty"),
        ("request_id", None, "request_id holds a NoneType"),
        ("created_at", None, "created_at must be a datetime"),
        ("model", "other", "digest does not match the record"),
        ("metadata", "{", "metadata: is not complete JSON"),
        ("metadata", '{"number": 0}', "not written as it would be here"),
        ("num_steps", 9, "num_steps is 9, but the trajectory holds 8"),
        ("trajectory", b"", "not an encoded trajectory"),
        ("trajectory_digest", "x", "trajectory_digest does not match"),
        ("output", [1, None], "output|NoneType"),
        ("output", [1], "digest does not match the record"),
        ("output", [-1], r"output\[0\] is -1"),
        ("digest", "x", "digest does not match the record"),
    ],
)
def test_a_record_that_was_changed_stops_the_import_and_nothing_is_stored(
    exported: Path, other: Store, arrow: Any, parquet: Any, column: str, value: object, message: str
) -> None:
    rows = parquet.read_table(exported).to_pylist()
    rows[2][column] = value
    parquet.write_table(arrow.Table.from_pylist(rows), exported)
    with pytest.raises(FormatError, match=message) as caught:
        import_parquet(other, exported)
    assert str(caught.value).startswith(f"{exported}: row 2 (")
    assert other.count() == 0


def test_a_file_without_one_of_the_columns_is_refused(exported: Path, other: Store, parquet: Any) -> None:
    parquet.write_table(parquet.read_table(exported).drop_columns(["digest"]), exported)
    with pytest.raises(FormatError, match="has no single column digest, so it is no export of a store"):
        import_parquet(other, exported)


def test_columns_of_other_types_are_refused(exported: Path, other: Store, arrow: Any, parquet: Any) -> None:
    table = parquet.read_table(exported)
    place = table.column_names.index("created_at")
    parquet.write_table(table.set_column(place, "created_at", arrow.array([1, 2, 3, 4])), exported)
    with pytest.raises(FormatError, match="created_at must be a datetime, not int"):
        import_parquet(other, exported)


def test_texts_that_are_none_are_refused(exported: Path, other: Store, arrow: Any, parquet: Any) -> None:
    table = parquet.read_table(exported)
    place = table.column_names.index("model")
    wrong = arrow.array([b"\xff"] * 4, arrow.binary()).view(arrow.string())
    parquet.write_table(table.set_column(place, "model", wrong), exported)
    with pytest.raises(FormatError, match="cannot be read"):
        import_parquet(other, exported)


def test_an_export_of_a_newer_version_is_told_from_a_broken_one(exported: Path, other: Store, parquet: Any) -> None:
    table = parquet.read_table(exported)
    metadata = {**table.schema.metadata, b"difftrace.version": b"0.9"}
    parquet.write_table(table.replace_schema_metadata(metadata), exported)
    with pytest.raises(NewerFormatError, match=r"has the version .*0\.9.*update it"):
        import_parquet(other, exported)


def test_a_file_that_was_cut_off_or_changed_is_refused(exported: Path, other: Store) -> None:
    data = exported.read_bytes()
    for content in (b"", b"PAR1", data[:-1], data[:-100], data[: len(data) // 2], b"x" * 1000):
        exported.write_bytes(content)
        with pytest.raises(FormatError, match="cannot be read"):
            import_parquet(other, exported)
    for place in range(4, len(data) - 4, 97):
        exported.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            import_parquet(other, exported)
        except FormatError:
            assert other.count() == 0
        else:
            # A byte that says nothing about the records, say of the statistics.
            assert other.verify_all() == []
            other.delete_matching(Query())


@pytest.mark.parametrize("name", ["missing.parquet", "."])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, other: Store, arrow: Any, name: str) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        import_parquet(other, tmp_path / name)


@pytest.mark.parametrize("transfer", [export_parquet, import_parquet])
def test_without_pyarrow_the_error_names_what_to_install(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: Callable[..., object]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without_pyarrow(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(StoreError, match=r'pip install "pytest-difftrace\[parquet\]"'):
        transfer(store, tmp_path / "x.parquet")


def test_times_of_96_bits_are_in_utc_as_spark_writes_them(
    exported: Path, filled: Store, other: Store, parquet: Any
) -> None:
    table = parquet.read_table(exported)
    # Spark's files say nothing of Arrow's types.
    parquet.write_table(table, exported, use_deprecated_int96_timestamps=True, store_schema=False)
    assert import_parquet(other, exported) == Changes(added=4)
    assert list(other.records()) == list(filled.records())


def test_other_times_without_a_zone_are_refused(exported: Path, other: Store, arrow: Any, parquet: Any) -> None:
    table = parquet.read_table(exported)
    index = table.schema.get_field_index("created_at")
    naive = table.column("created_at").cast(arrow.timestamp("us"))
    parquet.write_table(table.set_column(index, "created_at", naive), exported)
    with pytest.raises(FormatError, match="created_at has no time zone"):
        import_parquet(other, exported)
