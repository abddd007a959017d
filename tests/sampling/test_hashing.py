"""Digests of what a step was decided from: fixed for ever, and sensitive to every bit."""

from __future__ import annotations

import pytest
import torch

from difftrace.sampling.hashing import row_hashes
from difftrace.sampling.philox import philox
from difftrace.sampling.tables import position_keys, position_signs, word_keys, word_signs

CPU = torch.device("cpu")


def test_recorded_evidence_stays_comparable() -> None:
    # Changing any of these numbers makes the evidence in every baseline meaningless.
    assert word_keys(3, CPU).tolist() == [
        [4675166515121892590, -2454925596726199458, -8874667689453142081],
        [-8193147252097700012, 8392445145343652532, -5337485716633110681],
    ]
    assert [position_keys(256, part, CPU)[1].tolist() for part in range(4)] == [
        [4812559640003588677, -1191013252308231805],
        [2608354783116305969, 1457926509270281333],
        [110176449918372865, 1395493411949370813],
        [-2959637240188526659, -3732365056058375593],
    ]
    assert _drawn(word_signs(5, torch.int64, CPU)[4]) == "--+-++-+--+++-+++--++--+----+-+-"
    assert _drawn(position_signs(256, 0, CPU)[4]) == "-+-++----++----+-++-+---+++++--+"
    row = torch.tensor([[1.0, -2.0]])
    assert row_hashes(row, 2).tolist() == [[6281811528681259008, -5735739500206751744]]
    assert row_hashes(row.bfloat16(), 2).tolist() == [[6520182213362682112, -2100453796654066176]]
    assert row_hashes(row.double(), 2).tolist() == [[-8754665881698566144, 5230262564327260160]]


def _drawn(signs: torch.Tensor) -> str:
    return "".join("+" if sign > 0 else "-" for sign in signs.tolist())


def test_longer_tables_begin_like_shorter_ones() -> None:
    assert torch.equal(word_keys(1000, CPU)[:, :7], word_keys(7, CPU))
    assert torch.equal(word_signs(1000, torch.float64, CPU)[:7], word_signs(7, torch.float64, CPU))
    assert torch.equal(position_keys(512, 1, CPU)[:256], position_keys(256, 1, CPU))
    assert torch.equal(position_signs(512, 1, CPU)[:256], position_signs(256, 1, CPU))


def test_tables_are_philox_words() -> None:
    number, purpose, part = torch.tensor([6]), 2, torch.tensor([3])
    words = [int(word) for word in philox((number, purpose, part, 0), (0x64696666, 0x74726163))]
    keys = [(words[0] << 32 | words[1]) | 1, (words[2] << 32 | words[3]) | 1]
    assert [key % 2**64 for key in position_keys(256, 3, CPU)[6].tolist()] == keys


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_bit_of_every_value_counts(dtype: torch.dtype) -> None:
    rows = torch.randn((1, 9), generator=torch.Generator().manual_seed(0)).to(dtype)
    bits = rows.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[rows.element_size()])
    width = 8 * rows.element_size()
    variants = bits.expand(9 * width, 9).clone()
    for place in range(9):
        for bit in range(width):
            variants[place * width + bit, place] ^= (1 << bit) if bit < width - 1 else -(1 << bit)
    hashes = row_hashes(torch.cat((bits, variants)).view(dtype), 2)
    for lane in (0, 1):
        assert hashes[:, lane].unique().numel() == 9 * width + 1


def test_rows_do_not_depend_on_each_other() -> None:
    rows = torch.randn((5, 300), generator=torch.Generator().manual_seed(0))
    assert torch.equal(row_hashes(rows, 2), torch.cat([row_hashes(row[None], 2) for row in rows]))
