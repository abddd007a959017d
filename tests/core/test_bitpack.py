from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difftrace.core.bitpack import SLACK, group_shape, pack, packed_size, unpack
from difftrace.core.errors import FormatError

BASES = [1, 2, 3, 5, 64, 65, 255, 256, 257, 300, 1000, 50257, 126464, 262144, (1 << 31) - 1, 1 << 31]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 128, 1000, 70000])
def test_digits_round_trip_at_any_offset_with_anything_behind(base: int, count: int) -> None:
    values = np.random.default_rng(count).integers(0, base, count)
    packed = pack(values, base)
    assert len(packed) == packed_size(count, base)
    for offset in (0, 3):
        buffer = bytes(offset) + packed + b"\xff" * SLACK
        assert np.array_equal(unpack(buffer, offset, count, base), values)


@given(st.integers(2, 1 << 31), st.data())
def test_largest_and_smallest_digits_round_trip(base: int, data: st.DataObject) -> None:
    digits = data.draw(st.lists(st.sampled_from([0, 1, base - 2, base - 1]), max_size=40))
    packed = pack(np.array(digits, dtype=np.int64), base)
    assert unpack(packed + b"\xff" * SLACK, 0, len(digits), base).tolist() == digits


@pytest.mark.parametrize("base", BASES[1:])
def test_a_digit_costs_at_most_three_percent_over_its_entropy(base: int) -> None:
    digits, bits = group_shape(base)
    assert bits <= 57
    assert bits / digits <= 1.03 * math.log2(base)
    assert base**digits <= 1 << bits


def test_257_steps_do_not_cost_nine_bits_each() -> None:
    assert packed_size(512, 257) * 8 / 512 < 8.2


@pytest.mark.parametrize(("base", "count"), [(3, 34), (257, 7), (257, 8), (257, 3), (126464, 3), (126464, 4)])
def test_digits_that_leave_their_range_are_refused(base: int, count: int) -> None:
    with pytest.raises(FormatError, match="leaves its range"):
        unpack(b"\xff" * (packed_size(count, base) + SLACK), 0, count, base)
