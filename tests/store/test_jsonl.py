from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.errors import ConflictError, FormatError, NewerFormatError, StoreError, WriteError
from difftrace.core.schemas import violation
from difftrace.core.trajectory import Trajectory
from difftrace.store import Changes, Query, Record, Store, export_jsonl, import_jsonl

Make = Callable[..., Record]


@pytest.fixture
def filled(store: Store, make_record: Make) -> Store:
    odd = make_record(3, "a/..\0\u202e\U0001f600", output=None, model=None, metadata={"é": 1.5, "n": None})
    store.put_many([make_record(2), make_record(0), make_record(1, output=[]), odd])
    return store


@pytest.fixture
def exported(filled: Store, tmp_path: Path) -> Path:
    file = tmp_path / "export.jsonl"
    assert export_jsonl(filled, file) == 4
    return file


@pytest.fixture
def other(tmp_path: Path) -> Any:
    with Store(tmp_path / "other.difftrace") as opened:
        yield opened


def sealed(lines: list[dict[str, Any]]) -> bytes:
    """The file of a header and records, with the trailer that belongs to them."""
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    trailer = {"records": len(lines) - 1, "digest": f"sha256:{hashlib.sha256(body).hexdigest()}"}
    return body + json.dumps(trailer).encode() + b"\n"


def documents(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("ascii").splitlines()]


def test_records_survive_the_journey(filled: Store, exported: Path, other: Store) -> None:
    assert import_jsonl(other, exported) == Changes(added=4)
    assert list(other.records()) == list(filled.records())
    assert other.verify_all() == []


def test_importing_again_changes_nothing(exported: Path, other: Store) -> None:
    import_jsonl(other, exported)
    assert import_jsonl(other, exported) == Changes(unchanged=4)


def test_equal_records_give_equal_bytes(exported: Path, other: Store) -> None:
    import_jsonl(other, exported)
    again = exported.with_name("again.jsonl")
    export_jsonl(other, again)
    assert again.read_bytes() == exported.read_bytes()


def test_every_line_keeps_the_schema(exported: Path) -> None:
    lines = documents(exported)
    assert [violation("store_export", line) for line in lines] == [None] * 6
    assert lines[0] == {"format": "difftrace-store", "version": "0.1"}
    assert lines[-1]["records"] == 4


def test_a_line_can_be_read_without_a_store(exported: Path, make_record: Make) -> None:
    line = documents(exported)[1]
    assert line["request_id"] == "request/0"
    assert line["created_at"] == "2026-03-01T12:00:00.000000Z"
    assert line["metadata"] == {"tenant": "t0", "number": 0, "cached": True}
    trajectory = Trajectory.from_bytes(base64.b64decode(line["trajectory"]))
    assert trajectory == make_record(0).trajectory
    assert trajectory.final[5:].tolist() == line["output"]


def test_only_the_records_asked_for_are_exported(filled: Store, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    assert export_jsonl(filled, file, Query(id_prefix="request/", limit=2)) == 2
    assert [line["request_id"] for line in documents(file)[1:-1]] == ["request/0", "request/1"]


def test_an_empty_store_can_be_exported(store: Store, other: Store, tmp_path: Path) -> None:
    assert export_jsonl(store, tmp_path / "none.jsonl") == 0
    assert import_jsonl(other, tmp_path / "none.jsonl") == Changes()


def test_damage_does_not_spread(filled: Store, exported: Path) -> None:
    with filled._database.writing() as connection:
        connection.execute("UPDATE record SET model = 'other' WHERE request_id = 'request/2'")
    before = exported.read_bytes()
    with pytest.raises(StoreError, match="'request/2' is damaged"):
        export_jsonl(filled, exported)
    assert exported.read_bytes() == before
    assert [file.name for file in exported.parent.glob(".difftrace-*")] == []


def test_a_file_that_cannot_be_written_is_an_error(filled: Store, tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        export_jsonl(filled, tmp_path)


def test_a_different_record_stops_the_whole_import_unless_told(
    filled: Store, exported: Path, other: Store, make_record: Make
) -> None:
    mine = make_record(7, "request/2")
    other.put(mine)
    with pytest.raises(ConflictError, match="'request/2' is taken by a record with another trajectory"):
        import_jsonl(other, exported)
    assert list(other.records()) == [mine]
    assert import_jsonl(other, exported, replace=True) == Changes(added=3, replaced=1)
    assert list(other.records()) == list(filled.records())


def test_one_id_twice_in_a_file_is_a_conflict_unless_equal(exported: Path, other: Store) -> None:
    lines = documents(exported)[:-1]
    exported.write_bytes(sealed([*lines, lines[1]]))
    assert import_jsonl(other, exported) == Changes(added=4, unchanged=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_id": ""}, r"line 2: \$\.request_id"),
        ({"request_id": "\ud800"}, "half a surrogate"),
        ({"extra": 1}, "extra"),
        ({"created_at": "2026-13-01T12:00:00.000000Z"}, "no time of the calendar"),
        ({"created_at": "2026-03-01 12:00"}, r"\$\.created_at"),
        ({"created_at": "2026-03-01T12:00:00.000001Z"}, "digest does not match the record"),
        ({"model": "other"}, "digest does not match the record"),
        ({"metadata": {"a": {}}}, r"\$\.metadata\.a"),
        ({"metadata": {"a": 10**19}}, "more than 64 bits"),
        ({"num_steps": 9}, "num_steps is 9, but the trajectory holds 8"),
        ({"num_steps": 8.0}, "num_steps holds a float"),
        ({"trajectory": "AAAA"}, "trajectory: these bytes are not an encoded trajectory"),
        ({"trajectory": "A"}, "is not base64"),
        ({"trajectory_digest": f"sha256:{'0' * 64}"}, "trajectory_digest does not match"),
        ({"output": [1]}, "digest does not match the record"),
        ({"output": [2**31]}, r"\$\.output\[0\]"),
        ({"output": [[1]]}, r"\$\.output must have one dimension"),
        ({"output": ["a"]}, r"\$\.output must hold integers"),
        ({"output": [1.5]}, r"\$\.output must hold integers"),
        ({"output": {"a": 1}}, r"\$\.output: "),
        ({"output": None}, "digest does not match the record"),
    ],
)
def test_a_record_that_was_changed_stops_the_import_and_nothing_is_stored(
    exported: Path, other: Store, changes: dict[str, Any], message: str
) -> None:
    lines = documents(exported)[:-1]
    lines[1].update(changes)
    exported.write_bytes(sealed(lines))
    with pytest.raises(FormatError, match=message) as caught:
        import_jsonl(other, exported)
    assert str(caught.value).startswith(f"{exported}: line 2: ")
    assert str(caught.value).isprintable()
    assert other.count() == 0


def test_a_file_that_was_cut_off_anywhere_is_refused(exported: Path, other: Store) -> None:
    data = exported.read_bytes()
    lines = data.splitlines(keepends=True)
    for end in {0, 10, len(lines[0]), len(lines[0]) + 100, len(data) - len(lines[-1]), len(data) - 3}:
        exported.write_bytes(data[:end])
        with pytest.raises(FormatError):
            import_jsonl(other, exported)
    assert other.count() == 0
    exported.write_bytes(data[:-1])
    assert import_jsonl(other, exported).added == 4


def test_lines_that_were_taken_out_or_moved_are_noticed(exported: Path, other: Store) -> None:
    header, *records, trailer = exported.read_bytes().splitlines(keepends=True)
    for lines, message in (
        ([header, *records[1:], trailer], r"line 5: \$\.records: is 4, but there are 3"),
        ([header, *reversed(records), trailer], r"line 6: \$\.digest: does not match the lines before"),
        ([header, *records, trailer, b"\n"], "line 6: something follows the trailer"),
        ([header, header, *records, trailer], "line 2: a second header"),
        ([*records, trailer], r"line 1: \$\.format: is not"),
        ([header, b"[]\n", trailer], r"line 2: \$: "),
        ([header, b"{}\n", trailer], r"line 2: \$: 'records' is a required property"),
    ):
        exported.write_bytes(b"".join(lines))
        with pytest.raises(FormatError, match=message):
            import_jsonl(other, exported)
    assert other.count() == 0


def test_an_export_of_a_newer_version_is_told_from_a_broken_one(exported: Path, other: Store) -> None:
    exported.write_bytes(exported.read_bytes().replace(b'"0.1"', b'"0.9"'))
    with pytest.raises(NewerFormatError, match=r"line 1: \$\.version: is 0\.9; .* update it"):
        import_jsonl(other, exported)


def test_a_line_without_end_is_not_read_to_its_end(
    exported: Path, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftrace.store.jsonl._LONGEST_LINE", 500)
    with pytest.raises(FormatError, match="holds a line longer than the limit of 500 bytes"):
        import_jsonl(other, exported)


@pytest.mark.parametrize("name", ["missing.jsonl", ".", "nul\0"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, other: Store, name: str) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        import_jsonl(other, tmp_path / name)


def test_other_files_are_refused(tmp_path: Path, other: Store) -> None:
    file = tmp_path / "file"
    for content in (b"", b"\n", b"[1]\n", b"\xff\n", b'{"format": "difftrace-baseline"}\n', b"{" * 100_000):
        file.write_bytes(content)
        with pytest.raises(FormatError):
            import_jsonl(other, file)
