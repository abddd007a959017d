"""Sketches: distances estimated without the tensors, from the same numbers on every machine."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from difftrace.core.module_trace import SKETCH_BUCKETS
from difftrace.determinism.digest import digest
from difftrace.determinism.reductions import collect, reduce_cast, reduce_tensor
from difftrace.determinism.sketch import sketch

N = 300_000

# The first three numbers of the sketches of 20,000 and of 5,000,000 values.
PINNED = [4765.0, 8720.0, -7467.0]
PINNED_LONG = [68587.0, -103436.0, -66201.0]


def noise(seed: int, count: int = N) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def estimate(one: Tensor, other: Tensor) -> float:
    """The distance by the sketches, relative to what it is."""
    return math.dist(sketch(one)[:-2].tolist(), sketch(other)[:-2].tolist()) / float((one.double() - other).norm())


@pytest.mark.parametrize("seed", range(5))
def test_a_spread_difference_is_estimated_within_a_few_standard_deviations(seed: int) -> None:
    one = noise(seed)
    assert estimate(one, one + 1e-3 * noise(seed + 100)) == pytest.approx(1, abs=0.3)
    assert estimate(one, one + 1e-3) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("stride", [1, 64, 96, 4096])
def test_a_difference_in_one_channel_or_row_is_seen(stride: int) -> None:
    one = noise(0)
    channel = torch.arange(N) % stride == stride // 2
    assert estimate(one, one + 1e-3 * channel) == pytest.approx(1, abs=0.4)
    row = torch.arange(N) // max(stride, 64) == 3
    assert estimate(one, one + 1e-3 * row) == pytest.approx(1, abs=0.4)


def test_a_single_difference_is_exact() -> None:
    one, other = noise(0), noise(0)
    other[123_457] += 0.25
    assert estimate(one, other) == pytest.approx(1, rel=1e-9)


def test_values_that_are_not_finite_count_and_do_not_spoil_the_rest() -> None:
    one = noise(0, 1000)
    broken = one.clone()
    broken[[3, 500, 999]] = torch.tensor([math.nan, math.inf, -math.inf])
    cleared = broken.nan_to_num(0, 0, 0)
    assert sketch(broken)[-1] == 3
    assert sketch(broken)[:-1].equal(sketch(cleared)[:-1])


def test_layout_is_no_content() -> None:
    one = noise(0, 20_000).view(200, 100)
    assert sketch(one.T.contiguous().T).equal(sketch(one))
    assert sketch(one)[-2].item() == pytest.approx(float(one.double().square().sum()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_every_floating_dtype_has_the_sketch_of_its_values(dtype: torch.dtype) -> None:
    narrow = noise(0, 1000).to(dtype)
    assert sketch(narrow).equal(sketch(narrow.double()))


def test_nothing_and_a_scalar_have_sketches() -> None:
    assert sketch(torch.empty(0, 3)).equal(torch.zeros(SKETCH_BUCKETS + 2, dtype=torch.float64))
    assert sketch(torch.tensor(-2.0))[:-2].abs().sum() == 2


def test_sketches_are_those_that_files_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    # Files made by other releases and on other machines are compared with these. Sums of integers are exact.
    values = (torch.arange(5_000_000) % 1000).float()
    assert sketch(values[:20_000])[:3].tolist() == PINNED
    assert sketch(values)[:3].tolist() == PINNED_LONG
    monkeypatch.setattr("difftrace.determinism.sketch._CPU_STEP", 1 << 16)
    assert sketch(values)[:3].tolist() == PINNED_LONG


def test_collected_records_say_what_digest_says() -> None:
    tensors = [
        noise(0, 7).view(7, 1),
        torch.arange(5),
        torch.zeros(0),
        torch.tensor(True),
        torch.empty(2, device="meta"),
    ]
    *records, absent = collect([reduce_tensor(tensor) for tensor in tensors])
    assert [record.digest for record in records] == [digest(tensor) for tensor in tensors[:-1]]
    assert [record.shape for record in records] == [(7, 1), (5,), (0,), ()]
    assert (records[0].dtype, records[1].dtype) == ("float32", "int64")
    assert records[0].norm == pytest.approx(float(tensors[0].norm()))
    assert records[1].sketch is None
    assert (absent.digest, absent.sketch, absent.shape) == (None, None, (2,))


def test_a_record_is_of_the_tensor_as_it_was() -> None:
    tensor = noise(0, 100)
    expected = digest(tensor)
    reduced = reduce_tensor(tensor)
    tensor.relu_()
    assert collect([reduced])[0].digest == expected


def test_a_cast_is_digested_without_casting_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difftrace.determinism.reductions._PIECE", 1 << 13)
    for tensor in (noise(0, 50_000), noise(1, 50_000).view(100, 500).T):
        [record] = collect([reduce_cast(tensor, torch.bfloat16)])
        assert record.digest == digest(tensor.to(torch.bfloat16))
