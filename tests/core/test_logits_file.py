"""A file of logits: written in order, read at any step, complete or refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.logits_codec import Lossless, Lossy, Method, Top
from difftrace.core.logits_dtypes import DTYPES, Bits
from difftrace.core.logits_file import LogitsFile, open_logits
from difftrace.core.logits_layout import HEADER, LogitsLayout
from difftrace.core.logits_topk import top_k
from difftrace.core.logits_writer import LogitsWriter, save_logits, write_logits

# Chunks of 10 positions: two sequences have one and a half and one.
LAYOUT = LogitsLayout("bfloat16", steps=3, passes=2, vocabulary=100_000, lengths=(14, 3))


@pytest.fixture(scope="module")
def logits() -> list[Bits]:
    rng = np.random.default_rng(0)
    shapes = [(LAYOUT.steps, LAYOUT.passes, length, LAYOUT.vocabulary) for length in LAYOUT.lengths]
    return [(rng.normal(size=shape).astype("<f4").view("<u4") >> 16).astype("<u2") for shape in shapes]


@pytest.fixture
def file(tmp_path: Path, logits: list[Bits]) -> LogitsFile:
    save_logits(tmp_path / "run.logits", LAYOUT, Lossless(), logits)
    return open_logits(tmp_path / "run.logits")


def test_every_step_of_every_sequence_comes_back_in_any_order(file: LogitsFile, logits: list[Bits]) -> None:
    assert (file.layout, file.method) == (LAYOUT, Lossless())
    for row, array in zip(file.rows, logits, strict=True):
        assert len(row) == 3
        for step in (2, 0, 1, -1):
            assert np.array_equal(row.bits(step), array[step])
        values = list(row)
        assert values[1].dtype == np.float32
        assert np.array_equal(values[1].view("<u4") >> 16, array[1])


def test_a_step_that_there_is_not_is_an_index_error(file: LogitsFile) -> None:
    with pytest.raises(IndexError):
        file.rows[0][3]


def test_blocks_are_the_step_a_few_positions_at_a_time(file: LogitsFile, logits: list[Bits]) -> None:
    blocks = list(file.rows[0].blocks(1))
    assert [(block.number, block.start, len(block.bits)) for block in blocks] == [
        (0, 0, 10),
        (0, 10, 4),
        (1, 0, 10),
        (1, 10, 4),
    ]
    assert np.array_equal(blocks[3].bits, logits[0][1, 1, 10:])


def test_a_file_within_a_bound_keeps_it(tmp_path: Path, logits: list[Bits]) -> None:
    save_logits(tmp_path / "run.logits", LAYOUT, Lossy(0.01), logits)
    file = open_logits(tmp_path / "run.logits")
    assert file.method == Lossy(0.01)
    expected = DTYPES["bfloat16"].values(logits[0][2])
    error = np.abs(file.rows[0][2].astype(np.float64) - expected).max()
    assert 0 < error <= 0.01


def test_a_file_of_the_largest_few_has_them_for_every_position(tmp_path: Path, logits: list[Bits]) -> None:
    save_logits(tmp_path / "run.logits", LAYOUT, Top(5), logits)
    row = open_logits(tmp_path / "run.logits").rows[0]
    found = row.top(1)
    assert found.ids.shape == found.bits.shape == (2, 14, 5)
    assert found.logsumexp.shape == (2, 14)
    expected = top_k(logits[0][1, 1], DTYPES["bfloat16"], 5)
    assert np.array_equal(found.ids[1], expected.ids)
    assert np.array_equal(found.logsumexp[1], expected.logsumexp)
    with pytest.raises(LogitsError, match="ask for top"):
        row[1]


def test_a_file_of_all_logits_is_not_asked_for_the_largest(file: LogitsFile) -> None:
    with pytest.raises(LogitsError, match="holds all logits"):
        file.rows[0].top(0)


def test_equal_logits_have_equal_digests_and_others_another(tmp_path: Path, logits: list[Bits]) -> None:
    first = save_logits(tmp_path / "a.logits", LAYOUT, Lossless(), logits)
    again = save_logits(tmp_path / "b.logits", LAYOUT, Lossless(), logits)
    changed = [array.copy() for array in logits]
    changed[1][2, 1, 2, 99_999] ^= 1
    other = save_logits(tmp_path / "c.logits", LAYOUT, Lossless(), changed)
    assert first.digest == again.digest == open_logits(tmp_path / "b.logits").digest
    assert other.digest != first.digest
    assert (tmp_path / "a.logits").read_bytes() == (tmp_path / "b.logits").read_bytes()


def test_logits_that_end_too_early_or_too_late_leave_no_file(tmp_path: Path, logits: list[Bits]) -> None:
    path = tmp_path / "run.logits"

    def write(rows: list[Bits]) -> None:
        with write_logits(path, LAYOUT, Lossless()) as writer:
            for array in rows:
                writer.add(array)
            writer.finish()

    step = [array[0, number] for array in logits for number in range(2)]
    with pytest.raises(LogitsError, match="6 of 18 chunks of logits are missing"):
        write(step * 2)
    with pytest.raises(LogitsError, match="more logits than the 3 steps"):
        write(step * 4)
    with pytest.raises(LogitsError, match="4 rows end inside a chunk of 10"):
        write([logits[0][0, 0, :4]])
    with pytest.raises(LogitsError, match="words of bfloat16 are due"):
        write([logits[0][0, 0].astype("<u4")])
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_a_whole_file_of_logits_is_opened(tmp_path: Path, file: LogitsFile) -> None:
    data = file.path.read_bytes()
    cases = {
        "is no file of logits": b"{}",
        "has version 2": data[:8] + b"\x02" + data[9:],
        "the checksum of its header": data[: HEADER.size] + b"\x01\x02" + data[HEADER.size + 2 :],
        "header of": data[:9] + b"\xff\xff\xff\x7f" + data[13:],
        "ends inside its header": data[: HEADER.size + 3],
        "is not complete": data[:-1],
        "is not complete: it is shorter": data[:100],
        "its index is missing": data + b"\x00",
    }
    for message, content in cases.items():
        path = tmp_path / "bad.logits"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message) as caught:
            open_logits(path)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(FormatError, match=r"absent\.logits: cannot be read"):
        open_logits(tmp_path / "absent.logits")


def test_a_byte_that_changed_is_found_where_it_is_read(tmp_path: Path, file: LogitsFile, logits: list[Bits]) -> None:
    data = bytearray(file.path.read_bytes())
    # In the middle lies step 1.
    data[len(data) // 2] ^= 1
    file.path.write_bytes(data)
    changed = open_logits(file.path)
    assert np.array_equal(changed.rows[0].bits(0), logits[0][0])
    with pytest.raises(FormatError, match=r"run\.logits: step 1, sequence 0: "):
        changed.check()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dtype", "float8_e4m3fn", "logits of float8_e4m3fn cannot be recorded"),
        ("steps", 0, "0 steps"),
        ("passes", 3, "3 passes"),
        ("vocabulary", 1 << 25, "33554432 a vocabulary"),
        ("lengths", (), "0 sequences"),
        ("lengths", (4, 0), "0 positions"),
        ("steps", 1 << 20, "more than the limit of 4194304"),
    ],
)
def test_a_layout_beyond_the_limits_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(LogitsError, match=message):
        dataclasses.replace(LAYOUT, **{field: value})


def test_more_of_a_position_than_there_are_is_refused(tmp_path: Path) -> None:
    layout = LogitsLayout("float32", 1, 1, 5, (2,))
    with pytest.raises(LogitsError, match="largest 6 logits cannot be recorded of a vocabulary of 5"):
        save_logits(tmp_path / "run.logits", layout, Top(6), [np.zeros((1, 1, 2, 5), dtype="<u4")])


@pytest.mark.parametrize("method", [Lossless(), Lossy(0.25), Top(2)])
def test_any_damage_to_a_small_file_is_a_format_error_or_no_damage(tmp_path: Path, method: Method) -> None:
    layout = LogitsLayout("float16", 2, 1, 40, (3,))
    path = tmp_path / "run.logits"
    rng = np.random.default_rng(3)
    bits = DTYPES["float16"].bits(rng.normal(size=(2, 1, 3, 40)))
    digest = save_logits(path, layout, method, [bits]).digest
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes((data[place] ^ 0x41,)) + data[place + 1 :])
        try:
            file = open_logits(path)
            file.check()
        except FormatError:
            continue
        assert file.digest != digest


def test_a_writer_does_not_take_more_than_it_announced(tmp_path: Path) -> None:
    with (tmp_path / "raw").open("wb") as raw:
        writer = LogitsWriter(raw, LogitsLayout("float32", 1, 1, 5, (1,)), Lossless())
        writer.add(np.zeros((1, 5), dtype="<u4"))
        assert writer.finish().startswith("sha256:")
